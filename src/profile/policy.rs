//! Policies: what may listen on a host, and which findings are waived for a time.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use ipnet::IpNet;
use jiff::civil::Date;
use toml::de::DeTable;

use super::keys::{self, Key, Keys, Kind, optional, required};
use super::value::{Problems, Value, boolean, one_or_many, tables, text, texts};
use super::{ports, syntax, version};
use crate::code::Code;
use crate::diag::{Diagnostic, Severity};
use crate::model::{Exposure, Family, Protocol};

/// A checked policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Name of the policy.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Where the text comes from.
    pub origin: String,
    /// Whether a socket that matches no rule is a finding.
    pub deny_by_default: bool,
    /// Treatment of a socket whose owner cannot be read.
    pub unknown_owner: UnknownOwner,
    /// Whether rules are compared with the exposure that packet filters leave, not with that of the socket.
    pub by_filters: bool,
    /// The lowest severity that makes the audit fail.
    pub fail_on: Severity,
    /// Whether all network namespaces are examined, not only this one.
    pub all_namespaces: bool,
    /// Whether unconnected client sockets on ephemeral UDP ports are left out.
    pub ignore_ephemeral_udp: bool,
    /// Positions of `[policy]` and its keys; without the table, the position of `kind`.
    pub places: Places,
    /// Allow rules.
    pub allow: Vec<Allow>,
    /// Waivers.
    pub waive: Vec<Waive>,
}

/// Positions of a table and its keys in the text, as byte ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    table: Range<usize>,
    keys: BTreeMap<String, Range<usize>>,
}

impl Places {
    fn new(table: &DeTable<'_>, span: &Range<usize>) -> Places {
        let keys = table.iter().map(|(key, value)| {
            let end = value.span().end.max(key.span().end);
            (key.get_ref().to_string(), key.span().start..end)
        });
        Places { table: span.clone(), keys: keys.collect() }
    }

    /// Position of `key` with its value, or of the table if the key is missing.
    #[must_use]
    pub fn of(&self, key: &str) -> Range<usize> {
        self.keys.get(key).unwrap_or(&self.table).clone()
    }
}

/// Treatment of a socket whose owner cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UnknownOwner {
    /// Undecided.
    #[default]
    Undecided,
    /// A finding.
    Fail,
}

/// An allow rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Name, unique in the policy.
    pub id: String,
    /// Sockets that the rule covers.
    pub matches: Match,
    /// The widest allowed exposure.
    pub exposure: Exposure,
    /// Whether packet filters must keep out clients that no rule of theirs names, whatever the exposure is.
    pub filtered: bool,
    /// The families in which all its sockets together must be reachable, and no other; `None` for any.
    pub families: Vec<Family>,
    /// Whether a listener must be there.
    pub require: Require,
    /// Reason.
    pub reason: Option<String>,
    /// The last day of validity.
    pub expires: Option<Date>,
    /// Positions of the rule and its keys.
    pub places: Places,
}

/// What a rule requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Require {
    /// Nothing.
    #[default]
    No,
    /// A listener that is there, whether or not a client can reach it.
    Present,
    /// A listener that a client can reach.
    Reachable,
}

/// A waiver of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waive {
    /// Code of the finding, such as `BS1001`.
    pub code: String,
    /// Sockets that the waiver covers.
    pub matches: Match,
    /// Reason.
    pub reason: String,
    /// The last day of validity.
    pub expires: Option<Date>,
    /// Severity of a waiver that matches nothing.
    pub unmatched: Unmatched,
    /// Positions of the waiver and its keys.
    pub places: Places,
}

/// Severity of a waiver that matches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Unmatched {
    /// A warning.
    #[default]
    Warn,
    /// An error.
    Error,
    /// No finding.
    Ignore,
}

impl Match {
    /// Whether one of the ports is `port`.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }

    /// How many of the ports are in `range`.
    #[must_use]
    pub fn ports_in(&self, range: &RangeInclusive<u16>) -> usize {
        let common =
            |own: &RangeInclusive<u16>| *own.start().max(range.start())..=*own.end().min(range.end());
        self.ports.iter().map(|own| common(own).count()).sum()
    }
}

