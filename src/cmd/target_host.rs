//! What `plan`, `probe` and `diff` share: the host they are about, and the sockets of a profile on it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::input::{self, Kind};
use super::result_limit::ResultLimit;
use super::{Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::lab::ruleset::{self, LoadError};
use crate::library::this_host;
use crate::model::Snapshot;
use crate::report::document;
use crate::report::plan::TargetHost;
use crate::sys;

/// What if the host were another one.
#[derive(Debug, Clone, clap::Args)]
pub struct HostArgs {
    /// Ask of the host in FILE, written there by `bindscope interfaces --format json`
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    host: Option<PathBuf>,
    /// What if a setting were another, such as net.ipv6.bindv6only=1 or net.ipv4.conf.eth0.route_localnet=1; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting, hide_short_help = true)]
    set: Vec<(String, i64)>,
    /// What if the packet filters were those of FILE: rules for `nft -f`, or the output of iptables-save or ip6tables-save. They are
    /// loaded in a copy of the network and read back
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    ruleset: Option<PathBuf>,
    /// What if the kernel had no IPv6
    #[arg(long, hide_short_help = true)]
    without_ipv6: bool,
    #[command(flatten)]
    pub(super) limit: ResultLimit,
}

impl HostArgs {
    /// Asks of the host in this file.
    pub fn with_host(&mut self, path: &Path) {
        self.host = Some(path.to_owned());
    }

    /// Asks what if the packet filters were those of this file.
    pub fn with_ruleset(&mut self, path: &Path) {
        self.ruleset = Some(path.to_owned());
    }
}

fn setting(text: &str) -> Result<(String, i64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let value = value.trim().parse().map_err(|_| "the value is a whole number")?;
    let name = name.trim().replace('/', ".");
    if name.starts_with("net.") { Ok((name, value)) } else { Err("the name begins with net.".to_owned()) }
}

impl HostArgs {
    /// This host, or the one in the file, with the changes asked for.
    ///
    /// # Errors
    /// Exit 2 for a file that is no snapshot and for a setting that nothing here depends on; exit 4 when this host cannot be read.
    pub fn subject(&self) -> Result<TargetHost, Failure> {
        let mut subject = match &self.host {
            Some(path) => elsewhere(path)?,
            None => here()?,
        };
        let mut problems = Vec::new();
        for (name, value) in &self.set {
            if let Err(problem) = change(&mut subject.snapshot, name, *value) {
                problems.push(problem);
            }
        }
        if !problems.is_empty() {
            return Err(Failure::usage(problems));
        }
        if self.without_ipv6 {
            without_ipv6(&mut subject.snapshot);
        }
        if let Some(path) = &self.ruleset {
            replace_rules(&mut subject.snapshot, path)?;
        }
        Ok(subject)
    }
}

/// The most bytes of a file with rules.
const LARGEST_RULES: u64 = 16 << 20;

/// Replaces the packet filters of a host by those of a file.
///
/// # Errors
/// Exit 2 for a file that cannot be read and for rules that are refused; exit 4 where no copy can be built.
pub fn replace_rules(snapshot: &mut Snapshot, path: &Path) -> Result<(), Failure> {
    const HELP: &str = "write rules as for `nft -f`, or the output of iptables-save";
    const RULES: Kind = Kind { code: Code::BAD_SNAPSHOT, missing: Code::BAD_SNAPSHOT, help: HELP };
    let name = input::origin(path.as_os_str());
    let bytes = input::read(path.as_os_str(), LARGEST_RULES, &RULES)?;
    let bad = |message: String| {
        Failure::usage(vec![Diagnostic::error(Code::BAD_SNAPSHOT, format!("{name}: {message}")).help(HELP)])
    };
    let text = String::from_utf8(bytes).map_err(|_| bad("the rules are not UTF-8".to_owned()))?;
    super::lab::prepare()?;
    snapshot.packet_filters = Some(ruleset::load(snapshot, &text).map_err(|error| match error {
        LoadError::Build(error) => super::lab::failed_at("the rules could not be loaded", error),
        LoadError::Refused { .. } => bad(crate::escape::printable(&error.to_string())),
        error => {
            let problem = Diagnostic::error(Code::LAB_FAILED, crate::escape::printable(&error.to_string()));
            Failure::new(Exit::Environment, problem.help("install nftables, and iptables for iptables-save"))
        }
    })?);
    Ok(())
}

/// This machine. Reads netlink and /proc; opens no socket of the families that it is about.
///
/// # Errors
/// Exit 4 when it cannot be read at all.
pub fn here() -> Result<TargetHost, Failure> {
    this_host().map_err(|error| {
        let problem =
            Diagnostic::error(Code::BIND_FAILED, format!("cannot read this host's network: {error}"));
        Failure::new(Exit::Environment, problem.help("`--host FILE` asks of a snapshot instead"))
    })
}

/// The host of a snapshot in a file, or on standard input as `-`.
///
/// # Errors
/// Exit 2 for a file that is not a snapshot.
pub fn elsewhere(path: &Path) -> Result<TargetHost, Failure> {
    const HELP: &str = "`bindscope interfaces --format json -o FILE` writes one";
    const SNAPSHOT: Kind = Kind { code: Code::BAD_SNAPSHOT, missing: Code::BAD_SNAPSHOT, help: HELP };
    let bytes = input::read(path.as_os_str(), document::LARGEST_SNAPSHOT, &SNAPSHOT)?;
    let snapshot = document::read_snapshot(&bytes).map_err(|error| {
        let name = input::origin(path.as_os_str());
        let problem =
            Diagnostic::error(Code::BAD_SNAPSHOT, format!("{name}: not a snapshot of a host: {error}"));
        Failure::usage(vec![problem.help(HELP)])
    })?;
    Ok(TargetHost::of_snapshot(snapshot))
}

/// The text of a regular file of the system, up to `largest` bytes.
///
/// # Errors
/// As `open(2)` and `read(2)`.
pub fn read_text(path: &Path, largest: u64) -> io::Result<String> {
    let mut text = String::new();
    sys::open_regular(path)?.0.take(largest).read_to_string(&mut text)?;
    Ok(text)
}

/// Changes a setting of the namespace, or of the interface in its name.
pub fn change(snapshot: &mut Snapshot, setting: &str, value: i64) -> Result<(), Diagnostic> {
    let parts = setting
        .strip_prefix("net.")
        .and_then(|rest| rest.split_once(".conf."))
        .and_then(|(family, rest)| Some((family, rest.rsplit_once('.')?)));
    match parts {
        Some((family, (interface, key))) if interface != "all" && interface != "default" => {
            let name = crate::model::IfName::from_escaped(interface);
            let Some(found) = snapshot.interfaces.iter_mut().find(|other| other.name == name) else {
                let problem =
                    Diagnostic::error(Code::BAD_SETTING, format!("no interface is called {interface}"));
                return Err(problem.help("`bindscope interfaces` lists them"));
            };
            let key = format!("{family}.{key}");
            match key.as_str() {
                "ipv4.route_localnet"
                | "ipv4.rp_filter"
                | "ipv4.arp_ignore"
                | "ipv4.arp_filter"
                | "ipv4.accept_local"
                | "ipv4.src_valid_mark" => {}
                // The kernel takes the addresses away, and with them their local routes.
                "ipv6.disable_ipv6" if value != 0 => {
                    let index = found.index;
                    found.addresses.retain(|address| address.address.is_ipv4());
                    snapshot
                        .routes
                        .retain(|route| route.interface != Some(index) || route.destination.addr().is_ipv4());
                }
                "ipv6.disable_ipv6" => {}
                _ => return Err(without_effect(setting)),
            }
            found.settings.insert(key, value);
            Ok(())
        }
        _ if KNOWN.contains(&setting) => {
            snapshot.settings.insert(setting.to_owned(), value);
            if setting == "net.ipv6.conf.all.disable_ipv6" && value != 0 {
                drop_ipv6_addresses(snapshot);
            }
            Ok(())
        }
        _ => Err(without_effect(setting)),
    }
}

fn without_effect(setting: &str) -> Diagnostic {
    let problem = Diagnostic::error(Code::BAD_SETTING, format!("no prediction depends on {setting}"));
    problem.help(format!(
        "those that matter: {}, and net.ipv4.conf.IF.{{rp_filter,src_valid_mark,arp_ignore,arp_filter,accept_local,route_localnet}} and net.ipv6.conf.IF.disable_ipv6",
        KNOWN.join(", ")
    ))
}

/// Settings of the namespace that predictions depend on.
const KNOWN: &[&str] = &[
    "net.ipv4.conf.all.accept_local",
    "net.ipv4.conf.all.arp_filter",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.src_valid_mark",
    "net.ipv4.fwmark_reflect",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.tcp_l3mdev_accept",
    "net.ipv4.udp_l3mdev_accept",
    "net.ipv6.bindv6only",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.fwmark_reflect",
    "net.ipv6.ip_nonlocal_bind",
];

fn without_ipv6(snapshot: &mut Snapshot) {
    snapshot.ipv6_available = false;
    drop_ipv6_addresses(snapshot);
}

fn drop_ipv6_addresses(snapshot: &mut Snapshot) {
    for interface in &mut snapshot.interfaces {
        interface.addresses.retain(|address| address.address.is_ipv4());
        interface.settings.insert("ipv6.disable_ipv6".to_owned(), 1);
    }
    snapshot.routes.retain(|route| route.destination.addr().is_ipv4());
}
