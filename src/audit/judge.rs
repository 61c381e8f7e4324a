//! Whether a policy allows what is there. Every verdict has its reason and its line of the policy; what cannot be known is
//! undecided, never a pass.

use std::sync::Arc;

use jiff::civil::Date;

use super::{Check, Finding, Report, Verdict};
use crate::code::Code;
use crate::diag::{Place, Severity};
use crate::model::{Exposure, Family, ListeningSocket, Owner, Protocol, SocketState};
use crate::profile::bind::glob;
use crate::profile::policy::{Allow, Match, Places, Policy, UnknownOwner, Unmatched, Waive};

/// What a judgement goes by, besides the report.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its text, for places.
    pub text: Arc<str>,
    /// The day on which it is judged, in UTC.
    pub today: Date,
    /// The ports from which the kernel takes those of clients; `None` when unknown.
    pub ephemeral: Option<(u16, u16)>,
    /// Whether every socket is in the report.
    pub all_sockets: bool,
}

/// What became of one socket under one rule, or under none.
#[derive(Debug, Clone)]
struct Outcome {
    verdict: Verdict,
    code: Code,
    because: String,
    help: Option<&'static str>,
    /// Position of the rule.
    rule: Option<usize>,
    /// The key of the rule that decided.
    key: &'static str,
}

/// Whether the process is the one that is named.
enum Process {
    Yes,
    No(String),
    Unknown(String),
}

