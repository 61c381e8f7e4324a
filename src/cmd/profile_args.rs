//! Sources of profiles: files, standard input, built-in profiles, and `--bind`.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::input::{self, Kind};
use super::targets::{self, Target};
use super::{Context, Exit, Failure, spelling};
use crate::code::Code;
use crate::diag::{Diagnostic, Place};
use crate::escape::escape;
use crate::profile::{self, Profile, builtin, flag};
use crate::sys;

/// Maximum length of a file.
pub(super) const LONGEST: u64 = 1024 * 1024;

/// The file that commands use without a TARGET.
pub(super) const FOUND_HERE: &str = "bindscope.toml";

/// The profile and listeners of a command.
#[derive(Debug, Clone, clap::Args)]
pub struct ProfileArgs {
    /// What to bind: 0.0.0.0:8080, '[::]:8080', eth0:8080, udp:eth0:5353, 8080 (this host only), '*:8080' (dual-stack); or a
    /// profile: a file, - for standard input, or a built-in name [default: ./bindscope.toml, else the profile `default`]
    #[arg(value_name = "TARGET", help_heading = "What to bind", add = clap_complete::engine::ArgValueCompleter::new(super::completions::targets))]
    targets: Vec<OsString>,
    /// An additional listener, such as 127.0.0.1:8081, '[::]:8082,v6only=false' or udp:eth0:5353; may be repeated
    #[arg(short, long, value_name = "LISTENER", help_heading = "What to bind", hide_short_help = true)]
    bind: Vec<String>,
    /// Do not use ./bindscope.toml
    #[arg(long, help_heading = "What to bind", hide_short_help = true)]
    no_config: bool,
    /// Refuse listeners that other hosts can reach and that have no exposure_reason
    #[arg(long, help_heading = "Checks", hide_short_help = true)]
    strict: bool,
}

impl ProfileArgs {
    /// Arguments that name these targets.
    #[must_use]
    pub fn of_all(targets: &[OsString]) -> ProfileArgs {
        ProfileArgs { targets: targets.to_vec(), bind: Vec::new(), no_config: true, strict: false }
    }

    /// The targets in one line, as a shell reads them.
    #[must_use]
    pub fn shown(&self) -> String {
        let targets = self.targets.iter().map(|target| crate::escape::shell_bytes(target.as_encoded_bytes()));
        let binds = self.bind.iter().map(|bind| format!("--bind {}", crate::escape::shell(bind)));
        targets.chain(binds).collect::<Vec<_>>().join(" ")
    }

    /// Arguments that name one profile.
    #[must_use]
    pub fn of(profile: &OsStr) -> ProfileArgs {
        ProfileArgs { targets: vec![profile.to_owned()], bind: Vec::new(), no_config: false, strict: false }
    }

    /// The same arguments with one more target.
    #[must_use]
    pub fn with(&self, target: &OsStr) -> ProfileArgs {
        let mut own = self.clone();
        own.targets.insert(0, target.to_owned());
        own
    }

    /// The same arguments with this profile in place of theirs.
    #[must_use]
    pub fn in_place_of_profile(&self, profile: &OsStr) -> ProfileArgs {
        let mut own = self.clone();
        let is_bind = |target: &OsString| {
            let (found, _) = targets::classify(std::slice::from_ref(target), Path::is_file);
            matches!(found.as_slice(), [Target::Bind(_)])
        };
        own.targets.retain(is_bind);
        own.targets.insert(0, profile.to_owned());
        own
    }

    /// Whether a target is given.
    #[must_use]
    pub fn names_one(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Whether a target or a listener is given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.names_one() || !self.bind.is_empty()
    }

