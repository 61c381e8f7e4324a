//! The only function that opens a file for output. The file is opened once. Decisions use `fstat(2)` of the open
//! descriptor, never an earlier check of its name.

#[cfg(unix)]
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

#[cfg(unix)]
use super::resolve::{self, Entry, Target, Trust};

/// What to do with a file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Put the new file in its place when it is complete.
    Replace,
    /// Write at its end.
    Append,
    /// Fail with [`io::ErrorKind::AlreadyExists`].
    Refuse,
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The user who writes it.
    Owner,
    /// Every user that the umask permits.
    Umask,
}

/// A file that is open for output.
#[derive(Debug)]
pub enum Output {
    /// Data is visible immediately: a descriptor of this process, a device, a FIFO, or a file opened for appending.
    Direct(File),
    /// Data appears under its name when the file is complete.
    Whole(WholeFile),
}

/// Opens `path` for output.
///
/// - `-`, `/dev/stdout`, `/dev/stderr` and `/dev/fd/N` are that descriptor, if this process was started with it.
/// - A device or a FIFO is written to directly. A FIFO without a reader fails with `ENXIO`.
/// - Everything else is a regular file. A symbolic link to a regular file is replaced, and followed only by [`Existing::Append`].
/// - Root follows no link that a less privileged user controls, and appends to no file that such a user linked there.
///
/// # Errors
/// As `open(2)`, `EBADF` for a descriptor that is not open, and `PermissionDenied` with a sentence for what root does not follow.
#[cfg(unix)]
pub fn open_output(path: &Path, existing: Existing, readers: Readers) -> io::Result<Output> {
    if path.as_os_str() == "-" {
        return inherited(1, Direction::Out).map(Output::Direct);
    }
    match existing {
        Existing::Append => match resolve::resolve(path, true, Trust::default())? {
            Target::Descriptor(number) => inherited(number, Direction::Out).map(Output::Direct),
            Target::Entry(entry) => append(&entry, readers).map(Output::Direct),
        },
        Existing::Replace => {
            // The target of links only decides whether a special file is there. A link that is not followed is
            // replaced.
            match resolve::resolve(path, true, Trust::default()) {
                Ok(Target::Descriptor(number)) => {
                    return inherited(number, Direction::Out).map(Output::Direct);
                }
                Ok(Target::Entry(entry)) => {
                    if let Some(file) = special(&entry)? {
                        return Ok(Output::Direct(file));
                    }
                }
                Err(_) => {}
            }
            whole(path, existing, readers)
        }
        Existing::Refuse => whole(path, existing, readers),
    }
}

#[cfg(unix)]
fn whole(path: &Path, existing: Existing, readers: Readers) -> io::Result<Output> {
    use rustix::fs::FileType;
    match resolve::resolve(path, false, Trust::default())? {
        Target::Descriptor(number) => inherited(number, Direction::Out).map(Output::Direct),
        Target::Entry(entry) => match entry.kind() {
            Some(FileType::Directory) => Err(rustix::io::Errno::ISDIR.into()),
            Some(_) if existing == Existing::Refuse => Err(rustix::io::Errno::EXIST.into()),
            _ => WholeFile::create(entry.directory, entry.name, existing, readers).map(Output::Whole),
        },
    }
}

/// Whether a descriptor is read or written.
#[cfg(unix)]
#[derive(Clone, Copy)]
pub(super) enum Direction {
    In,
    Out,
}

/// A duplicate of a descriptor that this process was started with. Descriptors that the program itself opened are
/// marked close-on-exec and cannot be used for output.
#[cfg(unix)]
#[expect(unsafe_code, reason = "a number given by the user becomes a descriptor")]
pub(super) fn inherited(number: i32, direction: Direction) -> io::Result<File> {
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};
    use std::os::fd::BorrowedFd;
    if number < 0 || number == 1 && super::began_without_output() {
        return Err(Errno::BADF.into());
    }
    let wrong_mode = match direction {
        Direction::In => OFlags::WRONLY,
        Direction::Out => OFlags::RDONLY,
    };
    // SAFETY: the number is not -1, and it is used only as an argument of fcntl(2), which refuses what is not open. No code of this
    // program closes a descriptor that it was started with.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let ours = fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC);
    let mode = fcntl_getfl(borrowed)? & OFlags::RWMODE;
    if ours || mode == wrong_mode {
        return Err(Errno::BADF.into());
    }
    Ok(File::from(fcntl_dupfd_cloexec(borrowed, 0)?))
}

