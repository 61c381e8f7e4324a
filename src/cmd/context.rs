//! What a command knows of the outside: terminal, colour, verbosity; and how it hands out documents and problems.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use super::exit::{Exit, Failure};
use crate::code::Code;
use crate::diag::{self, Diagnostic, Severity};

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR or TERM=dumb says otherwise
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What a command knows of the outside. Built once.
#[derive(Debug)]
pub struct Context {
    /// Colour on standard output.
    pub color: bool,
    /// Colour on standard error.
    pub color_stderr: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
    /// Standard error is a terminal.
    pub terminal_stderr: bool,
    /// `-q`.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Columns of the terminal on standard output; 80 elsewhere.
    pub width: usize,
}

impl Context {
    /// Looks at the terminal and the environment.
    #[must_use]
    pub fn new(color: Color, quiet: bool, verbose: u8) -> Context {
        let decide = |stream: anstream::ColorChoice| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stream != anstream::ColorChoice::Never,
        };
        Context {
            color: decide(anstream::AutoStream::choice(&io::stdout())),
            color_stderr: decide(anstream::AutoStream::choice(&io::stderr())),
            terminal: io::stdout().is_terminal(),
            terminal_stderr: io::stderr().is_terminal(),
            quiet,
            verbose,
            width: crate::sys::terminal_width().unwrap_or(80),
        }
    }

    /// Writes a whole document to standard output, or to `file` when one is given. A closed pipe is a quiet end.
    ///
    /// # Errors
    /// Exit 5 when it cannot be written.
    pub fn emit(&self, document: &[u8], file: Option<&Path>) -> Result<(), Failure> {
        self.emit_with(file, |out| out.write_all(document))
    }

    /// As [`Context::emit`], for a document that is made while it is written, so that it is never in memory as a whole.
    ///
    /// # Errors
    /// Exit 5 when it cannot be written.
    pub fn emit_with(
        &self,
        file: Option<&Path>,
        document: impl FnOnce(&mut Out) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let (name, result) = match file {
            Some(path) => (path.display().to_string(), write_file(path, document)),
            None => {
                // The standard library's buffer looks for lines, and would write the rest of each piece by itself.
                let result = match crate::sys::standard_output() {
                    Ok(Some(file)) => write_all(file, document),
                    Ok(None) => write_all(io::stdout(), document),
                    Err(error) => Err(error),
                };
                ("standard output".to_owned(), result)
            }
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
                Exit::Output,
                Diagnostic::error(Code::OUTPUT_FAILED, format!("cannot write {name}: {error}"))
                    .help("choose another file with -o FILE, or make room"),
            )),
            _ => Ok(()),
        }
    }

    /// Shows a problem on standard error. Notes are left out under `-q`.
    pub fn say(&self, problem: &Diagnostic) {
        if self.quiet && problem.severity == Severity::Note {
            return;
        }
        let _ = io::stderr().lock().write_all(diag::render(problem, self.color_stderr).as_bytes());
    }

    /// Shows a problem on standard error unless that would take longer than `patience`: for loops that must go on when nobody
    /// reads. Returns whether it was shown (or left out on purpose).
    #[must_use]
    pub fn say_within(&self, problem: &Diagnostic, patience: std::time::Duration) -> bool {
        if self.quiet && problem.severity == Severity::Note {
            return true;
        }
        crate::sys::write_error_within(diag::render(problem, self.color_stderr).as_bytes(), patience)
    }

    /// Shows every problem of a failure and tells how the program ends.
    #[must_use]
    pub fn report(&self, failure: &Failure) -> Exit {
        for problem in &failure.problems {
            self.say(problem);
        }
        failure.exit
    }
}

/// What a document is written into.
pub type Out = io::BufWriter<Box<dyn Write>>;

/// Writes a document piece by piece.
fn write_all(
    target: impl Write + 'static,
    document: impl FnOnce(&mut Out) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Out::with_capacity(64 << 10, Box::new(target));
    let written = document(&mut out).and_then(|()| out.flush());
    // What could not be written is not tried again when the buffer goes.
    let _ = out.into_parts();
    written
}

/// Writes `document` beside `path` and then renames it there, so that a reader finds the old report or the new one whole.
/// What is not a regular file (a terminal, `/dev/stdout`, a FIFO) is written to directly.
fn write_file(path: &Path, document: impl FnOnce(&mut Out) -> io::Result<()>) -> io::Result<()> {
    let special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special {
        return write_all(File::options().write(true).open(path)?, document);
    }
    let mut name =
        path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    remove_leftovers(path);
    let written = crate::sys::create_private(&part)
        .and_then(|file| {
            write_all(file.try_clone()?, document)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// Removes what programs left beside `path` that were killed while they wrote there.
fn remove_leftovers(path: &Path) {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for found in crate::sys::entries(directory).into_iter().flatten() {
        let pid = found
            .to_str()
            .and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".part"))
            .filter(|pid| pid.bytes().all(|digit| digit.is_ascii_digit()))
            .and_then(|pid| pid.parse().ok());
        // A process in another pid namespace seems gone, too; but no report takes a minute to be written.
        let old = || {
            let age = directory
                .join(&found)
                .symlink_metadata()
                .and_then(|metadata| metadata.modified())
                .map(|time| time.elapsed());
            age.is_ok_and(|age| age.is_ok_and(|age| age > std::time::Duration::from_secs(60)))
        };
        // This very number may have been somebody else's before.
        if pid.is_some_and(|pid| (pid == std::process::id() || crate::sys::is_gone(pid)) && old()) {
            let _ = std::fs::remove_file(directory.join(&found));
        }
    }
}
