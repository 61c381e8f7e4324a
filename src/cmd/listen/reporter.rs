//! Reports events: counts them, writes their lines, and prints problems at a limited rate.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::cmd::Context;
use crate::code::Code;
use crate::diag::{Diagnostic, Severity};
use crate::model::{Arrival, Change, Errno, FamilyExposure, PathChange, SocketView};
use crate::record::event::{ChangedExposure, ChangedPath, Dropped, Event, FilledQueue, Network, Notice};
use crate::record::history::History;
use crate::record::ndjson::{self, BoundLines, Lines};
use crate::record::sink::Sink;
use crate::record::tally::Tally;
use crate::record::time::Time;
use crate::render::html;
use crate::render::listen::Live;
use crate::serve::{Observer, ServeError};
use crate::sys;

use super::accept_queue::Pressure;
use super::messages;
use super::output::Format;
use super::view_handle::ViewHandle;

/// Minimum time between two reports of the same problem.
const COMPLAINT_REST: Duration = Duration::from_secs(10);

/// Maximum time that a slow reader of standard error may delay the sockets.
const BEFORE_ARRIVALS: Duration = Duration::from_secs(2);

/// How long lines of arrivals are collected after a write. The first arrival after a pause is written immediately; the
/// lines of a burst are written together.
const GATHER: Duration = Duration::from_millis(10);

/// Why lines are dropped, as the `dropped` event says it.
const TOO_SLOW: &str = "the output does not take the lines as fast as they come";

/// Reports the events of one thread.
pub(super) struct Reporter<'a> {
    format: Format,
    sink: Sink,
    tally: Tally,
    context: &'a Context,
    lines: Lines,
    bound: BoundLines,
    /// What a page shows at the end.
    history: History,
    common: Arc<Mutex<Common>>,
    wide_open: Vec<String>,
    serving: bool,
    /// The file of `-o`, which SIGHUP opens again.
    log: Option<PathBuf>,
    /// When gathered lines are to be written.
    writes: Option<Instant>,
    view: Option<ViewHandle>,
    /// Where the summary goes after a view, if the lines go to a file.
    summary: Option<Sink>,
}

/// What the reporters of all threads share: columns that line up, and complaints that are not made twice.
struct Common {
    live: Live,
    complaints: HashMap<String, (Instant, u64)>,
    pressure: Pressure,
}

impl<'a> Reporter<'a> {
    /// That of the first thread.
    pub(super) fn new(format: Format, sink: Sink, context: &'a Context) -> Reporter<'a> {
        let common = Common {
            live: Live::new(context.color, if context.terminal { context.width } else { usize::MAX }),
            complaints: HashMap::new(),
            pressure: Pressure::new(),
        };
        Reporter::with(format, sink, context, Arc::new(Mutex::new(common)))
    }

    /// That of another thread, which writes to the same place.
    pub(super) fn clone_for_thread(&self) -> Reporter<'a> {
        let common = Arc::clone(&self.common);
        let reporter = Reporter::with(self.format, self.sink.clone_for_thread(), self.context, common);
        Reporter {
            history: self.history.for_thread(),
            view: self.view.clone(),
            log: self.log.clone(),
            ..reporter
        }
    }

