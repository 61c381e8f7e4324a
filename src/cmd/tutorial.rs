//! `bindscope tutorial`: three claims about bind, narrated and tried in a lab.

use std::time::Duration;

use super::lab::{environment, failed_at, prepare};
use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::lab::build::Lab;
use crate::lab::run::{self, Patience};
use crate::lab::{builtin, ops};
use crate::profile;
use crate::render::tutorial::{Language, page};

/// Arguments of `bindscope tutorial`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bindscope tutorial\n  bindscope tutorial --lang es")]
pub struct Args {
    /// Language of the text
    #[arg(long, value_enum, default_value_t = Lang::En, value_name = "LANGUAGE")]
    lang: Lang,
}

/// Languages of the tutorial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Lang {
    /// English
    En,
    /// Spanish (español)
    Es,
}

/// Runs `bindscope tutorial`.
///
/// # Errors
/// Exit 4 when the lab cannot be built. Exit 1, without an error, when the kernel behaves differently from the text.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let text = profile::builtin::get("tutorial").unwrap_or_default();
    let profile = profile::parse("built-in tutorial", text).map_err(Failure::usage)?;
    let topology = builtin::topology("two-sided").ok_or_else(|| {
        Failure::new(Exit::Internal, Diagnostic::error(Code::INTERNAL, "the topology two-sided is missing"))
    })?;
    prepare()?;
    let lab =
        Lab::build(ops::plan(&topology)).map_err(|error| failed_at("the lab cannot be built", error))?;
    let opened = run::open(&lab, &profile).map_err(|error| environment(&error))?;
    let patience = Patience { connect: Duration::from_secs(1), all: Duration::from_secs(60) };
    let looked = run::look(&lab, &opened, patience, &mut |_, _| {}).map_err(|error| environment(&error))?;
    let language = match args.lang {
        Lang::En => Language::English,
        Lang::Es => Language::Spanish,
    };
    let (text, as_described) = page(&looked.cells, language, context.color, context.width);
    context.show(&text, None)?;
    Ok(if as_described { Exit::Success } else { Exit::Finding })
}
