//! `bindscope explain`: the page of a code or a topic.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::explain::{self, Page};
use crate::render::markdown;

/// Arguments of `bindscope explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope explain                     all topics",
    "\n  bindscope explain BS2001              a code",
    "\n  bindscope explain 0.0.0.0             an address, an error or a program",
    "\n  bindscope explain --search rp_filter  search in all pages",
))]
pub struct Args {
    /// Codes such as BS2001, or topics such as weak-host
    #[arg(value_name = "CODE|TOPIC", add = clap_complete::engine::ArgValueCompleter::new(super::completions::pages))]
    names: Vec<String>,
    /// List every code and topic
    #[arg(long, conflicts_with = "names")]
    list: bool,
    /// Find pages that contain all of these words
    #[arg(long, value_name = "WORDS", num_args = 1.., conflicts_with_all = ["names", "list"])]
    search: Vec<String>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Entry point of `bindscope explain`.
///
/// # Errors
/// An unknown name (exit code 2, all of them at once); output that cannot be written (exit code 5).
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    // A file and a pipe receive the Markdown source.
    let width = context.columns().filter(|_| args.output.is_none());
    let limit = width.unwrap_or(usize::MAX);
    let text = if !args.search.is_empty() {
        found(&args.search.join(" "), limit)?
    } else if args.list {
        list(limit)
    } else if args.names.is_empty() {
        topics(limit)
    } else {
        let page = pages(&args.names)?;
        match width {
            Some(columns) => markdown::reflowed(&page, columns),
            None => page,
        }
    };
    let color = context.color && args.output.is_none();
    context.show(&markdown::styled(&text, color), args.output.as_deref())?;
    Ok(Exit::Success)
}

fn pages(names: &[String]) -> Result<String, Failure> {
    // The words of one name, such as an error message.
    if names.len() > 1
        && let Ok(page) = explain::find(&names.join(" "))
    {
        return Ok(page.markdown.to_owned());
    }
    let (mut found, mut unknown): (Vec<&str>, Vec<Diagnostic>) = (Vec::new(), Vec::new());
    for name in names {
        match explain::find(name) {
            Ok(page) => found.push(page.markdown),
            Err(near) => unknown.push(no_page(name, &near)),
        }
    }
    if unknown.is_empty() { Ok(found.join("\n")) } else { Err(Failure::usage(unknown)) }
}

/// The results of a search, each with the first line that matches.
fn found(query: &str, limit: usize) -> Result<String, Failure> {
    const MOST: usize = 12;
    let hits = explain::search(query);
    if hits.is_empty() {
        let message = format!("no page contains all words of {}", crate::escape::escape(query));
        return Err(Failure::usage(vec![
            Diagnostic::error(Code::UNKNOWN_NAME, message).help("bindscope explain lists the topics"),
        ]));
    }
    let mut out = String::new();
    for hit in hits.iter().take(MOST) {
        let _ = writeln!(out, "{}", markdown::entry(hit.page.name, hit.page.title(), limit));
        let _ = writeln!(out, "{}", markdown::entry("", &beginning(hit.line), limit));
    }
    if hits.len() > MOST {
        let _ = writeln!(out, "and {} more", hits.len() - MOST);
    }
    Ok(out)
}

/// The first words of a line.
fn beginning(line: &str) -> String {
    const MOST: usize = 90;
    let line = line.trim();
    match line.char_indices().nth(MOST) {
        None => line.to_owned(),
        Some((most, _)) => {
            let end = line[..most].rfind(' ').unwrap_or(most);
            format!("{} …", &line[..end])
        }
    }
}

/// The topics, for a call without a name.
fn topics(limit: usize) -> String {
    let mut out = String::from("# Topics\n\n");
    for page in explain::TOPICS {
        let _ = writeln!(out, "{}", markdown::entry(page.name, page.title(), limit));
    }
    out.push_str("\nNAME: its page. --list: codes, too. --search WORDS: search all pages.\n");
    out
}

fn no_page(name: &str, near: &[&str]) -> Diagnostic {
    let problem = Diagnostic::error(Code::UNKNOWN_NAME, format!("no code and no topic is called {name}"));
    if crate::cmd::spelling::corrected(name).is_some() {
        return problem
            .help(format!("to see what answers there, write: bindscope why {}", crate::escape::shell(name)));
    }
    let problem = match near {
        [] => problem,
        near => problem.help(format!("did you mean {}?", near.join(" or "))),
    };
    problem.help("bindscope explain --list shows every code and topic")
}

fn list(limit: usize) -> String {
    let mut out = String::from("# Codes\n\n");
    let row = |out: &mut String, page: &Page| {
        let _ = writeln!(out, "{}", markdown::entry(page.name, page.title(), limit));
    };
    explain::CODES.iter().for_each(|page| row(&mut out, page));
    out.push_str("\n# Topics\n\n");
    explain::TOPICS.iter().for_each(|page| row(&mut out, page));
    out
}
