//! The live view of `listen --tui` and `audit --watch --tui`: a thread that draws what the program knows, and reads keys.
//!
//! The program never waits for the view: it changes a [`Model`] under a lock that the view holds only while it makes a
//! [`Board`] of it, at most ten times a second. A terminal that does not take output stops the view and nothing else.

pub mod board;
pub mod draw;

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::confinement::{Confinement, Needs};
use crate::sys::{self, Heard, Terminal, TerminalWaker};
use board::{Action, Board, Hands, Model};

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(100);

/// How long the end waits for the last picture.
const PATIENCE: Duration = Duration::from_millis(300);

/// What the view and the program share.
struct Shared<M> {
    model: Mutex<M>,
    ending: AtomicBool,
    closed: AtomicBool,
    refresh: AtomicBool,
    failed: AtomicBool,
}

/// Handle of a view. The view ends with [`View::end`].
pub struct View<M> {
    shared: Arc<Shared<M>>,
    waker: Arc<TerminalWaker>,
    ended: Arc<Mutex<Receiver<()>>>,
}

impl<M> Clone for View<M> {
    fn clone(&self) -> View<M> {
        View {
            shared: Arc::clone(&self.shared),
            waker: Arc::clone(&self.waker),
            ended: Arc::clone(&self.ended),
        }
    }
}

/// Prepares the terminal. Must be called before the signals of the program are registered.
///
/// # Errors
/// Exit code 2 if standard output is not a terminal or there is no keyboard.
pub fn prepare() -> Result<Terminal, Failure> {
    Terminal::prepare().map_err(|error| {
        let message = format!("--tui needs a terminal: {error}");
        Failure::new(
            Exit::Usage,
            Diagnostic::error(Code::COMMAND_LINE, message)
                .help("leave --tui out: lines can be written to a pipe or a file"),
        )
    })
}