    /// The profile of the arguments: the named profile with its listeners, then the other targets, then the listeners
    /// of `--bind`. Without a named profile only the targets and listeners. Without both, `./bindscope.toml` or the
    /// built-in `default`.
    ///
    /// # Errors
    /// Exit code 2 with every problem of the profile, the targets and `--bind`.
    pub fn load(&self, default: &str, context: &Context) -> Result<Profile, Failure> {
        let (targets, mut problems) = targets::classify(&self.targets, Path::is_file);
        let refused = !problems.is_empty();
        let mut binds: Vec<&str> = Vec::new();
        let mut name = None;
        for target in &targets {
            match target {
                Target::Profile(profile) => name = Some(profile),
                Target::Bind(text) => binds.push(text),
            }
        }
        binds.extend(self.bind.iter().map(String::as_str));
        let loaded = match (name, binds.is_empty()) {
            (None, true) if refused => Ok(Profile::named(default)),
            (Some(name), _) => named(name),
            (None, true) if !self.no_config && Path::new(FOUND_HERE).is_file() => found_here(context),
            (None, true) => named(OsStr::new(default)),
            (None, false) => Ok(Profile::named("command line")),
        };
        let mut profile = loaded.unwrap_or_else(|wrong| {
            problems.extend(wrong);
            Profile::named(default)
        });
        for (number, &text) in binds.iter().enumerate() {
            match flag::parse(&format!("bind{}", number + 1), text) {
                Ok(listener) => {
                    if profile.listeners.iter().any(|other| other.name == listener.name) {
                        let message = format!("another listener is called \"{}\" too", listener.name);
                        let place =
                            Place { file: "command line".to_owned(), text: text.into(), span: 0..text.len() };
                        problems.push(
                            Diagnostic::error(Code::DUPLICATE_NAME, message)
                                .at(place)
                                .help("give it another with ,name=..."),
                        );
                    }
                    profile.listeners.push(listener);
                }
                Err(problem) => problems.push(on_one_line(problem, text)),
            }
        }
        if problems.is_empty()
            && let Err(problem) = profile::within_limits(&profile)
        {
            let range = binds.iter().find(|text| is_port(text) && text.contains('-'));
            problems.push(match range {
                Some(range) => problem.help(format!(
                    "to test the ports of this host that are open: bindscope probe --ports {range}"
                )),
                None => problem,
            });
        }
        if self.strict {
            problems.extend(profile::without_reason(&profile));
        }
        if !problems.is_empty() {
            return Err(Failure::usage(problems));
        }
        if name.is_none()
            && targets.iter().any(|target| matches!(target, Target::Bind(text) if is_port(text)))
        {
            let note = "a port without an address is opened on loopback, for this host only";
            context.say(
                &Diagnostic::note(Code::LOOPBACK_ASSUMED, note)
                    .help("write 0.0.0.0:PORT or [::]:PORT to let other hosts in"),
            );
        }
        Ok(profile)
    }
}

/// A problem of a listener on the command line in one line: the text is short and needs no picture of itself.
fn on_one_line(problem: Diagnostic, text: &str) -> Diagnostic {
    if text.len() > 80 || text.contains('\n') {
        return problem;
    }
    let shown = escape(text);
    let message = if problem.message.contains(&shown) {
        problem.message
    } else {
        format!("{shown}: {}", problem.message)
    };
    Diagnostic { place: None, message, ..problem }
}

/// `./bindscope.toml`, which is announced first. Root does not use it from a directory in which other users can write.
fn found_here(context: &Context) -> Result<Profile, Vec<Diagnostic>> {
    if !input::trust().everyone
        && let Ok(metadata) = std::fs::metadata(".")
        && let Some(mode) = sys::world_writable_for_root(&metadata)
    {
        let message = format!(
            "./{FOUND_HERE} is not used as root: other users may write to its directory (mode {mode:03o})"
        );
        return Err(vec![
            Diagnostic::error(Code::UNTRUSTED_FILE, message)
                .help("read it, and then give --trust; or ignore it with --no-config"),
        ]);
    }
    let profile = named(OsStr::new(FOUND_HERE))?;
    context.say(
        &Diagnostic::note(Code::CONFIG_FOUND, format!("using ./{FOUND_HERE}, found in this directory"))
            .help("--no-config passes it over"),
    );
    Ok(profile)
}