/// Opens an existing entry that is neither a regular file nor a directory. `None` for a regular file, also if it became
/// one only now.
#[cfg(unix)]
fn special(entry: &Entry) -> io::Result<Option<File>> {
    use rustix::fs::{FileType, Mode, OFlags};
    if matches!(entry.kind(), None | Some(FileType::RegularFile | FileType::Directory | FileType::Symlink)) {
        return Ok(None);
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&entry.directory, &entry.name, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        return Ok(None);
    }
    blocking(&file)?;
    Ok(Some(file))
}

/// Opens an entry to write at its end.
#[cfg(unix)]
fn append(entry: &Entry, readers: Readers) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    use std::os::unix::fs::MetadataExt as _;
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NONBLOCK
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(readers.mode());
    let file = File::from(rustix::fs::openat(&entry.directory, &entry.name, flags, mode)?);
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() > 1 && rustix::process::geteuid().is_root() {
        // Another name of the same file: the user who controls the directory chose the file.
        if let Some(controller) = resolve::directory_controller(&entry.directory_stat, Trust::default()) {
            let sentence = format!("it has other names, and {controller} controls its directory");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
        }
    }
    blocking(&file)?;
    Ok(file)
}

/// Makes writes blocking again: writers to a FIFO or a terminal wait for its reader.
#[cfg(unix)]
fn blocking(file: &File) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

#[cfg(unix)]
impl Readers {
    fn mode(self) -> rustix::fs::RawMode {
        match self {
            Readers::Owner => 0o600,
            Readers::Umask => 0o666,
        }
    }
}

/// A file without a name, or with the name of a part, until [`WholeFile::publish`]. If dropped before, it is removed.
#[cfg(unix)]
#[derive(Debug)]
pub struct WholeFile {
    file: File,
    directory: std::os::fd::OwnedFd,
    name: OsString,
    /// The name of the part while it has one.
    part: Option<OsString>,
    existing: Existing,
}

#[cfg(unix)]
impl WholeFile {
    fn create(
        directory: std::os::fd::OwnedFd,
        name: OsString,
        existing: Existing,
        readers: Readers,
    ) -> io::Result<WholeFile> {
        use rustix::fs::{Mode, OFlags, openat};
        remove_leftovers(&directory, &name);
        let mode = Mode::from_raw_mode(readers.mode());
        if let Some(file) = unnamed(&directory, mode) {
            return Ok(WholeFile { file, directory, name, part: None, existing });
        }
        let part = part_of(&name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&directory, &part, flags, mode)?);
        Ok(WholeFile { file, directory, name, part: Some(part), existing })
    }

    /// Where the content goes.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the file its name, after its content is on the disk.
    ///
    /// # Errors
    /// As `fsync(2)`, `linkat(2)` and `renameat(2)`; then the file is removed.
    pub fn publish(mut self) -> io::Result<()> {
        use rustix::fs::{AtFlags, linkat, unlinkat};
        self.file.sync_all()?;
        if self.existing == Existing::Refuse {
            let linked = match &self.part {
                None => link_unnamed(&self.file, &self.directory, &self.name),
                Some(part) => linkat(&self.directory, part, &self.directory, &self.name, AtFlags::empty())
                    .map_err(io::Error::from),
            };
            return match linked {
                // Some file systems have no hard links. An empty file takes the name first, and only its creator
                // continues.
                Err(error)
                    if self.part.is_some()
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK)
                        ) =>
                {
                    self.claim()?;
                    self.rename()
                }
                other => other,
            };
        }
        if self.part.is_none() {
            let part = part_of(&self.name);
            // A part with this name can only be a leftover of a process with the same number.
            let _ = unlinkat(&self.directory, &part, AtFlags::empty());
            link_unnamed(&self.file, &self.directory, &part)?;
            self.part = Some(part);
        }
        self.rename()
    }

    fn claim(&self) -> io::Result<()> {
        use rustix::fs::{Mode, OFlags, openat};
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(&self.directory, &self.name, flags, Mode::from_raw_mode(0o600))?;
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        if let Some(part) = &self.part {
            rustix::fs::renameat(&self.directory, part, &self.directory, &self.name)?;
            self.part = None;
        }
        Ok(())
    }
}

