//! Actions of routing policy rules.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The action of a rule (`FR_ACT_*` of `linux/fib_rules.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// Look up the destination in the rule's table.
    Lookup,
    /// Look up the destination in the table of the packet's VRF.
    L3mdev,
    /// Drop the packet.
    Blackhole,
    /// Refuse the packet: no route to the host.
    Unreachable,
    /// Refuse the packet: prohibited.
    Prohibit,
    /// Continue with a later rule.
    Goto,
    /// Continue with the next rule.
    Nop,
    /// The rule has a condition or an action that this program does not know.
    #[serde(other)]
    Other,
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RuleAction::Lookup => "lookup",
            RuleAction::L3mdev => "l3mdev",
            RuleAction::Blackhole => "blackhole",
            RuleAction::Unreachable => "unreachable",
            RuleAction::Prohibit => "prohibit",
            RuleAction::Goto => "goto",
            RuleAction::Nop => "nop",
            RuleAction::Other => "other",
        })
    }
}
