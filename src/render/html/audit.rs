//! The section of an audit: what listens here, and who can reach it.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::words::{counted, listed, verdict_text};
use super::{Mark, Section, Verdict, code_link, evidence_words, host_words, time_words};
use crate::audit::sheet::{Sheet, SheetFinding};
use crate::code::Code;
use crate::diag::Severity;
use crate::escape::{escape, printable};
use crate::model::{Exposure, HostReport, ListeningSocket, Verdict as Judged};

/// Sockets above which the table ends and says so.
const MOST_SOCKETS: usize = 20_000;
/// Findings that a socket shows one by one.
const MOST_FINDINGS: usize = 8;
/// Owners that a socket shows.
const MOST_OWNERS: usize = 2;

/// The section of an audit. `id` begins the names of its anchors.
pub(super) fn section(sheet: &HostReport<Sheet<'_>>, id: &str) -> Section {
    let codes: BTreeSet<Code> = sheet.findings.iter().map(|finding| finding.code).collect();
    let notes = sheet.exposure_filtered_because.iter().map(|why| why.clone().into_owned()).collect();
    let mut contents = vec![(format!("{id}sockets"), "What listens here")];
    if !sheet.checks.is_empty() {
        contents.push((format!("{id}checks"), "Policy"));
    }
    Section {
        command: match &sheet.policy {
            Some(policy) => format!("bindscope audit, policy {}", escape(policy)),
            None => "bindscope audit".to_owned(),
        },
        verdict: verdict(sheet),
        facts: facts(sheet),
        contents,
        body: html! { (sockets(sheet, id)) (checks(sheet, id)) },
        notes,
        incomplete: sheet.incomplete_because.clone(),
        codes,
    }
}

/// The widest exposure of a socket; `None` if it is not known.
fn widest(sheet: &Sheet<'_>, socket: &ListeningSocket) -> Option<Exposure> {
    sheet.exposure_known(socket).then(|| socket.view.exposure.widest())
}

fn verdict(sheet: &HostReport<Sheet<'_>>) -> Verdict {
    let findings = |severity| {
        sheet.findings.iter().filter(|finding| finding.counts() && finding.severity == severity).count()
    };
    let checks = |verdict| sheet.checks.iter().filter(|check| check.verdict == verdict).count();
    let (errors, warnings, failed) =
        (findings(Severity::Error), findings(Severity::Warning), checks(Judged::Fail));
    let all = counted(sheet.sockets.len(), "socket");
    let (mark, headline) = match () {
        () if failed > 0 => {
            (Mark::Fails, format!("{failed} of {} failed", counted(sheet.checks.len(), "policy check")))
        }
        () if errors > 0 => (Mark::Fails, format!("{} at {all}", counted(errors, "error"))),
        () if checks(Judged::Undecided) > 0 => (
            Mark::Undecided,
            format!("{} could not be decided", counted(checks(Judged::Undecided), "policy check")),
        ),
        () if !sheet.checks.is_empty() => (Mark::Holds, format!("The policy holds for {all}")),
        () if warnings > 0 => (Mark::None, format!("{all}, {}", counted(warnings, "warning"))),
        () => (Mark::None, format!("{all}, no warning")),
    };
    let mut by_reach: BTreeMap<std::cmp::Reverse<Option<Exposure>>, usize> = BTreeMap::new();
    for socket in sheet.sockets.iter() {
        *by_reach.entry(std::cmp::Reverse(widest(sheet, socket))).or_default() += 1;
    }
    let parts: Vec<String> = by_reach
        .into_iter()
        .map(|(reach, count)| {
            let words = reach.0.map_or("not known", Exposure::words);
            format!("{words} {count}")
        })
        .collect();
    let lead = if parts.is_empty() {
        Vec::new()
    } else {
        vec![html! { "Sockets by who can reach them: " (listed(&parts, 8)) "." }]
    };
    Verdict { mark, headline, lead }
}

fn facts(sheet: &HostReport<Sheet<'_>>) -> Vec<(&'static str, String)> {
    let mut facts = vec![("host", host_words(&sheet.host))];
    if !sheet.time.is_empty() {
        facts.push(("time", time_words(&sheet.time)));
    }
    facts.push(("sockets", sheet.sockets.len().to_string()));
    let unknown = sheet.sockets.iter().filter(|socket| socket.owners.is_none()).count();
    if unknown > 0 {
        facts.push(("owners not known", unknown.to_string()));
    }
    if !sheet.checks.is_empty() {
        facts.push(("policy checks", sheet.checks.len().to_string()));
    }
    facts.push(("evidence", evidence_words(sheet.complete, &sheet.incomplete_because)));
    facts
}

