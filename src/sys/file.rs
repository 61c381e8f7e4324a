//! Files and terminals.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

/// The names in a directory except `.` and `..`, up to the first that cannot be read. Does not use
/// [`std::fs::read_dir`], which panics if a directory cannot be closed.
///
/// # Errors
/// Those of `open(2)`.
#[cfg(unix)]
pub fn entries(directory: &Path) -> io::Result<impl Iterator<Item = OsString>> {
    use std::os::unix::ffi::OsStringExt as _;
    Ok(rustix::fs::Dir::new(File::open(directory)?)?
        .map_while(Result::ok)
        .map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()))
        .filter(|name| name != "." && name != ".."))
}

/// The names in a directory.
///
/// # Errors
/// Those of the system.
#[cfg(not(unix))]
pub fn entries(directory: &Path) -> io::Result<impl Iterator<Item = OsString>> {
    Ok(std::fs::read_dir(directory)?.flatten().map(|entry| entry.file_name()))
}

/// Width of the terminal on standard output, in columns.
#[cfg(unix)]
#[must_use]
#[expect(unsafe_code, reason = "TIOCGWINSZ has no safe wrapper among our crates")]
pub fn terminal_width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the address given, which outlives the call.
    let answer = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Width of the terminal on standard output: not supported on this system.
#[cfg(not(unix))]
#[must_use]
pub fn terminal_width() -> Option<usize> {
    None
}

/// Opens a regular file for reading. Any other file is an immediate error; a FIFO does not block.
///
/// # Errors
/// Those of `open(2)`, and [`io::ErrorKind::InvalidInput`] for a file that is not regular.
pub fn open_regular(path: &Path) -> io::Result<(File, std::fs::Metadata)> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok((file, metadata));
    }
    let what = if kind.is_dir() {
        "it is a directory"
    } else {
        "it is a device, a FIFO or a socket, not a regular file"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// The permission bits of a file or directory that every user can write to, if this process is root's.
#[must_use]
pub fn world_writable_for_root(metadata: &std::fs::Metadata) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = metadata.mode();
        (nix::unistd::geteuid().is_root() && mode & 0o002 != 0).then_some(mode & 0o777)
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}

/// Whether no process has this number; false if unknown.
#[must_use]
pub fn is_gone(pid: u32) -> bool {
    #[cfg(unix)]
    {
        use nix::errno::Errno;
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
        pid.is_some_and(|pid| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(Errno::ESRCH)
        })
    }
    #[cfg(not(unix))]
    {
        let _ = pid;
        false
    }
}

/// Opens a file to add lines to, as [`open_output`](super::open_output) does; readable by this user only when it is new.
///
/// # Errors
/// As [`open_output`](super::open_output).
pub fn open_for_append(path: &Path) -> io::Result<File> {
    match super::open_output(path, super::Existing::Append, super::Readers::Owner)? {
        super::Output::Direct(file) => Ok(file),
        super::Output::Whole(file) => file.writer(),
    }
}

/// Whether a file is a pipe or a FIFO, which accepts up to 4096 bytes completely or not at all (PIPE_BUF, pipe(7)).
#[must_use]
pub fn is_pipe(metadata: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

/// Writes without waiting, although the file is in blocking mode. That mode is shared with other programs and cannot be
/// changed (RWF_NOWAIT of pwritev2(2); on pipes since Linux 6.5).
///
/// # Errors
/// EAGAIN if the write would wait, and `Unsupported` if the system does not support it.
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
#[expect(unsafe_code, reason = "pwritev2 has no safe wrapper among our crates")]
pub fn write_now(file: &File, bytes: &[u8]) -> io::Result<usize> {
    use std::os::fd::AsRawFd as _;
    /// Use the current offset of the file.
    const HERE: libc::c_long = -1;
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel reads `iov_len` bytes at `iov_base`, which are those of `bytes`, and writes nothing there.
    let written = unsafe {
        libc::syscall(libc::SYS_pwritev2, file.as_raw_fd(), &raw const part, 1, HERE, HERE, libc::RWF_NOWAIT)
    };
    match usize::try_from(written) {
        Ok(written) => Ok(written),
        Err(_) => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            error => Err(error),
        },
    }
}

