//! The live view of `listen`, or why this program has none.

use crate::cmd::{Context, Failure};
use crate::diag::Diagnostic;
use crate::model::confinement::Confinement;
use crate::model::{Arrival, Snapshot};
use crate::record::event::Event;
use crate::record::time::Time;
use crate::sys::Terminal;

/// Prepares the terminal, before signals are registered.
///
/// # Errors
/// Exit code 2 without a terminal, or without the feature `tui`.
#[cfg(feature = "tui")]
pub(in crate::cmd) fn prepare() -> Result<Terminal, Failure> {
    crate::cmd::live::prepare()
}

/// Refuses, because the program was built without the feature `tui`.
#[cfg(not(feature = "tui"))]
pub(in crate::cmd) fn prepare() -> Result<Terminal, Failure> {
    let problem = Diagnostic::error(crate::code::Code::COMMAND_LINE, "this program was built without --tui");
    Err(Failure::usage(vec![problem.help("build it with the cargo feature `tui`, or leave --tui out")]))
}

/// The view; never there without the feature.
#[derive(Clone)]
pub(super) struct ViewHandle {
    #[cfg(feature = "tui")]
    view: crate::cmd::live::View<super::view::Arrivals>,
    #[cfg(not(feature = "tui"))]
    never: std::convert::Infallible,
}

#[cfg(feature = "tui")]
impl ViewHandle {
    /// Starts the view.
    ///
    /// # Errors
    /// Exit code 4 if the terminal cannot be used.
    pub(super) fn start(
        terminal: Terminal,
        profile: &str,
        host: &Snapshot,
        confine: bool,
        context: &Context,
    ) -> Result<(ViewHandle, Option<Confinement>), Failure> {
        let model = super::view::Arrivals::new(profile, host);
        let (view, confinement) = crate::cmd::live::View::start(terminal, model, confine, context)?;
        Ok((ViewHandle { view }, confinement))
    }

    pub(super) fn event(&self, event: &Event) {
        self.view.change(|model| model.event(event));
    }

    pub(super) fn arrival(
        &self,
        time: Time,
        arrival: &Arrival,
        datagram: Option<(usize, bool)>,
        over_limit: bool,
    ) {
        self.view.change(|model| model.arrival(time, arrival, datagram, over_limit));
    }

    pub(super) fn message(&self, problem: &Diagnostic) {
        use crate::cmd::live::board::Tone;
        use crate::diag::Severity;
        let (mark, tone) = match problem.severity {
            Severity::Note => ("", Tone::Faint),
            _ => ("! ", Tone::Bad),
        };
        let text = format!("{mark}{} {}", problem.code, problem.message);
        self.view.change(|model| model.message(&text, tone));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.view.is_closed()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.view.has_failed()
    }

    pub(super) fn end(&self) {
        self.view.end();
    }
}

#[cfg(not(feature = "tui"))]
impl ViewHandle {
    pub(super) fn start(
        _: Terminal,
        _: &str,
        _: &Snapshot,
        _: bool,
        _: &Context,
    ) -> Result<(ViewHandle, Option<Confinement>), Failure> {
        Err(prepare().err().unwrap_or_else(|| Failure::usage(Vec::new())))
    }

    pub(super) fn event(&self, _: &Event) {
        match self.never {}
    }

    pub(super) fn arrival(&self, _: Time, _: &Arrival, _: Option<(usize, bool)>, _: bool) {
        match self.never {}
    }

    pub(super) fn message(&self, _: &Diagnostic) {
        match self.never {}
    }

    pub(super) fn is_closed(&self) -> bool {
        match self.never {}
    }

    pub(super) fn has_failed(&self) -> bool {
        match self.never {}
    }

    pub(super) fn end(&self) {
        match self.never {}
    }
}
