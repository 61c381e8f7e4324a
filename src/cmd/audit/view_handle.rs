//! The live view of `audit --watch`; without the feature `tui`, nothing.

use crate::audit::Report;
use crate::cmd::{Context, Failure};
use crate::sys::Terminal;

/// The view; never there without the feature.
pub(super) struct ViewHandle {
    #[cfg(feature = "tui")]
    view: crate::cmd::live::View<super::view::Sockets>,
    #[cfg(not(feature = "tui"))]
    never: std::convert::Infallible,
}

#[cfg(feature = "tui")]
impl ViewHandle {
    /// Starts the view.
    ///
    /// # Errors
    /// Exit code 4 if the terminal cannot be used.
    pub(super) fn start(terminal: Terminal, context: &Context) -> Result<ViewHandle, Failure> {
        let model = super::view::Sockets::new();
        crate::cmd::live::View::start(terminal, model, false, context).map(|(view, _)| ViewHandle { view })
    }

    pub(super) fn look(&self, report: &Report, changes: Vec<String>) {
        self.view.change(|model| model.look(report, changes));
    }

    pub(super) fn take_refresh(&self) -> bool {
        self.view.take_refresh()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.view.is_closed()
    }

    pub(super) fn end(&self) {
        self.view.end();
    }
}

#[cfg(not(feature = "tui"))]
impl ViewHandle {
    pub(super) fn start(_: Terminal, _: &Context) -> Result<ViewHandle, Failure> {
        Err(Failure::usage(Vec::new()))
    }

    pub(super) fn look(&self, _: &Report, _: Vec<String>) {
        match self.never {}
    }

    pub(super) fn take_refresh(&self) -> bool {
        match self.never {}
    }

    pub(super) fn is_closed(&self) -> bool {
        match self.never {}
    }

    pub(super) fn end(&self) {
        match self.never {}
    }
}
