//! Evaluates a policy. Every verdict has its reason and its line of the policy. What is unknown is undecided, never a
//! pass.

mod holder;
mod published;

use std::sync::Arc;

use jiff::civil::Date;

use self::holder::Process;
use super::{Audit, Check, Finding, Report, Verdict, extent, plain};
use crate::code::Code;
use crate::diag::{Place, Severity};
use crate::model::{Exposure, Family, ListeningSocket, Snapshot};
use crate::profile::policy::{Allow, Match, Places, Policy, Require, UnknownOwner, Unmatched, Waive};

/// Data that the evaluation needs in addition to the report.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its text, for positions.
    pub text: Arc<str>,
    /// The current day, in UTC.
    pub today: Date,
    /// The networks of the report's namespaces, in the same order.
    pub hosts: Vec<&'a Snapshot>,
    /// Whether every socket is in the report.
    pub all_sockets: bool,
}

/// The result for one socket under one rule, or under none.
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

/// Whether a rule selects a socket by its protocol, port, address and device.
enum Selected {
    Yes,
    /// Protocol or port differ.
    No,
    /// Protocol and port match, but the address or device does not.
    Elsewhere(String, &'static str),
    Unknown(String, &'static str),
}

/// A socket with the known data of its network.
#[derive(Clone, Copy)]
struct Subject<'a> {
    socket: &'a ListeningSocket,
    /// `None` if the interfaces of its namespace could not be read: its reachability is then unknown.
    host: Option<&'a Snapshot>,
}

impl Judge<'_> {
    /// Adds verdicts and findings to `report`, and applies the waivers.
    pub fn judge(&self, report: &mut Report) {
        self.judge_body(&mut report.body);
        report.settle();
    }

