//! Pages and pictures of reports: one HTML file without scripts, SVG, and Mermaid.
//!
//! A page has a section for each document ([`Part`]). A new kind of document adds a variant and a file that renders it; the
//! head, the style sheet, the codes and the notes are common to all. Only this module uses the template macro.

mod audit;
mod crossing;
mod diff;
mod experiment;
mod listen;
mod mermaid;
mod picture;
mod reach;
mod results;
mod svg;
mod words;

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::audit::sheet::Sheet;
use crate::code::Code;
use crate::escape::printable;
use crate::model::{Host, HostReport};
use crate::record::history::History;
use crate::report::experiment::Experiment;
use crate::report::matrix::Report;
use crate::report::report_diff::Comparison;

/// The style sheet of a page.
const STYLE: &str = include_str!("style.css");

/// The SHA-256 digest of [`STYLE`] in base64, which the page's policy allows; a test compares them.
const STYLE_DIGEST: &str = include_str!("style.sha256");

/// A document of a page.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// A plan, a probe or a lab run.
    Reach(&'a Report),
    /// An audit.
    Audit(&'a HostReport<Sheet<'a>>),
    /// A comparison.
    Diff(&'a Comparison),
    /// What `listen` recorded.
    Listen(&'a History),
    /// An experiment.
    Experiment(&'a HostReport<Experiment>),
}

/// How a document judges, from the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Fails,
    Differs,
    Undecided,
    Holds,
    None,
}

impl Mark {
    fn words(self) -> &'static str {
        match self {
            Mark::Fails => "FAILS",
            Mark::Differs => "DIFFERS",
            Mark::Undecided => "UNDECIDED",
            Mark::Holds => "HOLDS",
            Mark::None => "",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Mark::Fails => "fail",
            Mark::Differs => "warn",
            Mark::Undecided => "und",
            Mark::Holds => "pass",
            Mark::None => "none",
        }
    }
}

/// The verdict of a document in words.
struct Verdict {
    mark: Mark,
    /// `1 of 4 expectations failed`.
    headline: String,
    /// Sentences of why.
    lead: Vec<Markup>,
}

/// What all sections of a page share.
struct Section {
    /// `bindscope lab run tutorial`, as text.
    command: String,
    verdict: Verdict,
    /// Terms with their values.
    facts: Vec<(&'static str, String)>,
    /// Anchors with their words.
    contents: Vec<(String, &'static str)>,
    body: Markup,
    /// Notes, and why evidence is missing.
    notes: Vec<String>,
    incomplete: Vec<String>,
    codes: BTreeSet<Code>,
}

/// The page of some documents.
#[must_use]
pub fn page(parts: &[Part<'_>]) -> String {
    let single = parts.len() == 1;
    let sections: Vec<Section> = parts
        .iter()
        .enumerate()
        .map(|(number, part)| {
            let id = if single { String::new() } else { format!("d{}-", number + 1) };
            match part {
                Part::Reach(report) => reach::section(report, &id),
                Part::Audit(sheet) => audit::section(sheet, &id),
                Part::Diff(comparison) => diff::section(comparison, &id),
                Part::Listen(history) => listen::section(history, &id),
                Part::Experiment(experiment) => experiment::section(experiment, &id),
            }
        })
        .collect();
    let worst = sections.iter().min_by_key(|section| section.verdict.mark);
    let title = worst.map_or_else(String::new, |section| {
        let host = section.facts.iter().find(|(term, _)| *term == "host").map(|(_, host)| host.as_str());
        let host = host.and_then(|host| host.split(',').next()).filter(|host| !host.is_empty());
        let on = host.map_or_else(String::new, |host| format!(" on {host}"));
        format!("{}{on}: {}", section.command, section.verdict.headline)
    });
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        STYLE_DIGEST.trim_end()
    );
    let codes: BTreeSet<Code> = sections.iter().flat_map(|section| section.codes.iter().copied()).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="generator" content=(concat!("bindscope ", env!("CARGO_PKG_VERSION")));
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                @if single {
                    @for section in &sections { (whole(section, &limits(&sections, &codes))) }
                } @else {
                    header { (overview(&sections)) }
                    main {
                        @for (number, section) in sections.iter().enumerate() {
                            (document(section, number + 1))
                        }
                        (limits(&sections, &codes))
                    }
                }
                footer { "bindscope " (env!("CARGO_PKG_VERSION")) ". This page has no script and loads nothing." }
            }
        }
    }
    .into_string()
}

/// A page of one document.
fn whole(section: &Section, limits: &Markup) -> Markup {
    html! {
        header {
            p.kind { (section.command) }
            h1 { (mark(section.verdict.mark)) (section.verdict.headline) }
            (lead(section))
            (facts(section))
            nav aria-label="Contents" {
                @for (anchor, words) in &section.contents { a href=(format!("#{anchor}")) { (words) } " " }
                a href="#limits" { "Limits" } " "
                a href="#codes" { "Codes" }
            }
        }
        main { (section.body) (limits) }
    }
}

