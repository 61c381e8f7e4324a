//! A namespace as `ip` and `/proc/sys` report it: independent of what the program reads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bindscope::model::{
    AddrClass, AddrState, Family, Host, IfName, Interface, InterfaceAddress, Route, RouteKind, Snapshot,
};
use ipnet::IpNet;
use serde_json::Value;

use super::netns::Netns;

fn ip(ns: &Netns, words: &str) -> Vec<Value> {
    let output = ns.output(Command::new("ip").args(["-j", "-d"]).args(words.split_whitespace()));
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn setting(ns: &Netns, name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    ns.run(|| std::fs::read_to_string(path)).ok()?.trim().parse().ok()
}

/// The running kernel, from uname(2).
#[must_use]
pub fn kernel() -> Host {
    let uname = nix::sys::utsname::uname().unwrap();
    let text = |value: &std::ffi::OsStr| Some(value.to_str().unwrap().to_owned());
    Host {
        system: "linux".to_owned(),
        release: text(uname.release()),
        build: text(uname.version()),
        ..Host::default()
    }
}

/// The namespace as it is now.
#[must_use]
pub fn snapshot(ns: &Netns) -> Snapshot {
    let mut interfaces: Vec<Interface> =
        ip(ns, "address show").iter().map(|link| interface(ns, link)).collect();
    interfaces.sort_by_key(|interface| interface.index);
    let links = ip(ns, "link show");
    for link in &links {
        let of = |name: &Value| {
            interfaces.iter().find(|i| name.as_str().is_some_and(|n| i.name == IfName::from(n)))
        };
        let master = of(&link["master"]).map(|master| master.index);
        let index = of(&link["ifname"]).unwrap().index;
        interfaces.iter_mut().find(|interface| interface.index == index).unwrap().master = master;
    }
    let vrfs = links.iter().filter_map(|link| link["linkinfo"]["info_data"]["table"].as_u64());
    let mut tables = vec![(255, "local".to_owned()), (254, "main".to_owned())];
    tables.extend(vrfs.map(|table| (u32::try_from(table).unwrap(), table.to_string())));
    let index = |name: &Value| {
        let name = IfName::from(name.as_str()?);
        interfaces.iter().find(|interface| interface.name == name).map(|interface| interface.index)
    };
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        for (table, name) in &tables {
            for route in ip(ns, &format!("{family} route show table {name}")) {
                routes.extend(self::route(&route, *table, family == "-4", &index));
            }
        }
    }
    // Like the program's snapshot, only routes that do not follow from addresses.
    let own = |route: &Route| {
        interfaces.iter().flat_map(|interface| &interface.addresses).any(|address| {
            let net = IpNet::new(address.address, address.prefix).unwrap().trunc();
            let host = IpNet::from(address.address);
            route.destination == host || route.destination == net
        })
    };
    routes.retain(|route| !own(route));
    let names = [
        "net.ipv6.bindv6only",
        "net.ipv4.ip_nonlocal_bind",
        "net.ipv6.ip_nonlocal_bind",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.conf.all.route_localnet",
        "net.ipv6.conf.all.disable_ipv6",
        "net.ipv4.tcp_l3mdev_accept",
        "net.ipv4.udp_l3mdev_accept",
    ];
    let settings = names.iter().filter_map(|name| Some(((*name).to_owned(), setting(ns, name)?))).collect();
    Snapshot {
        host: kernel(),
        complete: true,
        interfaces,
        routes,
        settings,
        ipv6_available: true,
        ..Snapshot::default()
    }
}

