//! Exit codes, and the guard that turns a panic into one of them.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use crate::diag::Diagnostic;
use crate::escape::escape;

/// The exit codes, as listed in `bindscope explain exit-codes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything requested was done and every check passed.
    Success,
    /// An expectation failed, a policy was violated, predicted and observed differ, or two reports differ.
    Finding,
    /// Wrong usage or an invalid profile.
    Usage,
    /// Evidence is missing, or nothing was checked.
    Undecided,
    /// No listener could be bound, a lab could not be built.
    Environment,
    /// Output could not be written.
    Output,
    /// An internal error.
    Internal,
    /// A second SIGINT.
    Interrupted,
    /// A second SIGTERM.
    Terminated,
    /// The exit code of a program that was run for the user.
    Program(u8),
}

impl Exit {
    /// The code.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Finding => 1,
            Exit::Usage => 2,
            Exit::Undecided => 3,
            Exit::Environment => 4,
            Exit::Output => 5,
            Exit::Internal => 70,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
            Exit::Program(code) => code,
        }
    }

    /// The exit code that takes precedence: output lost > environment > usage > finding > undecided > success.
    #[must_use]
    pub fn worse(self, other: Exit) -> Exit {
        let rank = |exit: Exit| match exit {
            Exit::Success | Exit::Program(0) => 0,
            Exit::Undecided => 1,
            Exit::Finding | Exit::Program(_) => 2,
            Exit::Usage => 3,
            Exit::Environment => 4,
            Exit::Output => 5,
            Exit::Internal => 6,
            Exit::Interrupted | Exit::Terminated => 7,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Why a command stopped: all problems, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// Problems, in display order.
    pub problems: Vec<Diagnostic>,
}

impl Failure {
    /// A failure with one problem.
    #[must_use]
    pub fn new(exit: Exit, problem: Diagnostic) -> Failure {
        Failure { exit, problems: vec![problem] }
    }

    /// Wrong usage or an invalid profile.
    #[must_use]
    pub fn usage(problems: Vec<Diagnostic>) -> Failure {
        Failure { exit: Exit::Usage, problems }
    }
}

/// Runs `body`; a panic is reported as an internal error with exit code 70.
pub(super) fn guard(body: impl FnOnce() -> Exit + std::panic::UnwindSafe) -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        // A message on the screen of a view would be lost with it.
        crate::sys::restore_terminal();
        let place = info
            .location()
            .map(|location| format!(" at {}:{}", location.file(), location.line()))
            .unwrap_or_default();
        let payload = info.payload();
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("no message");
        let _ = writeln!(std::io::stderr(), "error[BS9001]: internal error{place}: {}", escape(message));
    }));
    let exit = std::panic::catch_unwind(body).unwrap_or(Exit::Internal);
    ExitCode::from(exit.number())
}

/// Prints clap's message: help and version on standard output, usage errors on standard error.
pub(super) fn report_usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    if let Some(tip) = super::guesses::tip(error, arguments) {
        let mut stderr = anstream::stderr().lock();
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        let _ = writeln!(stderr, "{first}\n  = help: {tip}\n  = help: bindscope help lists every command");
        return Exit::Usage;
    }
    let text = error.render();
    if error.use_stderr() {
        let mut stderr = anstream::stderr().lock();
        let _ = write!(stderr, "{}", text.ansi());
        return Exit::Usage;
    }
    let written = crate::sys::standard_output().and_then(|_| {
        let mut stdout = anstream::stdout().lock();
        write!(stdout, "{}", text.ansi()).and_then(|()| stdout.flush())
    });
    match written {
        Err(write_error) if write_error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ =
                writeln!(std::io::stderr(), "error[BS4005]: cannot write to standard output: {write_error}");
            Exit::Output
        }
        _ => Exit::Success,
    }
}