/// The head of a page of several documents.
fn overview(sections: &[Section]) -> Markup {
    let worst = sections.iter().map(|section| section.verdict.mark).min().unwrap_or(Mark::None);
    let failing = sections.iter().filter(|section| section.verdict.mark == Mark::Fails).count();
    let headline = match failing {
        0 => words::counted(sections.len(), "document"),
        failing => format!("{failing} of {} failed", words::counted(sections.len(), "document")),
    };
    html! {
        p.kind { "bindscope report" }
        h1 { (mark(worst)) (headline) }
        nav aria-label="Documents" {
            ol.toc {
                @for (number, section) in sections.iter().enumerate() {
                    li {
                        a href=(format!("#d{}", number + 1)) { (section.command) } ": "
                        @if section.verdict.mark != Mark::None { b { (section.verdict.mark.words()) } " " }
                        (section.verdict.headline)
                    }
                }
            }
            a href="#limits" { "Limits" } " "
            a href="#codes" { "Codes" }
        }
    }
}

/// One of several documents.
fn document(section: &Section, number: usize) -> Markup {
    html! {
        article.doc id=(format!("d{number}")) {
            p.kind { (section.command) }
            h2.verdict { (mark(section.verdict.mark)) (section.verdict.headline) }
            (lead(section))
            (facts(section))
            (section.body)
        }
    }
}

fn mark(mark: Mark) -> Markup {
    html! { @if mark != Mark::None { span.mark.(mark.class()) { (mark.words()) } " " } }
}

fn lead(section: &Section) -> Markup {
    html! { @for sentence in &section.verdict.lead { p.lead { (sentence) } } }
}

fn facts(section: &Section) -> Markup {
    html! {
        dl.facts {
            @for (term, value) in &section.facts { div { dt { (term) } dd { (value) } } }
        }
    }
}

/// What the documents do not say, and the codes that they name.
fn limits(sections: &[Section], codes: &BTreeSet<Code>) -> Markup {
    let notes: Vec<&String> = sections.iter().flat_map(|section| &section.notes).collect();
    let incomplete: Vec<&String> = sections.iter().flat_map(|section| &section.incomplete).collect();
    html! {
        section #limits {
            h2 { "What this page does not say" }
            @if incomplete.is_empty() && notes.is_empty() { p { "All evidence was read, and there are no notes." } }
            @if !incomplete.is_empty() {
                h3 { "Evidence that is missing" }
                ul { @for reason in incomplete { li { (printable(reason)) } } }
            }
            @if !notes.is_empty() {
                h3 { "Notes" }
                ul { @for note in notes { li { (printable(note)) } } }
            }
        }
        section #codes {
            h2 { "Codes" }
            @if codes.is_empty() { p { "No result has a code." } } @else {
                p { "The command " code { "bindscope explain CODE" } " shows the meaning of a code, how to see it with ss and ip, and how to fix it." }
                dl.codes {
                    @for code in codes {
                        div id=(code.to_string()) { dt { (code.to_string()) } dd { (code.title()) } }
                    }
                }
            }
        }
    }
}

/// A code with a link to its meaning.
fn code_link(code: Code) -> Markup {
    html! { a href=(format!("#{code}")) { (code.to_string()) } }
}

/// The name of a host, its system and release.
fn host_words(host: &Host) -> String {
    let name = host.name.as_deref().map_or_else(|| "unknown host".to_owned(), printable);
    let release =
        host.release.as_deref().map(|release| format!(" {}", printable(release))).unwrap_or_default();
    format!("{name}, {}{release}", printable(&host.system))
}

/// A time as people read it: `2026-11-30 16:30:21 UTC`.
fn time_words(time: &str) -> String {
    let (date, rest) = time.split_once('T').unwrap_or((time, ""));
    let of_day = rest.split(['.', 'Z']).next().unwrap_or_default();
    printable(&format!("{date} {of_day} UTC"))
}

/// Whether all evidence was read.
fn evidence_words(complete: bool, reasons: &[String]) -> String {
    match (complete, reasons.len()) {
        (true, _) => "complete".to_owned(),
        (false, 0) => "incomplete".to_owned(),
        (false, count) => format!("incomplete for {}, see below", words::counted(count, "reason")),
    }
}

/// The picture of a report as SVG: the same bytes as in the page of this report alone.
#[must_use]
pub fn svg(report: &Report) -> String {
    let crossings = crossing::Crossings::of(report);
    svg::draw(&picture::Picture::of(report, &crossings), "").into_string()
}

/// The picture of a report as a Mermaid flowchart.
#[must_use]
pub fn mermaid(report: &Report) -> String {
    let crossings = crossing::Crossings::of(report);
    mermaid::draw(&picture::Picture::of(report, &crossings))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use base64::Engine as _;
    use sha2::Digest as _;

    use super::*;

    #[test]
    fn the_policy_allows_the_style_sheet() {
        let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(STYLE));
        assert_eq!(STYLE_DIGEST.trim_end(), digest, "write this digest to src/render/html/style.sha256");
        assert!(!STYLE.contains("</") && !STYLE.contains("url("));
    }
}
