//! What the live view of `listen` shows: who arrives where, and the last arrivals.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::cmd::live::board::{Board, Model, Row, Tone};
use crate::code::Code;
use crate::escape::{escape, printable};
use crate::model::{Arrival, Change, Evidence, IfName, Snapshot, SocketView};
use crate::record::event::{Event, ingress_key};
use crate::record::time::Time;
use crate::render::listen::Live;

/// Arrivals that are kept, of all listeners and of each value of the table.
const KEPT: usize = 200;
const KEPT_HERE: usize = 20;

/// Seconds over which the rate is measured.
const RATE: usize = 5;

/// A line of the stream.
enum Entry {
    Arrival(Time, Box<Arrival>, Option<(usize, bool)>),
    OverLimit(Time, Box<Arrival>),
    Message(String, Tone),
}

/// A listener.
struct Listener {
    name: String,
    sockets: Vec<SocketView>,
}

/// Arrivals of one listener on one interface.
#[derive(Default)]
struct Count {
    arrivals: u64,
    /// By evidence.
    evidence: BTreeMap<Evidence, u64>,
    /// At addresses of other interfaces, by their names.
    elsewhere: BTreeMap<IfName, u64>,
    last: VecDeque<(Time, Arrival)>,
}

/// The state of a run.
pub(in crate::cmd) struct Arrivals {
    began: Instant,
    about: String,
    confinement: String,
    listeners: Vec<Listener>,
    /// Interfaces, and whether they are gone.
    columns: Vec<(IfName, bool)>,
    counts: BTreeMap<(String, IfName), Count>,
    stream: VecDeque<Entry>,
    arrivals: u64,
    failed: usize,
    changes: u64,
    /// Arrivals by second, the newest last.
    seconds: VecDeque<(u64, u64)>,
}

impl Arrivals {
    pub(super) fn new(profile: &str, host: &Snapshot) -> Arrivals {
        let on = host.host.name.as_deref().unwrap_or("this host");
        let up = host.interfaces.iter().filter(|interface| interface.up && !interface.addresses.is_empty());
        Arrivals {
            began: Instant::now(),
            about: format!("{} on {}", escape(profile), escape(on)),
            confinement: String::new(),
            listeners: Vec::new(),
            columns: up.map(|interface| (interface.name.clone(), false)).collect(),
            counts: BTreeMap::new(),
            stream: VecDeque::new(),
            arrivals: 0,
            failed: 0,
            changes: 0,
            seconds: VecDeque::new(),
        }
    }

    /// Adds a message, such as a warning.
    pub(super) fn message(&mut self, text: &str, tone: Tone) {
        self.push(Entry::Message(printable(text), tone));
    }

    fn push(&mut self, entry: Entry) {
        self.changes += 1;
        if self.stream.len() == KEPT {
            self.stream.pop_front();
        }
        self.stream.push_back(entry);
    }

    fn seconds_since_begin(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Counts an arrival; `over_limit` if it was closed at once.
    pub(super) fn arrival(
        &mut self,
        time: Time,
        arrival: &Arrival,
        datagram: Option<(usize, bool)>,
        over_limit: bool,
    ) {
        self.arrivals += 1;
        let second = self.seconds_since_begin();
        match self.seconds.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => {
                self.seconds.push_back((second, 1));
                if self.seconds.len() > RATE + 1 {
                    self.seconds.pop_front();
                }
            }
        }
        let interface = ingress_key(arrival.ingress.name.as_ref(), arrival.ingress.index);
        if !self.columns.iter().any(|(name, gone)| *name == interface && !gone) {
            self.columns.retain(|(name, _)| *name != interface);
            self.columns.push((interface.clone(), false));
        }
        let count = self.counts.entry((arrival.listener.clone(), interface)).or_default();
        count.arrivals += 1;
        *count.evidence.entry(arrival.ingress.evidence).or_default() += 1;
        if let Some(owner) = arrival.other_owner() {
            *count.elsewhere.entry(owner.clone()).or_default() += 1;
        }
        if count.last.len() == KEPT_HERE {
            count.last.pop_front();
        }
        count.last.push_back((time, arrival.clone()));
        let arrival = Box::new(arrival.clone());
        self.push(if over_limit {
            Entry::OverLimit(time, arrival)
        } else {
            Entry::Arrival(time, arrival, datagram)
        });
    }

