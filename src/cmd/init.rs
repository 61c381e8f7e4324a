//! `bindscope init`: writes a commented profile, policy or lab file as a starting point.

use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::{escape, shell};
use crate::sys::Readers;

/// Arguments of `bindscope init`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bindscope init                      bindscope.toml, which commands find in this directory\n  \
    bindscope init --kind policy        policy.toml, for bindscope audit --policy\n  bindscope init --kind lab net.toml  a network for bindscope lab run --topology"
)]
pub struct Args {
    /// File to write; - for standard output [default: bindscope.toml, policy.toml or lab.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Kind of the file
    #[arg(long, value_enum, value_name = "KIND", default_value = "profile")]
    kind: Kind,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Listeners and expectations
    Profile,
    /// Rules for what may listen
    Policy,
    /// The network of a lab
    Lab,
}

impl Kind {
    /// The text that is written.
    fn text(self) -> &'static str {
        match self {
            Kind::Profile => STARTER,
            Kind::Policy => POLICY,
            Kind::Lab => LAB,
        }
    }

    /// The name of the file.
    fn file(self) -> &'static str {
        match self {
            Kind::Profile => "bindscope.toml",
            Kind::Policy => "policy.toml",
            Kind::Lab => "lab.toml",
        }
    }

    /// The command that uses the file. A profile of the default name is found without being named.
    fn next(self, file: &str) -> String {
        match self {
            Kind::Profile if file == self.file() => "bindscope plan".to_owned(),
            Kind::Profile => format!("bindscope plan {file}"),
            Kind::Policy => format!("bindscope audit --policy {file}"),
            Kind::Lab => format!("bindscope lab run --topology {file} 0.0.0.0:8080"),
        }
    }
}

/// The profile that is written.
pub const STARTER: &str = include_str!("starter.toml");
/// The policy that is written.
const POLICY: &str = include_str!("starter_policy.toml");
/// The lab that is written.
const LAB: &str = include_str!("starter_lab.toml");

/// Entry point of `bindscope init`.
///
/// # Errors
/// Exit code 2 if the file exists or is named like a kind, exit code 5 if it cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let text = args.kind.text().as_bytes();
    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(args.kind.file()));
    if file.as_os_str() == "-" {
        context.emit(text, None)?;
        return Ok(Exit::Success);
    }
    let name = file.display().to_string();
    if let Ok(kind) = <Kind as clap::ValueEnum>::from_str(&name, true) {
        let word = kind.file().trim_end_matches(".toml").replace("bindscope", "profile");
        let problem =
            Diagnostic::error(Code::UNKNOWN_NAME, format!("{word} is a kind of file, not a file name"));
        return Err(Failure::usage(vec![problem.help(format!("write: bindscope init --kind {word}"))]));
    }
    if args.force {
        context.emit(text, Some(&file))?;
    } else {
        context.create(text, &file, Readers::Umask).map_err(|failure| {
            failure.unwrap_or_else(|| {
                let problem =
                    Diagnostic::error(Code::FILE_EXISTS, format!("{} exists already", escape(&name)));
                let help = "choose another name, or write over it with --force";
                Failure::new(Exit::Usage, problem.help(help))
            })
        })?;
    }
    let next = args.kind.next(&shell(&name));
    context.emit(format!("{}: written; next: {next}\n", escape(&name)).as_bytes(), None)?;
    Ok(Exit::Success)
}
