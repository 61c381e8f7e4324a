//! Tests of the module.

use super::*;

#[test]
fn mptcp_sockets_are_counted_where_the_kernel_counts_them() {
    // Linux 6.18.
    let text = "protocol  size sockets  memory press maxhdr  slab module     cl co di\n\
                MPTCPv6   2064      1     234   no       0   yes  kernel      y  y  y\n\
                UDP       1408      7     12    NI       0   yes  kernel      y  y  y\n\
                MPTCP     1936      2     234   no       0   yes  kernel      y  y  y\n";
    assert_eq!(mptcp_sockets(text), Some(3));
    assert_eq!(mptcp_sockets(&text.replace("MPTCP", "TCP")), None);
}

#[test]
fn dumped_sockets_come_once_and_in_the_whole_order() {
    let mut names = Names::default();
    let mut dumped = Vec::new();
    for number in 0..400u32 {
        // Few values of each part, so that many are equal but for the last.
        let part = |divisor: u32, count: u32| number.wrapping_mul(2_654_435_761) / divisor % count;
        let local: IpAddr = match part(3, 5) {
            0 => [0, 0, 0, 0].into(),
            1 => [127, 0, 0, 1].into(),
            2 => IpAddr::V6(0.into()),
            3 => IpAddr::V6((0xfe80 << 112 | 1).into()),
            _ => IpAddr::V6((0xfe80 << 112 | u128::from(part(97, 3))).into()),
        };
        let (family, protocol) = match (local, part(11, 2)) {
            (IpAddr::V4(_), 0) => (libc::AF_INET, Protocol::Tcp),
            (IpAddr::V4(_), _) => (libc::AF_INET, Protocol::Udp),
            (IpAddr::V6(_), 0) => (libc::AF_INET6, Protocol::Tcp),
            (IpAddr::V6(_), _) => (libc::AF_INET6, Protocol::Udp),
        };
        let socket = DiagSocket {
            family: family as u8,
            state: state::LISTEN,
            expires_ms: 0,
            local,
            local_port: [1, 80, 65535][part(7, 3) as usize],
            device: 0,
            receive_queue: 0,
            send_queue: 0,
            uid: part(19, 2),
            inode: number,
            // Some kernels make none.
            cookie: [u64::MAX, 0, u64::from(number)][part(23, 3) as usize],
            v6only: None,
            cgroup: None,
            transparent: None,
            mark: None,
        };
        dumped.push((protocol, socket));
    }
    let mut expected: Vec<ListeningSocket> =
        dumped.iter().map(|(protocol, socket)| listening(socket, *protocol, Some(1), &mut names)).collect();
    expected.sort_by_cached_key(ListeningSocket::order);
    let again: Vec<_> =
        dumped.iter().filter(|(_, socket)| (1..400).contains(&socket.cookie)).cloned().collect();
    assert!(again.len() > 100);
    dumped.extend(again);
    assert_eq!(ordered(&dumped, Some(1), &mut names), expected);
}