    /// Takes an event that is not an arrival.
    pub(super) fn event(&mut self, event: &Event) {
        self.changes += 1;
        match event {
            Event::Bound(bound) => {
                let name = bound.socket.listener.clone().unwrap_or_default();
                match self.listeners.iter_mut().find(|listener| listener.name == name) {
                    Some(listener) => listener.sockets.push(bound.socket.clone()),
                    None => self.listeners.push(Listener { name, sockets: vec![bound.socket.clone()] }),
                }
            }
            Event::Closed(closed) => {
                for listener in &mut self.listeners {
                    listener.sockets.retain(|socket| *socket != closed.socket);
                }
                self.message(&format!("socket {} is closed", closed.socket), Tone::Faint);
            }
            Event::BindFailed(failed) => {
                self.failed += 1;
                let name = failed.socket.listener.as_deref().unwrap_or("?");
                self.message(&format!("! listener {name}: {}", failed.message), Tone::Bad);
            }
            // One message names all listeners that others can reach.
            Event::Notice(notice) if notice.code == Code::WIDE_OPEN => {}
            Event::Notice(notice) => {
                let name = notice.listener.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
                self.message(&format!("{} {name}{}", notice.code, notice.message), Tone::Faint);
            }
            Event::Listening(listening) => {
                if let Some(confinement) = &listening.confinement {
                    self.confinement = match confinement.landlock {
                        Some(version) => format!("  confined: landlock {version}"),
                        None => "  not confined by landlock".to_owned(),
                    };
                }
            }
            Event::Network(network) => {
                match &network.change {
                    Change::InterfaceAdded { interface } | Change::InterfaceUp { interface } => {
                        self.columns.retain(|(name, gone)| name != interface || !gone);
                        if !self.columns.iter().any(|(name, _)| name == interface) {
                            self.columns.push((interface.clone(), false));
                        }
                    }
                    Change::InterfaceRemoved { interface } => {
                        for (_, gone) in self.columns.iter_mut().filter(|(name, _)| name == interface) {
                            *gone = true;
                        }
                    }
                    _ => {}
                }
                let time = network.time.time_of_day();
                self.message(&format!("{time}  {}", network.change), Tone::Fresh);
                for socket in &network.lost {
                    self.message(&format!("! {socket} can no longer be reached"), Tone::Bad);
                }
            }
            Event::Queue(queue) => {
                let text = format!(
                    "! the accept queue of {} has {} of {}",
                    escape(&queue.listener),
                    queue.length,
                    queue.limit
                );
                self.message(&text, Tone::Bad);
            }
            _ => {}
        }
    }

    fn rate(&self) -> f64 {
        let now = self.seconds_since_begin();
        let window = u64::try_from(RATE).unwrap_or(1).min(now.max(1));
        let recent = self.seconds.iter().filter(|(second, _)| second + window >= now && *second < now.max(1));
        let count: u64 = recent.map(|(_, count)| count).sum();
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / f64::from(u32::try_from(window).unwrap_or(1))
    }

    /// The heading of an interface.
    fn heading((name, gone): &(IfName, bool)) -> String {
        if *gone { format!("{name} gone") } else { name.to_string() }
    }

    /// The rule that makes a listener accept what arrives on an interface.
    fn rule(listener: &Listener, count: &Count) -> Code {
        let mapped = count.last.iter().any(|(_, arrival)| arrival.v4_mapped);
        let socket = count.last.back().and_then(|(_, arrival)| {
            let port = |socket: &&SocketView| socket.port == arrival.local.port;
            let exact = |socket: &&SocketView| socket.address.to_canonical() == arrival.local.address;
            let sockets = || listener.sockets.iter().filter(port);
            sockets().find(exact).or_else(|| sockets().next())
        });
        match socket {
            _ if !count.elsewhere.is_empty() => Code::WEAK_HOST,
            Some(socket) if socket.device.is_some() => Code::DEVICE_BOUND,
            Some(socket) if socket.address.is_unspecified() && mapped => Code::DUAL_STACK,
            Some(socket) if socket.address.is_unspecified() => Code::WILDCARD,
            _ => Code::EXACT_ADDRESS,
        }
    }
}

impl Model for Arrivals {
    fn revision(&self) -> u64 {
        // The clock in the first line changes every second.
        (self.changes << 20).wrapping_add(self.seconds_since_begin())
    }