impl Judge<'_> {
    /// Adds verdicts and findings to `report`, and applies the waivers.
    pub fn judge(&self, report: &mut Report) {
        report.policy = Some(self.policy.name.clone());
        let mut outcomes: Vec<Outcome> =
            report.sockets.iter().map(|socket| self.socket(socket, report.exposure_known(socket))).collect();
        self.missing_families(&report.sockets, &mut outcomes);
        for (place, (socket, outcome)) in report.sockets.iter().zip(&outcomes).enumerate() {
            let name = format!("{} may be there", socket.view);
            let at = Some(self.place_of(outcome));
            report.checks.push(Check {
                name,
                socket: Some(place),
                verdict: outcome.verdict,
                because: outcome.because.clone(),
                location: at.clone(),
            });
            if outcome.verdict == Verdict::Pass {
                continue;
            }
            let undecided = outcome.verdict == Verdict::Undecided;
            let code = if undecided { Code::POLICY_UNDECIDED } else { outcome.code };
            let mut finding = Finding::new(code, Severity::Error, Some(place), outcome.because.clone());
            finding.help = outcome.help.map(Into::into);
            finding.rule = outcome.rule.map(|_| self.rule_name(outcome.rule));
            finding.location = at;
            finding.undecided = undecided;
            report.findings.push(finding);
        }
        self.accept(&mut report.findings, &outcomes);
        for (position, rule) in self.policy.allow.iter().enumerate() {
            self.presence(position, rule, report, &outcomes);
        }
        if report.checks.is_empty() {
            let mut finding = Finding::new(
                Code::NOTHING_JUDGED,
                Severity::Warning,
                None,
                "nothing listens, and the policy requires nothing: nothing was judged",
            );
            finding.undecided = true;
            report.findings.push(finding);
        }
        for waiver in &self.policy.waive {
            self.waive(waiver, report);
        }
        report.settle();
    }

    fn socket(&self, socket: &ListeningSocket, exposure_known: bool) -> Outcome {
        let mut worst: Option<Outcome> = None;
        let mut keep = |outcome: Outcome| {
            // A failure under a rule for this very process says more than that another process holds the port.
            let rank = |outcome: &Outcome| match (outcome.verdict, outcome.code) {
                (Verdict::Undecided, _) => 3,
                (_, Code::TOO_WIDE | Code::WRONG_FAMILIES) => 2,
                (_, Code::WRONG_PROCESS) => 1,
                _ => 0,
            };
            if worst.as_ref().is_none_or(|worst| rank(&outcome) > rank(worst)) {
                worst = Some(outcome);
            }
        };
        for (position, rule) in self.policy.allow.iter().enumerate() {
            if !fits(&rule.matches, socket) {
                continue;
            }
            let outcome = |verdict, code, because: String, help, key| Outcome {
                verdict,
                code,
                because,
                help,
                rule: Some(position),
                key,
            };
            if let Some(expired) = rule.expires.filter(|last| *last < self.today) {
                let because = format!("the rule \"{}\" that allowed it ended with {expired}", rule.id);
                keep(outcome(
                    Verdict::Fail,
                    Code::NOT_ALLOWED,
                    because,
                    Some("decide anew, and write a later date or none"),
                    "expires",
                ));
                continue;
            }
            let process = process(&rule.matches, socket);
            if let Process::No(because) = &process {
                if !rule.matches.ports.is_empty() {
                    let because = format!("{because}, but the rule \"{}\" names another", rule.id);
                    keep(outcome(
                        Verdict::Fail,
                        Code::WRONG_PROCESS,
                        because,
                        Some("find out why it holds the port, or name it in a rule of its own"),
                        "process",
                    ));
                }
                continue;
            }
            if let Some((verdict, code, because, key)) = reach(rule, socket, exposure_known) {
                let help = "bind a narrower address, or write down that this is meant";
                keep(outcome(verdict, code, because, Some(help), key));
                continue;
            }
            if let Process::Unknown(because) = process {
                let because = format!("{because}, and the rule \"{}\" asks for it", rule.id);
                let (verdict, code) = match self.policy.unknown_owner {
                    UnknownOwner::Undecided => (Verdict::Undecided, Code::POLICY_UNDECIDED),
                    UnknownOwner::Fail => (Verdict::Fail, Code::WRONG_PROCESS),
                };
                keep(outcome(verdict, code, because, Some("run as root: see `bindscope doctor`"), "process"));
                continue;
            }
            return outcome(
                Verdict::Pass,
                Code::NOT_ALLOWED,
                format!("allowed by \"{}\"", rule.id),
                None,
                "id",
            );
        }
        worst.unwrap_or_else(|| self.unmatched(socket))
    }

    /// A socket that no rule is about.
    fn unmatched(&self, socket: &ListeningSocket) -> Outcome {
        let (verdict, because) = if !self.policy.deny_by_default {
            (Verdict::Pass, "the policy allows what it does not name".to_owned())
        } else if self.policy.ignore_ephemeral_udp && self.is_client(socket) {
            (Verdict::Pass, "left out: a UDP socket on a port for clients".to_owned())
        } else {
            (Verdict::Fail, format!("no rule of the policy allows {}", socket.view))
        };
        let help = "stop the program or bind it to loopback; if it is meant, add an [[allow]] with a reason";
        Outcome { verdict, code: Code::NOT_ALLOWED, because, help: Some(help), rule: None, key: "default" }
    }

    /// Whether it looks like the socket of a client: UDP on a port that the kernel chooses from.
    fn is_client(&self, socket: &ListeningSocket) -> bool {
        let range = self.ephemeral.is_some_and(|(low, high)| (low..=high).contains(&socket.view.port));
        socket.view.protocol == Protocol::Udp && socket.state == SocketState::Unconnected && range
    }

    /// A rule's families must be served by the sockets under it together: `0.0.0.0` and `[::]` with V6ONLY are both.
    fn missing_families(&self, sockets: &[ListeningSocket], outcomes: &mut [Outcome]) {
        for (position, rule) in self.policy.allow.iter().enumerate() {
            // A socket may fit several rules, and counts for each.
            let under: Vec<&ListeningSocket> = sockets
                .iter()
                .filter(|socket| fits(&rule.matches, socket) && reach(rule, socket, true).is_none())
                .filter(|socket| matches!(process(&rule.matches, socket), Process::Yes))
                .collect();
            let blamed =
                |outcome: &Outcome| outcome.rule == Some(position) && outcome.verdict == Verdict::Pass;
            let Some(first) = outcomes.iter().position(blamed) else { continue };
            for family in &rule.families {
                if under.iter().any(|socket| in_family(socket, *family) > Exposure::None) {
                    continue;
                }
                outcomes[first] = Outcome {
                    verdict: Verdict::Fail,
                    code: Code::WRONG_FAMILIES,
                    because: format!(
                        "nobody reaches it over {family}, and the rule \"{}\" asks for {family}",
                        rule.id
                    ),
                    help: Some("listen in that family too: [::] beside 0.0.0.0"),
                    rule: Some(position),
                    key: "families",
                };
            }
        }
    }

    /// What a rule allows is worth no more than a note.
    fn accept(&self, findings: &mut [Finding], outcomes: &[Outcome]) {
        for finding in findings {
            let outcome = finding.socket.and_then(|place| outcomes.get(place));
            let Some(outcome) = outcome.filter(|one| one.rule.is_some() && one.verdict == Verdict::Pass)
            else {
                continue;
            };
            if matches!(finding.code, Code::WILDCARD_LISTENER | Code::WIDER_IN_IPV6 | Code::ONE_FAMILY) {
                finding.severity = Severity::Note;
                finding.rule = Some(self.rule_name(outcome.rule));
            }
            if finding.code == Code::V6ONLY_UNKNOWN {
                // The rule holds either way.
                (finding.severity, finding.undecided) = (Severity::Note, false);
            }
        }
    }

    /// Whether what a rule requires is there, and whether the rule is of any use.
    fn presence(&self, position: usize, rule: &Allow, report: &mut Report, outcomes: &[Outcome]) {
        let about =
            |outcome: &&Outcome| outcome.rule == Some(position) && outcome.code != Code::WRONG_PROCESS;
        let there = outcomes.iter().filter(about).any(|outcome| outcome.verdict != Verdict::Undecided);
        let maybe = !self.all_sockets
            || outcomes.iter().filter(about).any(|outcome| outcome.verdict == Verdict::Undecided);
        let name = format!("allow {}", rule.id);
        if !rule.require {
            if !report.sockets.iter().any(|socket| fits(&rule.matches, socket)) {
                let message = format!("the rule \"{}\" matches nothing that listens here", rule.id);
                let mut finding = Finding::new(Code::ALLOW_UNUSED, Severity::Note, None, message)
                    .help("remove it, or say `require = true` if it must be there");
                finding.rule = Some(name);
                finding.location = Some(self.place(&rule.places, "id"));
                report.findings.push(finding);
            }
            return;
        }
        let (verdict, because) = if there {
            (Verdict::Pass, "it is there".to_owned())
        } else if maybe {
            (
                Verdict::Undecided,
                format!("whether what the rule \"{}\" requires is there could not be told", rule.id),
            )
        } else {
            (Verdict::Fail, format!("the rule \"{}\" requires a listener, and there is none", rule.id))
        };
        let place = Some(self.place(&rule.places, "require"));
        if verdict != Verdict::Pass {
            let undecided = verdict == Verdict::Undecided;
            let code = if undecided { Code::POLICY_UNDECIDED } else { Code::REQUIRED_ABSENT };
            let mut finding = Finding::new(code, Severity::Error, None, because.clone())
                .help("start the service, or look whether it listens elsewhere");
            finding.rule = Some(name.clone());
            finding.location = place.clone();
            finding.undecided = undecided;
            report.findings.push(finding);
        }
        report.checks.push(Check {
            name: format!("{name} is there"),
            socket: None,
            verdict,
            because,
            location: place,
        });
    }

    fn waive(&self, waiver: &Waive, report: &mut Report) {
        let expired = waiver.expires.filter(|last| *last < self.today);
        let mut matched = false;
        for finding in &mut report.findings {
            if finding.code.to_string() != waiver.code {
                continue;
            }
            let applies = match finding.socket.and_then(|place| report.sockets.get(place)) {
                Some(socket) => {
                    fits(&waiver.matches, socket) && matches!(process(&waiver.matches, socket), Process::Yes)
                }
                None => finding.rule.as_deref().is_some_and(|rule| self.waives_rule(waiver, rule)),
            };
            if applies {
                matched = true;
                if expired.is_none() && finding.waived.is_none() {
                    finding.waived = Some(waiver.reason.clone());
                }
            }
        }
        let place = |key| Some(self.place(&waiver.places, key));
        if let Some(last) = expired {
            let message = format!("the waiver of {} ended with {last}: {}", waiver.code, waiver.reason);
            let mut finding = Finding::new(Code::WAIVER_EXPIRED, Severity::Warning, None, message)
                .help("solve what it was for, or decide anew and write a later date");
            finding.location = place("expires");
            report.findings.push(finding);
        } else if !matched && waiver.unmatched != Unmatched::Ignore {
            let severity =
                if waiver.unmatched == Unmatched::Error { Severity::Error } else { Severity::Warning };
            let message = format!("the waiver of {} covers nothing: {}", waiver.code, waiver.reason);
            let mut finding = Finding::new(Code::WAIVER_UNUSED, severity, None, message)
                .help("remove it: it would hide the next finding of this kind");
            finding.location = place("code");
            report.findings.push(finding);
        }
    }

    /// Whether a waiver is about what a rule requires: a port of the one is a port of the other.
    fn waives_rule(&self, waiver: &Waive, name: &str) -> bool {
        let rule = self.policy.allow.iter().find(|rule| name == format!("allow {}", rule.id));
        rule.is_some_and(|rule| waiver.matches.ports.iter().any(|port| rule.matches.ports.contains(port)))
    }

    fn rule_name(&self, rule: Option<usize>) -> String {
        rule.and_then(|position| self.policy.allow.get(position))
            .map_or_else(String::new, |rule| format!("allow {}", rule.id))
    }

    fn place_of(&self, outcome: &Outcome) -> Box<Place> {
        let rule = outcome.rule.and_then(|position| self.policy.allow.get(position));
        self.place(rule.map_or(&self.policy.places, |rule| &rule.places), outcome.key)
    }

    fn place(&self, places: &Places, key: &str) -> Box<Place> {
        let file = self.policy.origin.clone();
        Box::new(Place { file, text: Arc::clone(&self.text), span: places.of(key) })
    }
}