    fn with(format: Format, sink: Sink, context: &'a Context, common: Arc<Mutex<Common>>) -> Reporter<'a> {
        Reporter {
            format,
            sink,
            tally: Tally::default(),
            context,
            lines: Lines::default(),
            bound: BoundLines::default(),
            history: History::default(),
            common,
            wide_open: Vec::new(),
            serving: false,
            log: None,
            writes: None,
            view: None,
            summary: None,
        }
    }

    /// Names an address of this host for the line that says what to try.
    pub(super) fn try_at(&mut self, address: Option<std::net::IpAddr>) {
        lock(&self.common).live.try_at(address);
    }

    /// Lets SIGHUP open this file again.
    pub(super) fn reopens(&mut self, log: &Path) {
        self.log = Some(log.to_owned());
    }

    /// Shows everything in a view from now on. Lines go to the file of `-o` only, and then the summary also to `summary`.
    pub(super) fn shows_in(&mut self, view: ViewHandle, summary: Option<Sink>) {
        (self.view, self.summary) = (Some(view), summary);
    }

    /// Whether lines are written: not while a view has the terminal to which they would go.
    fn writes_lines(&self) -> bool {
        self.view.is_none() || self.log.is_some()
    }

    /// Adds what another thread has counted, after its last lines.
    pub(super) fn merge(&mut self, mut other: Reporter<'_>) {
        other.sink.flush();
        self.tally.add(other.tally);
        self.history.add(other.history);
    }

    /// Shows an arrival in the view and counts it for the page. Returns whether its line is to be written.
    fn show_arrival(
        &mut self,
        time: Time,
        arrival: &Arrival,
        datagram: Option<(usize, bool)>,
        over_limit: bool,
    ) -> bool {
        if let Some(view) = &self.view {
            view.arrival(time, arrival, datagram, over_limit);
        }
        if self.format == Format::Html {
            self.history.arrival(time, arrival);
            return false;
        }
        self.writes_lines()
    }

    /// Writes the line of an event.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Bound(bound) => self.tally.expect(bound.socket.listener.as_deref().unwrap_or_default()),
            Event::BindFailed(failed) => {
                let mut problem = Diagnostic::error(
                    failed.code,
                    format!(
                        "listener {}: {}",
                        failed.socket.listener.as_deref().unwrap_or("?"),
                        failed.message
                    ),
                );
                problem.help.extend(failed.hint.clone());
                self.say(&problem);
            }
            Event::Notice(notice) => self.notice(notice),
            _ => {}
        }
        if let Some(view) = &self.view {
            view.event(event);
        }
        if self.format == Format::Html {
            self.history.event(event);
            return;
        }
        // What precedes the first socket is shown before the view, and the summary after it.
        let is_end = matches!(event, Event::Summary(_));
        if !self.writes_lines() && !is_end {
            // The columns of the summary follow what was bound.
            let _ = lock(&self.common).live.event(event);
            return;
        }
        self.sink.line(false, |out| match self.format {
            Format::Human => out.extend_from_slice(lock(&self.common).live.event(event).as_bytes()),
            Format::Html => {}
            Format::Ndjson => match event {
                Event::Bound(bound) => self.bound.bound(out, bound),
                _ => json_line(out, event),
            },
        });
        // Thousands of sockets are opened one after the other: their lines may go together.
        if !matches!(event, Event::Bound(_)) {
            self.sink.flush();
        }
        // After the table, so that the warning stands below what it is about.
        if matches!(event, Event::Listening(_)) {
            self.warn_of_open_ones();
            self.serving = true;
        }
    }

    /// Passes on what was reported so far.
    pub(super) fn flush(&mut self) {
        self.sink.flush();
    }

    /// Prints a message on standard error. While connections are accepted, a slow reader is not waited for: the event
    /// has its line in the output as well.
    fn say(&self, problem: &Diagnostic) {
        if let Some(view) = &self.view
            && sys::has_view()
        {
            view.message(problem);
            return;
        }
        let patience = if self.serving { Duration::ZERO } else { BEFORE_ARRIVALS };
        let _ = self.context.say_within(problem, patience);
    }

    /// People get notices on standard error, where one warning names all listeners that are open to others.
    fn notice(&mut self, notice: &Notice) {
        if notice.code == Code::WIDE_OPEN {
            if self.wide_open.last() != notice.listener.as_ref() {
                self.wide_open.extend(notice.listener.clone());
            }
            return;
        }
        if self.format == Format::Human {
            let prefix =
                notice.listener.as_ref().map(|name| format!("listener {name}: ")).unwrap_or_default();
            self.say(&Diagnostic {
                severity: Severity::Note,
                ..Diagnostic::warning(notice.code, prefix + &notice.message)
            });
        }
    }

    /// Warns of the listeners that other hosts can reach, or can reach since the last warning.
    pub(super) fn warn_of_open_ones(&mut self) {
        let mut names = std::mem::take(&mut self.wide_open);
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        if names.is_empty() || self.format != Format::Human {
            return;
        }
        let now = if self.serving { " now" } else { "" };
        self.say(
            &Diagnostic::warning(
                Code::WIDE_OPEN,
                format!("other hosts can{now} reach {}, unless a firewall is in the way", names.join(", ")),
            )
            .help("the profile `loopback` listens for this host only"),
        );
    }

    /// Writes the summary and what is still buffered. If the reader has closed the pipe, standard error says what it did not read;
    /// the verdict stays the same.
    ///
    /// # Errors
    /// The problem when anything could not be written, but for a closed pipe.
    pub(super) fn finish(mut self, patience: Duration) -> Result<(), Diagnostic> {
        if let Some(view) = &self.view {
            view.end();
        }
        let unreported = lock(&self.common).pressure.unreported();
        for (listener, fullest) in unreported {
            self.tell_queue(&listener, fullest);
        }
        self.sink.drain(patience);
        self.tell_dropped();
        let dropped = self.sink.losses().dropped;
        let summary = self.tally.summary(dropped);
        let total = summary.accepted + summary.datagrams;
        let summary = Event::Summary(summary);
        if let Some(mut sink) = self.summary.take() {
            let text = lock(&self.common).live.event(&summary);
            sink.line(false, |out| out.extend_from_slice(text.as_bytes()));
            let _ = sink.finish(patience);
        }
        self.event(&summary);
        if self.format == Format::Html {
            let page = html::page(&[html::Part::Listen(&self.history)]);
            self.sink.line(false, |out| out.extend_from_slice(page.as_bytes()));
        }
        let losses = self.sink.finish(patience);
        if losses.closed && losses.dropped > 0 {
            let message = format!(
                "the reader of the output went away: {} of {total} arrivals have no line, and there is no summary",
                losses.dropped
            );
            let problem = Diagnostic::warning(Code::OUTPUT_FAILED, message);
            let _ = self.context.say_within(&problem.help("write to a file with -o FILE"), patience);
        }
        if self.view.as_ref().is_some_and(ViewHandle::has_failed) {
            return Err(Diagnostic::error(Code::INTERNAL, "the live view failed")
                .help("leave --tui out; arrivals are counted all the same"));
        }
        match losses.error {
            Some(error) if !losses.closed => Err(Diagnostic::error(
                Code::OUTPUT_FAILED,
                format!("{} arrivals have no line: {error}", losses.dropped),
            )
            .help("they are counted all the same; make room, or let the reader read faster")),
            None if losses.dropped > 0 && !losses.closed => Err(Diagnostic::error(
                Code::OUTPUT_FAILED,
                format!("{} arrivals have no line: {TOO_SLOW}", losses.dropped),
            )
            .help("they are counted all the same; write to a file with -o FILE")),
            _ => Ok(()),
        }
    }

    fn tell_queue(&mut self, listener: &str, (length, limit): (u32, u32)) {
        let overflows = lock(&self.common).pressure.overflows();
        self.event(&Event::Queue(FilledQueue {
            time: Time::new(SystemTime::now()),
            listener: listener.to_owned(),
            length,
            limit,
            overflows,
        }));
    }

    fn tell_dropped(&mut self) {
        if let Some(count) = self.sink.take_dropped() {
            let reason = match self.sink.losses().error {
                Some(error) => format!("the output could not be written: {error}"),
                None => TOO_SLOW.to_owned(),
            };
            self.event(&Event::Dropped(Dropped { count, reason }));
            self.sink.restore_dropped(count);
        }
    }

    /// Reports an error at once, and the same error again at most every ten seconds, with the number of times.
    fn complain(&mut self, error: &ServeError, count: u64) {
        let kind = error.to_string();
        let now = Instant::now();
        let mut common = lock(&self.common);
        match common.complaints.get_mut(&kind) {
            Some((since, suppressed)) if now.duration_since(*since) < COMPLAINT_REST => *suppressed += count,
            known => {
                let times = count + known.map_or(0, |(_, suppressed)| *suppressed);
                let shown = if times > 1 { format!(" ({times} times)") } else { String::new() };
                let mut problem = Diagnostic::warning(Code::ARRIVAL_TROUBLE, format!("{kind}{shown}"));
                match error.errno() {
                    Some(Errno::EMFILE) => {
                        problem = problem.help("clients wait until others leave; raise the limit of open files (ulimit -n, LimitNOFILE=)");
                    }
                    Some(Errno::ENFILE) => {
                        problem = problem.help("the whole system has no descriptor left: raise fs.file-max");
                    }
                    _ => {}
                }
                // Standard error may be a pipe without a reader. The message is then repeated when there is space
                // again.
                let said = match &self.view {
                    Some(view) if sys::has_view() => {
                        view.message(&problem);
                        true
                    }
                    _ => self.context.say_within(&problem, Duration::ZERO),
                };
                common.complaints.insert(kind, (now, if said { 0 } else { times }));
            }
        }
    }
}

