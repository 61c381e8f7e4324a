//! The tables of `GetExtendedTcpTable` and `GetExtendedUdpTable` of Windows (`iphlpapi.h`), decoded without their headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Family, ListeningSocket, Owner, Owners, Protocol, SocketView, addr};

/// The layout of a row: the offsets of its fields in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) protocol: Protocol,
    pub(super) family: Family,
    address: usize,
    /// The scope id, for IPv6.
    scope: usize,
    port: usize,
    owner: usize,
    size: usize,
}

/// `MIB_TCPROW_OWNER_PID`, `MIB_TCP6ROW_OWNER_PID`, `MIB_UDPROW_OWNER_PID` and `MIB_UDP6ROW_OWNER_PID` (`tcpmib.h`, `udpmib.h`).
pub(super) const LAYOUTS: [Layout; 4] = [
    Layout {
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
        address: 4,
        scope: 0,
        port: 8,
        owner: 20,
        size: 24,
    },
    Layout {
        protocol: Protocol::Tcp,
        family: Family::Ipv6,
        address: 0,
        scope: 16,
        port: 20,
        owner: 52,
        size: 56,
    },
    Layout {
        protocol: Protocol::Udp,
        family: Family::Ipv4,
        address: 0,
        scope: 0,
        port: 4,
        owner: 8,
        size: 12,
    },
    Layout {
        protocol: Protocol::Udp,
        family: Family::Ipv6,
        address: 0,
        scope: 16,
        port: 20,
        owner: 24,
        size: 28,
    },
];

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: IpAddr,
    pub(super) scope_id: u32,
    pub(super) port: u16,
    /// The owner's process id; 0 when the system does not tell.
    pub(super) owner: u32,
}

/// The rows of a table: their number, then the rows. A table that is shorter than its number says ends there.
pub(super) fn rows(table: &[u8], layout: Layout) -> Vec<Row> {
    let (Some(count), Some(rest)) = (number(table, 0), table.get(4..)) else { return Vec::new() };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    rest.chunks_exact(layout.size).take(count).filter_map(|bytes| row(bytes, layout)).collect()
}

fn row(bytes: &[u8], layout: Layout) -> Option<Row> {
    let (address, scope_id) = match layout.family {
        Family::Ipv4 => (Ipv4Addr::from(*bytes.get(layout.address..)?.first_chunk::<4>()?).into(), 0),
        Family::Ipv6 => {
            let octets = *bytes.get(layout.address..)?.first_chunk::<16>()?;
            (Ipv6Addr::from(octets).into(), number(bytes, layout.scope)?)
        }
    };
    // In network byte order, in the first half of the field.
    let port = u16::from_be_bytes(*bytes.get(layout.port..)?.first_chunk()?);
    Some(Row { address, scope_id, port, owner: number(bytes, layout.owner)? })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The socket of a row. Its options are not in the table. `exe` is the executable of its owner, where it could be read.
pub(super) fn socket(row: Row, layout: Layout, exe: Option<String>) -> ListeningSocket {
    let owner = (row.owner != 0).then(|| {
        let command = exe
            .as_deref()
            .and_then(|exe| exe.rsplit(['\\', '/']).next())
            .map_or_else(|| format!("pid {}", row.owner), str::to_owned);
        Owner { exe, ..Owner::of(row.owner, command) }
    });
    ListeningSocket {
        // Windows has no sockets that are bound to a device.
        device_known: true,
        owners: owner.map(|owner| Owners::from(vec![owner])),
        ..ListeningSocket::of(SocketView {
            family: layout.family,
            scope_id: (addr::needs_zone(row.address) && row.scope_id != 0).then_some(row.scope_id),
            ..SocketView::of(layout.protocol, row.address, row.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SocketState;

    fn table(count: u32, rows: &[Vec<u8>]) -> Vec<u8> {
        [count.to_ne_bytes().to_vec(), rows.concat()].concat()
    }

    fn field(port: u16) -> [u8; 4] {
        let [high, low] = port.to_be_bytes();
        [high, low, 0, 0]
    }

    #[test]
    fn rows_of_all_tables_are_decoded() {
        let [tcp4, tcp6, udp4, udp6] = LAYOUTS;
        let pid = 1234u32.to_ne_bytes();
        let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
        let four = [&2u32.to_ne_bytes()[..], &[127, 0, 0, 1], &field(8080), &[0; 8], &pid].concat();
        let found = rows(&table(1, &[four]), tcp4);
        assert_eq!(found, [Row { address: [127, 0, 0, 1].into(), scope_id: 0, port: 8080, owner: 1234 }]);
        let six =
            [&link_local.octets()[..], &7u32.to_ne_bytes(), &field(443), &[0; 24], &2u32.to_ne_bytes(), &pid]
                .concat();
        let found = rows(&table(1, &[six]), tcp6);
        assert_eq!(found, [Row { address: link_local.into(), scope_id: 7, port: 443, owner: 1234 }]);
        let shown = socket(found[0], tcp6, Some(r"C:\Windows\System32\svchost.exe".to_owned()));
        assert_eq!((shown.view.scope_id, shown.state), (Some(7), SocketState::Listen));
        assert_eq!(shown.owners.unwrap()[0].command, "svchost.exe");
        let four = [&[0, 0, 0, 0][..], &field(53), &0u32.to_ne_bytes()].concat();
        let found = rows(&table(1, &[four]), udp4);
        assert_eq!(found, [Row { address: [0, 0, 0, 0].into(), scope_id: 0, port: 53, owner: 0 }]);
        assert_eq!(socket(found[0], udp4, None).owners, None);
        let six = [&Ipv6Addr::UNSPECIFIED.octets()[..], &[0; 4], &field(53), &pid].concat();
        assert_eq!(rows(&table(1, &[six]), udp6)[0].port, 53);
    }

    #[test]
    fn a_table_may_be_shorter_or_longer_than_it_says() {
        let row = vec![0; 12];
        assert_eq!(rows(&table(9, std::slice::from_ref(&row)), LAYOUTS[2]).len(), 1);
        assert_eq!(rows(&table(1, &[row.clone(), row.clone()]), LAYOUTS[2]).len(), 1);
        assert_eq!(rows(&[1, 0], LAYOUTS[2]), []);
        assert_eq!(rows(&table(1, &[row[..11].to_vec()]), LAYOUTS[2]), []);
    }
}
