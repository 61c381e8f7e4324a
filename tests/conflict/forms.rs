//! The sockets that are tried.

use std::net::IpAddr;

use bindscope::code::Code;
use bindscope::model::{Errno, IfName, Phase, Protocol, SocketSpec, V6Only};

use crate::oracle::{Host, Mode};
use crate::support::netns::Netns;
use crate::support::random::Random;

/// The port everything is tried on.
pub const PORT: u16 = 4242;

/// Devices of the host; the empty one is none.
pub const DEVICES: [&str; 4] = ["", "va", "vb", "lo"];

/// An address as it is bound.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    Any4,
    Lo4,
    OtherLo4,
    Wire4,
    Dual,
    Only6,
    Lo6,
    Wire6,
    MappedAny,
    MappedLo,
    MappedWire,
}

impl Form {
    pub const ALL: [Form; 11] = [
        Form::Any4,
        Form::Lo4,
        Form::OtherLo4,
        Form::Wire4,
        Form::Dual,
        Form::Only6,
        Form::Lo6,
        Form::Wire6,
        Form::MappedAny,
        Form::MappedLo,
        Form::MappedWire,
    ];

    fn address(self) -> IpAddr {
        match self {
            Form::Any4 => "0.0.0.0",
            Form::Lo4 => "127.0.0.1",
            Form::OtherLo4 => "127.0.0.2",
            Form::Wire4 => "10.1.0.1",
            Form::Dual | Form::Only6 => "::",
            Form::Lo6 => "::1",
            Form::Wire6 => "fd01::1",
            Form::MappedAny => "::ffff:0.0.0.0",
            Form::MappedLo => "::ffff:127.0.0.1",
            Form::MappedWire => "::ffff:10.1.0.1",
        }
        .parse()
        .unwrap()
    }
}

/// SO_REUSEADDR and SO_REUSEPORT.
#[derive(Debug, Clone, Copy)]
pub enum Reuse {
    None,
    Address,
    Port,
    Both,
}

impl Reuse {
    pub const ALL: [Reuse; 4] = [Reuse::None, Reuse::Address, Reuse::Port, Reuse::Both];
}

/// A socket with no options.
pub fn plain(protocol: Protocol, address: IpAddr, v6only: V6Only) -> SocketSpec {
    SocketSpec { listener: "x".into(), v6only, backlog: 8, ..SocketSpec::plain(protocol, address, PORT) }
}

pub fn spec(protocol: Protocol, form: Form, device: &str, reuse: Reuse) -> SocketSpec {
    let v6only = if matches!(form, Form::Only6) { V6Only::On } else { V6Only::Off };
    SocketSpec {
        device: (!device.is_empty()).then(|| IfName::from(device)),
        reuse_address: matches!(reuse, Reuse::Address | Reuse::Both),
        reuse_port: matches!(reuse, Reuse::Port | Reuse::Both),
        ..plain(protocol, form.address(), v6only)
    }
}

/// `count` sockets with their owners.
pub fn random_set(
    random: &mut Random,
    protocol: Protocol,
    count: usize,
    other_users: bool,
) -> Vec<(SocketSpec, u32)> {
    // Without devices, or with one reuse setting for most, more sockets get in, and more can go wrong.
    let devices = random.once_in(2);
    let usual = *random.pick(&Reuse::ALL);
    (0..count)
        .map(|_| {
            let device = if devices { *random.pick(&DEVICES) } else { "" };
            let reuse = if random.once_in(3) { *random.pick(&Reuse::ALL) } else { usual };
            let uid = if other_users && random.once_in(4) { 1001 } else { 0 };
            (spec(protocol, *random.pick(&Form::ALL), device, reuse), uid)
        })
        .collect()
}

