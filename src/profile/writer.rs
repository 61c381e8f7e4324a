//! The text of a profile: the inverse of the parser. Values that are defaults are left out.

use std::fmt::Write as _;

use super::{Bind, Listener, Profile};
use crate::model::{Protocol, V6Only};

/// The listeners of a profile as TOML.
#[must_use]
pub fn text(profile: &Profile) -> String {
    let mut out = format!("schema = 1\nname = {}\n", quoted(&profile.name));
    if let Some(description) = &profile.description {
        let _ = writeln!(out, "description = {}", quoted(description));
    }
    for listener in &profile.listeners {
        one(&mut out, listener);
    }
    out
}

fn one(out: &mut String, listener: &Listener) {
    let plain = Listener::new("", Bind::Loopback, Vec::new(), listener.protocol);
    let _ = writeln!(out, "\n[[listener]]\nname = {}", quoted(&listener.name));
    if listener.bind != plain.bind {
        let _ = writeln!(out, "bind = {}", bind(&listener.bind));
    }
    let _ = writeln!(out, "port = {}", ports(&listener.ports));
    if listener.protocol == Protocol::Udp {
        out.push_str("protocol = \"udp\"\n");
    }
    match listener.v6only {
        V6Only::On => {}
        V6Only::Off => out.push_str("v6only = false\n"),
        V6Only::System => out.push_str("v6only = \"system\"\n"),
    }
    if let Some(device) = &listener.device {
        let _ = writeln!(out, "device = {}", quoted(&device.to_string()));
    }
    if listener.backlog != plain.backlog {
        let _ = writeln!(out, "backlog = {}", listener.backlog);
    }
    for (key, value, default) in [
        ("reuse_address", listener.reuse_address, plain.reuse_address),
        ("freebind", listener.freebind, plain.freebind),
        ("transparent", listener.transparent, plain.transparent),
    ] {
        if value != default {
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    match listener.reuse_port {
        None => {}
        Some(1) => out.push_str("reuse_port = true\n"),
        Some(group) => {
            let _ = writeln!(out, "reuse_port = {{ group = {group} }}");
        }
    }
}

fn bind(bind: &Bind) -> String {
    match bind {
        Bind::Loopback => "\"loopback\"".to_owned(),
        Bind::Address { address, zone } => {
            quoted(&zone.as_ref().map_or_else(|| address.to_string(), |zone| format!("{address}%{zone}")))
        }
        Bind::Interface(selector) => {
            let names: Vec<String> = selector.interfaces.iter().map(|name| quoted(name)).collect();
            let mut text = format!("{{ interface = [{}]", names.join(", "));
            if let Some(family) = selector.family {
                let _ = write!(text, ", family = \"{}\"", family.to_string().to_lowercase());
            }
            text + " }"
        }
        Bind::Each(parts) => format!("[{}]", parts.iter().map(self::bind).collect::<Vec<_>>().join(", ")),
    }
}

/// Ports in their order, with ranges.
fn ports(all: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for port in all {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*port) => *last = *port,
            _ => parts.push((*port, *port)),
        }
    }
    let text = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("\"{first}-{last}\"") }
    };
    match parts.as_slice() {
        [only] => text(only),
        _ => format!("[{}]", parts.iter().map(text).collect::<Vec<_>>().join(", ")),
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
