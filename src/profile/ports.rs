//! Ports: a number, a range as `"8000-8009"`, or a list of either; 0 lets the kernel choose.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::value::{Problems, Value, integer, kind_of, one_or_many};
use crate::code::Code;

/// Parses one port or port range.
///
/// # Errors
/// The problem, as the end of a sentence that begins with the text.
pub fn parse(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| -> Result<u16, String> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("is not a valid port".to_owned());
        }
        text.parse().map_err(|_| "is above 65535".to_owned())
    };
    let Some((first, last)) = text.split_once('-').filter(|(first, _)| !first.is_empty()) else {
        return port(text).map(|port| port..=port);
    };
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    match (first, last) {
        _ if last < first => Err(format!("ends before it begins; write \"{last}-{first}\"")),
        (0, 1..) => Err("begins with 0, which lets the kernel choose one port".to_owned()),
        _ => Ok(first..=last),
    }
}

/// The ports and ranges in `value`, in their order. Adds a problem for each invalid or repeated port. Ranges are kept as they are: a
/// file of 1 MiB can name gigabytes of ports.
pub(super) fn read(value: &Value<'_>, problems: &mut Problems) -> Vec<RangeInclusive<u16>> {
    let mut ports = Vec::new();
    // Maps the first port of each range to its last.
    let mut taken: BTreeMap<u16, u16> = BTreeMap::new();
    for value in one_or_many(value) {
        let result = match (integer(value.get_ref()), value.get_ref().as_str()) {
            (Some(number), _) => match u16::try_from(number) {
                Ok(port) => Ok(port..=port),
                Err(_) => Err((number.to_string(), "is not from 0 to 65535".to_owned())),
            },
            (None, Some(text)) => parse(text).map_err(|reason| (format!("\"{text}\""), reason)),
            (None, None) => Err((kind_of(value.get_ref()).to_owned(), "is not a valid port".to_owned())),
        };
        match result {
            Ok(range) => {
                // 0 may occur several times: the kernel chooses a different port for each.
                let before = taken.range(..=range.end()).next_back();
                if let Some((first, _)) = before.filter(|(_, last)| *last >= range.start()) {
                    let message = match range.end() - range.start() {
                        0 => "this port is in the list already".to_owned(),
                        _ => format!("port {} is in the list already", first.max(range.start())),
                    };
                    problems.add(Code::BAD_PORT, value.span(), message);
                    continue;
                }
                if range != (0..=0) {
                    taken.insert(*range.start(), *range.end());
                }
                ports.push(range);
            }
            Err((shown, reason)) => {
                problems.add(Code::BAD_PORT, value.span(), format!("{shown} {reason}")).help(
                    "write a port such as 8081, a range such as \"8000-8009\", or 0 to let the kernel choose",
                );
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stands_in_one_range() {
        use crate::profile;
        for (ports, message) in [
            ("[0, 0, 80, '8000-8009', 65535]", None),
            ("[80, 81, 80]", Some("this port is in the list already")),
            ("['8000-8009', 7999, '8009-8010']", Some("port 8009 is in the list already")),
            ("[8005, '8000-8009']", Some("port 8005 is in the list already")),
            ("['1-65535', 65535]", Some("this port is in the list already")),
        ] {
            let text = format!(
                "schema = 1\nname = 'p'\n[[listener]]\nname = 'a'\nbind = '127.0.0.1'\nport = {ports}\n[limits]\nmax_sockets = 65536\n"
            );
            match (profile::parse("p.toml", &text), message) {
                (Ok(_), None) => {}
                (Err(problems), Some(message)) => {
                    assert!(
                        problems.iter().any(|problem| problem.message == message),
                        "{ports}: {problems:?}"
                    );
                }
                (other, _) => panic!("{ports}: {other:?}"),
            }
        }
    }

    #[test]
    fn ranges_run_upwards() {
        assert_eq!(parse("80"), Ok(80..=80));
        assert_eq!(parse("8000-8009"), Ok(8000..=8009));
        assert_eq!(parse("0"), Ok(0..=0));
        for text in ["", "-1", "80-70", "70000", "0x50", "80-", "0-10", "1-2-3", "+80", "８０"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