    fn judge_body(&self, report: &mut Audit) {
        report.policy = Some(self.policy.name.clone());
        report.policy_file = Some(self.policy.origin.clone());
        let subjects: Vec<Subject<'_>> =
            report.sockets.iter().map(|socket| self.subject(report, socket)).collect();
        let mut outcomes: Vec<Outcome> = subjects.iter().map(|subject| self.socket(*subject)).collect();
        self.missing_families(&subjects, &mut outcomes);
        for (place, (socket, outcome)) in report.sockets.iter().zip(&outcomes).enumerate() {
            let name = format!("{} may be there", socket.view);
            let at = Some(self.place_of(outcome));
            report.checks.push(Check {
                name,
                socket: Some(place),
                required_by: None,
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
        for rule in &self.policy.allow {
            self.presence(rule, report);
        }
        self.published(report);
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
    }

    fn subject<'a>(&'a self, report: &Audit, socket: &'a ListeningSocket) -> Subject<'a> {
        let known = report.exposure_known(socket);
        let place = report.namespaces.iter().position(|namespace| namespace.inode == socket.netns);
        let host = place.or(Some(0)).and_then(|place| self.hosts.get(place).copied());
        Subject { socket, host: host.filter(|_| known) }
    }

    fn socket(&self, subject: Subject<'_>) -> Outcome {
        let mut worst: Option<Outcome> = None;
        for (position, rule) in self.policy.allow.iter().enumerate() {
            let Some(outcome) = self.under(rule, position, subject) else { continue };
            if outcome.verdict == Verdict::Pass {
                return outcome;
            }
            // A failure under a rule for this process says more than a different process on the port, and one under a rule for this
            // port more than one under a rule for any.
            let rank = |outcome: &Outcome| {
                let rule = outcome.rule.and_then(|rule| self.policy.allow.get(rule));
                let by_port = rule.is_some_and(|rule| !rule.matches.ports.is_empty());
                match (outcome.verdict, outcome.code) {
                    (Verdict::Undecided, _) => (3, by_port),
                    (_, Code::TOO_WIDE | Code::WRONG_FAMILIES) => (2, by_port),
                    (_, Code::WRONG_PROCESS) => (1, by_port),
                    _ => (0, by_port),
                }
            };
            if worst.as_ref().is_none_or(|worst| rank(&outcome) > rank(worst)) {
                worst = Some(outcome);
            }
        }
        worst.unwrap_or_else(|| self.unmatched(subject.socket))
    }

    /// The result for one socket under one rule; `None` if the rule does not apply to it.
    fn under(&self, rule: &Allow, position: usize, subject: Subject<'_>) -> Option<Outcome> {
        let outcome = |verdict, code, because: String, help, key| {
            Some(Outcome { verdict, code, because, help, rule: Some(position), key })
        };
        match selected(&rule.matches, subject) {
            Selected::Yes => {}
            Selected::No => return None,
            Selected::Elsewhere(because, key) => {
                // Under a policy that allows unlisted sockets, the rule applies only to its own address.
                let because = format!("{because}, and the rule \"{}\" names another", rule.id);
                let help = Some("bind the address that the rule names, or add an [[allow]] with a reason");
                let denied = self.policy.deny_by_default;
                return denied
                    .then(|| outcome(Verdict::Fail, Code::NOT_ALLOWED, because, help, key))
                    .flatten();
            }
            Selected::Unknown(because, key) => {
                let because = format!("{because}, and the rule \"{}\" names one", rule.id);
                return outcome(Verdict::Undecided, Code::POLICY_UNDECIDED, because, None, key);
            }
        }
        if let Some(expired) = rule.expires.filter(|last| *last < self.today) {
            let because = format!("the rule \"{}\" that allowed it ended with {expired}", rule.id);
            let help = Some("decide again, and write a later date or none");
            return outcome(Verdict::Fail, Code::NOT_ALLOWED, because, help, "expires");
        }
        let process = holder::process(&rule.matches, subject.socket);
        if let Process::No(because) = &process {
            if rule.matches.ports.is_empty() {
                return None;
            }
            let because = format!("{because}, but the rule \"{}\" names another", rule.id);
            let help = Some("find out why it uses the port, or write a separate rule for it");
            return outcome(Verdict::Fail, Code::WRONG_PROCESS, because, help, "process");
        }
        if let Some((verdict, code, because, key)) = reach(rule, subject, self.policy.by_filters) {
            let help = Some("bind a narrower address, or write down that this is intended");
            return outcome(verdict, code, because, help, key);
        }
        if let Process::Unknown(because) = process {
            let because = format!("{because}, and the rule \"{}\" asks for it", rule.id);
            let (verdict, code) = match self.policy.unknown_owner {
                UnknownOwner::Undecided => (Verdict::Undecided, Code::POLICY_UNDECIDED),
                UnknownOwner::Fail => (Verdict::Fail, Code::WRONG_PROCESS),
            };
            let help = Some("run as root: see `bindscope doctor`");
            return outcome(verdict, code, because, help, "process");
        }
        let because = match holder::assumed(&rule.matches, subject.socket) {
            Some(assumption) => format!("allowed by \"{}\": {assumption}", rule.id),
            None => format!("allowed by \"{}\"", rule.id),
        };
        outcome(Verdict::Pass, Code::NOT_ALLOWED, because, None, "id")
    }

    /// A socket without a matching rule.
    fn unmatched(&self, socket: &ListeningSocket) -> Outcome {
        let (verdict, because) = if !self.policy.deny_by_default {
            (Verdict::Pass, "the policy allows what it does not name".to_owned())
        } else {
            (Verdict::Fail, format!("no rule of the policy allows {}", socket.view))
        };
        let help =
            "stop the program or bind it to loopback; if it is intended, add an [[allow]] with a reason";
        Outcome { verdict, code: Code::NOT_ALLOWED, because, help: Some(help), rule: None, key: "default" }
    }

    /// All sockets under a rule must together serve its families, whichever rule allows them: `0.0.0.0` and `[::]` with
    /// V6ONLY serve both.
    fn missing_families(&self, subjects: &[Subject<'_>], outcomes: &mut [Outcome]) {
        for (position, rule) in self.policy.allow.iter().enumerate() {
            if rule.families.is_empty() {
                continue;
            }
            let of: Vec<(usize, Outcome)> = subjects
                .iter()
                .enumerate()
                .filter_map(|(place, subject)| Some((place, self.under(rule, position, *subject)?)))
                .collect();
            let passed = || of.iter().filter(|(_, outcome)| outcome.verdict == Verdict::Pass);
            let Some((first, _)) = passed().find(|(place, _)| outcomes[*place].verdict == Verdict::Pass)
            else {
                continue;
            };
            let maybe = of.iter().any(|(_, outcome)| outcome.verdict == Verdict::Undecided);
            for family in &rule.families {
                if passed().any(|(place, _)| in_family(subjects[*place].socket, *family) > Exposure::None) {
                    continue;
                }
                let (id, help) = (&rule.id, "listen in that family as well: [::] in addition to 0.0.0.0");
                outcomes[*first] = Outcome {
                    verdict: if maybe { Verdict::Undecided } else { Verdict::Fail },
                    code: Code::WRONG_FAMILIES,
                    because: format!(
                        "no client reaches it over {family}, and the rule \"{id}\" asks for {family}"
                    ),
                    help: Some(help),
                    rule: Some(position),
                    key: "families",
                };
            }
        }
    }

    /// A finding about an allowed socket is only a note.
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
                // The rule passes in both cases.
                (finding.severity, finding.undecided) = (Severity::Note, false);
            }
        }
    }

    /// Whether the required listener exists, and whether the rule matches anything. All matching sockets count,
    /// whichever rule allows them.
    fn presence(&self, rule: &Allow, report: &mut Audit) {
        let name = format!("allow {}", rule.id);
        if rule.require == Require::No {
            let selects = |socket: &ListeningSocket| {
                !matches!(selected(&rule.matches, self.subject(report, socket)), Selected::No)
            };
            let skipped = || report.skipped.iter().any(|one| selects(&one.socket));
            let publishes = |one: &super::Published| {
                let (first, last) = one.ports.unwrap_or((0, u16::MAX));
                rule.matches.ports_in(&(first..=last)) > 0
            };
            let published = || report.published.iter().any(publishes);
            if !report.sockets.iter().any(selects) && !skipped() && !published() {
                let message = format!("the rule \"{}\" matches no socket that listens here", rule.id);
                let mut finding = Finding::new(Code::ALLOW_UNUSED, Severity::Note, None, message)
                    .help("remove it, or say `require = true` if it must be there");
                finding.rule = Some(name);
                finding.location = Some(self.place(&rule.places, "id"));
                report.findings.push(finding);
            }
            return;
        }
        let (verdict, code, because) = self.required(rule, report);
        let place = Some(self.place(&rule.places, "require"));
        if verdict != Verdict::Pass {
            let undecided = verdict == Verdict::Undecided;
            let code = if undecided { Code::POLICY_UNDECIDED } else { code };
            let mut finding = Finding::new(code, Severity::Error, None, because.clone())
                .help("start the service, or find out whether it listens elsewhere");
            finding.rule = Some(name.clone());
            finding.location = place.clone();
            finding.undecided = undecided;
            report.findings.push(finding);
        }
        report.checks.push(Check {
            name: format!("{name} is there"),
            socket: None,
            required_by: Some(name),
            verdict,
            because,
            location: place,
        });
    }

    /// Whether a listener that the rule requires exists.
    fn required(&self, rule: &Allow, report: &Audit) -> (Verdict, Code, String) {
        let (mut unreachable, mut unknown) = (None, !self.all_sockets);
        // A socket that is too exposed for the rule, or whose rule has expired, still exists.
        for socket in &report.sockets {
            let reachable = socket.view.exposure.widest() > Exposure::None;
            let certain = report.exposure_known(socket) || rule.require == Require::Present;
            let subject = self.subject(report, socket);
            match (selected(&rule.matches, subject), holder::process(&rule.matches, socket)) {
                (Selected::No | Selected::Elsewhere(..), _) | (_, Process::No(_)) => {}
                (Selected::Yes, Process::Yes) if !certain => unknown = true,
                (Selected::Yes, Process::Yes)
                    if reachable || rule.require == Require::Present || rule.exposure == Exposure::None =>
                {
                    return (Verdict::Pass, Code::REQUIRED_ABSENT, "it is there".to_owned());
                }
                (Selected::Yes, Process::Yes) => unreachable = Some(socket),
                _ => unknown = true,
            }
        }
        let id = &rule.id;
        let fits = |socket| matches!(selected(&rule.matches, self.subject(report, socket)), Selected::Yes);
        let skipped = report.skipped.iter().find(|one| fits(&one.socket));
        match (unreachable, skipped) {
            _ if unknown => (
                Verdict::Undecided,
                Code::POLICY_UNDECIDED,
                format!("whether what the rule \"{id}\" requires is there is not known"),
            ),
            (Some(socket), _) => (
                Verdict::Fail,
                Code::REQUIRED_UNREACHABLE,
                format!("the rule \"{id}\" requires a listener, and no client can reach {}", socket.view),
            ),
            (None, Some(skipped)) => (
                Verdict::Undecided,
                Code::POLICY_UNDECIDED,
                format!(
                    "the rule \"{id}\" requires a listener, and {} looks like a client; ignore_ephemeral_udp = false counts it",
                    skipped.socket.view
                ),
            ),
            (None, None) => (
                Verdict::Fail,
                Code::REQUIRED_ABSENT,
                format!("the rule \"{id}\" requires a listener, and there is none"),
            ),
        }
    }

    fn waive(&self, waiver: &Waive, report: &mut Audit) {
        let expired = waiver.expires.filter(|last| *last < self.today);
        let mut matched = false;
        let mut findings = std::mem::take(&mut report.findings);
        for finding in &mut findings {
            if finding.code.to_string() != waiver.code {
                continue;
            }
            let applies = match finding.socket.and_then(|place| report.sockets.get(place)) {
                Some(socket) => {
                    let subject = self.subject(report, socket);
                    matches!(selected(&waiver.matches, subject), Selected::Yes)
                        && matches!(holder::process(&waiver.matches, socket), Process::Yes)
                        && matches!(outside(&waiver.matches, subject), Ok(None))
                }
                None => match finding.published.and_then(|place| report.published.get(place)) {
                    Some(published) => Judge::waives_published(waiver, published),
                    None => finding.rule.as_deref().is_some_and(|rule| self.waives_rule(waiver, rule)),
                },
            };
            if applies {
                matched = true;
                if expired.is_none() && finding.waived.is_none() {
                    finding.waived = Some(waiver.reason.clone());
                }
            }
        }
        report.findings = findings;
        let place = |key| Some(self.place(&waiver.places, key));
        if let Some(last) = expired {
            let message = format!("the waiver of {} ended with {last}: {}", waiver.code, waiver.reason);
            let mut finding = Finding::new(Code::WAIVER_EXPIRED, Severity::Warning, None, message)
                .help("fix the cause, or review the waiver and set a later date");
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

    /// Whether a waiver applies to a requirement: they have a port in common.
    fn waives_rule(&self, waiver: &Waive, name: &str) -> bool {
        let rule = self.policy.allow.iter().find(|rule| name == format!("allow {}", rule.id));
        rule.is_some_and(|rule| waiver.matches.ports.iter().any(|ports| rule.matches.ports_in(ports) > 0))
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

/// Whether protocol, port, address and device of a socket match a rule.
fn selected(matches: &Match, subject: Subject<'_>) -> Selected {
    let socket = subject.socket;
    let view = &socket.view;
    if matches.protocol.is_some_and(|protocol| protocol != view.protocol)
        || !matches.ports.is_empty() && !matches.has_port(view.port)
    {
        return Selected::No;
    }
    let bound = view.address.to_canonical();
    if !matches.addresses.is_empty() && !matches.addresses.iter().any(|one| one.to_canonical() == bound) {
        return Selected::Elsewhere(format!("it is bound to {}", view.address), "address");
    }
    if matches.devices.is_empty() {
        return Selected::Yes;
    }
    match &view.device {
        _ if !socket.device_known => {
            Selected::Unknown("the device that it is bound to could not be read".to_owned(), "device")
        }
        None => Selected::Elsewhere("it is bound to no device".to_owned(), "device"),
        Some(device) if matches.devices.contains(&plain(device)) => Selected::Yes,
        Some(device) if subject.host.is_some_and(|host| extent::is_named(host, device, &matches.devices)) => {
            Selected::Yes
        }
        Some(_) if subject.host.is_none() => Selected::Unknown(
            "the alternative names of the device that it is bound to could not be read".to_owned(),
            "device",
        ),
        Some(device) => Selected::Elsewhere(format!("it is bound to the device {}", plain(device)), "device"),
    }
}

/// Why a socket is outside the networks and interfaces of a rule, with the deciding key; an error if unknown.
fn outside(matches: &Match, subject: Subject<'_>) -> Result<Option<(String, &'static str)>, &'static str> {
    if matches.networks.is_empty() && matches.interfaces.is_empty() {
        return Ok(None);
    }
    let key = if matches.networks.is_empty() { "interface" } else { "network" };
    let host = subject.host.ok_or(key)?;
    let unknown_device = !subject.socket.device_known;
    let networks = || extent::outside_networks(subject.socket, host, &matches.networks);
    let interfaces = || extent::outside_interfaces(subject.socket, host, &matches.interfaces);
    if let Some(because) = (!matches.networks.is_empty()).then(networks).flatten() {
        return Ok(Some((because, "network")));
    }
    match (!matches.interfaces.is_empty()).then(interfaces).flatten() {
        Some(_) if unknown_device => Err("interface"),
        Some(because) => Ok(Some((because, "interface"))),
        None => Ok(None),
    }
}

fn in_family(socket: &ListeningSocket, family: Family) -> Exposure {
    match family {
        Family::Ipv4 => socket.view.exposure.ipv4,
        Family::Ipv6 => socket.view.exposure.ipv6,
    }
}

/// What packet filters do to a socket that other hosts reach in this family.
enum Filters {
    /// They keep out clients that no rule names.
    Narrow,
    /// Every client gets through that no rule names.
    Open,
    Unknown,
}

fn filters(socket: &ListeningSocket, family: Family) -> Filters {
    match &socket.exposure_filtered {
        Some(left) if left.narrowed.contains(&family) && left.of(family).is_some() => Filters::Narrow,
        Some(left) if left.of(family).is_some() => Filters::Open,
        _ => Filters::Unknown,
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

/// Why a socket violates the exposure, families, networks or interfaces of a rule; `None` if it does not.
/// With `by_filters` the exposure is what packet filters leave.
fn reach(
    rule: &Allow,
    subject: Subject<'_>,
    by_filters: bool,
) -> Option<(Verdict, Code, String, &'static str)> {
    let socket = subject.socket;
    if subject.host.is_none() {
        let because =
            "who reaches it is unknown, since the interfaces of its namespace could not be read".to_owned();
        return Some((Verdict::Undecided, Code::POLICY_UNDECIDED, because, "exposure"));
    }
    match outside(&rule.matches, subject) {
        Ok(None) => {}
        Ok(Some((because, key))) => {
            let names = match key {
                "network" => rule.matches.networks.iter().map(ToString::to_string).collect(),
                _ => rule.matches.interfaces.clone(),
            };
            let because =
                format!("{because}, and the rule \"{}\" allows {key} {}", rule.id, names.join(", "));
            return Some((Verdict::Fail, Code::TOO_WIDE, because, key));
        }
        Err(key) => {
            let because =
                format!("at which {key} it is reached is not known, and the rule \"{}\" names one", rule.id);
            return Some((Verdict::Undecided, Code::POLICY_UNDECIDED, because, key));
        }
    }
    let mut undecided = None;
    for family in Family::BOTH {
        let own = in_family(socket, family);
        let outside = own > Exposure::Loopback;
        if outside && (rule.filtered || by_filters) && matches!(filters(socket, family), Filters::Unknown) {
            let because = format!(
                "what packet filters leave of its exposure over {family} is not known, and the rule \"{}\" counts on it",
                rule.id
            );
            undecided = Some((Verdict::Undecided, Code::POLICY_UNDECIDED, because, "exposure"));
            continue;
        }
        let left = socket.exposure_filtered.as_ref().and_then(|left| left.of(family));
        let exposure = left.filter(|_| by_filters && outside).unwrap_or(own);
        let problem = if outside && rule.filtered && matches!(filters(socket, family), Filters::Open) {
            let because = format!(
                "over {family} no packet filter narrows who reaches it, and the rule \"{}\" requires one",
                rule.id
            );
            Some((Code::TOO_WIDE, because, "exposure"))
        } else if exposure > rule.exposure {
            let because = format!(
                "over {family} its exposure is {exposure}, and the rule \"{}\" allows {}",
                rule.id, rule.exposure
            );
            Some((Code::TOO_WIDE, because, "exposure"))
        } else if exposure > Exposure::None && !rule.families.is_empty() && !rule.families.contains(&family) {
            let because =
                format!("it is reached over {family} as well, which the rule \"{}\" does not name", rule.id);
            Some((Code::WRONG_FAMILIES, because, "families"))
        } else {
            None
        };
        match problem {
            Some((_, because, key)) if uncertain(socket, family) => {
                let because =
                    format!("{because}; but what is known of the socket is not enough to be certain");
                undecided = Some((Verdict::Undecided, Code::POLICY_UNDECIDED, because, key));
            }
            Some((code, because, key)) => return Some((Verdict::Fail, code, because, key)),
            None => {}
        }
    }
    undecided
}

#[cfg(test)]
mod tests;
