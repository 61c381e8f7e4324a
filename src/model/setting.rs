//! The settings of a network namespace that a lab may change. Nothing else below `/proc/sys` is ever written.

/// Paths below `/proc/sys`; `*` stands for the name of an interface, `all` or `default`. Each is a setting of one network namespace
/// (`Documentation/networking/ip-sysctl.rst`): those that snapshots have, that labs need, and that decide or limit what clients see.
pub const CHANGEABLE: &[&str] = &[
    "net/core/somaxconn",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv4/fib_multipath_use_neigh",
    "net/ipv4/fwmark_reflect",
    "net/ipv4/icmp_echo_ignore_all",
    "net/ipv4/icmp_echo_ignore_broadcasts",
    "net/ipv4/icmp_msgs_burst",
    "net/ipv4/icmp_msgs_per_sec",
    "net/ipv4/icmp_ratelimit",
    "net/ipv4/icmp_ratemask",
    "net/ipv4/ip_default_ttl",
    "net/ipv4/ip_early_demux",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "net/ipv4/raw_l3mdev_accept",
    "net/ipv4/tcp_abort_on_overflow",
    "net/ipv4/tcp_early_demux",
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/tcp_l3mdev_accept",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_syn_retries",
    "net/ipv4/tcp_synack_retries",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/udp_early_demux",
    "net/ipv4/udp_l3mdev_accept",
    "net/ipv4/conf/*/accept_local",
    "net/ipv4/conf/*/accept_redirects",
    "net/ipv4/conf/*/accept_source_route",
    "net/ipv4/conf/*/arp_accept",
    "net/ipv4/conf/*/arp_announce",
    "net/ipv4/conf/*/arp_filter",
    "net/ipv4/conf/*/arp_ignore",
    "net/ipv4/conf/*/arp_notify",
    "net/ipv4/conf/*/bc_forwarding",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/ignore_routes_with_linkdown",
    "net/ipv4/conf/*/promote_secondaries",
    "net/ipv4/conf/*/proxy_arp",
    "net/ipv4/conf/*/route_localnet",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/conf/*/secure_redirects",
    "net/ipv4/conf/*/send_redirects",
    "net/ipv4/conf/*/src_valid_mark",
    "net/ipv4/neigh/*/app_solicit",
    "net/ipv4/neigh/*/delay_first_probe_time",
    "net/ipv4/neigh/*/mcast_resolicit",
    "net/ipv4/neigh/*/mcast_solicit",
    "net/ipv4/neigh/*/retrans_time_ms",
    "net/ipv4/neigh/*/ucast_solicit",
    "net/ipv6/bindv6only",
    "net/ipv6/fib_multipath_hash_policy",
    "net/ipv6/fwmark_reflect",
    "net/ipv6/icmp/echo_ignore_all",
    "net/ipv6/icmp/ratelimit",
    "net/ipv6/icmp/ratemask",
    "net/ipv6/ip_nonlocal_bind",
    "net/ipv6/conf/*/accept_dad",
    "net/ipv6/conf/*/accept_ra",
    "net/ipv6/conf/*/accept_redirects",
    "net/ipv6/conf/*/addr_gen_mode",
    "net/ipv6/conf/*/autoconf",
    "net/ipv6/conf/*/dad_transmits",
    "net/ipv6/conf/*/disable_ipv6",
    "net/ipv6/conf/*/enhanced_dad",
    "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/ignore_routes_with_linkdown",
    "net/ipv6/conf/*/keep_addr_on_down",
    "net/ipv6/conf/*/ndisc_notify",
    "net/ipv6/conf/*/optimistic_dad",
    "net/ipv6/conf/*/proxy_ndp",
    "net/ipv6/conf/*/router_solicitation_delay",
    "net/ipv6/conf/*/router_solicitations",
    "net/ipv6/conf/*/use_oif_addrs_only",
    "net/ipv6/conf/*/use_optimistic",
    "net/ipv6/conf/*/use_tempaddr",
    "net/ipv6/neigh/*/app_solicit",
    "net/ipv6/neigh/*/delay_first_probe_time",
    "net/ipv6/neigh/*/mcast_resolicit",
    "net/ipv6/neigh/*/mcast_solicit",
    "net/ipv6/neigh/*/retrans_time_ms",
    "net/ipv6/neigh/*/ucast_solicit",
];

/// Whether a lab may change the setting at this path below `/proc/sys`, such as `net/ipv4/conf/eth0/rp_filter`.
#[must_use]
pub fn is_changeable(path: &str) -> bool {
    CHANGEABLE.iter().any(|allowed| match allowed.split_once('*') {
        None => path == *allowed,
        Some((before, after)) => {
            path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(is_interface)
        }
    })
}

/// Whether a part of a path can only be the name of an interface: one that leads to no other directory.
fn is_interface(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= super::IfName::MAX_LEN
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}

/// Whether a value is one or several whole numbers, which is what every setting of the list has.
#[must_use]
pub fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 64
        && value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b' ' | b'\t' | b','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_a_network_namespace_are_changeable() {
        for path in [
            "net/core/somaxconn",
            "net/ipv4/ip_forward",
            "net/ipv4/conf/all/rp_filter",
            "net/ipv4/conf/eth0.100/rp_filter",
            "net/ipv6/conf/e$(x)/disable_ipv6",
        ] {
            assert!(is_changeable(path), "{path}");
        }
        for path in [
            "",
            "net",
            "net/",
            "kernel/randomize_va_space",
            "vm/overcommit_memory",
            "fs/protected_symlinks",
            "net/core/bpf_jit_enable",
            "net/ipv4/tcp_mem",
            "net/netfilter/nf_conntrack_max",
            "net/ipv4/ip_forward/",
            "net/ipv4//ip_forward",
            "/net/ipv4/ip_forward",
            "net/ipv4/conf/../../../kernel/randomize_va_space",
            "net/ipv4/conf/../rp_filter",
            "net/ipv4/conf/./rp_filter",
            "net/ipv4/conf//rp_filter",
            "net/ipv4/conf/a/b/rp_filter",
            "net/ipv4/conf/a b/rp_filter",
            "net/ipv4/conf/a\n/rp_filter",
            "net/ipv4/conf/sixteen_bytes_it/rp_filter",
            "net/ipv4/conf/eth0/rp_filter\0",
            "net/ipv4/conf/eth0/tag",
        ] {
            assert!(!is_changeable(path), "{path}");
        }
        for (value, good) in
            [("1", true), ("-1", true), ("1024 65535", true), ("", false), ("1\n", false), ("x", false)]
        {
            assert_eq!(is_value(value), good, "{value:?}");
        }
    }
}
