//! The identity of a listener, which is stable from run to run: protocol, port unless the kernel chose it, role of the
//! address, and program. Baselines, JUnit, SARIF and `--watch` use it. It never contains a pid, an inode or a leased
//! address.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::escape::escape;
use crate::model::{AddrClass, Family, ListeningSocket, Protocol};

/// Identity of a listener, independent of the process and of the current address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The protocol.
    pub protocol: Protocol,
    /// Port; `None` if the kernel may have chosen it and the program is known, which then identifies the listener.
    pub port: Option<u16>,
    /// Role of the address.
    pub role: Role,
    /// The owner; `None` if unknown.
    pub program: Option<String>,
}

/// Role of an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A fixed address: a wildcard, loopback, a multicast group, or one that no interface has.
    Fixed(IpAddr),
    /// An address of this class and family on this interface.
    On(String, AddrClass, Family),
}

impl Identity {
    /// The identity of a socket.
    #[must_use]
    pub fn of(socket: &ListeningSocket) -> Identity {
        let view = &socket.view;
        let program = program(socket);
        let chosen = socket.port_chosen == Some(true) && program.is_some();
        Identity {
            protocol: view.protocol,
            port: (!chosen).then_some(view.port),
            role: Role::of(socket),
            program,
        }
    }
}

impl Role {
    /// The role of a socket's address.
    #[must_use]
    pub fn of(socket: &ListeningSocket) -> Role {
        let address = socket.view.address;
        match (&socket.address_owner, AddrClass::of(address)) {
            (Some(owner), class @ (AddrClass::Link | AddrClass::Private | AddrClass::Global)) => {
                Role::On(super::plain(owner), class, Family::of(address.to_canonical()))
            }
            _ => Role::Fixed(address),
        }
    }
}

/// The owner of a socket: the socket unit that opened it, the kernel, the first process (for all processes that
/// inherited the socket), or the executables of its processes.
fn program(socket: &ListeningSocket) -> Option<String> {
    if let Some(activation) = &socket.activation {
        return Some(activation.socket_unit.clone());
    }
    let owners = socket.owners.as_deref()?;
    if owners.is_empty() {
        let holder = socket.kernel.as_ref();
        return Some(holder.map_or_else(
            || "kernel".to_owned(),
            |holder| {
                let name = holder.name.as_deref().unwrap_or_default();
                format!("kernel {} {name}", holder.kind).trim_end().to_owned()
            },
        ));
    }
    let first = owners.iter().find(|owner| owner.pid == 1);
    let exes: Option<BTreeSet<&str>> = match first {
        Some(first) => Some(first.exe.as_deref().into_iter().collect()),
        None => owners.iter().map(|owner| owner.exe.as_deref()).collect(),
    };
    exes.filter(|exes| !exes.is_empty()).map(|exes| exes.into_iter().collect::<Vec<_>>().join(", "))
}

impl fmt::Display for Identity {
    /// Format `tcp port 22 at 0.0.0.0 by /usr/sbin/sshd`. Escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.protocol)?;
        match self.port {
            Some(port) => write!(f, "port {port}")?,
            None => f.write_str("port chosen by the kernel")?,
        }
        match &self.role {
            Role::Fixed(address) => write!(f, " at {address}")?,
            Role::On(interface, class, family) => {
                write!(f, " at the {class} {family} address of {}", escape(interface))?;
            }
        }
        match &self.program {
            Some(program) => write!(f, " by {}", escape(program)),
            None => Ok(()),
        }
    }
}

/// The identities of sockets in order, as unique texts: repeated identities are numbered from the second on.
#[must_use]
pub fn names<'a>(sockets: impl IntoIterator<Item = &'a ListeningSocket>) -> Vec<String> {
    let mut seen: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    let name = |socket: &ListeningSocket| {
        let text = Identity::of(socket).to_string();
        let count = seen.entry(text.clone()).and_modify(|count| *count += 1).or_insert(1);
        if *count == 1 { text } else { format!("{text} #{count}") }
    };
    sockets.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::tests::{owner, socket};
    use crate::model::IfName;

    fn at(text: &str, interface: &str, chosen: bool) -> ListeningSocket {
        ListeningSocket {
            address_owner: Some(IfName::from(interface)),
            port_chosen: Some(chosen),
            ..socket(text)
        }
    }

    #[test]
    fn a_renewed_address_and_a_chosen_port_are_the_same_listener() {
        let same = |one: &ListeningSocket, two: &ListeningSocket| Identity::of(one) == Identity::of(two);
        let mut restarted = at("tcp 10.0.0.77:41999", "eth0", true);
        restarted.owners = Some(vec![owner(77, "server", "/usr/sbin/server")].into());
        restarted.inode = Some(3);
        assert!(same(&at("tcp 10.0.0.5:40000", "eth0", true), &restarted));
        for other in [
            at("tcp 10.0.0.5:40000", "eth1", true),
            at("tcp 10.0.0.5:40000", "eth0", false),
            at("tcp 8.8.8.8:40000", "eth0", true),
            at("udp 10.0.0.5:40000", "eth0", true),
            ListeningSocket { owners: Some(vec![owner(1, "x", "/x")].into()), ..restarted.clone() },
            socket("tcp 0.0.0.0:40000"),
        ] {
            assert!(!same(&other, &restarted), "{}", Identity::of(&other));
        }
        let unknown = ListeningSocket { owners: None, ..at("tcp 10.0.0.5:40000", "eth0", true) };
        assert_eq!(Identity::of(&unknown).port, Some(40000), "no program identifies it");
    }

    #[test]
    fn the_first_process_and_the_service_that_it_starts_are_one_listener() {
        let mut idle = socket("tcp 0.0.0.0:22");
        idle.owners = Some(vec![owner(1, "init", "/sbin/init")].into());
        let mut busy = idle.clone();
        busy.owners = Some(vec![owner(1, "init", "/sbin/init"), owner(9, "sshd", "/usr/sbin/sshd")].into());
        assert_eq!(Identity::of(&idle), Identity::of(&busy));
    }

    #[test]
    fn names_contain_no_pid_and_are_numbered() {
        let one = socket("tcp 0.0.0.0:80");
        let mut two = one.clone();
        Arc::make_mut(two.owners.as_mut().unwrap())[0].pid = 4711;
        two.inode = Some(8);
        assert_eq!(
            names([&one, &two]),
            ["tcp port 80 at 0.0.0.0 by /usr/sbin/server", "tcp port 80 at 0.0.0.0 by /usr/sbin/server #2"]
        );
        let leased = at("tcp 10.0.0.5:40000", "eth0", true);
        assert_eq!(
            names([&leased]),
            ["tcp port chosen by the kernel at the private IPv4 address of eth0 by /usr/sbin/server"]
        );
    }
}
