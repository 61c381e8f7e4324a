//! What an audit finds here but does not evaluate.

use super::{Line, State, line};
use crate::model::NotExamined;
use crate::model::filters::{self, PacketFilters};

/// One line about sockets of other protocols and attached programs, and one about packet filters.
pub(super) fn lines(seen: &NotExamined, packet_filters: &PacketFilters) -> [Line; 2] {
    let mut parts = seen.counts();
    parts.extend(seen.program_count());
    let none = || "no raw, packet, UDP-Lite, SCTP, DCCP or vsock socket is known here".to_owned();
    let mut detail =
        if parts.is_empty() { none() } else { format!("not judged by an audit: {}", parts.join(", ")) };
    let state = if seen.unknown_because.is_empty() { State::Yes } else { State::Partly };
    for because in &seen.unknown_because {
        detail = format!("{detail}; {because}");
    }
    let remedy = (state == State::Partly).then(|| "run as root".to_owned());
    let (filters_state, filters) = match (filters::seen(packet_filters), &packet_filters.unknown_because) {
        (None, _) => (State::Yes, "there is no table of a packet filter here".to_owned()),
        (Some(seen), None) => (State::Yes, format!("not judged by exposure: {seen}")),
        (Some(seen), Some(_)) => (State::Partly, format!("not judged by exposure: {seen}")),
    };
    let filters_remedy = (filters_state == State::Partly).then(|| "run as root".to_owned());
    [
        line("other sockets", state, &detail, remedy),
        line("packet filters", filters_state, &filters, filters_remedy),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OtherKind, OtherSocket};

    #[test]
    fn unjudged_items_are_counted_and_unknown_is_not_yes() {
        let socket =
            |kind| OtherSocket { kind, local: None, uid: None, inode: None, netns: None, owners: None };
        let mut seen = NotExamined {
            sockets: vec![socket(OtherKind::Raw), socket(OtherKind::Vsock)],
            ..Default::default()
        };
        let [sockets, filters] = lines(&seen, &PacketFilters::default());
        assert_eq!(sockets.state, State::Yes);
        assert!(sockets.detail.ends_with("1 raw socket, 1 vsock listener"), "{}", sockets.detail);
        assert_eq!(filters.state, State::Yes);
        seen.unknown_because.push("bpf(2) is refused".to_owned());
        let unknown = PacketFilters { unknown_because: Some("no right".to_owned()), ..Default::default() };
        let [sockets, filters] = lines(&seen, &unknown);
        assert_eq!((sockets.state, filters.state), (State::Partly, State::Partly));
        assert!(filters.detail.contains("no right"));
    }
}
