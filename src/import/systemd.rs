//! systemd: the sockets of a unit `NAME.socket`.
//!
//! Defaults from systemd.socket(5): a port alone means `[::]` and follows `BindIPv6Only=`, whose default is the setting
//! net.ipv6.bindv6only. systemd sets SO_REUSEADDR. An empty value takes the addresses before it back.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{File, Import, listener};
use crate::model::{IfName, Protocol, V6Only};
use crate::profile::{Bind, Listener};
use crate::unit_file;

pub(super) fn read(file: &File, import: &mut Import) {
    let settings = unit_file::settings(&file.text);
    let last = |key: &str| {
        settings
            .iter()
            .rev()
            .find(|setting| setting.key == format!("Socket.{key}"))
            .map(|one| one.value.as_str())
    };
    let is_on = |key: &str| last(key).is_some_and(|value| matches!(value, "yes" | "true" | "on" | "1"));
    let v6only = match last("BindIPv6Only") {
        Some("both") => V6Only::Off,
        Some("ipv6-only") => V6Only::On,
        _ => V6Only::System,
    };
    let mut found: Vec<Listener> = Vec::new();
    for setting in &settings {
        let protocol = match setting.key.strip_prefix("Socket.") {
            Some("ListenStream") => Protocol::Tcp,
            Some("ListenDatagram") => Protocol::Udp,
            Some(key) if key.starts_with("Listen") => {
                import.skip(file, setting.line, format!("`{key}` is not a TCP or UDP socket"));
                continue;
            }
            _ => continue,
        };
        if setting.value.is_empty() {
            found.clear();
            continue;
        }
        if setting.value.contains('%') && !setting.value.starts_with('[') {
            import.skip(file, setting.line, format!("the specifier in `{}` is not known", setting.value));
            continue;
        }
        match address(&setting.value) {
            Ok((address, zone, port)) => {
                let mut one = listener(&format!("{protocol} {}", setting.value), address, port, protocol);
                one.bind = Bind::Address { address, zone };
                one.v6only = if address.is_ipv6() { v6only } else { V6Only::On };
                one.line = setting.line;
                found.push(one);
            }
            Err(what) => import.skip(file, setting.line, what),
        }
    }
    for mut one in found {
        one.reuse_address = true;
        one.reuse_port = is_on("ReusePort").then_some(1);
        one.freebind = is_on("FreeBind");
        one.transparent = is_on("Transparent");
        let backlog = last("Backlog").and_then(|value| value.parse::<u32>().ok());
        if let Some(backlog) = backlog.filter(|_| one.protocol == Protocol::Tcp) {
            one.backlog = backlog.min(2_147_483_647);
        }
        if let Some(device) = last("BindToDevice").filter(|device| !device.is_empty()) {
            one.device = Some(IfName::from(device));
        }
        import.listeners.push(one);
    }
}

/// `80`, `127.0.0.1:80`, `[::1]:80`, `[fe80::1]:80%eth0`; otherwise what it is instead.
fn address(value: &str) -> Result<(IpAddr, Option<IfName>, u16), String> {
    if let Ok(port) = value.parse::<u16>() {
        return Ok((Ipv6Addr::UNSPECIFIED.into(), None, port));
    }
    if value.starts_with('/') || value.starts_with('@') {
        return Err("a UNIX-domain socket is not reachable over the network".to_owned());
    }
    if value.starts_with("vsock:") || value.starts_with("vsock-") {
        return Err("a vsock socket is not reachable over the network".to_owned());
    }
    let (plain, zone) = match value.rsplit_once('%') {
        Some((plain, zone)) if !zone.contains(']') => (plain, Some(IfName::from(zone))),
        _ => (value, None),
    };
    match plain.parse::<SocketAddr>() {
        Ok(at) => Ok((at.ip(), zone, at.port())),
        Err(_) => Err(format!("`{value}` is not an address that systemd.socket(5) describes")),
    }
}
