//! Builds a lab: performs the operations of a plan on one thread, which moves from namespace to namespace.
//!
//! Nothing is removed by name: a namespace ends with its last descriptor, however the process ends.

use std::io;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::ops::{Action, Operation, Plan};
use crate::model::ruleset::Ruleset;
use crate::model::{AddrState, IfName, Snapshot};
use crate::sys::netns::{self, Namespace};
use crate::sys::{self, Error, NamespaceRefusal, Network, Replayed};

/// Timeout until an address without duplicate address detection becomes usable.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A running lab. It ends when it is dropped and its last socket is closed.
#[derive(Debug)]
pub struct Lab {
    /// Its plan.
    pub plan: Plan,
    /// What could not be done but may not matter, one sentence each.
    pub gaps: Vec<String>,
    namespaces: Vec<Namespace>,
    rules: OnceLock<Replayed>,
}

/// Why a lab could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No namespace can be created.
    #[error(transparent)]
    Refused(#[from] NamespaceRefusal),
    /// An operation failed.
    #[error("{source} (iproute2: {command})")]
    Operation {
        /// The operation as a command.
        command: String,
        /// The failure.
        source: Error,
    },
}

impl Lab {
    /// Builds the lab. The process must be able to create namespaces: see [`netns::prepare`].
    ///
    /// # Errors
    /// The first operation that fails; everything is removed again.
    pub fn build(plan: Plan) -> Result<Lab, BuildError> {
        let namespaces: Vec<Namespace> =
            plan.nodes.iter().map(|_| Namespace::new()).collect::<Result<_, _>>()?;
        let mut lab = Lab { plan, gaps: Vec::new(), namespaces, rules: OnceLock::new() };
        let operations = std::mem::take(&mut lab.plan.operations);
        let result = lab.perform(&operations);
        lab.plan.operations = operations;
        lab.gaps = result?;
        Ok(lab)
    }

