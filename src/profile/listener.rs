//! `[[listener]]` and `[defaults]`.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::bind::{self, Bind, Scope, name_or_label};
use super::keys::{Key, Keys, Kind, optional, required};
use super::value::{Problems, boolean, number, text};
use super::{duration, ports};
use crate::code::Code;
use crate::model::addr::is_mapped;
use crate::model::socket::Reply;
use crate::model::{IfName, Protocol, V6Only};

/// A named entry of a profile: one or more sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Name, unique in the profile.
    pub name: String,
    /// Target of the bind.
    pub bind: Bind,
    /// Ports, in the order of the file.
    pub ports: Vec<u16>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// IPV6_V6ONLY of the IPv6 sockets.
    pub v6only: V6Only,
    /// SO_BINDTODEVICE.
    pub device: Option<IfName>,
    /// Limit of the accept queue, passed to `listen(2)`.
    pub backlog: u32,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// SO_REUSEPORT, if set: the number of sockets on each address and port, at least 1.
    pub reuse_port: Option<u16>,
    /// IP_FREEBIND.
    pub freebind: bool,
    /// IP_TRANSPARENT.
    pub transparent: bool,
    /// Reply to clients.
    pub reply: Reply,
    /// Action if an address or interface does not exist.
    pub when_missing: WhenMissing,
    /// Timeout of [`WhenMissing::Wait`].
    pub wait_timeout: Duration,
    /// Whether to wait until duplicate address detection of a tentative address has finished.
    pub wait_dad: bool,
    /// Whether sockets are opened and closed as matching addresses are added and removed.
    pub follow: bool,
    /// A connection that is idle for this time is closed.
    pub idle_timeout: Duration,
    /// Maximum of open connections; further ones are counted and closed immediately.
    pub max_connections: u32,
    /// With port 0: whether every socket takes a port of its own.
    pub port_per_socket: bool,
    /// The reason for the exposure; shared by the listeners that have it from `[defaults]`.
    pub exposure_reason: Option<Arc<str>>,
    /// Whether the destination and interface of each datagram are reported.
    pub pktinfo: bool,
    /// First line in the file, from 1; 0 if it does not come from a file.
    pub line: usize,
    /// Keys whose default depends on the protocol, where they are written.
    pub(super) explicit: Explicit,
}

/// Whether keys are written whose default depends on the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Explicit {
    pub(super) reuse_address: bool,
    pub(super) reply: bool,
}

/// Action if an address or interface does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenMissing {
    /// Report a failure; the other listeners continue.
    #[default]
    Fail,
    /// Wait for it, then fail.
    Wait,
    /// Skip it with a note.
    Skip,
    /// Bind anyway (IP_FREEBIND).
    Freebind,
}

impl Listener {
    /// A listener with all defaults.
    #[must_use]
    pub fn new(name: &str, bind: Bind, ports: Vec<u16>, protocol: Protocol) -> Listener {
        let tcp = protocol == Protocol::Tcp;
        Listener {
            name: name.to_owned(),
            bind,
            ports,
            protocol,
            v6only: V6Only::On,
            device: None,
            backlog: 4096,
            reuse_address: tcp,
            reuse_port: None,
            freebind: false,
            transparent: false,
            reply: if tcp { Reply::Describe } else { Reply::None },
            when_missing: WhenMissing::Fail,
            wait_timeout: Duration::from_secs(30),
            wait_dad: false,
            follow: false,
            idle_timeout: Duration::from_secs(10),
            max_connections: 256,
            port_per_socket: false,
            exposure_reason: None,
            pktinfo: true,
            line: 0,
            explicit: Explicit::default(),
        }
    }

    /// Resets a key that has no value by default.
    pub(super) fn leave_out(&mut self, key: &str) {
        match key {
            "device" => self.device = None,
            "reuse_port" => self.reuse_port = None,
            "exposure_reason" => self.exposure_reason = None,
            _ => {}
        }
    }
}

