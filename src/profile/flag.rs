//! Listeners on the command line: `[tcp:|udp:][WHAT:]PORT[,key=value]...`, as a TARGET or with `--bind`.
//!
//! WHAT is an IPv4 address, an IPv6 address in brackets (with its zone inside), `loopback` or `localhost` (127.0.0.1 and ::1),
//! `*` (one dual-stack socket, as `ss` writes it), or the name of an interface, which may be a pattern. Without WHAT the port is
//! opened on loopback only: least exposure. A text with two interpretations that differ in exposure is refused with both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bind::{self, Bind, Scope, Selector, Wrong, name_or_label};
use super::value::nearest;
use super::{Listener, WhenMissing, duration, ports};
use crate::code::Code;
use crate::diag::{Diagnostic, Place};
use crate::model::addr::is_mapped;
use crate::model::socket::Reply;
use crate::model::{Family, Protocol, V6Only};

/// The syntax, for messages.
const FORM: &str =
    "write [tcp:|udp:]ADDRESS:PORT, such as 127.0.0.1:8081, [::]:8082,v6only=false or udp:eth0:5353";

/// Parses one `--bind`. The listener is called `name` unless the text sets another name.
///
/// # Errors
/// The problem, and its position in the text.
pub fn parse(name: &str, text: &str) -> Result<Listener, Diagnostic> {
    let wrong = |part: &str, (code, message, help): Wrong| {
        // `part` is a slice of `text`, so the difference of their addresses is its position.
        let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
        let end = (start + part.len()).min(text.len());
        let place = Place { file: "--bind".to_owned(), text: text.into(), span: start..end };
        Diagnostic::error(code, message).at(place).help(help)
    };
    let mut pieces = text.split(',');
    let target = pieces.next().unwrap_or(text);
    let options: Vec<&str> = pieces.collect();
    let (protocol, target) = match target.split_once(':') {
        Some((scheme, rest)) if rest.starts_with("//") => {
            let authority = rest.trim_start_matches('/').split('/').next().unwrap_or_default();
            let udp = if scheme == "udp" { "udp:" } else { "" };
            let help = if authority.contains(':') {
                format!("write {udp}{authority}")
            } else {
                format!("write {udp}{authority}:PORT")
            };
            return Err(wrong(
                target,
                bad(format!("\"{target}\" is a URL; a listener is an address and a port"), help),
            ));
        }
        Some(("tcp", rest)) if rest.contains(':') => (Protocol::Tcp, rest),
        Some(("udp", rest)) if rest.contains(':') => (Protocol::Udp, rest),
        Some(("tcp", rest)) if is_port(rest) => (Protocol::Tcp, rest),
        Some(("udp", rest)) if is_port(rest) => (Protocol::Udp, rest),
        _ => (Protocol::Tcp, target),
    };
    let (host, port) = split(target).map_err(|reason| wrong(target, reason))?;
    let range = ports::parse(port).map_err(|reason| {
        let help = "write a port such as 8081, a range such as 8000-8009, or 0 to let the kernel choose";
        wrong(port, (Code::BAD_PORT, format!("\"{port}\" {reason}"), help.to_owned()))
    })?;
    let device = options
        .iter()
        .find_map(|option| option.strip_prefix("device="))
        .and_then(|name| name_or_label(name).ok());
    let bind = match (bind::without_zone(host), device) {
        (Some(address), Some(device)) => Bind::Address { address, zone: Some(device) },
        _ => what(host, port).map_err(|reason| wrong(host, reason))?,
    };
    let mut listener = Listener::new(name, bind, range.collect(), protocol);
    if host == "*" {
        listener.v6only = V6Only::Off;
    }
    let mut seen: Vec<&str> = Vec::new();
    for option in options {
        let (key, value) = option.split_once('=').ok_or_else(|| {
            let help = format!("known are {}", OPTIONS.join(", "));
            wrong(option, (Code::UNKNOWN_KEY, format!("\"{option}\" is not of the form key=value"), help))
        })?;
        if seen.contains(&key) {
            let message = format!("`{key}` is given twice");
            return Err(wrong(option, (Code::DUPLICATE_NAME, message, "keep one of them".to_owned())));
        }
        seen.push(key);
        set(&mut listener, key, value).map_err(|reason| wrong(option, reason))?;
    }
    if let (Bind::Address { address, zone: Some(zone) }, Some(device)) = (&listener.bind, &listener.device)
        && zone != device
        && !zone.as_bytes().iter().all(u8::is_ascii_digit)
    {
        let message = format!("`device` is {device}, but {address} is on {zone}");
        return Err(wrong(
            text,
            (Code::CONTRADICTION, message, "name one interface in both, or leave the device out".to_owned()),
        ));
    }
    if let Bind::Address { address: IpAddr::V4(_), .. } = listener.bind
        && seen.contains(&"v6only")
    {
        let message = "v6only means nothing on an IPv4 address".to_owned();
        return Err(wrong(text, (Code::CONTRADICTION, message, "leave it out".to_owned())));
    }
    if let Bind::Address { address: address @ IpAddr::V6(v6), .. } = listener.bind
        && is_mapped(address)
        && listener.v6only == V6Only::On
    {
        let v4 = v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let message = format!("{v6} stands for IPv4, but v6only is true by default");
        let help = format!("write {v4}:{port}, or add ,v6only=false");
        return Err(wrong(host, (Code::MAPPED_ADDRESS, message, help)));
    }
    Ok(listener)
}

