//! Docker Compose: the published ports of the services.
//!
//! Facts from the Compose specification (<https://docs.docker.com/reference/compose-file/services/#ports>): the short form is
//! `[HOST:]CONTAINER[/PROTOCOL]`, where HOST is `[IP:](port | range)`; without HOST the engine chooses a port; without an
//! IP it binds all network interfaces, which for Docker means 0.0.0.0 and [::]. `network_mode: host` ignores `ports`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use saphyr::{LoadableYamlNode as _, MarkedYamlOwned};

use super::{File, Import, any, listener};
use crate::model::{Family, Protocol, V6Only};
use crate::profile::ports;

pub(super) fn read(file: &File, import: &mut Import) {
    let documents = match MarkedYamlOwned::load_from_str(&file.text) {
        Ok(documents) => documents,
        Err(error) => {
            import.wrong(
                file,
                error.marker().line(),
                format!("not valid YAML: {}", error.info()),
                "correct the file; docker compose config shows how Docker reads it",
            );
            return;
        }
    };
    let Some(root) = documents.first() else { return };
    if let Some(include) = root.data.as_mapping_get("include") {
        import.skip(file, include.span.start.line(), "the included files are not read");
    }
    let services = root.data.as_mapping_get("services").and_then(|services| services.data.as_mapping());
    let Some(services) = services else {
        import.wrong(file, 1, "there are no `services`", "give a Compose file, such as compose.yaml");
        return;
    };
    for (name, service) in services {
        let name = name.data.as_str().unwrap_or("service");
        let line = service.span.start.line();
        if let Some(extends) = service.data.as_mapping_get("extends") {
            import.skip(file, extends.span.start.line(), format!("what {name} extends is not read"));
        }
        if let Some(profiles) = service.data.as_mapping_get("profiles") {
            import.skip(
                file,
                profiles.span.start.line(),
                format!("{name} starts only with one of its profiles; its ports are included"),
            );
        }
        let mode = service.data.as_mapping_get("network_mode");
        if mode.and_then(|mode| mode.data.as_str()) == Some("host") {
            import.skip(
                file,
                line,
                format!(
                    "{name} uses the network of the host; the ports that its program opens are not known"
                ),
            );
            continue;
        }
        let Some(list) = service.data.as_mapping_get("ports") else { continue };
        let Some(list) = list.data.as_vec() else {
            import.wrong(
                file,
                list.span.start.line(),
                format!("`ports` of {name} is not a list"),
                "write - \"8080:80\"",
            );
            continue;
        };
        for entry in list {
            publish(name, entry, file, import);
        }
    }
}

/// One entry of `ports`.
fn publish(name: &str, entry: &MarkedYamlOwned, file: &File, import: &mut Import) {
    let line = entry.span.start.line();
    let scalar = |node: &MarkedYamlOwned| {
        node.data
            .as_str()
            .map(str::to_owned)
            .or_else(|| node.data.as_integer().map(|number| number.to_string()))
    };
    let (host, published, protocol) = if let Some(text) = scalar(entry) {
        let text = interpolated(&text, file, line, import);
        match text.as_deref().map(short) {
            None => return,
            Some(Some(parts)) => parts,
            Some(None) => {
                let text = text.unwrap_or_default();
                import.wrong(
                    file,
                    line,
                    format!("`{text}` is not a valid port"),
                    "write [IP:]PUBLISHED:TARGET, such as 127.0.0.1:8080:80",
                );
                return;
            }
        }
    } else {
        let get = |key: &str| entry.data.as_mapping_get(key).and_then(scalar);
        let published = match get("published") {
            Some(text) => match interpolated(&text, file, line, import) {
                Some(text) => Some(text),
                None => return,
            },
            None => None,
        };
        (get("host_ip"), published, get("protocol"))
    };
    let protocol = match protocol.as_deref() {
        None | Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        Some(other) => {
            import.skip(file, line, format!("{other} is not predicted"));
            return;
        }
    };
    let range = match published.as_deref().filter(|text| !text.is_empty()) {
        None => 0..=0,
        Some(text) => match ports::parse(text) {
            Ok(range) => range,
            Err(reason) => {
                import.wrong(
                    file,
                    line,
                    format!("\"{text}\" {reason}"),
                    "write a port such as 8080, or a range such as 8000-8009",
                );
                return;
            }
        },
    };
    let addresses: Vec<IpAddr> = match host.as_deref().filter(|text| !text.is_empty()) {
        None => Family::BOTH.map(any).to_vec(),
        Some(text) => match text.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => vec![address],
            Err(_) => {
                import.wrong(
                    file,
                    line,
                    format!("`{text}` is not an IP address"),
                    "write an address such as 127.0.0.1",
                );
                return;
            }
        },
    };
    add(name, &addresses, range, protocol, line, import);
}

/// A listener for each address and port that is published.
fn add(
    name: &str,
    addresses: &[IpAddr],
    range: RangeInclusive<u16>,
    protocol: Protocol,
    line: usize,
    import: &mut Import,
) {
    let all: Vec<u16> = range.take(1024).collect();
    for address in addresses {
        let mut one = listener(name, *address, all.first().copied().unwrap_or(0), protocol);
        one.ports.clone_from(&all);
        one.v6only = V6Only::On;
        one.reuse_address = true;
        one.line = line;
        import.listeners.push(one);
    }
}

/// IP, published ports and protocol of the short form.
type Short = (Option<String>, Option<String>, Option<String>);

fn short(text: &str) -> Option<Short> {
    let (text, protocol) = match text.split_once('/') {
        Some((text, protocol)) => (text, Some(protocol.to_owned())),
        None => (text, None),
    };
    let (host, target) = match text.rsplit_once(':') {
        Some((host, target)) => (Some(host), target),
        None => (None, text),
    };
    ports::parse(target).ok()?;
    let Some(host) = host else { return Some((None, None, protocol)) };
    if let Some(inside) = host.strip_prefix('[') {
        let (address, tail) = inside.split_once(']')?;
        return Some((Some(address.to_owned()), Some(tail.trim_start_matches(':').to_owned()), protocol));
    }
    Some(match host.rsplit_once(':') {
        Some((address, published)) => (Some(address.to_owned()), Some(published.to_owned()), protocol),
        None if host.parse::<IpAddr>().is_ok() => (Some(host.to_owned()), None, protocol),
        None => (None, Some(host.to_owned()), protocol),
    })
}

/// The text with the defaults of its variables, `${NAME:-8080}`. `None`, with a note, for a variable without one.
fn interpolated(text: &str, file: &File, line: usize, import: &mut Import) -> Option<String> {
    if !text.contains('$') {
        return Some(text.to_owned());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (inside, tail) = after.split_once('}')?;
        let default = inside.split_once(":-").or_else(|| inside.split_once('-')).map(|(_, default)| default);
        let Some(default) = default else {
            import.skip(file, line, format!("the value of the variable in `{text}` is not known"));
            return None;
        };
        out.push_str(default);
        rest = tail;
    }
    out.push_str(rest);
    if out.contains('$') {
        import.skip(file, line, format!("the value of the variable in `{text}` is not known"));
        return None;
    }
    import.skip(file, line, format!("the variable in `{text}` has its default here"));
    Some(out)
}
