//! Files and terminals.

use std::fs::File;
use std::io;
use std::path::Path;

/// Creates a file that only this user may read, refusing to follow or reuse what is there.
///
/// # Errors
/// As `open(2)` with `O_CREAT | O_EXCL`.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Columns of the terminal on standard output.
#[cfg(unix)]
#[must_use]
#[expect(unsafe_code, reason = "TIOCGWINSZ has no safe wrapper among our crates")]
pub fn terminal_width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the address given, which outlives the call.
    let answer = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Columns of the terminal on standard output: not asked for on this system.
#[cfg(not(unix))]
#[must_use]
pub fn terminal_width() -> Option<usize> {
    None
}
