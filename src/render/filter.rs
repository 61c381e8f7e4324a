//! What packet filters decided about a connection, in words for people.

use crate::code::Code;
use crate::escape::escape;
use crate::model::{Answer, AnswerKind, FilterDecision, FilterVerdict, FilteredPacket, Outcome, Translated};
use crate::report::matrix::{CellReport, ObservedCell, PredictedCell};

/// What packet filters do to a connection, where they keep the client out or send it elsewhere: observed, else predicted.
pub(super) fn effect_on(cell: &CellReport) -> Option<String> {
    let effect = Effect::of(cell);
    effect.words().filter(|_| effect.matters())
}

/// What packet filters do to a connection, predicted or observed.
#[derive(Debug, Clone, Copy)]
struct Effect<'a> {
    filter: Option<&'a FilterDecision>,
    translated: Option<&'a Translated>,
    answer: Option<&'a Answer>,
    unknown_because: Option<&'a str>,
    /// Whether another host answers, of which it is not known whether a program listens there.
    forwarded: bool,
}

impl<'a> Effect<'a> {
    fn of(cell: &'a CellReport) -> Effect<'a> {
        match &cell.observed {
            Some(seen) => Effect::observed(seen),
            None => Effect::predicted(&cell.predicted),
        }
    }

    fn observed(cell: &'a ObservedCell) -> Effect<'a> {
        Effect {
            filter: cell.filter.as_ref(),
            translated: cell.translated.as_ref(),
            answer: cell.answer.as_ref(),
            unknown_because: None,
            forwarded: cell.outcome == Outcome::Accepted && cell.listener.is_none(),
        }
    }

    fn predicted(cell: &'a PredictedCell) -> Effect<'a> {
        Effect {
            filter: cell.filter.as_ref(),
            translated: cell.translated.as_ref(),
            answer: cell.answer.as_ref(),
            unknown_because: cell.unknown_because.as_deref(),
            forwarded: cell.why == Code::FORWARDED,
        }
    }

    /// Whether the filters do more than let a packet pass.
    fn matters(&self) -> bool {
        let decides = |filter: &FilterDecision| {
            filter.verdict != FilterVerdict::Accept || !filter.depends_on.is_empty()
        };
        self.translated.is_some() || self.unknown_because.is_some() || self.filter.is_some_and(decides)
    }

    /// The same in a few words; `None` where the filters decide nothing that matters.
    fn words(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(translated) = self.translated {
            let by = translated.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
            let to = std::net::SocketAddr::new(translated.address, translated.port);
            if self.forwarded {
                parts.push(format!("forwarded to {to}{by}; whether a program listens there is not known"));
            } else {
                parts.push(format!("translated to {to}{by}"));
            }
        }
        if let Some(filter) = self.filter {
            parts.extend(decision(filter, self.answer));
            parts.extend(filter.depends_on.iter().map(|one| format!("not certain: {}", escape(one))));
            parts.extend(filter.assumes.iter().map(|one| format!("as long as {}", escape(one))));
        }
        parts.extend(self.unknown_because.map(|why| format!("not certain: {}", escape(why))));
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// What the filters of a copy did, in a few words; `None` where they decided nothing that matters.
#[must_use]
pub fn observed(cell: &ObservedCell) -> Option<String> {
    Effect::observed(cell).words()
}

/// What the filters did to a connection, or are predicted to do, in a few words.
pub(super) fn of(cell: &CellReport) -> Option<String> {
    Effect::of(cell).words()
}

/// The decision itself; `None` for a packet that no rule names and the policy accepts.
fn decision(filter: &FilterDecision, answer: Option<&Answer>) -> Option<String> {
    let by = &filter.by;
    Some(match (filter.verdict, filter.packet) {
        (FilterVerdict::Accept, _) => {
            by.rule?;
            format!("accepted by {by}")
        }
        (FilterVerdict::Reject, _) => {
            format!(
                "rejected{} by {by}",
                answer.map_or_else(String::new, |answer| format!(" with {}", words(answer)))
            )
        }
        (FilterVerdict::Drop, FilteredPacket::Answer) => format!("the answer is dropped: {by}"),
        (FilterVerdict::Drop, FilteredPacket::Ack) => {
            format!("the last packet of the handshake is dropped: {by}")
        }
        (FilterVerdict::Drop, FilteredPacket::Neighbour) => format!("neighbour discovery is dropped: {by}"),
        (FilterVerdict::Drop, _) => format!("dropped: {by}"),
    })
}

/// An answer in the words of its protocol.
#[must_use]
pub fn words(answer: &Answer) -> String {
    let numbers = match (answer.icmp_type, answer.code) {
        (Some(kind), Some(code)) => format!(" type {kind} code {code}"),
        _ => String::new(),
    };
    match answer.kind {
        AnswerKind::Reset => "a TCP reset".to_owned(),
        AnswerKind::Icmp => format!("ICMP{numbers}"),
        AnswerKind::Icmpv6 => format!("ICMPv6{numbers}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::model::Decider;
    use crate::model::ruleset::NftFamily;

    fn filter(verdict: FilterVerdict, rule: Option<usize>, packet: FilteredPacket) -> FilterDecision {
        let by = Decider {
            family: NftFamily::Ip,
            table: "filter".to_owned(),
            chain: "INPUT".to_owned(),
            rule,
            handle: None,
            text: if rule.is_some() { "tcp dport 25 drop".to_owned() } else { "policy drop".to_owned() },
        };
        FilterDecision { verdict, by, packet, assumes: Vec::new(), depends_on: Vec::new() }
    }

    #[test]
    fn each_decision_has_its_sentence() {
        let said = |verdict, rule, packet| decision(&filter(verdict, rule, packet), Some(&Answer::RESET));
        let said = |verdict, rule, packet| said(verdict, rule, packet).unwrap_or_default();
        let syn = FilteredPacket::Syn;
        assert_eq!(said(FilterVerdict::Drop, None, syn), "dropped: policy of ip filter INPUT");
        assert_eq!(
            said(FilterVerdict::Drop, Some(3), syn),
            "dropped: ip filter INPUT rule 3: tcp dport 25 drop"
        );
        assert_eq!(
            said(FilterVerdict::Reject, Some(3), syn),
            "rejected with a TCP reset by ip filter INPUT rule 3: tcp dport 25 drop"
        );
        assert_eq!(
            said(FilterVerdict::Drop, None, FilteredPacket::Answer),
            "the answer is dropped: policy of ip filter INPUT"
        );
        assert_eq!(said(FilterVerdict::Accept, None, syn), "");
    }
}