/// A port or a port range, with or without options.
fn is_port(text: &str) -> bool {
    let port = text.split(',').next().unwrap_or(text);
    let port = port.strip_prefix("udp:").or_else(|| port.strip_prefix("tcp:")).unwrap_or(port);
    port.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A profile by its name: a file, `-`, or a built-in one.
///
/// # Errors
/// Exit code 2 with every problem.
pub fn load_named(name: &OsStr) -> Result<Profile, Failure> {
    named(name).map_err(Failure::usage)
}

/// A profile by the name that the user gave. A built-in profile takes precedence, so that a file in the current
/// directory cannot replace it. `./default` is the file.
fn named(name: &OsStr) -> Result<Profile, Vec<Diagnostic>> {
    if let Some(name) = name.to_str()
        && let Some(text) = builtin::get(name)
    {
        return profile::parse(&format!("built-in {name}"), text);
    }
    let file = read(name).map_err(|problem| vec![suggest(problem, name)])?;
    parse(&file)
}

/// Adds the names of the built-in profiles to the error about a missing file.
fn suggest(problem: Diagnostic, name: &OsStr) -> Diagnostic {
    if problem.code != Code::UNKNOWN_PROFILE {
        return problem;
    }
    let near = name.to_str().and_then(|name| profile::nearest_name(name, builtin::names()));
    let message = format!("{}, and no built-in profile of this name", problem.message);
    let problem = Diagnostic { message, ..problem };
    let text = name.to_str().unwrap_or_default();
    if spelling::corrected(text).is_some() {
        return problem
            .help(format!("to see what answers there, write: bindscope why {}", crate::escape::shell(text)));
    }
    if crate::import::Kind::of_name(text).is_some() {
        return problem.help(format!(
            "to predict the listeners of another program: bindscope plan --from {}",
            crate::escape::shell(text)
        ));
    }
    let problem = if text.ends_with(".toml") {
        problem.help(format!("to write a first one: bindscope init {}", crate::escape::shell(text)))
    } else {
        problem
    };
    let problem = match near {
        Some(near) => problem.help(format!("did you mean the built-in profile {near}?")),
        None => problem,
    };
    problem.help(format!("built in are {}", builtin::names().collect::<Vec<_>>().join(", ")))
}

/// A file, or standard input, with its content.
#[derive(Debug)]
pub struct SourceFile {
    /// Name in messages.
    pub origin: String,
    /// Content.
    pub text: String,
    /// Path; `None` for standard input.
    pub path: Option<PathBuf>,
}

/// Parses the profile in a file, and the profile that it extends.
///
/// # Errors
/// Every problem of both.
pub fn parse(file: &SourceFile) -> Result<Profile, Vec<Diagnostic>> {
    let (Some((base, span)), Some(path)) = (profile::extends(&file.text), &file.path) else {
        return profile::parse(&file.origin, &file.text);
    };
    let place = || Place { file: file.origin.clone(), text: file.text.as_str().into(), span: span.clone() };
    let base = Path::new(&base);
    let inside = base.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside || base.as_os_str().is_empty() {
        let problem =
            Diagnostic::error(Code::UNREADABLE_FILE, "`extends` leads out of the directory of this file");
        return Err(vec![
            problem.at(place()).help("put the other file into the same directory, or below it"),
        ]);
    }
    let base = path.parent().unwrap_or(Path::new("")).join(base);
    match read(base.as_os_str()) {
        Ok(base) => profile::parse_on(&file.origin, &file.text, Some((&base.origin, &base.text))),
        Err(problem) => Err(vec![Diagnostic { place: Some(place()), ..problem }]),
    }
}

/// A file, or the built-in profile with this name if there is no such file.
///
/// # Errors
/// Those of [`read`].
pub fn read_or_builtin(name: &OsStr) -> Result<SourceFile, Diagnostic> {
    match name.to_str().and_then(builtin::get) {
        Some(text) if !Path::new(name).exists() => Ok(SourceFile {
            origin: format!("built-in {}", name.display()),
            text: text.to_owned(),
            path: None,
        }),
        _ => read(name).map_err(|problem| suggest(problem, name)),
    }
}

/// A user's TOML text.
const TOML: Kind =
    Kind { code: Code::UNREADABLE_FILE, missing: Code::UNKNOWN_PROFILE, help: "give a file of TOML text" };

/// Reads a user's file, or standard input for `-`: at most 1 MiB of UTF-8.
///
/// # Errors
/// The problem with the file.
pub fn read(name: &OsStr) -> Result<SourceFile, Diagnostic> {
    let path = (name != "-").then(|| PathBuf::from(name));
    file_of(input::origin(name), path, input::read(name, LONGEST, &TOML)?)
}

/// The content as text.
///
/// # Errors
/// If it is longer than 1 MiB, or not UTF-8.
pub fn file_of(origin: String, path: Option<PathBuf>, bytes: Vec<u8>) -> Result<SourceFile, Diagnostic> {
    if bytes.len() as u64 > LONGEST {
        return Err(unreadable(&origin, "it is longer than 1 MiB", "give a file of TOML text"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile { origin, text, path }),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            let reason = format!("it is not UTF-8 (line {line}, byte {at})");
            Err(unreadable(&origin, &reason, "TOML is UTF-8; save the file as that"))
        }
    }
}

fn unreadable(origin: &str, reason: &str, help: &str) -> Diagnostic {
    Diagnostic::error(Code::UNREADABLE_FILE, format!("cannot read {}: {reason}", escape(origin))).help(help)
}

impl From<Diagnostic> for Failure {
    fn from(problem: Diagnostic) -> Failure {
        Failure::new(Exit::Usage, problem)
    }
}
