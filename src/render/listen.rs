//! What `listen` shows people: the sockets at the start, a line per arrival, and a matrix at the end.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::Style;

use crate::escape::{self, escape};
use crate::model::addr::{push_with_port, text_with_port};
use crate::model::{
    AddrClass, Arrival, Endpoint, Evidence, Exposure, Family, IfName, Ingress, Protocol, SocketView,
};
use crate::record::event::{
    Accepted, BoundSocket, ChangedExposure, ChangedPath, Datagram, Event, FilledQueue, ListenerSummary,
    Network, Started, Summary,
};
use crate::record::time::Time;
use crate::render::style::{BOLD, DIM, GREEN, RED, YELLOW};

/// Where a line continues that does not fit the terminal.
const CONTINUED: usize = 15;
const LOOPBACK: Style = GREEN;
const OPEN: Style = YELLOW;
const BAD: Style = RED;

/// Turns events into lines. Columns grow with what they hold and never shrink, so that lines stay aligned.
#[derive(Debug)]
pub struct Live {
    color: bool,
    /// Columns of the terminal; `usize::MAX` for a file or a pipe.
    columns: usize,
    /// An address of this host at which other hosts reach a wildcard, for the line that says what to try.
    example: Option<std::net::IpAddr>,
    sockets: Vec<(BoundSocket, String)>,
    begun: bool,
    listener_width: usize,
    peer_width: usize,
    local_width: usize,
    ingress_width: usize,
}

impl Live {
    /// An empty view.
    #[must_use]
    pub fn new(color: bool, columns: usize) -> Live {
        Live {
            color,
            columns,
            example: None,
            sockets: Vec::new(),
            begun: false,
            listener_width: "LISTENER".len(),
            peer_width: "255.255.255.255:65535".len(),
            local_width: "255.255.255.255:65535".len(),
            ingress_width: "INGRESS".len(),
        }
    }

    /// Sets the address for the line that says what to try.
    pub fn try_at(&mut self, address: Option<std::net::IpAddr>) {
        self.example = address;
    }

