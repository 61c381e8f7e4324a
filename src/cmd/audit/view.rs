//! What the live view of `audit --watch` shows: sockets by how widely they can be reached, and the changes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::audit::Report;
use crate::cmd::live::board::{Board, Model, Row, Tone};
use crate::diag::Severity;
use crate::escape::printable;
use crate::model::Exposure;
use crate::render::audit::words_of;

/// How long a change stays marked.
const MARKED: Duration = Duration::from_secs(10);

/// Changes that are kept.
const KEPT: usize = 200;

/// A socket as it was last seen.
struct Seen {
    exposure: Exposure,
    /// Protocol and address; who can reach it; process.
    words: [String; 3],
    findings: Vec<(Severity, String)>,
    here: bool,
    /// `new`, `changed` or `gone`, and since when.
    mark: Option<(&'static str, Instant)>,
    since: Instant,
}

/// The sockets of the looks so far.
pub(super) struct Sockets {
    began: Instant,
    seen: BTreeMap<String, Seen>,
    stream: VecDeque<(String, Tone)>,
    looks: u64,
    changes: u64,
    incomplete: usize,
}

impl Sockets {
    pub(super) fn new() -> Sockets {
        Sockets {
            began: Instant::now(),
            seen: BTreeMap::new(),
            stream: VecDeque::new(),
            looks: 0,
            changes: 0,
            incomplete: 0,
        }
    }

    /// Takes a report, with the changes since the last one in words.
    pub(super) fn look(&mut self, report: &Report, changes: Vec<String>) {
        let now = Instant::now();
        let first = self.looks == 0;
        self.looks += 1;
        self.incomplete = report.incomplete_because.len();
        for seen in self.seen.values_mut() {
            seen.here = false;
        }
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        for (place, socket) in report.sockets.iter().enumerate() {
            let words = words_of(socket);
            let copy = copies.entry(words[0].clone()).or_default();
            *copy += 1;
            let key = format!("{} {copy}", words[0]);
            let findings =
                report.findings.iter().filter(|finding| finding.socket == Some(place) && finding.counts());
            let findings: Vec<(Severity, String)> = findings
                .map(|finding| {
                    let help = finding.help.as_ref().map(|help| format!(". Fix: {help}")).unwrap_or_default();
                    (finding.severity, printable(&format!("{} {}{help}", finding.code, finding.message)))
                })
                .collect();
            let exposure = socket.view.exposure.widest();
            let mark = match self.seen.get(&key) {
                None if first => None,
                None => Some(("new", now)),
                Some(before) if !before.here && before.mark.is_some_and(|(word, _)| word == "gone") => {
                    Some(("new", now))
                }
                Some(before) if before.words != words => Some(("changed", now)),
                Some(before) => before.mark,
            };
            let since = self.seen.get(&key).map_or(now, |before| before.since);
            self.seen.insert(key, Seen { exposure, words, findings, here: true, mark, since });
        }
        for seen in self.seen.values_mut().filter(|seen| !seen.here) {
            if seen.mark.is_none_or(|(word, _)| word != "gone") {
                seen.mark = Some(("gone", now));
            }
        }
        self.seen.retain(|_, seen| seen.here || seen.mark.is_some_and(|(_, at)| at.elapsed() < MARKED));
        for text in changes {
            self.changes += 1;
            if self.stream.len() == KEPT {
                self.stream.pop_front();
            }
            self.stream.push_back((text, Tone::Plain));
        }
    }
}

impl Seen {
    fn word(&self) -> &'static str {
        self.mark.filter(|(_, at)| at.elapsed() < MARKED).map_or("", |(word, _)| word)
    }
}

fn age(since: Instant) -> String {
    let seconds = since.elapsed().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

impl Model for Sockets {
    fn revision(&self) -> u64 {
        // Ages and marks change with the clock.
        (self.looks << 20).wrapping_add(self.began.elapsed().as_secs())
    }

    fn board(&self) -> Board {
        let here = self.seen.values().filter(|seen| seen.here).count();
        let incomplete = if self.incomplete > 0 {
            format!("   not complete ({})", self.incomplete)
        } else {
            String::new()
        };
        let status = format!(
            " audit   {}s   {here} sockets   {} changes in {} looks{incomplete}",
            self.began.elapsed().as_secs(),
            self.changes,
            self.looks
        );
        let mut sorted: Vec<(&String, &Seen)> = self.seen.iter().collect();
        sorted.sort_by(|(one, a), (other, b)| b.exposure.cmp(&a.exposure).then(one.cmp(other)));
        let rows = sorted.into_iter().map(|(key, seen)| {
            let word = seen.word();
            let tone = match word {
                "" => Tone::Plain,
                "gone" => Tone::Faint,
                _ => Tone::Fresh,
            };
            let worst = seen.findings.iter().map(|(severity, _)| *severity).min();
            let finding_tone = if worst == Some(Severity::Error) { Tone::Bad } else { Tone::Plain };
            let findings = match (seen.findings.len(), worst) {
                (0, _) => String::new(),
                (count, Some(Severity::Error)) => format!("{count} !"),
                (count, _) => count.to_string(),
            };
            let [address, reach, process] = seen.words.clone();
            let cells = vec![
                (address, tone),
                (reach, tone),
                (process, tone),
                (findings, finding_tone),
                (word.to_owned(), tone),
                (age(seen.since), Tone::Faint),
            ];
            Row { key: key.clone(), cells }
        });
        let columns = ["ADDRESS", "REACHABLE FROM", "PROCESS", "FINDINGS", "STATE", "AGE"].map(str::to_owned);
        Board {
            status,
            named: columns.len(),
            columns: columns.into(),
            rows: rows.collect(),
            stream_heading: "CHANGES".to_owned(),
            stream: self.stream.iter().cloned().collect(),
            count: self.changes,
        }
    }

    fn reason(&self, row: &str, _: Option<&str>) -> Vec<String> {
        let Some(seen) = self.seen.get(row) else { return vec!["The socket is gone.".to_owned()] };
        let mut lines = vec![seen.words.join("  ")];
        if seen.findings.is_empty() {
            lines.push("There is no finding about this socket.".to_owned());
        }
        lines.extend(seen.findings.iter().map(|(severity, text)| {
            let word = match severity {
                Severity::Error => "! error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            format!("{word} {text}")
        }));
        lines
    }
}