impl<M: Model> View<M> {
    /// Starts the view. Its thread gives up all privileges with `confine`; the level that it reached is returned.
    ///
    /// # Errors
    /// Exit code 4 if the terminal cannot be used or no thread can be started.
    pub fn start(
        terminal: Terminal,
        model: M,
        confine: bool,
        context: &Context,
    ) -> Result<(View<M>, Option<Confinement>), Failure> {
        let failed = |error: io::Error| {
            sys::restore_terminal();
            let message = format!("the terminal cannot be used for a view: {error}");
            Failure::new(Exit::Environment, Diagnostic::error(Code::OUTPUT_FAILED, message))
        };
        let waker = Arc::new(terminal.waker().map_err(failed)?);
        let shared = Arc::new(Shared {
            model: Mutex::new(model),
            ending: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            refresh: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        terminal.enter().map_err(failed)?;
        let (over, ended) = sync_channel(1);
        let (tell, prepared) = sync_channel(1);
        let (theirs, color) = (Arc::clone(&shared), context.color);
        let body = move || {
            let _ = tell.send(confine.then(|| sys::confine(&Needs::default())));
            let _closed = Closes { shared: Arc::clone(&theirs), over };
            Screen::new(terminal, color).run(&theirs);
        };
        std::thread::Builder::new().name("view".into()).spawn(body).map_err(failed)?;
        let confinement = prepared.recv().unwrap_or_default();
        Ok((View { shared, waker, ended: Arc::new(Mutex::new(ended)) }, confinement))
    }

    /// Changes the model.
    pub fn change(&self, change: impl FnOnce(&mut M)) {
        change(&mut self.shared.model.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the view has ended, because the user asked for it or the terminal is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Whether the view ended by an internal error, which has been reported.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Whether the user asked to read the source again, since the last call.
    pub fn take_refresh(&self) -> bool {
        self.shared.refresh.swap(false, Ordering::AcqRel)
    }

    /// Ends the view and restores the terminal. A second call does nothing.
    pub fn end(&self) {
        self.shared.ending.store(true, Ordering::Release);
        self.waker.wake();
        let _ = self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PATIENCE);
        // The thread may wait for a terminal that takes no output.
        sys::restore_terminal();
    }
}

/// Ends a view, also when its thread panics.
struct Closes<M> {
    shared: Arc<Shared<M>>,
    over: SyncSender<()>,
}

impl<M> Drop for Closes<M> {
    fn drop(&mut self) {
        sys::restore_terminal();
        self.shared.failed.store(std::thread::panicking(), Ordering::Release);
        self.shared.closed.store(true, Ordering::Release);
        let _ = self.over.send(());
        if std::thread::panicking() {
            // The program may wait for something else.
            sys::ask_to_end();
        }
    }
}

/// The terminal with what is on it.
struct Screen {
    terminal: Terminal,
    color: bool,
    shown: Buffer,
    hands: Hands,
    /// The next picture is complete: nothing is known of what is on the terminal.
    whole: bool,
}

impl Screen {
    fn new(terminal: Terminal, color: bool) -> Screen {
        Screen { terminal, color, shown: Buffer::empty(Rect::ZERO), hands: Hands::default(), whole: true }
    }

    fn run<M: Model>(&mut self, shared: &Shared<M>) {
        let mut board = Board::default();
        let mut revision = None;
        let mut drawn: Option<Instant> = None;
        let mut dirty = true;
        while !shared.ending.load(Ordering::Acquire) && sys::has_view() {
            match self.terminal.wait(FRAME) {
                Heard::Closed => {
                    sys::ask_to_end();
                    return;
                }
                Heard::Stop => {
                    if self.suspend().is_err() {
                        return;
                    }
                    dirty = true;
                }
                Heard::Continue => {
                    // It was stopped without a chance to restore the terminal, and the shell has changed it since.
                    if self.terminal.enter().is_err() {
                        return;
                    }
                    self.whole = true;
                    dirty = true;
                }
                Heard::Input(bytes) => {
                    for key in board::keys(&bytes) {
                        #[cfg(debug_assertions)]
                        fail_on_purpose(key);
                        let board = self.hands.paused.clone().unwrap_or_else(|| board.clone());
                        match self.hands.key(key, &board) {
                            Action::Draw => {}
                            Action::End => {
                                sys::ask_to_end();
                                return;
                            }
                            Action::Refresh => shared.refresh.store(true, Ordering::Release),
                            Action::Suspend => {
                                if self.suspend().is_err() {
                                    return;
                                }
                            }
                        }
                    }
                    dirty = true;
                }
                Heard::Woken | Heard::Nothing => {}
            }
            if drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
                continue;
            }
            let mut reason = Vec::new();
            {
                let model = shared.model.lock().unwrap_or_else(PoisonError::into_inner);
                let now = model.revision();
                if revision != Some(now) {
                    revision = Some(now);
                    board = model.board();
                    dirty = true;
                }
                if self.hands.reason && dirty {
                    let board = self.hands.paused.as_ref().unwrap_or(&board);
                    let rows = self.hands.rows(board);
                    if let Some(row) = rows.get(self.hands.selected(&rows)) {
                        let column = self.hands.selected_column(board).and_then(|at| board.columns.get(at));
                        reason = model.reason(&row.key, column.map(String::as_str));
                    }
                }
            }
            let resized = {
                let (width, height) = self.terminal.size();
                self.shown.area != Rect::new(0, 0, width, height)
            };
            if (dirty || resized) && sys::has_view() {
                if self.draw(&board, &reason).is_err() {
                    sys::ask_to_end();
                    return;
                }
                drawn = Some(Instant::now());
                dirty = false;
            }
        }
    }

    fn suspend(&mut self) -> io::Result<()> {
        self.whole = true;
        self.terminal.suspend()
    }

    /// Writes what differs from the last picture.
    fn draw(&mut self, board: &Board, reason: &[String]) -> io::Result<()> {
        let (width, height) = self.terminal.size();
        let area = Rect::new(0, 0, width, height);
        let mut next = Buffer::empty(area);
        let missed = self.hands.paused.as_ref().map_or(0, |paused| board.count.saturating_sub(paused.count));
        let shown = self.hands.paused.as_ref().unwrap_or(board);
        draw::draw(&mut next, shown, &self.hands, reason, self.color, missed);
        let mut out: Vec<u8> = Vec::new();
        if self.whole || self.shown.area != area {
            out.extend_from_slice(b"\x1b[0m\x1b[2J");
            self.shown = Buffer::empty(area);
        }
        bytes_of(&mut out, &self.shown, &next);
        self.shown = next;
        self.whole = false;
        if out.is_empty() { Ok(()) } else { self.terminal.output().write_all(&out) }
    }
}

/// In debug builds Ctrl-P panics, so that a test can see what becomes of the terminal.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "for a test")]
fn fail_on_purpose(key: board::Key) {
    if key == board::Key::Control('p') {
        panic!("Ctrl-P in a debug build");
    }
}

/// The bytes that turn one picture on a terminal into another.
fn bytes_of(out: &mut Vec<u8>, before: &Buffer, after: &Buffer) {
    let mut at = None;
    let mut style = None;
    for (x, y, cell) in before.diff(after) {
        if at != Some((x, y)) {
            let _ = write!(out, "\x1b[{};{}H", y + 1, x + 1);
        }
        if style != Some((cell.fg, cell.modifier)) {
            style = Some((cell.fg, cell.modifier));
            out.extend_from_slice(b"\x1b[0");
            for (modifier, code) in [
                (Modifier::BOLD, "1"),
                (Modifier::DIM, "2"),
                (Modifier::UNDERLINED, "4"),
                (Modifier::REVERSED, "7"),
            ] {
                if cell.modifier.contains(modifier) {
                    let _ = write!(out, ";{code}");
                }
            }
            match cell.fg {
                Color::Red => out.extend_from_slice(b";31"),
                Color::Green => out.extend_from_slice(b";32"),
                _ => {}
            }
            out.push(b'm');
        }
        out.extend_from_slice(cell.symbol().as_bytes());
        let wide = unicode_width::UnicodeWidthStr::width(cell.symbol()).max(1);
        at = Some((x + u16::try_from(wide).unwrap_or(1), y));
    }
    if style.is_some() {
        out.extend_from_slice(b"\x1b[0m");
    }
}

#[cfg(test)]
mod tests;
