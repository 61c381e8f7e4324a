//! The one way to open a file that influences a decision: profiles, policies, topologies, snapshots, baselines, reports.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

#[cfg(unix)]
use super::output::{Direction, inherited};
#[cfg(unix)]
use super::resolve::{self, Target};

#[cfg(unix)]
pub use super::resolve::Trust;

/// Whom root trusts besides itself. Not asked on this system.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// Every user: nothing is checked.
    pub everyone: bool,
    /// This user, who gave the command.
    pub user: Option<u32>,
    /// This group.
    pub group: Option<u32>,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is a directory, a device, a FIFO or a socket.
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    /// The file is larger than the limit, in bytes.
    #[error("it is longer than {}", size(*.0))]
    TooLong(u64),
    /// A user whom root does not trust can change the file itself, or (with a path) replace what is in this directory.
    #[error("{who} can change {}", .directory.as_ref().map_or_else(|| "it".to_owned(), |path| format!("its directory {}", shown(path))))]
    Untrusted {
        /// Who: `user 1000`, `group 50`, `every user`.
        who: String,
        /// The directory.
        directory: Option<PathBuf>,
    },
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}

fn shown(path: &Path) -> String {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    crate::escape::escape(&path.display().to_string())
}

/// Reads a whole file of at most `largest` bytes.
///
/// - `-` is standard input, and `/dev/stdin` and `/dev/fd/N` are the descriptors that this process was started with: files, pipes,
///   sockets or terminals.
/// - Everything else is a regular file. A FIFO is an error at once and never waited for.
/// - As root, the file and the directories that lead to it must not be writable by users outside `trust`.
///
/// # Errors
/// See [`InputError`].
pub fn read_input(path: &Path, largest: u64, trust: Trust) -> Result<Vec<u8>, InputError> {
    let file = open_input(path, trust)?;
    let mut bytes = Vec::new();
    file.take(largest.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest { Err(InputError::TooLong(largest)) } else { Ok(bytes) }
}

#[cfg(unix)]
fn open_input(path: &Path, trust: Trust) -> Result<File, InputError> {
    use rustix::fs::{Mode, OFlags, openat};
    use std::os::unix::fs::FileTypeExt as _;
    let target =
        if path.as_os_str() == "-" { Target::Descriptor(0) } else { resolve::resolve(path, true, trust)? };
    match target {
        Target::Descriptor(number) => {
            let file = inherited(number, Direction::In)?;
            if file.metadata()?.is_file() {
                check(&file, None, trust)?;
            }
            Ok(file)
        }
        Target::Entry(entry) => {
            // What is opened is what is judged: an entry may change between two looks.
            let flags =
                OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = File::from(
                openat(&entry.directory, &entry.name, flags, Mode::empty()).map_err(io::Error::from)?,
            );
            let kind = file.metadata()?.file_type();
            if !kind.is_file() {
                return Err(InputError::NotRegular(if kind.is_dir() {
                    "a directory"
                } else if kind.is_fifo() {
                    "a FIFO"
                } else {
                    "a device or a socket"
                }));
            }
            check(&file, entry.weak, trust)?;
            Ok(file)
        }
    }
}

/// Checks, as root, that only root and users whom it trusts can change an open file, or another in its place.
#[cfg(unix)]
fn check(file: &File, weak: Option<(PathBuf, String)>, trust: Trust) -> Result<(), InputError> {
    use std::os::unix::fs::MetadataExt as _;
    if trust.everyone || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let metadata = file.metadata()?;
    let who =
        resolve::controller(metadata.uid(), Some((metadata.mode(), metadata.gid())), trust).or_else(|| {
            (metadata.mode() & 0o020 != 0 && has_access_list(file))
                .then(|| "an access control list".to_owned())
        });
    match (who, weak) {
        (Some(who), _) => Err(InputError::Untrusted { who, directory: None }),
        (None, Some((directory, who))) => Err(InputError::Untrusted { who, directory: Some(directory) }),
        (None, None) => Ok(()),
    }
}

/// Whether users and groups beyond the owner and the group have permissions of their own (acl(5)); then the bits of the group are
/// the most that any of them has.
#[cfg(target_os = "linux")]
fn has_access_list(file: &File) -> bool {
    let mut room = [0; 1024];
    match rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut room[..]) {
        Ok(length) => length > 0,
        Err(error) => error == rustix::io::Errno::RANGE,
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn has_access_list(_file: &File) -> bool {
    false
}

#[cfg(not(unix))]
fn open_input(path: &Path, _trust: Trust) -> Result<File, InputError> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(InputError::NotRegular("a directory or a device")) }
}
