//! Multicast groups that the interfaces have joined, for all programs: `/proc/net/igmp` and `igmp6` (proc(5)).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The groups that interfaces of the calling thread's network namespace have joined, each with the indexes of those
/// interfaces; `None` if they cannot be read.
#[must_use]
pub fn groups() -> Option<BTreeMap<IpAddr, Vec<u32>>> {
    let mut groups = ipv4(&std::fs::read("/proc/thread-self/net/igmp").ok()?);
    // Without IPv6 there is no such file, and there are no such groups.
    groups.extend(ipv6(&std::fs::read("/proc/thread-self/net/igmp6").unwrap_or_default()));
    let mut by_group: BTreeMap<IpAddr, Vec<u32>> = BTreeMap::new();
    for (group, interface) in groups {
        by_group.entry(group).or_default().push(interface);
    }
    Some(by_group)
}

/// One line for each interface, which starts with its index. Below it is one line for each group, which starts with
/// blanks and the group's 32 bits in the machine's byte order (`igmp_mc_seq_show()` of `net/ipv4/igmp.c`).
fn ipv4(text: &[u8]) -> Vec<(IpAddr, u32)> {
    let mut groups = Vec::new();
    let mut interface = None;
    for line in text.split(|&byte| byte == b'\n') {
        let first = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
        let first = first.and_then(|word| std::str::from_utf8(word).ok()).unwrap_or_default();
        if line.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            interface = first.parse().ok();
        } else if let (Some(interface), Ok(group)) = (interface, u32::from_str_radix(first, 16)) {
            groups.push((Ipv4Addr::from(group.to_ne_bytes()).into(), interface));
        }
    }
    groups
}

/// Index, name, group and more in each line (`igmp6_mc_seq_show()` of `net/ipv6/mcast.c`). A name has no white space.
fn ipv6(text: &[u8]) -> Vec<(IpAddr, u32)> {
    let of_line = |line: &[u8]| {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let interface = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let group = std::str::from_utf8(words.nth(1)?).ok()?;
        let bits = u128::from_str_radix(group, 16).ok().filter(|_| group.len() == 32)?;
        Some((Ipv6Addr::from_bits(bits).into(), interface))
    };
    text.split(|&byte| byte == b'\n').filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format of Linux 6.18, with a name that is not text.
    #[test]
    fn groups_are_read_whatever_the_names() {
        let igmp = b"Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
            1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
            2\t7\xff:       :     2      V3\n\t\t\t\tFB0000E0     1 0:00000000\t\t0\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let group = |text: &str, interface| (text.parse::<IpAddr>().unwrap(), interface);
        let expected = [group("224.0.0.1", 1), group("224.0.0.251", 2), group("224.0.0.1", 2)];
        if cfg!(target_endian = "little") {
            assert_eq!(ipv4(igmp), expected);
        }
        let igmp6 = b"1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
            12   \x1b\xff               ff0200000000000000000000000000fb     1 00000008 0\nx\n";
        assert_eq!(ipv6(igmp6), [group("ff02::1", 1), group("ff02::fb", 12)]);
    }
}
