//! `bindscope audit --watch`: the first report, then what changes.
//!
//! The kernel reports interfaces and addresses when they change, sockets only when they are destroyed and only to root; so
//! sockets are read again at an interval.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::view_handle::ViewHandle;
use super::{Args, Context, Exit, Failure, Format, Look, Read, style};
use crate::audit::Report;
use crate::audit::change::{self, Change};
use crate::cmd::listen::{RestoredAtEnd, prepare_view as prepare};
use crate::cmd::now;
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::{Document, Schema};
use crate::record::sink::Sink;
use crate::render;
use crate::sys::{self, Monitor, Poller, Signals};

/// A burst of changes is one look: this long after the first of them.
const SETTLE: Duration = Duration::from_millis(100);

/// How soon a key of the view is noticed.
const KEY: Duration = Duration::from_millis(200);

/// How long the last lines may take to reach a slow reader.
const LAST_LINES: Duration = Duration::from_millis(500);

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Report {
        #[serde(flatten)]
        report: &'a Document<&'a Report>,
    },
    Change {
        time: &'a str,
        #[serde(flatten)]
        change: &'a Change,
    },
    Incomplete {
        time: &'a str,
        because: &'a [String],
    },
    Summary {
        time: &'a str,
        looks: u64,
        changes: u64,
    },
}

pub(super) fn run(args: &Args, policy: Option<&Read>, context: &Context) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            Exit::Environment,
            Diagnostic::error(Code::INTERNAL, format!("cannot wait for changes: {error}")),
        )
    };
    let _restored = args.tui.then_some(RestoredAtEnd);
    // Before the signals: a second one ends the program at once, and the terminal must be restored before that.
    let terminal = if args.tui { Some(prepare()?) } else { None };
    let signals = Signals::new().map_err(failed)?;
    let mut poller = Poller::new().map_err(failed)?;
    signals.watch(&poller, 0).map_err(failed)?;
    let mut monitor = Monitor::new().ok();
    if let Some(monitor) = &monitor {
        monitor.watch(&poller, 1).map_err(failed)?;
    }
    let interval = args.watch.unwrap_or(Duration::from_secs(2));
    let end = args.duration.map(|time| Instant::now() + time);
    let sink = sink().map_err(|error| {
        let message = format!("cannot write to standard output: {error}");
        Failure::new(Exit::Output, Diagnostic::error(Code::OUTPUT_FAILED, message))
    })?;
    let view = terminal.map(|terminal| ViewHandle::start(terminal, context)).transpose()?;
    let mut output =
        Output { ndjson: args.format.get() == Format::Ndjson, style: style(args, context), sink, view };
    let mut last = Look::new(args, policy, None);
    let mut exit = last.exit(args.fail_on(policy));
    match &output.view {
        Some(view) => view.look(&last.report, Vec::new()),
        None => output.report(&last.report)?,
    }
    let (mut looks, mut changes) = (1u64, 0u64);
    let mut ready = Vec::new();
    let mut next_look = Instant::now() + interval;
    while output.is_open() && !signals.asked() && !sys::output_closed() {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break;
        }
        let mut patience = next_look.saturating_duration_since(Instant::now());
        if output.view.is_some() {
            patience = patience.min(KEY);
        }
        poller.wait(&mut ready, Some(left.map_or(patience, |left| left.min(patience)))).map_err(failed)?;
        if signals.asked() {
            break;
        }
        let changed = monitor.as_mut().is_some_and(Monitor::changed);
        let asked = output.view.as_ref().is_some_and(ViewHandle::take_refresh);
        if !changed && !asked && Instant::now() < next_look {
            continue;
        }
        next_look = Instant::now() + interval;
        if changed {
            std::thread::sleep(SETTLE);
            monitor.as_mut().map(Monitor::changed);
        }
        let next = Look::new(args, policy, None);
        looks += 1;
        let mut found = change::of_reports(&last.report, &next.report);
        if let (Some(before), Some(after)) = (last.hosts.first(), next.hosts.first()) {
            found.splice(0..0, change::of_hosts(before, after));
        }
        let time = now().to_string();
        changes += found.len() as u64;
        output.look(&next.report, &time, &found)?;
        let because = &next.report.incomplete_because;
        if *because != last.report.incomplete_because && !because.is_empty() {
            output.incomplete(&time, because)?;
        }
        last = next;
        exit = exit.worse(last.exit(args.fail_on(policy)));
    }
    if output.ends_view() {
        // Something stays on the screen.
        output.report(&last.report)?;
    }
    output.summary(&now().to_string(), looks, changes)?;
    output.finish()?;
    Ok(exit)
}

