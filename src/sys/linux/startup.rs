//! How the process was started, before the standard library mended it: it opens `/dev/null` in place of standard streams that are
//! closed (`sanitize_standard_fds()` of `library/std/src/sys/pal/unix/mod.rs`), and what is written there seems to be taken.

use std::sync::atomic::{AtomicBool, Ordering};

static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

#[expect(
    unsafe_code,
    reason = "the start of a program calls only the functions of this section (System V gABI, .init_array)"
)]
#[used]
// SAFETY: the section holds pointers to functions of this type, which are called once, before `main`.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[expect(unsafe_code, reason = "no crate asks about a descriptor that may be closed")]
extern "C" fn look() {
    // SAFETY: F_GETFD takes no argument, changes nothing, and of a closed descriptor says EBADF.
    let answer = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    OUTPUT_CLOSED.store(answer < 0, Ordering::Relaxed);
}

/// Whether standard output was closed when the program was started.
#[must_use]
pub fn began_without_output() -> bool {
    OUTPUT_CLOSED.load(Ordering::Relaxed)
}
