//! Environment of a command: terminal, colour, verbosity; and the output of documents and problems.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use super::exit::{Exit, Failure};
use crate::code::Code;
use crate::diag::{self, Diagnostic, Severity};
use crate::escape::escape;
use crate::model::Errno;
use crate::sys;

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

/// Environment of a command. Built once.
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
    /// Number of `-v` options.
    pub verbose: u8,
    /// Columns of the terminal on standard output; otherwise those of COLUMNS, otherwise 80.
    pub width: usize,
    /// Whether the width is that of a terminal or of COLUMNS.
    width_known: bool,
}

impl Context {
    /// Reads the terminal and the environment.
    #[must_use]
    pub fn new(color: Color, quiet: bool, verbose: u8) -> Context {
        let decide = |stream: anstream::ColorChoice| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stream != anstream::ColorChoice::Never,
        };
        let columns = sys::terminal_width().or_else(columns);
        Context {
            color: decide(anstream::AutoStream::choice(&io::stdout())),
            color_stderr: decide(anstream::AutoStream::choice(&io::stderr())),
            terminal: io::stdout().is_terminal(),
            terminal_stderr: io::stderr().is_terminal(),
            quiet,
            verbose,
            width: columns.unwrap_or(80),
            width_known: columns.is_some(),
        }
    }

    /// Writes a whole document to standard output, or to `file`. A closed pipe is not an error.
    ///
    /// # Errors
    /// Exit code 5 if it cannot be written.
    pub fn emit(&self, document: &[u8], file: Option<&Path>) -> Result<(), Failure> {
        self.emit_with(file, |out| out.write_all(document))
    }

    /// Columns of the terminal or of COLUMNS; `None` for a pipe or a file.
    #[must_use]
    pub fn columns(&self) -> Option<usize> {
        self.width_known.then_some(self.width)
    }

    /// Writes text for people. On a terminal, lines that are wider than it are folded between their columns.
    ///
    /// # Errors
    /// Those of [`Context::emit`].
    pub fn show(&self, text: &str, file: Option<&Path>) -> Result<(), Failure> {
        if self.width_known && file.is_none() {
            return self.emit(crate::render::table::folded(text, self.width).as_bytes(), None);
        }
        self.emit(text.as_bytes(), file)
    }

    /// Like [`Context::emit`], for a document that is generated while it is written, so that it is never completely in
    /// memory.
    ///
    /// # Errors
    /// Exit code 5 if it cannot be written.
    pub fn emit_with(
        &self,
        file: Option<&Path>,
        document: impl FnOnce(&mut Out) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let (name, result) = match file {
            Some(path) => (
                escape(&path.display().to_string()),
                write_file(path, sys::Existing::Replace, sys::Readers::Owner, document),
            ),
            None => {
                // The standard library's buffer searches for newlines, and would write the rest of each piece
                // separately.
                let result = match sys::standard_output() {
                    Ok(Some(file)) => write_all(file, document),
                    Ok(None) => write_all(io::stdout(), document),
                    Err(error) => Err(error),
                };
                ("standard output".to_owned(), result)
            }
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(not_written(&name, &error)),
            _ => Ok(()),
        }
    }

    /// Writes a file that every user may read, and the directories above it.
    ///
    /// # Errors
    /// Exit code 5 if it cannot be written.
    pub fn install(&self, document: &[u8], file: &Path) -> Result<(), Failure> {
        let above = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        above
            .and_then(|()| {
                write_file(file, sys::Existing::Replace, sys::Readers::Umask, |out| out.write_all(document))
            })
            .map_err(|error| not_written(&escape(&file.display().to_string()), &error))
    }

    /// Writes a whole document to a new file.
    ///
    /// # Errors
    /// `None` if the file exists; otherwise exit code 5.
    pub fn create(&self, document: &[u8], file: &Path, readers: sys::Readers) -> Result<(), Option<Failure>> {
        match write_file(file, sys::Existing::Refuse, readers, |out| out.write_all(document)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(None),
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Some(not_written(&escape(&file.display().to_string()), &error)))
            }
            _ => Ok(()),
        }
    }

    /// Prints a problem on standard error. Notes are omitted with `-q`.
    pub fn say(&self, problem: &Diagnostic) {
        if self.quiet && problem.severity == Severity::Note {
            return;
        }
        let _ = io::stderr().lock().write_all(diag::render(problem, self.color_stderr).as_bytes());
    }

    /// Prints a problem on standard error, unless that would take longer than `patience`. For loops that must continue
    /// without a reader. Returns whether it was printed (or omitted on purpose).
    #[must_use]
    pub fn say_within(&self, problem: &Diagnostic, patience: std::time::Duration) -> bool {
        if self.quiet && problem.severity == Severity::Note {
            return true;
        }
        sys::write_error_within(diag::render(problem, self.color_stderr).as_bytes(), patience)
    }

    /// Prints every problem of a failure and returns the exit code.
    #[must_use]
    pub fn report(&self, failure: &Failure) -> Exit {
        for problem in &failure.problems {
            self.say(problem);
        }
        failure.exit
    }
}

/// Exit 5: the output could not be written.
fn not_written(name: &str, error: &io::Error) -> Failure {
    let problem = Diagnostic::error(Code::OUTPUT_FAILED, format!("cannot write {name}: {error}"));
    let help = match sys::errno_of(error) {
        Errno::ENXIO => "it is a FIFO without a reader: start the reader first",
        Errno::EBADF => "the descriptor is not open for output: redirect it, such as with 3>FILE",
        _ => "choose another file with -o FILE, or make room",
    };
    Failure::new(Exit::Output, problem.help(help))
}

/// `COLUMNS`, as shells export it, for output that is not a terminal.
fn columns() -> Option<usize> {
    std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| (20..=1000).contains(columns))
}

/// Destination of a document.
pub type Out = io::BufWriter<Box<dyn Write>>;

/// Writes a document in pieces.
fn write_all(
    target: impl Write + 'static,
    document: impl FnOnce(&mut Out) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Out::with_capacity(64 << 10, Box::new(target));
    let written = document(&mut out).and_then(|()| out.flush());
    // After an error, the rest is not written when the buffer is dropped.
    let _ = out.into_parts();
    written
}

/// Writes `document` to the file `path`. A regular file appears when it is complete, or not at all.
fn write_file(
    path: &Path,
    existing: sys::Existing,
    readers: sys::Readers,
    document: impl FnOnce(&mut Out) -> io::Result<()>,
) -> io::Result<()> {
    match sys::open_output(path, existing, readers)? {
        sys::Output::Direct(file) => write_all(file, document),
        sys::Output::Whole(file) => {
            write_all(file.writer()?, document)?;
            file.publish()
        }
    }
}