/// Selects sockets; an empty condition matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// TCP or UDP.
    pub protocol: Option<Protocol>,
    /// Ports and port ranges that do not overlap; empty for any.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The addresses that it is bound to.
    pub addresses: Vec<IpAddr>,
    /// Every address at which it is reached lies in one of these networks.
    pub networks: Vec<IpNet>,
    /// Every address at which it is reached is on one of these interfaces, unless packets reach it through one of them only.
    pub interfaces: Vec<String>,
    /// The devices that it is bound to.
    pub devices: Vec<String>,
    /// Whose it is.
    pub holder: Holder,
}

/// The holder of a socket; an empty field matches every holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// The kernel itself.
    pub kernel: bool,
    /// Patterns for the path of the program.
    pub exe: Vec<String>,
    /// Its users.
    pub user: Vec<User>,
    /// Patterns for the systemd unit.
    pub unit: Vec<String>,
    /// Patterns for the container, as `docker:0123456789ab`.
    pub container: Vec<String>,
}

impl Holder {
    /// Whether it matches everything.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Holder::default()
    }
}

/// Which users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// The user with this name, or with this number.
    One(String),
    /// The users with numbers from the first to the second.
    Range(u32, u32),
}

impl User {
    /// Reads a name, a number, or a range of numbers such as `1000-60000`.
    ///
    /// # Errors
    /// What is wrong with a range.
    fn parse(text: &str) -> Result<User, String> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('-') {
            Some((first, last)) if digits(first) && digits(last) => match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) if first <= last => Ok(User::Range(first, last)),
                (Ok(_), Ok(_)) => Err(format!("ends before it begins; write \"{last}-{first}\"")),
                _ => Err("holds a number above 4294967295".to_owned()),
            },
            _ => Ok(User::One(text.to_owned())),
        }
    }

    /// Whether a user with this number and name is one of them.
    #[must_use]
    pub fn is(&self, uid: u32, name: Option<&str>) -> bool {
        match self {
            User::One(text) => Some(text.as_str()) == name || *text == uid.to_string(),
            User::Range(first, last) => (*first..=*last).contains(&uid),
        }
    }
}

const EXPOSURES: &[&str] = &["none", "loopback", "host", "link", "private", "lan", "global", "filtered"];
const FAMILIES: &[&str] = &["ipv4", "ipv6"];

/// Keys of a policy file.
pub(super) static POLICY_FILE: Keys = Keys {
    what: "the policy",
    keys: &[
        required("schema", Kind::Integer(0, i64::MAX), "the version of the language: 1"),
        required("kind", Kind::Choice(&["policy"]), "that it is a policy"),
        optional("name", Kind::Text, "the name of the policy in every report"),
        optional("description", Kind::Text, "purpose"),
        optional("policy", Kind::Table(&POLICY), "how sockets are judged"),
        optional("allow", Kind::Tables(&ALLOW), "what may listen"),
        optional("waive", Kind::Tables(&WAIVE), "findings that are suppressed"),
    ],
};