fn interface(ns: &Netns, link: &Value) -> Interface {
    let name = link["ifname"].as_str().unwrap();
    let flag = |flag: &str| link["flags"].as_array().unwrap().iter().any(|f| f == flag);
    let index = u32::try_from(link["ifindex"].as_u64().unwrap()).unwrap();
    let addresses = link["addr_info"].as_array().unwrap().iter().filter(|a| a["local"].is_string());
    let settings: BTreeMap<String, i64> = ["ipv4.route_localnet", "ipv6.disable_ipv6"]
        .iter()
        .filter_map(|key| {
            let (family, rest) = key.split_once('.').unwrap();
            Some(((*key).to_owned(), setting(ns, &format!("net.{family}.conf.{name}.{rest}"))?))
        })
        .collect();
    Interface {
        up: flag("UP"),
        running: flag("UP"),
        loopback: flag("LOOPBACK"),
        point_to_point: flag("POINTOPOINT"),
        multicast: flag("MULTICAST"),
        kind: link["linkinfo"]["info_kind"].as_str().map(Into::into),
        addresses: addresses.map(|a| address(a, index)).collect(),
        settings,
        ..Interface::new(index, IfName::from(name))
    }
}

fn address(info: &Value, index: u32) -> InterfaceAddress {
    let address: IpAddr = info["local"].as_str().unwrap().parse().unwrap();
    let states = [
        ("tentative", AddrState::Tentative),
        ("dadfailed", AddrState::Dadfailed),
        ("optimistic", AddrState::Optimistic),
        ("secondary", AddrState::Secondary),
        ("deprecated", AddrState::Deprecated),
    ];
    let class = AddrClass::of(address);
    InterfaceAddress {
        address,
        prefix: u8::try_from(info["prefixlen"].as_u64().unwrap()).unwrap(),
        family: Family::of(address),
        class,
        scope_id: (address.is_ipv6() && class == AddrClass::Link).then_some(index),
        label: None,
        peer: info["address"].as_str().map(|text| text.parse().unwrap()),
        broadcast: info["broadcast"].as_str().map(|text| text.parse().unwrap()),
        scope: serde_json::from_value(info["scope"].clone()).unwrap(),
        state: states.iter().filter(|(key, _)| info[*key] == true).map(|&(_, state)| state).collect(),
    }
}

fn route(route: &Value, table: u32, ipv4: bool, index: &impl Fn(&Value) -> Option<u32>) -> Option<Route> {
    let kind = match route["type"].as_str() {
        None | Some("unicast") => RouteKind::Unicast,
        Some("local") => RouteKind::Local,
        Some("broadcast") => RouteKind::Broadcast,
        Some(_) => RouteKind::Other,
    };
    let destination = match route["dst"].as_str()? {
        "default" if ipv4 => "0.0.0.0/0".parse().unwrap(),
        "default" => "::/0".parse().unwrap(),
        text => text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).unwrap(),
    };
    let address = |key: &str| route[key].as_str().map(|text| text.parse().unwrap());
    Some(Route {
        interface: index(&route["dev"]),
        gateway: address("gateway"),
        source: address("prefsrc"),
        ..Route::new(table, kind, destination)
    })
}

/// Waits until every IPv6 address is in use. The kernel adds its local route later, and much later on a busy machine.
pub fn settle(ns: &Netns) {
    settle_those(ns, &|_| true);
}

/// The same, if some addresses never become usable.
pub fn settle_usable(ns: &Netns) {
    settle_those(ns, &|line| !line.contains("tentative") && !line.contains("dadfailed"));
}

fn settle_those(ns: &Netns, counts: &dyn Fn(&str) -> bool) {
    let text = |words: &str| {
        let output = ns.output(Command::new("ip").args(words.split(' ')));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let begun = Instant::now();
    loop {
        let routes = text("-6 route show table all");
        let addresses = text("-o -6 address show");
        let missing = addresses.lines().filter(|line| counts(line)).find(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (device, address) = (words[1], words[3].split('/').next().unwrap());
            let route = format!("local {address} dev {device} ");
            !routes.lines().any(|line| line.starts_with(&route))
        });
        match missing {
            None => return,
            Some(line) => assert!(begun.elapsed() < Duration::from_secs(30), "never in use: {line}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