/// One socket at a time: everything that is refused before other sockets are asked, each with its code.
pub fn refused() {
    let host = Host::new();
    let zone = |name: &str| host.index(name);
    let (va, vb) = (zone("va"), zone("vb"));
    type Change = Box<dyn Fn(&mut SocketSpec) + Sync>;
    let nothing = || -> Change { Box::new(|_| {}) };
    let scope = |id: u32| -> Change { Box::new(move |spec| spec.scope_id = id) };
    let on =
        |device: &'static str| -> Change { Box::new(move |spec| spec.device = Some(IfName::from(device))) };
    let tcp = Some(Protocol::Tcp);
    let bind = |errno, code| Some((Phase::Bind, errno, code));
    use Errno::{EADDRNOTAVAIL, EINVAL, ENODEV};
    // Address, V6ONLY, a change, the protocol it is for, what comes of it.
    type Row = (&'static str, V6Only, Change, Option<Protocol>, Option<(Phase, Errno, Code)>);
    let rows: Vec<Row> = vec![
        ("203.0.113.7", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("10.1.0.0", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("0.1.2.3", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("240.0.0.1", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("203.0.113.7", V6Only::On, Box::new(|s| s.freebind = true), None, None),
        ("203.0.113.7", V6Only::On, Box::new(|s| s.transparent = true), None, None),
        ("2001:db8::7", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("2001:db8::7", V6Only::On, Box::new(|s| s.freebind = true), None, None),
        ("2001:db8::7", V6Only::On, Box::new(|s| s.transparent = true), None, None),
        ("127.3.4.5", V6Only::On, nothing(), None, None),
        ("10.1.0.255", V6Only::On, nothing(), None, None),
        ("127.255.255.255", V6Only::On, nothing(), None, None),
        ("255.255.255.255", V6Only::On, nothing(), None, None),
        ("224.0.0.1", V6Only::On, nothing(), None, None),
        ("10.77.3.9", V6Only::On, nothing(), None, None),
        ("198.51.100.9", V6Only::On, nothing(), None, None),
        ("10.7.7.7", V6Only::On, nothing(), None, None),
        ("10.7.7.8", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("2001:db8:51::9", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("::127.0.0.1", V6Only::On, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("::ffff:127.0.0.1", V6Only::On, nothing(), None, bind(EINVAL, Code::INVALID_BIND)),
        ("::ffff:203.0.113.7", V6Only::Off, nothing(), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE)),
        ("::ffff:224.0.0.1", V6Only::Off, nothing(), None, None),
        ("::ffff:10.1.0.255", V6Only::Off, on("va"), None, None),
        ("::ffff:10.1.0.255", V6Only::Off, on("vb"), None, None),
        ("::ffff:255.255.255.255", V6Only::Off, on("vb"), None, None),
        ("ff02::1", V6Only::On, nothing(), tcp, bind(EINVAL, Code::INVALID_BIND)),
        ("ff02::1", V6Only::On, nothing(), Some(Protocol::Udp), bind(EINVAL, Code::ZONE_NEEDED)),
        ("ff02::1", V6Only::On, scope(va), Some(Protocol::Udp), None),
        ("ff05::1", V6Only::On, nothing(), Some(Protocol::Udp), None),
        ("fe80::1:1", V6Only::On, nothing(), None, bind(EINVAL, Code::ZONE_NEEDED)),
        ("fe80::1:1", V6Only::On, scope(va), None, None),
        ("fe80::1:1", V6Only::On, scope(vb), None, bind(EADDRNOTAVAIL, Code::ZONE_NEEDED)),
        ("fe80::1:1", V6Only::On, scope(9999), None, bind(ENODEV, Code::NO_SUCH_DEVICE)),
        ("fe80::1:1", V6Only::On, on("va"), None, None),
        ("fe80::1:1", V6Only::On, on("vb"), None, bind(EADDRNOTAVAIL, Code::ZONE_NEEDED)),
        ("fd01::1", V6Only::On, scope(9999), None, None),
        ("fd01::1", V6Only::On, on("vb"), None, None),
        ("::1", V6Only::On, on("vb"), None, bind(EADDRNOTAVAIL, Code::ADDRESS_NOT_ON_DEVICE)),
        ("127.0.0.1", V6Only::On, on("vb"), None, None),
        ("::ffff:127.0.0.1", V6Only::Off, on("vb"), None, None),
        ("0.0.0.0", V6Only::On, on("nope"), None, Some((Phase::Setsockopt, ENODEV, Code::NO_SUCH_DEVICE))),
        (
            "0.0.0.0",
            V6Only::On,
            on("va-and-a-long-tail"),
            None,
            Some((Phase::Setsockopt, ENODEV, Code::NO_SUCH_DEVICE)),
        ),
    ];
    host.run(|session| {
        let mut wrong = Vec::new();
        let mut trials = 0;
        for (address, v6only, change, only, expected) in &rows {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                if only.is_some_and(|only| only != protocol) {
                    continue;
                }
                let mut spec = plain(protocol, address.parse().unwrap(), *v6only);
                change(&mut spec);
                trials += 1;
                let predicted = session.predict_one(&spec);
                assert_eq!(predicted, *expected, "{protocol} {address} {:?} %{}", spec.device, spec.scope_id);
                wrong.extend(session.compare(&[(spec, 0)], Mode::ListenEach));
            }
        }
        crate::oracle::assert_none(&wrong, trials);
    });
    // A zone overrules SO_BINDTODEVICE: the second socket is on va as the first one is.
    host.run(|session| {
        let ll = |device: &str, scope_id: u32| {
            let mut spec = plain(Protocol::Tcp, "fe80::1:1".parse().unwrap(), V6Only::On);
            spec.device = (!device.is_empty()).then(|| IfName::from(device));
            spec.scope_id = scope_id;
            (spec, 0)
        };
        let wrong = session.compare(&[ll("", va), ll("vb", va)], Mode::ListenEach);
        crate::oracle::assert_none(&wrong, 1);
    });
    unusable_states();
}

/// The same address in every state the host can put it in.
fn unusable_states() {
    let one = |change: &dyn Fn(&Netns), address: &str, expected: Option<(Phase, Errno, Code)>| {
        let host = Host::with(change);
        host.run(|session| {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let spec = plain(protocol, address.parse().unwrap(), V6Only::Off);
                assert_eq!(session.predict_one(&spec), expected, "{protocol} {address}");
                crate::oracle::assert_none(&session.compare(&[(spec, 0)], Mode::ListenEach), 1);
            }
        });
    };
    let gone = |code| Some((Phase::Bind, Errno::EADDRNOTAVAIL, code));
    let tentative = |ns: &Netns| {
        ns.sysctl("net.ipv6.conf.va.accept_dad", "1");
        ns.sysctl("net.ipv6.conf.va.dad_transmits", "60");
        ns.ip("address add fd01::2/64 dev va");
    };
    one(&tentative, "fd01::2", gone(Code::ADDRESS_TENTATIVE));
    let nonlocal6 = |ns: &Netns| ns.sysctl("net.ipv6.ip_nonlocal_bind", "1");
    one(&nonlocal6, "2001:db8::7", None);
    one(&nonlocal6, "203.0.113.7", gone(Code::ADDRESS_NOT_HERE));
    one(&nonlocal6, "::ffff:203.0.113.7", gone(Code::ADDRESS_NOT_HERE));
    let nonlocal4 = |ns: &Netns| ns.sysctl("net.ipv4.ip_nonlocal_bind", "1");
    one(&nonlocal4, "2001:db8::7", gone(Code::ADDRESS_NOT_HERE));
    one(&nonlocal4, "203.0.113.7", None);
    one(&nonlocal4, "::ffff:203.0.113.7", None);
    let no_lo6 = |ns: &Netns| ns.sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
    one(&no_lo6, "::1", gone(Code::FAMILY_UNAVAILABLE));
    one(&no_lo6, "fd01::1", None);
    one(&no_lo6, "::", None);
    let no_ipv6 = |ns: &Netns| ns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    one(&no_ipv6, "::1", gone(Code::FAMILY_UNAVAILABLE));
    one(&no_ipv6, "fd01::1", gone(Code::FAMILY_UNAVAILABLE));
    one(&no_ipv6, "::", None);
    let down = |ns: &Netns| ns.ip("link set va down");
    one(&down, "10.1.0.1", None);
    one(&down, "10.1.0.255", gone(Code::ADDRESS_NOT_HERE));
    one(&down, "fd01::1", gone(Code::ADDRESS_NOT_HERE));
    one(&down, "127.0.0.1", None);
    // What `system` means is read when the socket is made.
    for (value, expected) in [("0", None), ("1", Some((Phase::Bind, Errno::EINVAL, Code::INVALID_BIND)))] {
        let host = Host::with(|ns| ns.sysctl("net.ipv6.bindv6only", value));
        host.run(|session| {
            let spec = plain(Protocol::Tcp, "::ffff:127.0.0.1".parse().unwrap(), V6Only::System);
            assert_eq!(session.predict_one(&spec), expected);
            let second = plain(Protocol::Tcp, "::".parse().unwrap(), V6Only::System);
            let first = plain(Protocol::Tcp, "0.0.0.0".parse().unwrap(), V6Only::On);
            let set = [(first, 0), (second, 0), (spec, 0)];
            crate::oracle::assert_none(&session.compare(&set, Mode::ListenEach), 1);
        });
    }
}