/// Protocol and port.
fn fits(matches: &Match, socket: &ListeningSocket) -> bool {
    matches.protocol.is_none_or(|protocol| protocol == socket.view.protocol)
        && (matches.ports.is_empty() || matches.ports.contains(&socket.view.port))
}

fn in_family(socket: &ListeningSocket, family: Family) -> Exposure {
    match family {
        Family::Ipv4 => socket.view.exposure.ipv4,
        Family::Ipv6 => socket.view.exposure.ipv6,
    }
}

/// Whether exposure in `family` is an upper bound only.
fn uncertain(socket: &ListeningSocket, family: Family) -> bool {
    let view = &socket.view;
    let dual = family == Family::Ipv4
        && view.address.is_ipv6()
        && view.address.is_unspecified()
        && view.v6only.is_none();
    dual || !socket.device_known
}

/// Why a socket is not within the exposure and families of a rule; `None` when it is.
fn reach(
    rule: &Allow,
    socket: &ListeningSocket,
    known: bool,
) -> Option<(Verdict, Code, String, &'static str)> {
    if !known {
        let because =
            "who reaches it is unknown, since the interfaces of its namespace could not be read".to_owned();
        return Some((Verdict::Undecided, Code::POLICY_UNDECIDED, because, "exposure"));
    }
    let mut undecided = None;
    for family in Family::BOTH {
        let exposure = in_family(socket, family);
        let problem = if exposure > rule.exposure {
            let because = format!(
                "over {family} its exposure is {exposure}, and the rule \"{}\" allows {}",
                rule.id, rule.exposure
            );
            Some((Code::TOO_WIDE, because, "exposure"))
        } else if exposure > Exposure::None && !rule.families.is_empty() && !rule.families.contains(&family) {
            let because =
                format!("it is reached over {family} too, which the rule \"{}\" does not name", rule.id);
            Some((Code::WRONG_FAMILIES, because, "families"))
        } else {
            None
        };
        match problem {
            Some((_, because, key)) if uncertain(socket, family) => {
                let because =
                    format!("{because}; but what is known of the socket does not suffice to be sure");
                undecided = Some((Verdict::Undecided, Code::POLICY_UNDECIDED, because, key));
            }
            Some((code, because, key)) => return Some((Verdict::Fail, code, because, key)),
            None => {}
        }
    }
    undecided
}