/// Whether the text is a port or a range of ports, by its form.
fn is_port(text: &str) -> bool {
    let digit = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').map_or_else(|| digit(text), |(low, high)| digit(low) && digit(high))
}

fn two(message: String, help: String) -> Wrong {
    (Code::AMBIGUOUS_BIND, message, help)
}

fn bad(message: String, help: impl Into<String>) -> Wrong {
    (Code::BAD_ADDRESS, message, help.into())
}

/// Splits off the port.
fn split(target: &str) -> Result<(&str, &str), Wrong> {
    if let Some(rest) = target.strip_prefix('[') {
        let (inside, tail) = rest
            .split_once(']')
            .ok_or_else(|| bad(format!("\"{target}\" has no closing bracket"), "write [ADDRESS]:PORT"))?;
        let port = tail
            .strip_prefix(':')
            .ok_or_else(|| bad(format!("\"{target}\" has no port"), format!("write [{inside}]:PORT")))?;
        return match port.split_once('%') {
            Some((port, zone)) => Err((
                Code::BAD_ZONE,
                format!("\"{target}\" has its zone after the port"),
                format!("write [{inside}%{zone}]:{port}: the zone belongs to the address"),
            )),
            None => Ok((inside, port)),
        };
    }
    let Some((host, port)) = target.rsplit_once(':') else {
        if is_port(target) {
            return Ok(("loopback", target));
        }
        let help = match target {
            "" => FORM.to_owned(),
            "0.0.0.0" | "*" => "write 0.0.0.0:PORT, such as 0.0.0.0:8080".to_owned(),
            _ => format!("write {target}:PORT, such as {target}:8080"),
        };
        return Err(bad(format!("\"{target}\" has no port"), help));
    };
    if host.contains(':') && name_or_label(host).is_err() {
        let bare = target.split('%').next().unwrap_or(target);
        let zone = target.split_once('%').map_or_else(String::new, |(_, zone)| format!("%{zone}"));
        let whole = bare.parse::<Ipv6Addr>().is_ok();
        let head = host.split('%').next().unwrap_or(host).parse::<Ipv6Addr>().is_ok();
        return Err(match (whole, head) {
            (true, true) => two(
                format!(
                    "\"{target}\" can be read as the address {target} without a port, or as port {port} of {host}"
                ),
                format!("write [{host}]:{port}, or [{bare}{zone}]:PORT"),
            ),
            (false, true) => bad(
                format!("\"{target}\" has an IPv6 address without brackets"),
                format!("write [{host}]:{port}"),
            ),
            (true, false) => {
                bad(format!("\"{target}\" is an address without a port"), format!("write [{target}]:PORT"))
            }
            (false, false) => bad(format!("\"{target}\" is not an address with a port"), FORM),
        });
    }
    Ok((host, port))
}

/// The target of the bind.
fn what(host: &str, port: &str) -> Result<Bind, Wrong> {
    let wildcard = |reading: &str| {
        two(
            format!("\"{host}:{port}\" can be read as {reading}"),
            format!("write 0.0.0.0:{port} for IPv4, [::]:{port} for IPv6, *:{port} for both"),
        )
    };
    match host {
        "" => return Err(wildcard("0.0.0.0, as [::], or as both")),
        "*" => return Ok(Bind::Address { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), zone: None }),
        "loopback" | "localhost" => return Ok(Bind::Loopback),
        _ => {}
    }
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if (host.contains(':') && name_or_label(host).is_err())
        || numeric
        || host.contains('%')
        || host.parse::<Ipv4Addr>().is_ok()
    {
        return match bind::address(host) {
            Ok((address, zone)) => Ok(Bind::Address { address, zone }),
            Err((Code::BAD_ZONE, message, _)) if !host.contains('%') => Err((
                Code::BAD_ZONE,
                message,
                format!("write [{host}%eth0]:{port} with the name of the interface"),
            )),
            Err(wrong) => Err(wrong),
        };
    }
    if !host.contains('*')
        && let Err(reason) = name_or_label(host)
    {
        return Err(bad(format!("\"{host}\" is not an address, and as an interface name it {reason}"), FORM));
    }
    Ok(Bind::Interface(Selector { interfaces: vec![host.to_owned()], family: None, scope: Scope::Any }))
}