macro_rules! shared_keys {
    ($($own:expr,)*) => {
        &[
            $($own,)*
            optional("protocol", Kind::Choice(&["tcp", "udp"]), "tcp (the default) or udp").default(r#""tcp""#),
            optional("v6only", Kind::BoolOr(&["system"]), "IPV6_V6ONLY: true (the default), false (:: accepts IPv4 as well), or \"system\" (net.ipv6.bindv6only decides)").default("true"),
            optional("device", Kind::Text, "accept only what arrives on this interface (SO_BINDTODEVICE)"),
            optional("backlog", Kind::Integer(0, 2_147_483_647), "queue of connections that wait to be accepted (default 4096); net.core.somaxconn caps it").default("4096"),
            optional("reuse_address", Kind::Bool, "SO_REUSEADDR: default true for tcp, false for udp"),
            optional("reuse_port", Kind::BoolOrTable(&REUSE_PORT), "SO_REUSEPORT: true, or { group = 4 } for several sockets on the same address and port"),
            optional("freebind", Kind::Bool, "IP_FREEBIND: bind addresses that this host does not have (yet); default false").default("false"),
            optional("transparent", Kind::Bool, "IP_TRANSPARENT: needs CAP_NET_ADMIN or CAP_NET_RAW").default("false"),
            optional("reply", Kind::Choice(&["none", "describe", "echo"]), "reply to clients: default describe for tcp, none for udp"),
            optional("when_missing", Kind::Choice(&["fail", "wait", "skip", "freebind"]), "action if an address or interface does not exist: fail (the default), wait, skip or freebind").default(r#""fail""#),
            optional("wait_timeout", Kind::Duration, "timeout of when_missing = \"wait\" and of wait_dad (default 30s)").default(r#""30s""#),
            optional("wait_dad", Kind::Bool, "wait until the kernel has checked a tentative address for duplicates").default("false"),
            optional("follow", Kind::Bool, "open and close sockets as matching addresses come and go").default("false"),
            optional("idle_timeout", Kind::Duration, "close connections that are idle for this time (default 10s)").default(r#""10s""#),
            optional("port_per_socket", Kind::Bool, "with port 0: each socket gets a separate port (default: all sockets of the listener share one)").default("false"),
            optional("max_connections", Kind::Integer(1, 1_000_000), "maximum of open connections; further ones are counted and closed (default 256)").default("256"),
            optional("exposure_reason", Kind::Text, "reason why other hosts may reach it; --strict requires it"),
            optional("pktinfo", Kind::Bool, "report destination and interface of each datagram; always true").default("true"),
        ]
    };
}

/// Keys of `[[listener]]`.
pub(super) static LISTENER: Keys = Keys {
    what: "[[listener]]",
    keys: shared_keys!(
        required("name", Kind::Text, "the name of the listener in every report"),
        optional(
            "bind",
            Kind::Bind(&SELECTOR),
            "an address, \"loopback\" (the default), { interface = ... }, or a list of them"
        )
        .default(r#""loopback""#),
        required("port", Kind::Ports, "a port, a range such as \"8000-8009\", a list of them, or 0"),
    ),
};

/// Keys of `[defaults]`.
pub(super) static DEFAULTS: Keys = Keys { what: "[defaults]", keys: shared_keys!() };

static SELECTOR: Keys = Keys { what: "a `bind` by interface", keys: SELECTOR_KEYS };

const SELECTOR_KEYS: &[Key] = &[
    required("interface", Kind::Texts, "name of the interface, or a pattern such as \"eth*\""),
    optional("family", Kind::Choice(&["ipv4", "ipv6", "both"]), "address family (default both)")
        .default(r#""both""#),
    optional(
        "scope",
        Kind::Choice(Scope::WORDS),
        "class of addresses: any (the default), global (includes private), private, link, loopback",
    )
    .default(r#""any""#),
];

static REUSE_PORT: Keys = Keys {
    what: "`reuse_port`",
    keys: &[
        required("group", Kind::Integer(1, 1024), "number of sockets on each address and port"),
        optional("policy", Kind::Choice(&["hash"]), "how the kernel spreads connections: by hash"),
    ],
};

/// A partially parsed listener. Values that depend on the protocol are set at the end.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    listener: Listener,
    reuse_address: Option<bool>,
    reply: Option<Reply>,
}

impl Draft {
    pub(super) fn new() -> Draft {
        Draft {
            listener: Listener::new("", Bind::Loopback, Vec::new(), Protocol::Tcp),
            reuse_address: None,
            reply: None,
        }
    }

    /// Reads `[defaults]` or `[[listener]]`. [`super::keys::check`] has checked types and words.
    pub(super) fn overlay(&mut self, table: &DeTable<'_>, problems: &mut Problems) {
        let draft = &mut self.listener;
        match text(table, "protocol") {
            Some("tcp") => draft.protocol = Protocol::Tcp,
            Some("udp") => draft.protocol = Protocol::Udp,
            _ => {}
        }
        match (boolean(table, "v6only"), text(table, "v6only")) {
            (Some(true), _) => draft.v6only = V6Only::On,
            (Some(false), _) => draft.v6only = V6Only::Off,
            (None, Some("system")) => draft.v6only = V6Only::System,
            _ => {}
        }
        if let Some(name) = text(table, "device").filter(|name| !name.is_empty()) {
            match name_or_label(name) {
                Ok(name) => draft.device = Some(name),
                Err(reason) => {
                    let span = table.get("device").map(toml::Spanned::span).unwrap_or_default();
                    problems.add(Code::BAD_INTERFACE, span, format!("`device` {reason}"));
                }
            }
        }
        if let Some(group) = table.get("reuse_port") {
            draft.reuse_port = match (group.get_ref().as_bool(), group.get_ref().as_table()) {
                (Some(true), _) => Some(1),
                (_, Some(group)) => Some(number(group, "group").unwrap_or(1)),
                _ => None,
            };
        }
        match text(table, "when_missing") {
            Some("fail") => draft.when_missing = WhenMissing::Fail,
            Some("wait") => draft.when_missing = WhenMissing::Wait,
            Some("skip") => draft.when_missing = WhenMissing::Skip,
            Some("freebind") => draft.when_missing = WhenMissing::Freebind,
            _ => {}
        }
        match text(table, "reply") {
            Some("none") => self.reply = Some(Reply::None),
            Some("describe") => self.reply = Some(Reply::Describe),
            Some("echo") => self.reply = Some(Reply::Echo),
            _ => {}
        }
        self.reuse_address = boolean(table, "reuse_address").or(self.reuse_address);
        for (key, place) in [
            ("freebind", &mut draft.freebind),
            ("transparent", &mut draft.transparent),
            ("wait_dad", &mut draft.wait_dad),
            ("follow", &mut draft.follow),
            ("port_per_socket", &mut draft.port_per_socket),
            ("pktinfo", &mut draft.pktinfo),
        ] {
            *place = boolean(table, key).unwrap_or(*place);
        }
        for (key, place) in
            [("wait_timeout", &mut draft.wait_timeout), ("idle_timeout", &mut draft.idle_timeout)]
        {
            if let Some(value) = table.get(key) {
                *place = duration::read(key, value, problems).unwrap_or(*place);
            }
        }
        draft.backlog = number(table, "backlog").unwrap_or(draft.backlog);
        draft.max_connections = number(table, "max_connections").unwrap_or(draft.max_connections);
        if let Some(reason) = text(table, "exposure_reason") {
            draft.exposure_reason = Some(reason.into());
        }
    }

    /// The listener of a `[[listener]]` table at `span`; missing values come from these defaults. In a profile that is `refused`
    /// because of its number of sockets, a range of ports is represented by its first port.
    pub(super) fn finish(
        mut self,
        table: &DeTable<'_>,
        span: &Range<usize>,
        refused: bool,
        problems: &mut Problems,
    ) -> Listener {
        self.overlay(table, problems);
        let mut listener = self.listener;
        let tcp = listener.protocol == Protocol::Tcp;
        listener.line = problems.line(span);
        listener.explicit =
            Explicit { reuse_address: self.reuse_address.is_some(), reply: self.reply.is_some() };
        listener.reuse_address = self.reuse_address.unwrap_or(tcp);
        listener.reply = self.reply.unwrap_or(if tcp { Reply::Describe } else { Reply::None });
        if let Some(name) = text(table, "name") {
            listener.name = name.to_owned();
        }
        if let Some(value) = table.get("port") {
            let of_each = if refused { 1 } else { usize::MAX };
            let ranges = ports::read(value, problems);
            listener.ports = ranges.into_iter().flat_map(|range| range.take(of_each)).collect();
        }
        if let Some(value) = table.get("bind")
            && let Some(bind) = bind::read(value, listener.device.as_ref(), problems)
        {
            listener.bind = bind;
        }
        contradictions(&listener, table, span, problems);
        listener
    }
}

/// The listener with the keys of `table` instead of its own.
pub(super) fn varied(listener: &Listener, table: &DeTable<'_>, problems: &mut Problems) -> Listener {
    let draft = Draft {
        listener: listener.clone(),
        reuse_address: listener.explicit.reuse_address.then_some(listener.reuse_address),
        reply: listener.explicit.reply.then_some(listener.reply),
    };
    let line = listener.line;
    Listener { line, ..draft.finish(table, &(0..0), false, problems) }
}

/// Checks the values of `table`, which has some keys of a listener, without those that depend on other keys.
pub(super) fn check_values(table: &DeTable<'_>, problems: &mut Problems) {
    Draft::new().overlay(table, problems);
    if let Some(value) = table.get("port") {
        ports::read(value, problems);
    }
    if let Some(value) = table.get("bind") {
        bind::read(value, None, problems);
    }
}

/// Reports keys that exclude each other.
fn contradictions(listener: &Listener, table: &DeTable<'_>, span: &Range<usize>, problems: &mut Problems) {
    let place = |key: &str| table.get(key).map_or_else(|| span.clone(), toml::Spanned::span);
    let mut addresses = listener.bind.parts().iter().filter_map(|bind| match bind {
        Bind::Address { address, zone } => Some((*address, zone)),
        _ => None,
    });
    if let Some((IpAddr::V6(v6), _)) = addresses.clone().find(|(address, _)| is_mapped(*address))
        && listener.v6only == V6Only::On
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        problems
            .add(
                Code::MAPPED_ADDRESS,
                place("bind"),
                format!(
                    "{v6} stands for IPv4, but v6only is {} here",
                    if table.contains_key("v6only") { "true" } else { "true by default" }
                ),
            )
            .help(format!("write \"{v4}\", or add v6only = false"));
    }
    if let (Some(device), Some((address, Some(zone)))) =
        (&listener.device, addresses.find(|(_, zone)| zone.is_some()))
        && device != zone
        && !zone.as_bytes().iter().all(u8::is_ascii_digit)
    {
        problems
            .add(
                Code::CONTRADICTION,
                place("device"),
                format!("`device` is {device}, but {address} is on {zone}"),
            )
            .help("name the same interface in both, or leave `device` out");
    }
    let only_v4 =
        listener.bind.parts().iter().all(|bind| matches!(bind, Bind::Address { address: IpAddr::V4(_), .. }));
    if !listener.pktinfo && table.contains_key("pktinfo") {
        problems
            .add(Code::CONTRADICTION, place("pktinfo"), "`pktinfo = false` would hide where datagrams arrive")
            .help("leave it out: bindscope always asks for it");
    }
    if only_v4 && table.contains_key("v6only") {
        problems
            .add(Code::CONTRADICTION, place("v6only"), "`v6only` means nothing on an IPv4 address")
            .help("leave it out, or write bind = \"::\" for IPv6");
    }
    if listener.protocol == Protocol::Udp {
        for key in
            ["backlog", "max_connections", "idle_timeout"].into_iter().filter(|key| table.contains_key(*key))
        {
            problems
                .add(
                    Code::CONTRADICTION,
                    place(key),
                    format!("`{key}` is about connections, but udp has none"),
                )
                .help("leave it out, or write protocol = \"tcp\"");
        }
    }
    if listener.reuse_port.is_some_and(|group| group > 1) && listener.ports.contains(&0) {
        problems
            .add(Code::CONTRADICTION, place("port"), "port 0 gives every socket of a group another port")
            .help("name a port, so that the sockets of the group share it");
    }
}
