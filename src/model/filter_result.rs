//! What packet filters and address translation do to a connection, predicted and observed alike.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ruleset::NftFamily;

/// The decision of the packet filters about a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FilterDecision {
    /// What was decided.
    pub verdict: FilterVerdict,
    /// The rule or policy that decided.
    pub by: Decider,
    /// The packet about which it was decided.
    pub packet: FilteredPacket,
    /// What the decision takes for granted, one sentence each, such as that a rate limit is not reached.
    pub assumes: Vec<String>,
    /// Rules in the way whose answer is not known, or another one on the host, one sentence each.
    pub depends_on: Vec<String>,
}

/// What a filter decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterVerdict {
    /// The packet passes.
    Accept,
    /// The packet is dropped without an answer.
    Drop,
    /// The packet is dropped and the client receives an error.
    Reject,
}

/// The packet of a connection about which a filter decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilteredPacket {
    /// The first packet of a TCP connection.
    Syn,
    /// A UDP datagram.
    Datagram,
    /// What the host answers: SYN-ACK, reset, ICMP error.
    Answer,
    /// The ACK that ends the handshake.
    Ack,
    /// Neighbour discovery, without which IPv6 packets find no way.
    Neighbour,
}

/// A rule or the policy of a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Decider {
    /// The family of the table.
    pub family: NftFamily,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The number of the rule in the chain, from 1; null for the policy.
    pub rule: Option<usize>,
    /// The rule's handle on the host; null for the policy.
    pub handle: Option<u64>,
    /// The rule in words, or `policy drop`.
    pub text: String,
}

impl Decider {
    /// Where it stands, without its text: `ip filter INPUT rule 3`, `policy of ip filter INPUT`. Unescaped.
    #[must_use]
    pub fn place(&self) -> String {
        let chain = format!("{} {} {}", self.family.name(), self.table, self.chain);
        match self.rule {
            None => format!("policy of {chain}"),
            Some(rule) => format!("{chain} rule {rule}"),
        }
    }
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = crate::escape::escape;
        let (table, chain) = (escape(&self.table), escape(&self.chain));
        let chain = format!("{} {table} {chain}", self.family.name());
        match self.rule {
            None => write!(f, "policy of {chain}"),
            Some(rule) if self.text.is_empty() => write!(f, "{chain} rule {rule}"),
            Some(rule) => write!(f, "{chain} rule {rule}: {}", escape(&self.text)),
        }
    }
}

/// Where address translation sends a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Translated {
    /// The new destination.
    pub address: IpAddr,
    /// The new port.
    pub port: u16,
    /// The rule that translates; null where it was not seen.
    pub by: Option<Decider>,
}

/// What a client received in place of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// What kind of packet it was.
    pub kind: AnswerKind,
    /// The type of ICMP (RFC 792, RFC 4443); null for a reset.
    #[serde(rename = "type")]
    pub icmp_type: Option<u8>,
    /// The code of ICMP; null for a reset.
    pub code: Option<u8>,
    /// The sender of the ICMP error; null where it is not known.
    pub from: Option<IpAddr>,
}

/// A packet that ends an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// A TCP segment with RST.
    Reset,
    /// An error of ICMP.
    Icmp,
    /// An error of ICMPv6.
    Icmpv6,
}

impl Answer {
    /// A TCP reset.
    pub const RESET: Answer = Answer { kind: AnswerKind::Reset, icmp_type: None, code: None, from: None };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn a_decider_is_named_as_in_nft() {
        let decider = Decider {
            family: NftFamily::Ip,
            table: "filter".to_owned(),
            chain: "ufw\u{1b}".to_owned(),
            rule: Some(8),
            handle: Some(31),
            text: "tcp dport 25 reject".to_owned(),
        };
        assert_eq!(decider.to_string(), "ip filter ufw\\x1b rule 8: tcp dport 25 reject");
        let policy = Decider { rule: None, handle: None, text: "policy drop".to_owned(), ..decider };
        assert_eq!(policy.to_string(), "policy of ip filter ufw\\x1b");
    }

    #[test]
    fn an_answer_is_the_documented_json() {
        let from = Some("192.0.2.10".parse().unwrap());
        let answer = Answer { kind: AnswerKind::Icmp, icmp_type: Some(3), code: Some(13), from };
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(json, r#"{"kind":"icmp","type":3,"code":13,"from":"192.0.2.10"}"#);
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
    }
}