    fn board(&self) -> Board {
        let sockets: usize = self.listeners.iter().map(|listener| listener.sockets.len()).sum();
        let status = format!(
            " {}   {}s   {} arrivals   {:.1}/s   {sockets} sockets, {} failed{}",
            self.about,
            self.seconds_since_begin(),
            self.arrivals,
            self.rate(),
            self.failed,
            self.confinement
        );
        let mut columns = vec!["LISTENER".to_owned(), "BOUND TO".to_owned()];
        columns.extend(self.columns.iter().map(Arrivals::heading));
        columns.push("TOTAL".to_owned());
        let rows = self.listeners.iter().map(|listener| {
            let bound = match listener.sockets.as_slice() {
                [] => "closed".to_owned(),
                [one] => one.to_string(),
                [first, ..] => format!("{first} and {} more", listener.sockets.len() - 1),
            };
            let mut cells = vec![(escape(&listener.name), Tone::Plain), (bound, Tone::Faint)];
            let mut total = 0;
            for (name, _) in &self.columns {
                let count = self.counts.get(&(listener.name.clone(), name.clone()));
                cells.push(match count {
                    None => ("-".to_owned(), Tone::Faint),
                    Some(count) => {
                        total += count.arrivals;
                        let mark = if count.elsewhere.is_empty() { "" } else { "!" };
                        let tone = if mark.is_empty() { Tone::Plain } else { Tone::Bad };
                        (format!("{}{mark}", count.arrivals), tone)
                    }
                });
            }
            cells.push((total.to_string(), Tone::Plain));
            Row { key: listener.name.clone(), cells }
        });
        let rows = rows.collect();
        let mut lines = Live::new(false, usize::MAX);
        let mut text = |entry: &Entry| {
            let mut out = Vec::new();
            match entry {
                Entry::Arrival(time, arrival, datagram) => lines.arrival(&mut out, *time, arrival, *datagram),
                Entry::OverLimit(time, arrival) => lines.over_limit(&mut out, *time, arrival),
                Entry::Message(text, tone) => return (text.clone(), *tone),
            }
            let tone = match entry {
                Entry::Arrival(_, arrival, _) if arrival.other_owner().is_some() => Tone::Bad,
                Entry::OverLimit(..) => Tone::Bad,
                _ => Tone::Plain,
            };
            (String::from_utf8_lossy(&out).trim_end().to_owned(), tone)
        };
        let stream = self.stream.iter().map(&mut text).collect();
        Board {
            status,
            columns,
            named: 2,
            rows,
            stream_heading: "LAST ARRIVALS: time, listener, ingress, peer, local, remarks".to_owned(),
            stream,
            count: self.arrivals,
        }
    }

    fn reason(&self, row: &str, column: Option<&str>) -> Vec<String> {
        let Some(listener) = self.listeners.iter().find(|listener| listener.name == row) else {
            return Vec::new();
        };
        let name = escape(&listener.name);
        let sockets: Vec<String> = listener.sockets.iter().map(ToString::to_string).collect();
        let mut lines = vec![format!("{name}: {}", sockets.join(", "))];
        let interface = self.columns.iter().find(|one| Some(Arrivals::heading(one).as_str()) == column);
        let Some((interface, _)) = interface else {
            lines.push(
                "select an interface with the arrow keys to see why arrivals there are accepted".to_owned(),
            );
            return lines;
        };
        let Some(count) = self.counts.get(&(row.to_owned(), interface.clone())) else {
            lines.push(format!("Nothing has arrived on {interface} so far."));
            lines.push(
                "A connection that is refused never reaches a listener and cannot be counted here."
                    .to_owned(),
            );
            lines.push("`bindscope plan` predicts who can reach it.".to_owned());
            return lines;
        };
        lines.push(format!("{} arrivals on {interface}", count.arrivals));
        for (evidence, number) in &count.evidence {
            let how = match evidence {
                Evidence::Kernel => "the kernel reported the interface",
                Evidence::ScopeId => "the zone of an address names the interface",
                Evidence::Address => "inferred from the owner of the address; it may be wrong",
                Evidence::Unknown => "the interface is not known",
            };
            lines.push(format!("  {number}: {how}"));
        }
        for (owner, number) in &count.elsewhere {
            lines
                .push(format!("! {number} of them at an address of {owner}: an address belongs to the host"));
        }
        let rule = Arrivals::rule(listener, count);
        lines.push(format!("{rule}: {}; bindscope explain {rule}", rule.title()));
        lines.push(String::new());
        let mut live = Live::new(false, usize::MAX);
        for (time, arrival) in count.last.iter().rev() {
            let mut out = Vec::new();
            live.arrival(&mut out, *time, arrival, None);
            lines.push(String::from_utf8_lossy(&out).trim_end().to_owned());
        }
        lines
    }
}
