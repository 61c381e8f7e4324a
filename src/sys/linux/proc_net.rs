//! Socket tables of `/proc/net` (proc(5)): the fallback if sock_diag is refused, and the only source for a network
//! namespace that is visible but cannot be entered.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries, UdpState};
use procfs::{FromReadSI as _, LocalSystemInfo, ProcError};

use crate::model::{Family, ListeningSocket, Protocol, Queue, SocketView};

/// Reads one table: listening TCP or unconnected UDP sockets.
pub(super) fn read(
    path: impl AsRef<Path>,
    protocol: Protocol,
    family: Family,
    netns: Option<u64>,
) -> io::Result<Vec<ListeningSocket>> {
    let path = path.as_ref();
    let rows: Vec<_> = match protocol {
        Protocol::Tcp => TcpNetEntries::from_file(path, &LocalSystemInfo)
            .map_err(error)?
            .0
            .into_iter()
            .filter(|row| row.state == TcpState::Listen)
            .map(|row| (row.local_address, row.uid, row.inode, row.rx_queue))
            .collect(),
        Protocol::Udp => UdpNetEntries::from_file(path, &LocalSystemInfo)
            .map_err(error)?
            .0
            .into_iter()
            .filter(|row| row.state == UdpState::Close)
            .map(|row| (row.local_address, row.uid, row.inode, row.rx_queue))
            .collect(),
    };
    let socket = |(local, uid, inode, length): (SocketAddr, u32, u64, u32)| {
        let address = local.ip();
        let v6only =
            (family == Family::Ipv6 && !address.is_unspecified()).then(|| !address.to_canonical().is_ipv4());
        ListeningSocket {
            netns,
            uid: Some(uid),
            inode: (inode != 0).then_some(inode),
            queue: Some(Queue { length, limit: None }),
            ..ListeningSocket::of(SocketView {
                family,
                v6only,
                ..SocketView::of(protocol, address, local.port())
            })
        }
    };
    Ok(rows.into_iter().map(socket).collect())
}

/// A connection in `/proc/net/tcp` and `tcp6`.
pub(super) struct Row {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub uid: u32,
    /// 0 while it waits for accept.
    pub inode: u64,
}

/// The connections of one table that are established, or that the peer has closed for sending.
pub(super) fn connections(path: impl AsRef<Path>) -> io::Result<Vec<Row>> {
    let rows = TcpNetEntries::from_file(path.as_ref(), &LocalSystemInfo).map_err(error)?.0;
    let held = |state: &TcpState| matches!(state, TcpState::Established | TcpState::CloseWait);
    Ok(rows
        .into_iter()
        .filter(|row| held(&row.state))
        .map(|row| Row { local: row.local_address, peer: row.remote_address, uid: row.uid, inode: row.inode })
        .collect())
}

/// Decodes bytes as each of the tables. Returns the number of rows.
#[cfg(fuzzing)]
#[must_use]
pub fn decode(bytes: &[u8]) -> usize {
    let tcp = TcpNetEntries::from_read(bytes, &LocalSystemInfo).map_or(0, |rows| rows.0.len());
    tcp + UdpNetEntries::from_read(bytes, &LocalSystemInfo).map_or(0, |rows| rows.0.len())
}

fn error(error: ProcError) -> io::Error {
    match error {
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        ProcError::Io(error, _) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}