    /// The lines of an event; empty for those that are shown elsewhere (failures and notices go to standard error).
    pub fn event(&mut self, event: &Event) -> String {
        match event {
            Event::Started(started) => self.started(started),
            Event::Bound(bound) if self.begun => {
                let (style, reach) = reach_of(&bound.socket, " now");
                self.remark(&bound.socket, style, &format!("is open: {reach}"))
            }
            Event::Bound(bound) => {
                let shown = bound.socket.to_string();
                self.listener_width = self.listener_width.max(width(&name_of(&bound.socket)));
                self.sockets.push((bound.clone(), shown));
                String::new()
            }
            Event::Closed(closed) => self.remark(&closed.socket, DIM, "is closed"),
            Event::BindFailed(_) | Event::Notice(_) => String::new(),
            Event::Listening(_) => {
                self.begun = true;
                self.listening()
            }
            Event::Accepted(Accepted { time, arrival, over_limit: false }) => {
                self.told_arrival(*time, arrival, None)
            }
            Event::Accepted(Accepted { time, arrival, over_limit: true }) => {
                let mut out = Vec::new();
                self.over_limit(&mut out, *time, arrival);
                String::from_utf8_lossy(&out).into_owned()
            }
            Event::Datagram(Datagram { time, arrival, bytes, truncated }) => {
                self.told_arrival(*time, arrival, Some((*bytes, *truncated)))
            }
            Event::PathChanged(changed) => self.path_changed(changed),
            Event::Network(network) => self.network(network),
            Event::Exposure(changed) => self.exposure(changed),
            Event::Queue(queue) => self.queue(queue),
            Event::Dropped(dropped) => {
                self.styled(
                    BAD,
                    &format!("... {} arrivals without a line: {}", dropped.count, dropped.reason),
                ) + "\n"
            }
            Event::Summary(summary) => self.summary(summary),
        }
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn started(&self, started: &Started) -> String {
        let host = started.host.name.as_deref().unwrap_or("this host");
        let profile = match started.profile.as_str() {
            "command line" => String::new(),
            name => format!(" with profile {}", self.styled(BOLD, &escape(name))),
        };
        format!("bindscope {} listens on {}{profile}\n", escape(&started.version), escape(host))
    }

    /// The table of sockets, and the head of the arrivals.
    fn listening(&self) -> String {
        if self.sockets.is_empty() {
            return "\n  no socket is open\n".to_owned();
        }
        let mut out = String::from("\n");
        let rows = self.folded();
        let socket_width = rows.iter().map(|(_, shown)| width(shown)).max().unwrap_or(0);
        for (bound, shown) in &rows {
            let (style, reach) = reach_of(&bound.socket, " now");
            let name = padded(&name_of(&bound.socket), self.listener_width);
            let _ = write!(out, "  {name}  {}", padded(shown, socket_width));
            let used = 4 + self.listener_width + socket_width;
            // A row that is too long continues below its socket.
            let indent = 4 + self.listener_width;
            if used + 2 + width(&reach) > self.columns && indent + width(&reach) <= self.columns {
                let _ = write!(out, "\n{}{}", " ".repeat(indent), self.styled(style, &reach));
            } else {
                let _ = write!(out, "  {}", self.styled(style, &reach));
            }
            if bound.inherited {
                out.push_str("  inherited");
            }
            if let Some(errno) = bound.packet_info_errno {
                let _ = write!(out, "  {}", self.styled(BAD, &format!("no ingress interface ({errno})")));
            }
            out.push('\n');
        }
        if self.columns < usize::MAX {
            out.push('\n');
            let hints = format!(
                "Ctrl-C ends.{} Connections that the kernel refuses never reach a listener and are not listed.",
                self.what_to_try()
            );
            out.push_str(&self.styled(DIM, &super::table::wrap(&hints, self.columns, "")));
            out.push('\n');
        }
        out.push('\n');
        let mut head = Vec::new();
        self.fields(
            &mut head,
            &[
                ("TIME", 13),
                ("LISTENER", self.listener_width),
                ("INGRESS", self.ingress_width),
                ("PEER", self.peer_width),
                ("LOCAL", self.local_width),
                ("REMARKS", 7),
            ],
        );
        out + &self.styled(DIM, String::from_utf8_lossy(&head).trim_end()) + "\n"
    }

    /// The sockets in order; those of a listener that differ in consecutive ports only share a row.
    fn folded(&self) -> Vec<(BoundSocket, String)> {
        let mut rows: Vec<(BoundSocket, u16)> = Vec::new();
        let alike = |a: &BoundSocket, b: &BoundSocket| {
            let plain = |bound: &BoundSocket| SocketView { port: 0, ..bound.socket.clone() };
            plain(a) == plain(b) && a.inherited == b.inherited && a.packet_info_errno == b.packet_info_errno
        };
        for (bound, _) in &self.sockets {
            match rows
                .iter_mut()
                .find(|(first, last)| last.checked_add(1) == Some(bound.socket.port) && alike(first, bound))
            {
                Some((_, last)) => *last = bound.socket.port,
                None => rows.push((bound.clone(), bound.socket.port)),
            }
        }
        rows.into_iter()
            .map(|(first, last)| {
                let shown = first.socket.to_string();
                let port = first.socket.port;
                let shown = if last == port {
                    shown
                } else {
                    shown.replacen(&format!(":{port}"), &format!(":{port}-{last}"), 1)
                };
                (first, shown)
            })
            .collect()
    }

    /// A command that connects to the first TCP socket: from here, and from another host if it can.
    fn what_to_try(&self) -> String {
        let Some((bound, _)) = self.sockets.iter().find(|(bound, _)| bound.socket.protocol == Protocol::Tcp)
        else {
            return String::new();
        };
        let socket = &bound.socket;
        let url = |address| format!("curl http://{}/", text_with_port(address, None, socket.port));
        if socket.device.is_some() || socket.scope_id.is_some() {
            return String::new();
        }
        let here: std::net::IpAddr = match socket.address {
            std::net::IpAddr::V4(v4) if v4.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(v6) if v6.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        let same_family = |address: &std::net::IpAddr| address.is_ipv4() == socket.address.is_ipv4();
        let elsewhere = match (socket.address.is_unspecified(), self.example.filter(same_family)) {
            (true, Some(address)) => format!(", {} elsewhere", url(address)),
            _ => String::new(),
        };
        format!(" Try: {} here{elsewhere}.", url(here))
    }

    /// Adds texts in columns; a text that does not fit the terminal continues on the next line.
    fn fields(&self, out: &mut Vec<u8>, fields: &[(&str, usize)]) {
        let mut used = 0;
        for (index, (text, columns)) in fields.iter().enumerate() {
            if index > 0 {
                self.gap(out, &mut used, if index + 1 == fields.len() { width(text) } else { *columns });
            }
            out.extend_from_slice(padded(text, *columns).as_bytes());
            used += columns;
        }
    }

    /// Separates a column of this width from those before it: two blanks, or a new line if it would not fit.
    fn gap(&self, out: &mut Vec<u8>, used: &mut usize, columns: usize) {
        if *used + 2 + columns > self.columns && *used > CONTINUED {
            while out.last() == Some(&b' ') {
                out.pop();
            }
            out.push(b'\n');
            out.resize(out.len() + CONTINUED, b' ');
            *used = CONTINUED;
        } else {
            out.extend_from_slice(b"  ");
            *used += 2;
        }
    }

    fn told_arrival(&mut self, time: Time, arrival: &Arrival, datagram: Option<(usize, bool)>) -> String {
        let mut out = Vec::new();
        self.arrival(&mut out, time, arrival, datagram);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Adds the line of a connection that was closed at once, since its listener was full.
    pub fn over_limit(&mut self, out: &mut Vec<u8>, time: Time, arrival: &Arrival) {
        self.line(out, time, arrival, |out, start| {
            remark(out, start, format_args!("closed at once: max_connections are open"));
        });
    }

    /// Adds the line of an arrival to `out`; of a datagram also its length in bytes and whether only its beginning was read.
    pub fn arrival(
        &mut self,
        out: &mut Vec<u8>,
        time: Time,
        arrival: &Arrival,
        datagram: Option<(usize, bool)>,
    ) {
        self.line(out, time, arrival, |out, start| match datagram {
            Some((bytes, false)) => remark(out, start, format_args!("{bytes} bytes")),
            Some((bytes, true)) => {
                remark(out, start, format_args!("{bytes} bytes, only the beginning was read"));
            }
            None => {}
        });
    }

    /// Adds a line whose last remarks `more` adds, behind those that begin at its second argument.
    fn line(
        &mut self,
        out: &mut Vec<u8>,
        time: Time,
        arrival: &Arrival,
        more: impl FnOnce(&mut Vec<u8>, usize),
    ) {
        let start = out.len();
        let style = match (&arrival.ingress.evidence, arrival.peer_is_local) {
            (Evidence::Kernel | Evidence::ScopeId, Some(true)) => LOOPBACK,
            (Evidence::Kernel | Evidence::ScopeId, _) => OPEN,
            _ => DIM,
        };
        styled(out, self.color, DIM, |out| time.push_time_of_day(out));
        let mut used = 13;
        self.gap(out, &mut used, self.listener_width);
        column(out, &mut self.listener_width, |out| escape::push(out, &arrival.listener));
        used += self.listener_width;
        self.gap(out, &mut used, self.ingress_width);
        styled(out, self.color, style, |out| {
            column(out, &mut self.ingress_width, |out| push_ingress(out, &arrival.ingress));
        });
        used += self.ingress_width;
        for is_peer in [true, false] {
            let end = if is_peer { &arrival.peer } else { &arrival.local };
            let mut text = Vec::new();
            endpoint(&mut text, arrival, end);
            let widest = if is_peer { &mut self.peer_width } else { &mut self.local_width };
            *widest = (*widest).max(text.len());
            let columns = *widest;
            self.gap(out, &mut used, columns);
            out.extend_from_slice(&text);
            out.resize(out.len() + columns - text.len(), b' ');
            used += columns;
        }
        let mut said = Vec::new();
        remarks(&mut said, arrival);
        more(&mut said, 0);
        if !said.is_empty() {
            self.gap(out, &mut used, width(&String::from_utf8_lossy(&said)));
            out.extend_from_slice(&said);
        }
        while out.len() > start && out.last() == Some(&b' ') {
            out.pop();
        }
        out.push(b'\n');
    }

    fn path_changed(&self, ChangedPath { time, change }: &ChangedPath) -> String {
        let shown = |ingress: &Ingress| {
            let mut out = Vec::new();
            push_ingress(&mut out, ingress);
            String::from_utf8_lossy(&out).into_owned()
        };
        let text = format!(
            "path changed: the handshake of {} arrived on {}, later packets on {} (listener {})",
            text_with_port(
                change.peer.address,
                change.ingress.name.as_ref().filter(|_| change.peer.scope_id.is_some()),
                change.peer.port
            ),
            shown(&change.ingress),
            shown(&change.later),
            escape(&change.listener)
        );
        format!("{}  {}\n", self.styled(DIM, &time.time_of_day()), self.styled(OPEN, &text))
    }

    fn queue(&self, queue: &FilledQueue) -> String {
        let FilledQueue { time, listener, length, limit, overflows } = queue;
        let overflows =
            overflows.map(|count| format!(", {count} overflows in this namespace")).unwrap_or_default();
        let text =
            format!("{}  queue {length}/{limit} of {}{overflows}", time.time_of_day(), escape(listener));
        self.styled(BAD, &text) + "\n"
    }

    fn network(&self, network: &Network) -> String {
        let time = network.time.time_of_day();
        let mut out = self.styled(DIM, &format!("{time}  {}", network.change)) + "\n";
        for (sockets, style, what) in [
            (&network.lost, BAD, "stays open, but can no longer be reached"),
            (&network.found, LOOPBACK, "can be reached again"),
        ] {
            for socket in sockets {
                out += &self.remark(socket, style, what);
            }
        }
        out
    }

    fn exposure(&self, changed: &ChangedExposure) -> String {
        let (style, reach) = reach_of(&changed.socket, "");
        let time = self.styled(DIM, &changed.time.time_of_day());
        let text = format!("listener {} ({}) is now {reach}", name_of(&changed.socket), changed.socket);
        format!("{time}  {}\n", self.styled(style, &text))
    }

    /// A line about a socket, below the times.
    fn remark(&self, socket: &SocketView, style: Style, what: &str) -> String {
        let text = format!("{:15}listener {} ({socket}) {what}", "", name_of(socket));
        self.styled(style, &text) + "\n"
    }

    /// Listener x ingress interface.
    fn summary(&self, summary: &Summary) -> String {
        if summary.by_listener.is_empty() {
            return String::new();
        }
        let interfaces: BTreeSet<&IfName> =
            summary.by_listener.iter().flat_map(|listener| listener.by_ingress.keys()).collect();
        let first =
            summary.by_listener.iter().map(|row| width(&escape(&row.listener))).max().unwrap_or(0).max(8);
        let columns: Vec<(&IfName, String, usize)> = interfaces
            .iter()
            .map(|name| (*name, name.to_string()))
            .map(|(name, shown)| (name, shown.clone(), width(&shown).max(7)))
            .collect();
        let mut head = format!("\n{}", padded("LISTENER", first));
        for (_, name, wide) in &columns {
            let _ = write!(head, "  {name:>wide$}");
        }
        head.push_str("    TOTAL");
        let mut out = self.styled(DIM, &head) + "\n";
        for row in &summary.by_listener {
            out.push_str(&padded(&escape(&row.listener), first));
            for (name, _, wide) in &columns {
                let count = row.by_ingress.get(*name).copied().unwrap_or(0);
                let shown = if count == 0 { "-".to_owned() } else { count.to_string() };
                let _ = write!(out, "  {shown:>wide$}");
            }
            let _ = writeln!(out, "  {:>7}{}", row.accepted + row.datagrams, over_limit(row));
        }
        let _ = write!(out, "\n{} accepted", summary.accepted);
        if summary.datagrams > 0 {
            let noun = if summary.datagrams == 1 { "datagram" } else { "datagrams" };
            let _ = write!(out, ", {} {noun}", summary.datagrams);
        }
        if summary.dropped > 0 {
            let _ =
                write!(out, ", {}", self.styled(BAD, &format!("{} of them without a line", summary.dropped)));
        }
        out.push('\n');
        for (kind, count) in &summary.errors {
            let _ = writeln!(out, "{}", self.styled(BAD, &format!("{count} x {}", escape(kind))));
        }
        out
    }
}

/// The interface, or what is known of it.
fn push_ingress(out: &mut Vec<u8>, ingress: &Ingress) {
    match (&ingress.name, ingress.index) {
        (Some(name), _) => escape::push_bytes(out, name.as_bytes()),
        (None, Some(index)) => drop(write!(out, "if{index}")),
        (None, None) => out.push(b'?'),
    }
}

fn over_limit(row: &ListenerSummary) -> String {
    match row.over_limit {
        0 => String::new(),
        count => format!("  ({count} closed at once: max_connections were open)"),
    }
}

fn name_of(socket: &SocketView) -> String {
    escape(socket.listener.as_deref().unwrap_or("?"))
}

/// Whether only this host can ever reach a socket: it is bound to a loopback address or to the device `lo`.
fn is_for_this_host(socket: &SocketView) -> bool {
    let on_lo = socket.device.as_ref().is_some_and(|device| device.as_bytes() == b"lo");
    on_lo || AddrClass::of(socket.address.to_canonical()) == AddrClass::Loopback
}

/// Who can reach it, in words.
fn reach_of(socket: &SocketView, now: &str) -> (Style, String) {
    let exposure = socket.exposure;
    match exposure.widest() {
        // Nothing is joined here, and others may join later.
        _ if socket.protocol == Protocol::Udp && AddrClass::of(socket.address) == AddrClass::Multicast => {
            (OPEN, "senders to this group, where it is joined".to_owned())
        }
        Exposure::None => (DIM, format!("not reachable{now}")),
        // Whatever happens to the network.
        Exposure::Loopback if is_for_this_host(socket) => (LOOPBACK, "this host only".to_owned()),
        Exposure::Loopback => (LOOPBACK, format!("this host only{now}")),
        _ if exposure.ipv4 == exposure.ipv6 => (OPEN, exposure.ipv4.words().to_owned()),
        _ => {
            let families = Family::BOTH.map(|family| {
                let class = if family == Family::Ipv4 { exposure.ipv4 } else { exposure.ipv6 };
                (class != Exposure::None).then(|| format!("{family} {}", class.words()))
            });
            (OPEN, families.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
    }
}

/// An end of an arrival; the zone of a link-local address is named where it is the ingress link.
fn endpoint(out: &mut Vec<u8>, arrival: &Arrival, end: &Endpoint) {
    let Some(index) = end.scope_id else { return push_with_port(out, end.address, None, end.port) };
    let number;
    let zone = match &arrival.ingress.name {
        Some(name) if arrival.ingress.index == Some(index) => name,
        _ => {
            number = IfName::from(index.to_string().as_str());
            &number
        }
    };
    push_with_port(out, end.address, Some(zone), end.port);
}

/// What a reader would not guess from addresses and interface alone.
fn remarks(out: &mut Vec<u8>, arrival: &Arrival) {
    let start = out.len();
    let mut remark = |text: std::fmt::Arguments<'_>| remark(out, start, text);
    let loopback = arrival.local.address.is_loopback() && arrival.peer.address.is_loopback();
    if arrival.peer_is_local == Some(true) && !loopback {
        remark(format_args!("this host"));
    }
    if let (Some(owner), Some(name)) = (&arrival.address_owner, &arrival.ingress.name)
        && owner != name
    {
        remark(format_args!("address of {owner}"));
    }
    if arrival.v4_mapped {
        remark(format_args!("IPv4 on an IPv6 socket"));
    }
    match arrival.ingress.evidence {
        Evidence::Kernel => {}
        Evidence::ScopeId => remark(format_args!("interface by scope id")),
        Evidence::Address => remark(format_args!("interface inferred from the address")),
        Evidence::Unknown => remark(format_args!("interface unknown")),
    }
}

/// Adds a remark behind those that begin at `start`.
fn remark(out: &mut Vec<u8>, start: usize, text: std::fmt::Arguments<'_>) {
    if out.len() > start {
        out.extend_from_slice(b"; ");
    }
    let _ = out.write_fmt(text);
}

/// Adds what `write` does in this style.
fn styled(out: &mut Vec<u8>, color: bool, style: Style, write: impl FnOnce(&mut Vec<u8>)) {
    if color {
        let _ = write!(out, "{style}");
    }
    write(out);
    if color {
        let _ = write!(out, "{style:#}");
    }
}

/// Adds what `write` does, and spaces up to the width, which grows where it is too small.
fn column(out: &mut Vec<u8>, width: &mut usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    // The first bytes of characters, see `width`.
    let columns = out.iter().skip(start).filter(|&&byte| byte & 0xc0 != 0x80).count();
    *width = (*width).max(columns);
    out.resize(out.len() + *width - columns, b' ');
}

/// Characters, which is columns for all that [`escape`] lets through but wide scripts; those only shift their own line.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn padded(text: &str, columns: usize) -> String {
    format!("{text:<columns$}")
}

#[cfg(test)]
mod tests;