    /// Performs further operations, such as those of an event. Returns what was left out.
    ///
    /// # Errors
    /// The first operation that fails; earlier operations stay in effect.
    pub fn perform(&self, operations: &[Operation]) -> Result<Vec<String>, BuildError> {
        let result = std::thread::scope(|scope| scope.spawn(|| self.perform_here(operations)).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn perform_here(&self, operations: &[Operation]) -> Result<Vec<String>, BuildError> {
        let mut gaps = Vec::new();
        let mut networks: Vec<Option<Network>> = self.namespaces.iter().map(|_| None).collect();
        let mut here = None;
        for operation in operations {
            let result = (|| {
                let namespace = self.namespace(operation.node)?;
                if here != Some(operation.node) {
                    namespace.enter().map_err(|error| Error::call("enter", "a node", error))?;
                    here = Some(operation.node);
                }
                let network =
                    networks.get_mut(operation.node).ok_or(Error::Unsupported { what: "the node" })?;
                let network = match network {
                    Some(network) => network,
                    None => network.insert(Network::here()?),
                };
                self.act(network, &operation.action, &mut gaps)
            })();
            let Err(source) = result else { continue };
            let command = self.plan.commands(operation).pop().unwrap_or_default();
            match operation.action {
                // Without its links it is not a copy.
                Action::Namespace | Action::Wire { .. } => {
                    return Err(BuildError::Operation { command, source });
                }
                // The kernel created or removed it automatically.
                Action::Route(_) if self.plan.copies && is(&source, io::ErrorKind::AlreadyExists) => {}
                Action::RemoveAddress(..)
                    if self.plan.copies && is(&source, io::ErrorKind::AddrNotAvailable) => {}
                _ if self.plan.copies => gaps.push(format!("{source} (iproute2: {command})")),
                _ => return Err(BuildError::Operation { command, source }),
            }
        }
        gaps.sort();
        gaps.dedup();
        Ok(gaps)
    }

    fn act(&self, network: &mut Network, action: &Action, gaps: &mut Vec<String>) -> Result<(), Error> {
        match action {
            Action::Namespace => Ok(()),
            Action::Setting { path, value, optional } => set(path, value, *optional, gaps),
            Action::Wire { here, there, other } => network.add_veth(here, there, self.namespace(*other)?),
            Action::Bridge(link) => network.add_bridge(link),
            Action::Vrf(link, table) => network.add_vrf(link, *table),
            Action::Macvlan { link, parent, other } => {
                let other = other.map(|node| self.namespace(node)).transpose()?;
                network.add_macvlan(link, parent, other)
            }
            Action::Port(port, bridge) => network.set_master(port, Some(bridge)),
            Action::Delete(interface) => network.delete_link(interface),
            Action::Address(interface, address) => network.add_address(interface, address),
            Action::RemoveAddress(interface, net) => network.delete_address(interface, *net),
            Action::Up(interface, up) => network.set_up(interface, *up),
            Action::Rename(interface, to) => network.rename(interface, to),
            Action::AltName(interface, altname) => network.add_altname(interface, altname),
            Action::Route(route) => network.add_route(route),
            Action::Rule(rule) => network.add_rule(rule),
            Action::RemoveRule(rule) => network.delete_rule(rule),
            Action::Neighbour(interface, address, mac) => network.add_neighbour(interface, *address, *mac),
            Action::Settle(interface) => network.settle(interface),
            Action::Checked(interface, address) => {
                let begun = Instant::now();
                while is_being_checked(interface, *address)? {
                    if begun.elapsed() > LONGEST_WAIT {
                        gaps.push(format!("the check of {address} for duplicates did not end in time"));
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }
            Action::Ready => {
                if !network.wait_for_addresses(LONGEST_WAIT)? {
                    gaps.push("addresses of a node could not be used in time".to_owned());
                }
                Ok(())
            }
            Action::ForgetNeighbours => network.forget_neighbours(),
            Action::Filter(rule) => filter(rule, gaps),
            Action::Ruleset(rules) => {
                netns::require_own().map_err(|error| Error::call("replay", "the packet filters", error))?;
                let replayed = sys::replay_rules(rules);
                gaps.extend(replayed.missing.iter().cloned());
                let _ = self.rules.set(replayed);
                Ok(())
            }
        }
    }

    fn namespace(&self, node: usize) -> Result<&Namespace, Error> {
        self.namespaces.get(node).ok_or(Error::Unsupported { what: "the node" })
    }

    /// The rules of packet filters that the plan replays.
    #[must_use]
    pub fn ruleset(&self) -> Option<&Ruleset> {
        self.plan.operations.iter().rev().find_map(|operation| match &operation.action {
            Action::Ruleset(rules) => Some(rules.as_ref()),
            _ => None,
        })
    }

    /// Result of replaying packet filters; `None` if none were replayed.
    #[must_use]
    pub fn rules(&self) -> Option<&Replayed> {
        self.rules.get()
    }

    /// The namespaces of the nodes, in their order.
    #[must_use]
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// The current network of a node.
    ///
    /// # Errors
    /// Those of [`sys::snapshot`].
    pub fn snapshot(&self, node: usize) -> Result<Snapshot, Error> {
        self.namespace(node)?.run(sys::snapshot).map_err(|error| Error::call("enter", "a node", error))?
    }
}

/// Whether duplicate address detection of an address still runs, in the calling thread's namespace.
fn is_being_checked(interface: &IfName, address: IpAddr) -> Result<bool, Error> {
    let snapshot = sys::snapshot()?;
    let found = snapshot.addresses().find(|(owner, own)| owner.name == *interface && own.address == address);
    Ok(found.is_some_and(|(_, own)| own.is(AddrState::Tentative) && !own.is(AddrState::Dadfailed)))
}

/// The reason for a read-only `/proc/sys`, and the fix.
const PROTECTED: &str =
    "a container protects /proc/sys unless it is started with `--security-opt systempaths=unconfined`";

fn is(error: &Error, kind: io::ErrorKind) -> bool {
    matches!(error, Error::Call { source, .. } if source.kind() == kind)
}

fn set(path: &str, value: &str, optional: bool, gaps: &mut Vec<String>) -> Result<(), Error> {
    match netns::write_setting(path, value) {
        Ok(()) => Ok(()),
        // Some kernels lack some settings.
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if optional => {
            // The namespace may already have the value.
            if netns::read_setting(path).is_ok_and(|now| now == value) {
                return Ok(());
            }
            let remedy = match error.kind() {
                io::ErrorKind::ReadOnlyFilesystem => format!(" ({PROTECTED})"),
                _ => String::new(),
            };
            gaps.push(format!("{} could not be set to {value}: {error}{remedy}", path.replace('/', ".")));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Err(Error::call("set", format!("{} ({PROTECTED})", path.replace('/', ".")), error))
        }
        Err(error) => Err(Error::call("set", path.replace('/', "."), error)),
    }
}

/// Adds a rule with `nft`, the only program that a lab may start. Without it the rule is left out and reported.
fn filter(rule: &str, gaps: &mut Vec<String>) -> Result<(), Error> {
    let refused = |because: &str| {
        let error = io::Error::new(io::ErrorKind::PermissionDenied, because.to_owned());
        Err(Error::call("add", format!("the filter {rule:?}"), error))
    };
    // One statement in one table, whatever the caller checked: no other command, file or chain.
    if rule.contains(|c: char| c.is_control() || matches!(c, ';' | '\\' | '#' | '$' | '`'))
        || !is_balanced(rule)
    {
        return refused("a rule is one statement on one line");
    }
    netns::require_own().map_err(|error| Error::call("add", format!("the filter {rule:?}"), error))?;
    let script = format!(
        "add table inet bindscope\nadd chain inet bindscope input {{ type filter hook input priority 0; policy accept; }}\nadd rule inet bindscope input {rule}\n"
    );
    let run = || -> io::Result<std::process::Output> {
        netns::keep_network_rights()?;
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            io::Write::write_all(&mut stdin, script.as_bytes())?;
        }
        child.wait_with_output()
    };
    match run() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let line = said.lines().next().unwrap_or_default().to_owned();
            Err(Error::call("add", format!("the filter {rule:?}"), io::Error::other(line)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            gaps.push(format!(
                "the filter {rule:?} is left out: the command nft is not installed (Debian: nftables)"
            ));
            Ok(())
        }
        Err(error) => Err(Error::call("run", "nft", error)),
    }
}

/// Whether a rule closes only braces that it opened, so that it cannot end the enclosing statement.
fn is_balanced(rule: &str) -> bool {
    let depth = rule.bytes().try_fold(0_usize, |depth, byte| match byte {
        b'{' => Some(depth + 1),
        b'}' => depth.checked_sub(1),
        _ => Some(depth),
    });
    depth == Some(0)
}