const OPTIONS: &[&str] = &[
    "name",
    "v6only",
    "device",
    "family",
    "scope",
    "backlog",
    "reuse_address",
    "reuse_port",
    "freebind",
    "transparent",
    "reply",
    "when_missing",
    "wait_timeout",
    "wait_dad",
    "idle_timeout",
    "max_connections",
    "port_per_socket",
];

fn set(listener: &mut Listener, key: &str, value: &str) -> Result<(), Wrong> {
    let choice = |words: &'static [&'static str]| -> Wrong {
        let near = nearest(value, words.iter().copied()).map(|near| format!("did you mean {near}?"));
        let help =
            near.unwrap_or_else(|| format!("write {key}={}", words.first().copied().unwrap_or_default()));
        (
            Code::NOT_A_CHOICE,
            format!("\"{value}\" is not a valid value of `{key}`; it must be one of {}", words.join(", ")),
            help,
        )
    };
    let boolean = || match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(choice(&["true", "false"])),
    };
    let time = || {
        duration::parse(value).map_err(|reason| {
            (
                Code::BAD_DURATION,
                format!("`{key}` {reason}"),
                "write a number with its unit, such as 10s".to_owned(),
            )
        })
    };
    let number = |low: u32, high: u32| {
        let number = value.parse::<u32>().ok().filter(|number| (low..=high).contains(number));
        number.ok_or_else(|| {
            (
                Code::NOT_A_CHOICE,
                format!("`{key}` must be from {low} to {high}"),
                format!("write {key}={high} or less"),
            )
        })
    };
    match key {
        "name" if !value.is_empty() => value.clone_into(&mut listener.name),
        "v6only" => {
            listener.v6only = match value {
                "true" => V6Only::On,
                "false" => V6Only::Off,
                "system" => V6Only::System,
                _ => return Err(choice(&["true", "false", "system"])),
            }
        }
        "device" => {
            let name = name_or_label(value);
            let name = name.map_err(|reason| {
                (Code::BAD_INTERFACE, format!("`device` {reason}"), "name an interface".to_owned())
            });
            listener.device = Some(name?);
        }
        "family" | "scope" => {
            let Bind::Interface(selector) = &mut listener.bind else {
                let help = format!("write the name of an interface before the port, or leave {key} out");
                return Err((
                    Code::CONTRADICTION,
                    format!("`{key}` chooses addresses of an interface"),
                    help,
                ));
            };
            match (key, value) {
                ("family", "ipv4") => selector.family = Some(Family::Ipv4),
                ("family", "ipv6") => selector.family = Some(Family::Ipv6),
                ("family", "both") => selector.family = None,
                ("family", _) => return Err(choice(&["ipv4", "ipv6", "both"])),
                _ => selector.scope = Scope::from_word(value).ok_or_else(|| choice(Scope::WORDS))?,
            }
        }
        "backlog" => listener.backlog = number(0, 2_147_483_647)?,
        "port_per_socket" => listener.port_per_socket = boolean()?,
        "max_connections" => listener.max_connections = number(1, 1_000_000)?,
        "reuse_address" => {
            listener.reuse_address = boolean()?;
            listener.explicit.reuse_address = true;
        }
        "reuse_port" => {
            listener.reuse_port = match value.parse::<u16>() {
                Ok(_) => Some(u16::try_from(number(1, 1024)?).unwrap_or(1)),
                Err(_) => boolean()?.then_some(1),
            }
        }
        "freebind" => listener.freebind = boolean()?,
        "transparent" => listener.transparent = boolean()?,
        "wait_dad" => listener.wait_dad = boolean()?,
        "wait_timeout" => listener.wait_timeout = time()?,
        "idle_timeout" => listener.idle_timeout = time()?,
        "reply" => {
            listener.reply = match value {
                "none" => Reply::None,
                "describe" => Reply::Describe,
                "echo" => Reply::Echo,
                _ => return Err(choice(&["none", "describe", "echo"])),
            };
            listener.explicit.reply = true;
        }
        "when_missing" => {
            listener.when_missing = match value {
                "fail" => WhenMissing::Fail,
                "wait" => WhenMissing::Wait,
                "skip" => WhenMissing::Skip,
                "freebind" => WhenMissing::Freebind,
                _ => return Err(choice(&["fail", "wait", "skip", "freebind"])),
            }
        }
        _ => {
            let help = nearest(key, OPTIONS.iter().copied()).map_or_else(
                || format!("known are {}", OPTIONS.join(", ")),
                |near| format!("did you mean {near}={value}?"),
            );
            return Err((Code::UNKNOWN_KEY, format!("`{key}` is not an option of --bind"), help));
        }
    }
    Ok(())
}