/// Standard output. A reader that stands still costs lines, and holds up nothing.
struct Output {
    ndjson: bool,
    style: render::audit::Style,
    sink: Sink,
    view: Option<ViewHandle>,
}

impl Output {
    /// Shows the changes since the last look.
    fn look(&mut self, report: &Report, time: &str, found: &[Change]) -> Result<(), Failure> {
        let Some(view) = &self.view else {
            return found.iter().try_for_each(|change| self.change(time, change));
        };
        let clock = time.get(11..19).unwrap_or(time);
        let style = render::audit::Style { color: false, width: usize::MAX, ..self.style };
        let words =
            |change| format!("{clock} {}", render::audit::human_change(change, style)).trim_end().to_owned();
        view.look(report, found.iter().map(words).collect());
        Ok(())
    }

    /// Ends the view, if there is one.
    fn ends_view(&mut self) -> bool {
        let view = self.view.take();
        if let Some(view) = &view {
            view.end();
        }
        view.is_some()
    }

    fn report(&mut self, report: &Report) -> Result<(), Failure> {
        if self.ndjson {
            return self.event(&Event::Report { report: &Document::new(Schema::Audit, report) });
        }
        self.write(render::audit::human(report, self.style).as_bytes());
        Ok(())
    }

    fn change(&mut self, time: &str, change: &Change) -> Result<(), Failure> {
        if self.ndjson {
            return self.event(&Event::Change { time, change });
        }
        let clock = time.get(11..19).unwrap_or(time).to_owned();
        self.write(format!("{clock} {}", render::audit::human_change(change, self.style)).as_bytes());
        Ok(())
    }

    fn incomplete(&mut self, time: &str, because: &[String]) -> Result<(), Failure> {
        if self.view.is_some() {
            return Ok(());
        }
        if self.ndjson {
            return self.event(&Event::Incomplete { time, because });
        }
        let lines: String =
            because.iter().map(|one| format!("not complete: {}\n", crate::escape::printable(one))).collect();
        self.write(lines.as_bytes());
        Ok(())
    }

    fn summary(&mut self, time: &str, looks: u64, changes: u64) -> Result<(), Failure> {
        if self.ndjson {
            return self.event(&Event::Summary { time, looks, changes });
        }
        self.write(format!("{changes} changes in {looks} looks\n").as_bytes());
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(event).map_err(|error| {
            Failure::new(Exit::Internal, Diagnostic::error(Code::INTERNAL, error.to_string()))
        })?;
        line.push(b'\n');
        self.write(&line);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) {
        self.sink.line(true, |out| out.extend_from_slice(bytes));
        self.sink.flush();
    }

    /// Whether what is written is read, as far as is known.
    fn is_open(&self) -> bool {
        if self.view.as_ref().is_some_and(ViewHandle::is_closed) {
            return false;
        }
        let losses = self.sink.losses();
        !losses.closed && losses.error.is_none()
    }

    /// Waits a moment for the last lines.
    fn finish(self) -> Result<(), Failure> {
        let losses = self.sink.finish(LAST_LINES);
        if losses.closed || losses.error.is_none() && losses.dropped == 0 {
            return Ok(());
        }
        let why = losses.error.unwrap_or_else(|| "the reader is too slow".to_owned());
        let message = format!("cannot write to standard output: {why}");
        Err(Failure::new(Exit::Output, Diagnostic::error(Code::OUTPUT_FAILED, message)))
    }
}

fn sink() -> std::io::Result<Sink> {
    match sys::standard_output()? {
        Some(file) if file.metadata()?.is_file() => Ok(Sink::file(file)),
        Some(file) => Sink::stream(file),
        None => Sink::stream(std::io::stdout()),
    }
}