/// Not possible on this system.
///
/// # Errors
/// Always: `Unsupported`.
#[cfg(not(all(target_os = "linux", not(bindscope_portable))))]
pub fn write_now(_file: &File, _bytes: &[u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Standard output without the buffer of the standard library; `None` if not available.
///
/// # Errors
/// EBADF if the program was started without standard output (`>&-`).
pub fn standard_output() -> io::Result<Option<File>> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;
        if super::began_without_output() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(io::stdout().as_fd().try_clone_to_owned().ok().map(File::from))
    }
    #[cfg(not(unix))]
    Ok(None)
}

/// Writes to standard error, and waits at most `patience` for its reader. A full pipe stays full while its reader is
/// stopped. Returns whether everything was written.
#[must_use]
pub fn write_error_within(bytes: &[u8], patience: std::time::Duration) -> bool {
    use std::io::Write as _;
    /// Number of bytes that a writable pipe accepts without waiting (one page, pipe(7)).
    const PIECE: usize = 4096;
    let deadline = std::time::Instant::now() + patience;
    let mut stderr = io::stderr().lock();
    bytes.chunks(PIECE).all(|piece| error_is_writable(deadline) && stderr.write_all(piece).is_ok())
}

/// Whether standard error becomes writable before `deadline`. Files that cannot be polled (regular files) always are.
#[cfg(unix)]
fn error_is_writable(deadline: std::time::Instant) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let stderr = io::stderr();
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], timeout) {
            Ok(0) => return false,
            Err(nix::errno::Errno::EINTR) if !left.is_zero() => {}
            // Ready, or broken: the write then reports the error immediately.
            _ => return true,
        }
    }
}

#[cfg(not(unix))]
fn error_is_writable(_deadline: std::time::Instant) -> bool {
    true
}

/// Raises the limit of open files of this process to its maximum (`RLIMIT_NOFILE`, soft to hard). If that fails, the
/// limit stays. Returns the limit; `None` if it cannot be read.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "rlim_t is signed on FreeBSD"
)]
pub fn raise_file_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        // macOS reports no hard limit, but accepts at most OPEN_MAX.
        let wanted = if cfg!(target_vendor = "apple") { hard.min(10_240) } else { hard };
        if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            return wanted.try_into().ok();
        }
        soft.try_into().ok()
    }
    #[cfg(not(unix))]
    None
}

/// Number of further descriptors that this process can open; `None` if unknown.
#[must_use]
pub fn spare_descriptors() -> Option<usize> {
    #[cfg(unix)]
    {
        let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok()?;
        // An empty /dev has no `fd`; only Linux has the first path.
        let listed = ["/proc/self/fd", "/dev/fd"].iter().find_map(|path| entries(Path::new(path)).ok());
        let open = listed?.count();
        Some(usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(open))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(all(test, target_os = "linux", not(bindscope_portable)))]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_full_pipe_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        assert!(is_pipe(&file.metadata().unwrap()));
        let page = [7; 4096];
        let mut written = 0;
        let full = loop {
            match write_now(&file, &page) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        if full.kind() == io::ErrorKind::Unsupported {
            return; // Before Linux 6.5.
        }
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(written % page.len(), 0, "whole or not at all");
        drop(file);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), written);
    }
}

/// Whether standard output is a pipe, socket or terminal whose other end is closed (`poll(2)`), so that waiting for
/// events has no use. Always false outside Unix.
#[must_use]
pub fn output_closed() -> bool {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;

        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let stdout = std::io::stdout();
        let mut descriptors = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let polled = poll(&mut descriptors, PollTimeout::ZERO).is_ok();
        let [stdout] = descriptors;
        polled
            && stdout
                .revents()
                .is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
    }
    #[cfg(not(unix))]
    false
}