/// Whether every process that holds the socket is one that the rule names. The first process of the system may hold any socket
/// beside another one: it opens sockets for services.
fn process(matches: &Match, socket: &ListeningSocket) -> Process {
    if matches.exe.is_empty() && matches.user.is_empty() && matches.unit.is_empty() {
        return Process::Yes;
    }
    let Some(owners) = &socket.owners else {
        return Process::Unknown("the process that holds it could not be read".to_owned());
    };
    if owners.is_empty() {
        return Process::No("no process holds it".to_owned());
    }
    let mut unknown = None;
    for owner in owners.iter().filter(|owner| owner.pid != 1 || owners.len() == 1) {
        match one_process(matches, owner) {
            Process::Yes => {}
            Process::No(because) => return Process::No(because),
            Process::Unknown(because) => unknown = Some(because),
        }
    }
    unknown.map_or(Process::Yes, Process::Unknown)
}

fn one_process(matches: &Match, owner: &Owner) -> Process {
    let who = format!("{} (pid {})", owner.command, owner.pid);
    let any = |patterns: &[String], text: &str| {
        patterns.iter().any(|pattern| glob(pattern.as_bytes(), text.as_bytes()))
    };
    if !matches.user.is_empty() {
        let number = owner.uid.map(|uid| uid.to_string());
        let named = |wanted: &String| Some(wanted) == owner.user.as_ref() || Some(wanted) == number.as_ref();
        if owner.uid.is_none() {
            return Process::Unknown(format!("the user of {who} could not be read"));
        }
        if !matches.user.iter().any(named) {
            let user = owner.user.as_deref().unwrap_or("unknown");
            return Process::No(format!("{who} runs as user {user}"));
        }
    }
    if !matches.unit.is_empty() && !owner.unit.as_deref().is_some_and(|unit| any(&matches.unit, unit)) {
        let unit = owner.unit.as_deref().unwrap_or("none");
        return Process::No(format!("the systemd unit of {who} is {unit}"));
    }
    if matches.exe.is_empty() {
        return Process::Yes;
    }
    match (owner.exe.as_deref(), owner.exe_visible) {
        (None, _) => Process::Unknown(format!("the executable of {who} could not be read")),
        (Some(exe), _) if !any(&matches.exe, exe) => Process::No(format!("{who} runs {exe}")),
        // A deleted file cannot be compared any more; its path is the kernel's word.
        (Some(_), Some(true)) => Process::Yes,
        (Some(_), _) if owner.exe_deleted => Process::Yes,
        (Some(exe), Some(false)) => Process::No(format!(
            "{who} runs another file than the {exe} that is seen from here, as in a container"
        )),
        (Some(exe), None) => {
            Process::Unknown(format!("whether {who} runs the {exe} that is seen from here could not be told"))
        }
    }
}

#[cfg(test)]
mod tests;
