//! Two published tables of which sockets can be bound together, as bind sequences.

use crate::model::{Protocol, SocketSpec, V6Only};

/// The table of `tools/testing/selftests/net/bind_wildcard.c` of Linux: 44 ordered pairs. Each row has two forms, then
/// eight results without options (the two, then the six of [`PROBES`]). The same results follow with SO_REUSEADDR, or
/// SO_REUSEPORT, on the two. `0` is success, `E` is EADDRINUSE.
const BIND_WILDCARD: &str = include_str!("bind_wildcard.tsv");

/// The plain sockets that are tested after each pair.
const PROBES: [&str; 6] = ["v4_any", "v4_local", "v6_any", "v6_local", "map_any", "map_local"];

/// Result of a second listen on the same port on Linux, as Go's `net` package expects it (`dualStackTCPListenerTests`
/// of `src/net/listen_test.go`; the UDP table is the same). `-` is an error.
const SECOND_LISTEN: &str = include_str!("second_listen.tsv");

/// Sockets that are bound one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Source: the table and its row.
    pub name: String,
    /// The sockets, in bind order.
    pub sockets: Vec<SocketSpec>,
    /// Whether each bind succeeds according to the table.
    pub expected: Vec<bool>,
    /// Whether a TCP socket listens before the next one is bound.
    pub listens: bool,
}

/// The 44 rows in three variants (no option, SO_REUSEADDR, SO_REUSEPORT), over TCP and UDP; bound only.
#[must_use]
pub fn bind_wildcard(port: u16) -> Vec<Sequence> {
    let mut all = Vec::new();
    for line in BIND_WILDCARD.lines().skip(1) {
        let [first, second, plain, reuse] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (address, port_too, option, expected) in [
                (false, false, "", plain),
                (true, false, " with SO_REUSEADDR", reuse),
                (false, true, " with SO_REUSEPORT", reuse),
            ] {
                let forms = [first, second].into_iter().chain(PROBES);
                let mut sockets: Vec<SocketSpec> =
                    forms.filter_map(|form| wildcard_socket(protocol, form, port)).collect();
                for socket in sockets.iter_mut().take(2) {
                    (socket.reuse_address, socket.reuse_port) = (address, port_too);
                }
                all.push(Sequence {
                    name: format!("bind_wildcard.c: {protocol} {first}, {second}{option}"),
                    sockets,
                    expected: expected.bytes().map(|word| word == b'0').collect(),
                    listens: false,
                });
            }
        }
    }
    all
}

/// The 17 rows, over TCP and UDP.
#[must_use]
pub fn second_listen(port: u16) -> Vec<Sequence> {
    let mut all = Vec::new();
    for line in SECOND_LISTEN.lines().skip(1) {
        let [first, second, comes_to] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let forms = [first, second].into_iter();
            all.push(Sequence {
                name: format!("listen_test.go: {protocol} {first}, {second}"),
                sockets: forms.filter_map(|form| go_socket(protocol, form, port)).collect(),
                expected: vec![true, comes_to == "ok"],
                listens: true,
            });
        }
    }
    all
}

fn wildcard_socket(protocol: Protocol, form: &str, port: u16) -> Option<SocketSpec> {
    let (address, v6only) = match form {
        "v4_any" => ("0.0.0.0", V6Only::Off),
        "v4_local" => ("127.0.0.1", V6Only::Off),
        "v6_any" => ("::", V6Only::Off),
        "v6_any_only" => ("::", V6Only::On),
        "v6_local" => ("::1", V6Only::Off),
        "map_any" => ("::ffff:0.0.0.0", V6Only::Off),
        "map_local" => ("::ffff:127.0.0.1", V6Only::Off),
        _ => return None,
    };
    Some(SocketSpec { v6only, ..SocketSpec::plain(protocol, address.parse().ok()?, port) })
}

/// The socket that Go creates for a network (`4:`, `6:`, or neither) and an address. A wildcard of either family is one
/// dual-stack socket, however it was written. TCP sockets have SO_REUSEADDR.
fn go_socket(protocol: Protocol, form: &str, port: u16) -> Option<SocketSpec> {
    let (address, v6only) = match form {
        "any" | "any4" | "any6" | "mapped" => ("::", V6Only::Off),
        "4:any" | "4:any4" => ("0.0.0.0", V6Only::On),
        "6:any" | "6:any6" => ("::", V6Only::On),
        "lo4" | "4:lo4" => ("127.0.0.1", V6Only::On),
        "lo6" | "6:lo6" => ("::1", V6Only::On),
        _ => return None,
    };
    let reuse_address = protocol == Protocol::Tcp;
    Some(SocketSpec { v6only, reuse_address, ..SocketSpec::plain(protocol, address.parse().ok()?, port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_lost() {
        let (wildcard, listen) = (bind_wildcard(1), second_listen(1));
        assert_eq!((wildcard.len(), listen.len()), (44 * 3 * 2, 17 * 2));
        for sequence in &wildcard {
            assert_eq!((sequence.sockets.len(), sequence.expected.len()), (8, 8), "{}", sequence.name);
        }
        for sequence in &listen {
            assert_eq!(sequence.sockets.len(), 2, "{}", sequence.name);
        }
    }
}
