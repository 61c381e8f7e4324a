//! Files that influence a decision. One function reads them, with the trust that the user grants.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::sys::{self, InputError, Trust};

/// Whether `--trust` was given. It is set once, before a command runs.
static TRUST_EVERYONE: AtomicBool = AtomicBool::new(false);

/// From now on reads files even if other users can change them.
pub(super) fn trust_everyone() {
    TRUST_EVERYONE.store(true, Ordering::Relaxed);
}

/// The users that root trusts: the user who called sudo, and with `--trust` every user.
pub(super) fn trust() -> Trust {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    Trust {
        everyone: TRUST_EVERYONE.load(Ordering::Relaxed),
        user: number("SUDO_UID"),
        group: number("SUDO_GID"),
    }
}

/// Kind of the file, for messages.
pub(super) struct Kind {
    /// The code of a file that cannot be read.
    pub(super) code: Code,
    /// The code of a file that does not exist.
    pub(super) missing: Code,
    /// How to make such a file.
    pub(super) help: &'static str,
}

/// Name of the file or of standard input in messages, unescaped.
pub(super) fn origin(name: &OsStr) -> String {
    if name == "-" { "<stdin>".to_owned() } else { name.display().to_string() }
}

/// Whether the name is that of a descriptor, whose suffix does not show its kind.
pub(super) fn is_descriptor(path: &Path) -> bool {
    path == Path::new("-")
        || path == Path::new("/dev/stdin")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

/// Reads a whole file, or standard input for `-`, of at most `largest` bytes: see [`sys::read_input`].
///
/// # Errors
/// The problem with the file.
pub(super) fn read(name: &OsStr, largest: u64, kind: &Kind) -> Result<Vec<u8>, Diagnostic> {
    let shown = escape(&origin(name));
    sys::read_input(Path::new(name), largest, trust()).map_err(|error| {
        let unreadable = |help: &str| {
            Diagnostic::error(kind.code, format!("cannot read {shown}: {error}")).help(help.to_owned())
        };
        match &error {
            InputError::Untrusted { directory, .. } => {
                let remedy = match directory {
                    None => "`chown root` and `chmod go-w` it",
                    Some(_) => "copy it to a directory that only root can write to",
                };
                Diagnostic::error(Code::UNTRUSTED_FILE, format!("{shown} is not read as root: {error}"))
                    .help(format!("{remedy}, after reading it; or give --trust"))
            }
            InputError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                Diagnostic::error(kind.missing, format!("there is no file {shown}"))
            }
            InputError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                unreadable("look at its permissions with `ls -l`")
            }
            InputError::NotRegular(_) => unreadable("give a regular file, or a pipe as standard input: -"),
            InputError::Io(_) | InputError::TooLong(_) => unreadable(kind.help),
        }
    })
}