impl Observer for Reporter<'_> {
    fn arrived(&mut self, arrival: &Arrival, datagram: Option<(usize, bool)>, at: Option<SystemTime>) {
        self.tally.arrival(arrival);
        let time = Time::new(at.unwrap_or_else(SystemTime::now));
        if !self.show_arrival(time, arrival, datagram, false) {
            return;
        }
        self.sink.line(true, |out| match self.format {
            Format::Human => lock(&self.common).live.arrival(out, time, arrival, datagram),
            Format::Html => {}
            Format::Ndjson => self.lines.arrival(out, time, arrival, datagram),
        });
    }

    fn over_limit(&mut self, arrival: &Arrival, at: Option<SystemTime>) {
        self.tally.arrival(arrival);
        self.tally.over_limit(&arrival.listener);
        let time = Time::new(at.unwrap_or_else(SystemTime::now));
        if !self.show_arrival(time, arrival, None, true) {
            return;
        }
        self.sink.line(true, |out| match self.format {
            Format::Human => lock(&self.common).live.over_limit(out, time, arrival),
            Format::Html => {}
            Format::Ndjson => ndjson::over_limit(out, time, arrival),
        });
    }

    fn error(&mut self, error: &ServeError, count: u64) {
        if count == 0 {
            return;
        }
        self.tally.error(&error.to_string(), count);
        if !error.is_of_client() {
            self.complain(error, count);
        }
    }

    fn queue_filled(&mut self, listener: &str, length: u32, limit: u32) {
        let fullest = lock(&self.common).pressure.filled(listener, length, limit, Instant::now());
        if let Some(fullest) = fullest {
            self.tell_queue(listener, fullest);
        }
    }

    fn network_changed(&mut self, change: &Change, lost: &[&SocketView], found: &[&SocketView]) {
        let owned = |views: &[&SocketView]| views.iter().map(|&view| view.clone()).collect();
        self.event(&Event::Network(Network {
            time: Time::new(SystemTime::now()),
            change: change.clone(),
            lost: owned(lost),
            found: owned(found),
        }));
    }

    fn exposure_changed(&mut self, sockets: &[(&SocketView, FamilyExposure)]) {
        let time = Time::new(SystemTime::now());
        for (socket, before) in sockets {
            let socket = (*socket).clone();
            let notice = messages::wide_open(&socket);
            self.event(&Event::Exposure(ChangedExposure { time, socket, before: *before }));
            if let Some(notice) = notice {
                self.event(&Event::Notice(notice));
            }
        }
        self.warn_of_open_ones();
    }

    fn path_changed(&mut self, change: PathChange) {
        self.event(&Event::PathChanged(ChangedPath { time: Time::new(SystemTime::now()), change }));
    }

    fn hung_up(&mut self) -> ControlFlow<()> {
        let Some(log) = &self.log else {
            // A terminal that is gone takes no line any more. Nothing else ends here.
            return if sys::output_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        };
        let opened = sys::open_for_append(log).and_then(|file| {
            let regular = file.metadata()?.is_file();
            Ok(Some(file).filter(|_| regular))
        });
        match opened {
            Ok(Some(file)) => self.sink.go_on_in(file),
            // Where the lines go to a device or a FIFO, there is nothing to rotate.
            Ok(None) => {}
            Err(error) => {
                let message = format!("the log {} cannot be opened again: {error}", log.display());
                let problem = Diagnostic::warning(Code::OUTPUT_FAILED, message);
                self.say(&problem.help(
                    "lines go on to the file that was open before; as root, the directory must be root's own,                      since the right to pass over permissions was given up (--keep-privileges keeps it)",
                ));
            }
        }
        ControlFlow::Continue(())
    }

    fn pauses(&mut self) {
        self.flush();
    }

    fn idle(&mut self, now: Instant) -> ControlFlow<(), Option<Instant>> {
        if self.sink.has_gathered() {
            if let Some(writes) = self.writes.filter(|writes| *writes > now) {
                return ControlFlow::Continue(Some(writes));
            }
            self.sink.flush();
            self.writes = Some(now + GATHER);
        }
        self.tell_dropped();
        if self.sink.closed() || self.view.as_ref().is_some_and(ViewHandle::is_closed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(None)
        }
    }
}

fn lock(common: &Mutex<Common>) -> MutexGuard<'_, Common> {
    common.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json_line(line: &mut Vec<u8>, value: &impl serde::Serialize) {
    // The types that go here have string keys only, so this cannot fail; a cut line would be seen.
    let _ = serde_json::to_writer(&mut *line, value);
    line.push(b'\n');
}