fn sockets(sheet: &Sheet<'_>, id: &str) -> Markup {
    let mut findings: BTreeMap<usize, Vec<&SheetFinding<'_>>> = BTreeMap::new();
    let mut of_host = Vec::new();
    for finding in sheet.findings.iter().filter(|finding| finding.counts()) {
        match finding.socket {
            Some(socket) => findings.entry(socket).or_default().push(finding),
            None => of_host.push(finding),
        }
    }
    let worst =
        |place: usize| findings.get(&place).and_then(|list| list.iter().map(|one| one.severity).min());
    let mut order: Vec<usize> = (0..sheet.sockets.len()).collect();
    // The widest first; of equals, those with the worst finding.
    order.sort_by_key(|&place| {
        let reach = widest(sheet, &sheet.sockets[place]);
        (std::cmp::Reverse(reach), worst(place).is_none(), worst(place))
    });
    let left = order.len().saturating_sub(MOST_SOCKETS);
    order.truncate(MOST_SOCKETS);
    html! {
        section id=(format!("{id}sockets")) {
            h2 { "What listens here" }
            @for finding in of_host { (finding_text(finding)) }
            div.scroll tabindex="0" role="region" aria-label="What listens here" {
                table.plain.aud {
                    caption { "Widest first. Four steps: this host only, same link, private networks, anywhere. Packet filters are not part of the steps." }
                    thead { tr { th scope="col" { "socket" } th scope="col" { "process" } th scope="col" { "who can reach it" } th scope="col" { "findings" } } }
                    tbody {
                        @for place in order {
                            @let socket = &sheet.sockets[place];
                            tr {
                                th scope="row" { span.m { (socket.view.to_string()) } @if let Some(name) = namespace(sheet, socket) { " " small { "in " (name) } } }
                                td { (owners(socket)) }
                                td {
                                    @if sheet.exposure_known(socket) {
                                        (ladder("IPv4", socket.view.exposure.ipv4)) (ladder("IPv6", socket.view.exposure.ipv6))
                                    } @else { "not known" }
                                }
                                td {
                                    @let list = findings.get(&place).map_or(&[][..], Vec::as_slice);
                                    @for finding in list.iter().take(MOST_FINDINGS) { (finding_text(finding)) }
                                    @if list.len() > MOST_FINDINGS { p { "and " (list.len() - MOST_FINDINGS) " more" } }
                                    @if list.is_empty() { span.quiet { "none" } }
                                }
                            }
                        }
                    }
                }
            }
            @if left > 0 { p { "The page leaves out " (left) " sockets; the JSON document has them." } }
        }
    }
}

fn namespace(sheet: &Sheet<'_>, socket: &ListeningSocket) -> Option<String> {
    let namespace = sheet.namespaces.iter().find(|namespace| namespace.inode == socket.netns)?;
    namespace.name.as_deref().map(escape)
}

fn owners(socket: &ListeningSocket) -> Markup {
    html! {
        @match socket.owners.as_deref() {
            None => { span.quiet { "not known" } }
            Some([]) => {
                @if let Some(kernel) = &socket.kernel { (kernel.to_string()) } @else { span.quiet { "no process" } }
            }
            Some(owners) => {
                @for owner in owners.iter().take(MOST_OWNERS) {
                    p.own { b { (escape(&owner.command)) } " " small { "pid " (owner.pid) @if let Some(user) = &owner.user { ", " (escape(user)) }
                        @if let Some(unit) = &owner.unit { ", " (escape(unit)) }
                        @if let Some(container) = &owner.container { ", " (escape(container)) } } }
                }
                @if owners.len() > MOST_OWNERS { p.own { small { "and " (owners.len() - MOST_OWNERS) " more" } } }
            }
        }
    }
}

/// Four steps, filled as far as the exposure reaches, with the word.
fn ladder(family: &str, exposure: Exposure) -> Markup {
    let step = match exposure {
        Exposure::None => 0_usize,
        Exposure::Loopback => 1,
        Exposure::Link => 2,
        Exposure::Private => 3,
        Exposure::Global => 4,
    };
    html! {
        p.lad.(format!("r{step}")) {
            span.fam { (family) } " "
            svg.steps xmlns="http://www.w3.org/2000/svg" viewBox="0 0 88 12" width="88" height="12" aria-hidden="true" {
                @for number in 0..4_usize {
                    rect.(if number < step { "on" } else { "off" }) x=(number * 22 + 1) y="1" width="19" height="10" rx="2"
                        fill=(if number < step { "#5a6270" } else { "#fff" }) stroke="#5a6270" {}
                }
            }
            " " span { (exposure.words()) }
        }
    }
}

fn severity(finding: &SheetFinding<'_>) -> (&'static str, &'static str) {
    match finding.severity {
        Severity::Error => ("ERROR", "error"),
        Severity::Warning => ("WARNING", "warning"),
        Severity::Note => ("NOTE", "note"),
    }
}

fn finding_text(finding: &SheetFinding<'_>) -> Markup {
    let (word, class) = severity(finding);
    html! {
        div.fi.(class) {
            p { b { (word) } " " (printable(&finding.message)) " " (code_link(finding.code)) }
            @if let Some(help) = &finding.help { details { summary { "help" } p { (printable(help)) } } }
        }
    }
}

fn checks(sheet: &Sheet<'_>, id: &str) -> Markup {
    html! {
        @if !sheet.checks.is_empty() {
            section id=(format!("{id}checks")) {
                h2 { "Policy" }
                div.scroll tabindex="0" role="region" aria-label="Policy checks" {
                    table.plain {
                        caption { "Every check of the policy." }
                        thead { tr { th scope="col" { "verdict" } th scope="col" { "check" } th scope="col" { "reason" } } }
                        tbody {
                            @for check in &sheet.checks {
                                tr {
                                    td.claim { (verdict_text(check.verdict)) }
                                    th scope="row" { (printable(&check.name)) }
                                    td { (printable(&check.because)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
