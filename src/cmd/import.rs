//! `plan --from FILE`: the files of other programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::input::{self, Kind as FileKind};
use super::{Context, Failure, profile_args};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::import::{self, File, Imported, Kind};
use crate::profile::Profile;
use crate::profile::bind::glob;

/// How many files an `include` may name.
const MOST_FILES: usize = 500;

/// A file of configuration.
const CONFIGURATION: FileKind = FileKind {
    code: Code::UNREADABLE_FILE,
    missing: Code::UNKNOWN_PROFILE,
    help: "give nginx.conf, NAME.socket, compose.yaml or sshd_config",
};

/// The listeners that these configurations will open. Says what is not predicted.
///
/// # Errors
/// Exit code 2 with every problem of the files.
pub(super) fn load(names: &[OsString], context: &Context) -> Result<Profile, Failure> {
    let mut profile: Option<Profile> = None;
    let mut problems = Vec::new();
    for name in names {
        match one(name) {
            Ok(imported) => {
                for note in &imported.notes {
                    context.say(note);
                }
                match &mut profile {
                    None => profile = Some(imported.profile),
                    Some(all) => {
                        for mut listener in imported.profile.listeners {
                            if all.listeners.iter().any(|other| other.name == listener.name) {
                                listener.name = format!("{} ({})", listener.name, imported.profile.name);
                            }
                            all.listeners.push(listener);
                        }
                    }
                }
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::usage(problems));
    }
    Ok(profile.unwrap_or_else(|| Profile::named("nothing")))
}

fn one(name: &OsString) -> Result<Imported, Vec<Diagnostic>> {
    let text = name.to_string_lossy();
    let (kind, path) =
        match text.split_once(':').and_then(|(word, path)| Some((Kind::from_word(word)?, path))) {
            Some((kind, path)) => (Some(kind), OsString::from(path)),
            None => (Kind::of_name(&text), name.clone()),
        };
    let Some(kind) = kind else {
        let problem =
            Diagnostic::error(Code::WRONG_KIND, format!("the kind of {} is not known", escape(&text)));
        return Err(vec![problem.help(format!(
            "write it before the name, such as --from nginx:{0} (or systemd:, compose:, sshd:)",
            escape(&text)
        ))]);
    };
    let root = Path::new(&path).parent().unwrap_or(Path::new("")).to_owned();
    let file = read(Path::new(&path)).map_err(|problem| vec![problem])?;
    import::import(kind, &file, &mut |pattern, _| included(pattern, &root, kind))
}

fn read(path: &Path) -> Result<File, Diagnostic> {
    let name = path.as_os_str();
    let origin = input::origin(name);
    let bytes = input::read(name, profile_args::LONGEST, &CONFIGURATION)?;
    let file = profile_args::file_of(origin, None, bytes)?;
    Ok(File { name: file.origin, text: file.text.into() })
}

/// The files that a pattern names, sorted. A relative one counts from the directory of the main file, or for sshd from
/// /etc/ssh. A pattern without a match names nothing, as in both programs; a plain name must exist.
fn included(pattern: &str, root: &Path, kind: Kind) -> Result<Vec<File>, Diagnostic> {
    let base = if kind == Kind::Sshd && root.as_os_str().is_empty() { Path::new("/etc/ssh") } else { root };
    let path = base.join(pattern);
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![read(&path)?]);
    }
    let mut found: Vec<PathBuf> = vec![PathBuf::new()];
    for part in path.components() {
        let name = part.as_os_str().to_string_lossy().into_owned();
        if !name.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut next = Vec::new();
        for directory in &found {
            let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            let names = crate::sys::entries(here).into_iter().flatten();
            let matching = names.filter(|entry| {
                let entry = entry.to_string_lossy();
                glob(name.as_bytes(), entry.as_bytes()) && (name.starts_with('.') || !entry.starts_with('.'))
            });
            next.extend(matching.map(|entry| directory.join(entry)));
        }
        next.sort();
        next.truncate(MOST_FILES);
        found = next;
    }
    found.iter().filter(|path| path.is_file()).map(|path| read(path)).collect()
}