static POLICY: Keys = Keys {
    what: "[policy]",
    keys: &[
        optional(
            "default",
            Kind::Choice(&["deny", "allow"]),
            "whether a socket that matches no rule is denied (default deny)",
        ).default(r#""deny""#),
        optional(
            "unknown_owner",
            Kind::Choice(&["undecided", "fail"]),
            "verdict on a socket whose owner cannot be read (default undecided)",
        ).default(r#""undecided""#),
        optional(
            "exposure",
            Kind::Choice(&["socket", "filtered"]),
            "the exposure that rules are compared with: that of the socket, or what packet filters leave of it (default socket)",
        ),
        optional(
            "fail_on",
            Kind::Choice(&["error", "warning", "note"]),
            "the lowest severity that makes the audit fail (default error)",
        ).default(r#""error""#),
        optional(
            "namespaces",
            Kind::Choices(&["self", "all"]),
            "which network namespaces are examined (default self)",
        ).default(r#""self""#),
        optional(
            "ignore_ephemeral_udp",
            Kind::Bool,
            "leave out the UDP sockets of clients: a port that the kernel chose, one family, a process (default true)",
        ).default("true"),
    ],
};

static ALLOW: Keys = Keys {
    what: "[[allow]]",
    keys: &[
        required("id", Kind::Text, "the name of the rule in every report"),
        PROTOCOL,
        PORT,
        required(
            "exposure",
            Kind::Choice(EXPOSURES),
            "the widest exposure that is permitted: none, loopback (or host), link, private (or lan), global; filtered: any, where packet filters let in named clients only",
        ),
        optional(
            "families",
            Kind::Choices(FAMILIES),
            "the families in which it must be reachable, and in no other (default: in any)",
        ),
        ADDRESS,
        NETWORK,
        INTERFACE,
        DEVICE,
        PROCESS_KEY,
        UNIT,
        CONTAINER,
        USER,
        optional(
            "require",
            Kind::BoolOr(&["present"]),
            "whether a listener must exist that a client can reach; \"present\": also if no client can (default false)",
        ).default("false"),
        optional("reason", Kind::Text, "reason; required if the exposure is global"),
        EXPIRES,
    ],
};

static WAIVE: Keys = Keys {
    what: "[[waive]]",
    keys: &[
        required("code", Kind::Text, "the code of the finding"),
        required("match", Kind::Table(&MATCH), "sockets to which it applies"),
        required("reason", Kind::Text, "why"),
        EXPIRES,
        optional(
            "unmatched",
            Kind::Choice(&["warn", "error", "ignore"]),
            "severity of a waiver that matches nothing (default warn)",
        )
        .default(r#""warn""#),
    ],
};

static MATCH: Keys = Keys {
    what: "`match`",
    keys: &[PROTOCOL, PORT, ADDRESS, NETWORK, INTERFACE, DEVICE, PROCESS_KEY, UNIT, CONTAINER, USER],
};

static PROCESS: Keys = Keys {
    what: "`process`",
    keys: &[
        optional("exe", Kind::Texts, "path of the program, or a pattern"),
        optional(
            "user",
            Kind::Texts,
            "name or number of its user, or a range of numbers such as \"1000-60000\"",
        ),
        optional("unit", Kind::Texts, "its systemd unit, or a pattern"),
        optional("container", Kind::Texts, "its container, as \"docker:0123456789ab\", or a pattern"),
    ],
};

const PROTOCOL: Key = optional("protocol", Kind::Choice(&["tcp", "udp"]), "tcp or udp (default: either)");
const PORT: Key = optional("port", Kind::Ports, "a port, a range, or a list of them (default: any)");
const ADDRESS: Key =
    optional("address", Kind::Texts, "the address that it is bound to, such as \"127.0.0.1\" or \"::\"");
const NETWORK: Key = optional(
    "network",
    Kind::Texts,
    "networks that contain every address at which it is reached, such as \"10.0.0.0/8\"",
);
const INTERFACE: Key = optional(
    "interface",
    Kind::Texts,
    "interface that has every address at which it is reached, or through which alone packets reach it",
);
const DEVICE: Key = optional("device", Kind::Texts, "the device that it is bound to (SO_BINDTODEVICE)");
const PROCESS_KEY: Key = optional(
    "process",
    Kind::WordOrTable(&["kernel"], &PROCESS),
    "owner of the socket; \"kernel\": the kernel itself",
);
const UNIT: Key = optional("unit", Kind::Texts, "as `unit` of `process`");
const CONTAINER: Key = optional("container", Kind::Texts, "as `container` of `process`");
const USER: Key = optional("user", Kind::Texts, "as `user` of `process`");
const EXPIRES: Key = optional("expires", Kind::Date, "the last day of validity");

/// Parses a policy. `origin` names the text in messages.
///
/// # Errors
/// Every problem, in the order of the text.
pub fn parse(origin: &str, text: &str) -> Result<Policy, Vec<Diagnostic>> {
    let mut problems = Problems::new(origin, text);
    let document = syntax(text, &mut problems);
    let table = document.get_ref();
    let mut policy = None;
    if version(table, &mut problems) {
        keys::check(table, 0..0, &POLICY_FILE, &mut problems);
        policy = Some(read(origin, table, &mut problems));
    }
    match policy {
        Some(policy) if problems.is_empty() => Ok(policy),
        _ => Err(problems.finish()),
    }
}

fn read(origin: &str, table: &DeTable<'_>, problems: &mut Problems) -> Policy {
    let empty = DeTable::new();
    let head_at = table.get("policy").filter(|head| head.get_ref().is_table());
    let head = head_at.and_then(|head| head.get_ref().as_table()).unwrap_or(&empty);
    let whole = Places::new(table, &(0..0));
    let places = Places::new(head, &head_at.map_or_else(|| whole.of("kind"), toml::Spanned::span));
    let allow: Vec<Allow> =
        tables(table, "allow").into_iter().map(|(entry, span)| rule(entry, &span, problems)).collect();
    let waive =
        tables(table, "waive").into_iter().map(|(entry, span)| waiver(entry, &span, problems)).collect();
    let mut lines: HashMap<&str, usize> = HashMap::new();
    for ((entry, span), rule) in tables(table, "allow").into_iter().zip(&allow) {
        if let Some(line) = lines.get(rule.id.as_str()).filter(|_| !rule.id.is_empty()) {
            let span = entry.get("id").map_or(span, toml::Spanned::span);
            let message = format!("another rule has the id \"{}\"", rule.id);
            problems.add(Code::DUPLICATE_NAME, span, message).help(format!("it stands in line {line}"));
        }
        lines.entry(&rule.id).or_insert_with(|| problems.line(&rule.places.of("id")));
    }
    Policy {
        name: text(table, "name").unwrap_or(super::stem(origin)).to_owned(),
        description: text(table, "description").map(str::to_owned),
        origin: origin.to_owned(),
        deny_by_default: text(head, "default") != Some("allow"),
        unknown_owner: match text(head, "unknown_owner") {
            Some("fail") => UnknownOwner::Fail,
            _ => UnknownOwner::Undecided,
        },
        by_filters: text(head, "exposure") == Some("filtered"),
        fail_on: match text(head, "fail_on") {
            Some("warning") => Severity::Warning,
            Some("note") => Severity::Note,
            _ => Severity::Error,
        },
        all_namespaces: texts(head, "namespaces").iter().any(|name| name == "all"),
        ignore_ephemeral_udp: boolean(head, "ignore_ephemeral_udp").unwrap_or(true),
        places,
        allow,
        waive,
    }
}

fn rule(table: &DeTable<'_>, span: &Range<usize>, problems: &mut Problems) -> Allow {
    let exposure = match text(table, "exposure") {
        Some("none") => Exposure::None,
        Some("link") => Exposure::Link,
        Some("private" | "lan") => Exposure::Private,
        Some("global" | "filtered") => Exposure::Global,
        _ => Exposure::Loopback,
    };
    let filtered = text(table, "exposure") == Some("filtered");
    if exposure == Exposure::Global && !filtered && !table.contains_key("reason") {
        let at = table.get("exposure").map_or_else(|| span.clone(), toml::Spanned::span);
        problems
            .add(Code::MISSING_KEY, at, "`exposure` is global, but there is no `reason`")
            .help("add the reason for readers of the policy");
    }
    let family = |name: String| if name == "ipv4" { Family::Ipv4 } else { Family::Ipv6 };
    Allow {
        id: text(table, "id").unwrap_or_default().to_owned(),
        matches: matching(table, problems),
        exposure,
        filtered,
        families: texts(table, "families").into_iter().map(family).collect(),
        require: match (boolean(table, "require"), text(table, "require")) {
            (Some(true), _) => Require::Reachable,
            (_, Some("present")) => Require::Present,
            _ => Require::No,
        },
        reason: text(table, "reason").map(str::to_owned),
        expires: date(table, problems),
        places: Places::new(table, span),
    }
}

fn waiver(table: &DeTable<'_>, span: &Range<usize>, problems: &mut Problems) -> Waive {
    let code = text(table, "code").unwrap_or_default();
    if let Some(value) = table.get("code").filter(|_| !code.is_empty())
        && Code::parse(code).is_none_or(|known| known.to_string() != code)
    {
        problems.add(Code::NOT_A_CHOICE, value.span(), format!("\"{code}\" is not the code of a finding")).help(
            "a code is written BS and four digits, such as \"BS1001\"; `bindscope explain --list` shows them",
        );
    }
    let empty = DeTable::new();
    let matches = table.get("match").and_then(|value| value.get_ref().as_table());
    if let Some(value) = table.get("match").filter(|_| matches.is_some_and(|table| table.is_empty())) {
        problems
            .add(
                Code::NOTHING_ASKED,
                value.span(),
                "`match` is empty: this would waive the finding for every socket",
            )
            .help("name at least a port or a program");
    }
    Waive {
        code: code.to_owned(),
        matches: matching(matches.unwrap_or(&empty), problems),
        reason: text(table, "reason").unwrap_or_default().to_owned(),
        expires: date(table, problems),
        unmatched: match text(table, "unmatched") {
            Some("error") => Unmatched::Error,
            Some("ignore") => Unmatched::Ignore,
            _ => Unmatched::Warn,
        },
        places: Places::new(table, span),
    }
}

fn matching(table: &DeTable<'_>, problems: &mut Problems) -> Match {
    let empty = DeTable::new();
    let process = table.get("process").and_then(|value| value.get_ref().as_table()).unwrap_or(&empty);
    if let Some(value) =
        table.get("process").filter(|value| value.get_ref().as_table().is_some_and(|table| table.is_empty()))
    {
        problems
            .add(Code::NOTHING_ASKED, value.span(), "`process` is empty: it names no process")
            .help("name `exe`, `user`, `unit` or `container`, or leave it out");
    }
    let merged = |key: &str, problems: &mut Problems| {
        let mut list = texts(table, key);
        list.extend(texts(process, key));
        if let (Some(value), true) = (table.get(key), process.contains_key(key)) {
            let message = format!("`{key}` stands here and in `process` as well");
            problems.add(Code::CONTRADICTION, value.span(), message).help("keep one of the two");
        }
        list
    };
    let (unit, container) = (merged("unit", problems), merged("container", problems));
    merged("user", problems);
    let kernel = text(table, "process") == Some("kernel");
    if let Some(value) = table.get("process").filter(|_| kernel)
        && let Some(key) = ["unit", "container", "user"].into_iter().find(|key| table.contains_key(*key))
    {
        let message = format!("the kernel's own sockets have no {key}");
        problems.add(Code::CONTRADICTION, value.span(), message).help("keep one of the two");
    }
    let mut user: Vec<User> = parsed(table, "user", problems, User::parse);
    user.extend(parsed(process, "user", problems, User::parse));
    let address = |text: &str| {
        let wrong = "is not an address; write it without a port and without a zone";
        text.trim_matches(['[', ']']).parse::<IpAddr>().map_err(|_| wrong.to_owned())
    };
    Match {
        protocol: match text(table, "protocol") {
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            _ => None,
        },
        ports: table.get("port").map(|value| ports::read(value, problems)).unwrap_or_default(),
        addresses: parsed(table, "address", problems, address),
        networks: parsed(table, "network", problems, network),
        interfaces: texts(table, "interface"),
        devices: texts(table, "device"),
        holder: Holder { kernel, exe: texts(process, "exe"), user, unit, container },
    }
}

/// A network as `10.0.0.0/8`; an address alone is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| "is not a network such as \"10.0.0.0/8\"".to_owned())?,
    };
    let whole = network.trunc();
    if whole == network {
        Ok(network)
    } else {
        Err(format!("has bits set behind its prefix; the network is \"{whole}\""))
    }
}

/// The texts under `key`, each read by `parse`; a problem for each that cannot be read.
fn parsed<T>(
    table: &DeTable<'_>,
    key: &str,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let values = table.get(key).map(one_or_many).unwrap_or_default();
    let mut read = |value: &Value<'_>| {
        let text = value.get_ref().as_str()?;
        match parse(text) {
            Ok(read) => Some(read),
            Err(reason) => {
                let shown: String = text.chars().take(64).collect();
                problems.add(Code::BAD_ADDRESS, value.span(), format!("`{key}`: \"{shown}\" {reason}"));
                None
            }
        }
    };
    values.into_iter().filter_map(&mut read).collect()
}

fn date(table: &DeTable<'_>, problems: &mut Problems) -> Option<Date> {
    let value = table.get("expires")?;
    let written = value.get_ref().as_datetime()?.date?;
    let date = i16::try_from(written.year).ok().and_then(|year| {
        Date::new(year, i8::try_from(written.month).ok()?, i8::try_from(written.day).ok()?).ok()
    });
    if date.is_none() {
        problems.add(Code::NOT_A_CHOICE, value.span(), "this date does not exist");
    }
    date
}
