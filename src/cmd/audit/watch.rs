//! `bindscope audit --watch`: the first report, then what changes.
//!
//! The kernel tells of interfaces and addresses when they change, of sockets only when they are destroyed and only to root; so
//! sockets are looked at anew in an interval.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Args, Context, Exit, Failure, Format, Look, Read, style};
use crate::audit::Report;
use crate::audit::change::{self, Change};
use crate::cmd::now;
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::{Document, Schema};
use crate::record::sink::Sink;
use crate::render;
use crate::sys::{self, Monitor, Poller, Signals};

/// A burst of changes is one look: this long after the first of them.
const SETTLE: Duration = Duration::from_millis(100);

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
    let mut output =
        Output { ndjson: args.format.get() == Format::Ndjson, style: style(args, context), sink };
    let mut last = Look::new(args, policy, None);
    let mut exit = last.exit(args.fail_on(policy));
    output.report(&last.report)?;
    let (mut looks, mut changes) = (1u64, 0u64);
    let mut ready = Vec::new();
    while output.is_open() && !signals.asked() && !sys::output_closed() {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break;
        }
        poller.wait(&mut ready, Some(left.map_or(interval, |left| left.min(interval)))).map_err(failed)?;
        if signals.asked() {
            break;
        }
        if monitor.as_mut().is_some_and(Monitor::changed) {
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
        for change in &found {
            output.change(&time, change)?;
        }
        let because = &next.report.incomplete_because;
        if *because != last.report.incomplete_because && !because.is_empty() {
            output.incomplete(&time, because)?;
        }
        last = next;
        exit = exit.worse(last.exit(args.fail_on(policy)));
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
}

impl Output {
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