#[cfg(unix)]
impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let _ = rustix::fs::unlinkat(&self.directory, part, rustix::fs::AtFlags::empty());
        }
    }
}

/// A file without a name in this directory, which disappears if the process dies. `None` if the file system has none,
/// or if `/proc`, which gives it its name, is missing.
#[cfg(target_os = "linux")]
fn unnamed(directory: &std::os::fd::OwnedFd, mode: rustix::fs::Mode) -> Option<File> {
    use rustix::fs::{AtFlags, CWD, OFlags, openat, statat};
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = File::from(openat(directory, ".", flags, mode).ok()?);
    statat(CWD, own_link(&file), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(file)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn unnamed(_directory: &std::os::fd::OwnedFd, _mode: rustix::fs::Mode) -> Option<File> {
    None
}

/// Where `/proc` shows a file of this thread.
#[cfg(unix)]
fn own_link(file: &File) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))
}

/// Gives a file without a name this one, which must be free (open(2), O_TMPFILE).
#[cfg(unix)]
fn link_unnamed(file: &File, directory: &std::os::fd::OwnedFd, name: &OsStr) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, own_link(file), directory, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// The name of a part: that of the file, and of this process.
#[cfg(unix)]
fn part_of(name: &OsStr) -> OsString {
    let mut part = name.to_owned();
    part.push(format!(".{}.part", std::process::id()));
    part
}

/// Removes the parts of `name` that killed processes left.
#[cfg(unix)]
fn remove_leftovers(directory: &std::os::fd::OwnedFd, name: &OsStr) {
    use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
    use std::os::unix::ffi::OsStrExt as _;
    /// Minimum age of a leftover part. A process in another pid namespace is invisible, but no report takes a minute.
    const OLD: std::time::Duration = std::time::Duration::from_secs(60);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(list) = openat(directory, ".", flags, Mode::empty()).and_then(rustix::fs::Dir::new) else {
        return;
    };
    for entry in list.map_while(Result::ok) {
        let pid = entry
            .file_name()
            .to_bytes()
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(b".part"))
            .filter(|pid| pid.iter().all(u8::is_ascii_digit))
            .and_then(|pid| std::str::from_utf8(pid).ok()?.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let old = || {
            let stat = rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).ok();
            let modified = stat.and_then(|stat| u64::try_from(stat.st_mtime).ok());
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            modified.is_some_and(|modified| now.as_secs().saturating_sub(modified) > OLD.as_secs())
        };
        // An earlier process may have had the number of this one.
        if (pid == std::process::id() || super::is_gone(pid)) && old() {
            let _ = unlinkat(directory, entry.file_name(), AtFlags::empty());
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::path::PathBuf;

    use super::{Existing, File, Output, Path, Readers, io};

    /// Opens `path` for output.
    ///
    /// # Errors
    /// As the system's.
    pub fn open_output(path: &Path, existing: Existing, _readers: Readers) -> io::Result<Output> {
        if existing == Existing::Append {
            return File::options().append(true).create(true).open(path).map(Output::Direct);
        }
        if existing == Existing::Refuse && path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut part = path.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        let file = File::options().write(true).create_new(true).open(&part)?;
        Ok(Output::Whole(WholeFile { file, part, path: path.to_owned() }))
    }

    /// A file with the name of a part until [`WholeFile::publish`]. Dropped before, it is removed.
    #[derive(Debug)]
    pub struct WholeFile {
        file: File,
        part: PathBuf,
        path: PathBuf,
    }

    impl WholeFile {
        /// Where the content goes.
        ///
        /// # Errors
        /// As the system's.
        pub fn writer(&self) -> io::Result<File> {
            self.file.try_clone()
        }

        /// Gives the file its name.
        ///
        /// # Errors
        /// As the system's.
        pub fn publish(self) -> io::Result<()> {
            self.file.sync_all()?;
            std::fs::rename(&self.part, &self.path)
        }
    }

    impl Drop for WholeFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}
#[cfg(not(unix))]
pub use elsewhere::{WholeFile, open_output};
