//! The table of `tools/testing/selftests/net/bind_wildcard.c`: 44 ordered pairs, and then what six plain sockets find.

use std::net::IpAddr;

use bindscope::model::{Protocol, SocketSpec, V6Only};

use crate::forms::plain;
use crate::oracle::{Host, Mode};

/// Each row: two forms; eight results without options (the two, then the six of [`PROBES`]); the same when the two have
/// SO_REUSEADDR, or SO_REUSEPORT. `0` is success, `E` is EADDRINUSE.
const TABLE: &str = include_str!("bind_wildcard.tsv");

const PROBES: [&str; 6] = ["v4_any", "v4_local", "v6_any", "v6_local", "map_any", "map_local"];

fn socket(protocol: Protocol, form: &str) -> SocketSpec {
    let address: IpAddr = match form {
        "v4_any" => "0.0.0.0",
        "v4_local" => "127.0.0.1",
        "v6_any" | "v6_any_only" => "::",
        "v6_local" => "::1",
        "map_any" => "::ffff:0.0.0.0",
        "map_local" => "::ffff:127.0.0.1",
        other => panic!("{other}"),
    }
    .parse()
    .unwrap();
    plain(protocol, address, if form == "v6_any_only" { V6Only::On } else { V6Only::Off })
}

pub fn replay() {
    let host = Host::new();
    let mut runs = 0;
    host.run(|session| {
        for line in TABLE.lines().skip(1) {
            let [first, second, without, with] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for (address, port, expected) in
                    [(false, false, without), (true, false, with), (false, true, with)]
                {
                    let forms = [first, second].into_iter().chain(PROBES);
                    let mut set: Vec<_> = forms.map(|form| (socket(protocol, form), 0)).collect();
                    for (spec, _) in &mut set[..2] {
                        (spec.reuse_address, spec.reuse_port) = (address, port);
                    }
                    let word = |results: Vec<bool>| -> String {
                        results.into_iter().map(|ok| if ok { '0' } else { 'E' }).collect()
                    };
                    let (predicted, observed) = session.bind_only(&set);
                    let name = format!("{protocol} {first} {second} {address} {port}");
                    assert_eq!(word(predicted), expected, "predicted: {name}");
                    assert_eq!(word(observed), expected, "observed: {name}");
                    let wrong = session.compare(&set, Mode::ListenEach);
                    crate::oracle::assert_none(&wrong, 1);
                    runs += 1;
                }
            }
        }
    });
    assert_eq!(runs, 44 * 3 * 2);
}

/// What a second listen on the same port comes to on Linux, as Go's `net` package expects it (the table of its
/// `dualStackTCPListenerTests`; the one for UDP is the same): `-` is an error.
const GO: &str = "
any any -
any any4 -
any4 any -
any any6 -
any6 any -
any4 any6 -
any6 any4 -
mapped any6 -
any6 mapped -
4:any 6:any ok
6:any 4:any ok
4:any4 6:any6 ok
6:any6 4:any4 ok
lo4 lo6 ok
lo6 lo4 ok
4:lo4 6:lo6 ok
6:lo6 4:lo4 ok
";

/// The socket that Go makes of a network (`4:`, `6:`, or none for either) and an address: a wildcard of either family is one
/// dual-stack socket, whatever it was written as.
fn go_socket(protocol: Protocol, form: &str) -> SocketSpec {
    let (address, v6only) = match form {
        "any" | "any4" | "any6" | "mapped" => ("::", V6Only::Off),
        "4:any" | "4:any4" => ("0.0.0.0", V6Only::On),
        "6:any" | "6:any6" => ("::", V6Only::On),
        "lo4" | "4:lo4" => ("127.0.0.1", V6Only::On),
        "lo6" | "6:lo6" => ("::1", V6Only::On),
        other => panic!("{other}"),
    };
    let mut spec = plain(protocol, address.parse().unwrap(), v6only);
    spec.reuse_address = protocol == Protocol::Tcp;
    spec
}

pub fn replay_go() {
    let host = Host::new();
    let mut runs = 0;
    host.run(|session| {
        for line in GO.lines().filter(|line| !line.is_empty()) {
            let [first, second, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let set = [(go_socket(protocol, first), 0), (go_socket(protocol, second), 0)];
                let fates = session.foretell(&set, Mode::ListenEach);
                assert_eq!(
                    fates.iter().map(Option::is_none).collect::<Vec<_>>(),
                    [true, expected == "ok"],
                    "{line}"
                );
                crate::oracle::assert_none(&session.compare(&set, Mode::ListenEach), 1);
                runs += 1;
            }
        }
    });
    assert_eq!(runs, 17 * 2);
}
