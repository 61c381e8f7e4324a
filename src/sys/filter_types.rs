//! What the replay and the trace of packet filters give, the same on every system.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::model::Protocol;
use crate::model::ruleset::NftFamily;

/// A chain, by its family, table and name.
pub type ChainName = (NftFamily, String, String);

/// What a replay of rules gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What is not in the copy, or not as in the original, one sentence each.
    pub missing: Vec<String>,
    /// Places, in [`Ruleset::nftables`](crate::model::ruleset::Ruleset::nftables), of the rules of each chain that are in the
    /// copy, in order, each with the handle that the copy's kernel gave.
    pub rules: HashMap<ChainName, Vec<(u64, usize)>>,
    /// Rules that ask for what a copy does not have, by place, with what they ask for.
    pub unfaithful: BTreeMap<usize, Vec<&'static str>>,
    /// Places of the rules whose rate limit was taken out.
    pub limited: Vec<usize>,
    /// Places of the rules that answer with an error: `reject`.
    pub rejecting: Vec<usize>,
    /// The base chains of the copy.
    pub bases: HashMap<ChainName, BaseChain>,
}

/// How a base chain is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// The hook's number (`NF_INET_*`): 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub hook: u32,
    /// The priority.
    pub priority: i32,
}

/// What a packet met in the packet filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// The kernel's number of the packet; packets of one connection have different ones.
    pub id: u32,
    /// The chain that was asked.
    pub chain: ChainName,
    /// What was met there.
    pub met: Met,
    /// The verdict.
    pub verdict: TraceVerdict,
    /// The ends of the packet, sender first; given once for each hook.
    pub packet: Option<TracedPacket>,
}

/// What a packet met in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// The rule with this handle.
    Rule(u64),
    /// The end of the chain: it returns to its caller.
    Return,
    /// The policy of a base chain.
    Policy,
}

/// A verdict in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceVerdict {
    /// Accepted.
    Accept,
    /// Dropped; a rejected packet is dropped, too.
    Drop,
    /// Taken over by something else, such as a queue.
    Stolen,
    /// The next rule is asked.
    Continue,
    /// A chain is asked, and this one afterwards.
    Jump(String),
    /// A chain is asked instead.
    Goto(String),
    /// Back to the caller.
    Return,
}

/// The headers of a traced packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TracedPacket {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// The flags of TCP; 0 for UDP.
    pub flags: u8,
}
