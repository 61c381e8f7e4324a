//! The terminal of a full-screen view: raw input, the alternate screen, and both restored however the program ends.
//!
//! One terminal at a time. What must be restored is in statics, because signal handlers and the panic hook restore it too.

use std::fs::File;
use std::io;
use std::time::Duration;

/// What a wait ended with.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes from the keyboard.
    Input(Vec<u8>),
    /// SIGTSTP asked the program to stop.
    Stop,
    /// The program goes on after a stop.
    Continue,
    /// The size may have changed, or something else happened.
    Woken,
    /// The terminal is gone.
    Closed,
    /// Nothing in time.
    Nothing,
}

/// Restores the terminal if a view is on it. Safe in signal handlers; a second call does nothing.
pub fn restore_terminal() {
    system::restore();
}

/// Whether a view is on the terminal.
#[must_use]
pub fn has_view() -> bool {
    system::is_active()
}

/// Asks this program to end in an orderly way, as Ctrl-C does.
pub fn ask_to_end() {
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGINT);
}

/// A terminal with a view.
pub struct Terminal {
    inner: system::Terminal,
}

impl Terminal {
    /// Prepares standard output and the keyboard; nothing changes yet. Must be called before the signals of the program are
    /// registered, so that the terminal is restored before a second signal ends the program.
    ///
    /// # Errors
    /// Standard output is not a terminal, or there is no keyboard.
    pub fn prepare() -> io::Result<Terminal> {
        system::Terminal::prepare().map(|inner| Terminal { inner })
    }

    /// Raw input and the alternate screen.
    ///
    /// # Errors
    /// Those of `tcsetattr(3)` and `write(2)`.
    pub fn enter(&self) -> io::Result<()> {
        self.inner.enter()
    }

    /// Restores the terminal, stops the program as SIGTSTP does, and returns when the program goes on.
    ///
    /// # Errors
    /// Those of [`Terminal::enter`].
    pub fn suspend(&self) -> io::Result<()> {
        restore_terminal();
        self.inner.stop()?;
        self.enter()
    }

    /// Waits for keys, signals and [`Waker::wake`].
    pub fn wait(&self, patience: Duration) -> Heard {
        self.inner.wait(patience)
    }

    /// Columns and rows.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        self.inner.size()
    }

    /// The output.
    #[must_use]
    pub fn output(&self) -> &File {
        &self.inner.output
    }

    /// Ends the waits of another thread.
    ///
    /// # Errors
    /// Those of `dup(2)`.
    pub fn waker(&self) -> io::Result<Waker> {
        self.inner.waker().map(Waker)
    }
}

/// Ends the wait of a [`Terminal`].
pub struct Waker(system::Bell);

impl Waker {
    /// Ends the current wait or, if there is none, the next one.
    pub fn wake(&self) {
        self.0.ring();
    }
}

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io::{self, IsTerminal as _, Read as _, Write as _};
    use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
    use signal_hook::consts::{SIGCONT, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};

    use super::Heard;

    /// The alternate screen, without a cursor.
    const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
    /// The opposite, with default colours.
    const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

    static ACTIVE: AtomicBool = AtomicBool::new(false);
    static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
    static SAVED: OnceLock<libc::termios> = OnceLock::new();

    pub(super) fn is_active() -> bool {
        ACTIVE.load(Ordering::Acquire)
    }

    #[expect(unsafe_code, reason = "signal handlers call it, so it makes system calls only")]
    pub(super) fn restore() {
        // Cleared at the end only: another thread that ends the program meanwhile restores as well.
        if !ACTIVE.load(Ordering::Acquire) {
            return;
        }
        let descriptor = DESCRIPTOR.load(Ordering::Acquire);
        if let Some(saved) = SAVED.get() {
            // SAFETY: the descriptor stays open until the program ends, and `saved` is complete.
            unsafe { libc::tcsetattr(descriptor, libc::TCSANOW, saved) };
        }
        let mut ready = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
        // A terminal that does not take output is not waited for.
        // SAFETY: one `pollfd` that outlives the call; then LEAVE, which is static.
        unsafe {
            if libc::poll(&raw mut ready, 1, 0) == 1 && ready.revents & libc::POLLOUT != 0 {
                libc::write(descriptor, LEAVE.as_ptr().cast(), LEAVE.len());
            }
        }
        ACTIVE.store(false, Ordering::Release);
    }

    pub(super) struct Terminal {
        pub(super) output: File,
        keyboard: File,
        original: Termios,
        bell: UnixStream,
        ringer: UnixStream,
        stop: Arc<AtomicBool>,
        go_on: Arc<AtomicBool>,
    }

    pub(super) struct Bell(UnixStream);

    impl Bell {
        pub(super) fn ring(&self) {
            // A full pipe wakes as well.
            let _ = (&self.0).write(&[1]);
        }
    }

    impl Terminal {
        #[expect(
            unsafe_code,
            reason = "signal-hook leaves it to the caller that a handler makes system calls only"
        )]
        pub(super) fn prepare() -> io::Result<Terminal> {
            let stdout = io::stdout();
            if !stdout.is_terminal() {
                return Err(io::Error::other("standard output is not a terminal"));
            }
            let output = File::from(stdout.as_fd().try_clone_to_owned()?);
            let stdin = io::stdin();
            let keyboard = if stdin.is_terminal() {
                File::from(stdin.as_fd().try_clone_to_owned()?)
            } else {
                File::options().read(true).write(true).open("/dev/tty")?
            };
            let original = tcgetattr(&output)?;
            let _ = SAVED.set(original.clone().into());
            // Never closed, because handlers use it until the program ends.
            DESCRIPTOR.store(output.try_clone()?.into_raw_fd(), Ordering::Release);
            let (bell, ringer) = UnixStream::pair()?;
            bell.set_nonblocking(true)?;
            ringer.set_nonblocking(true)?;
            for signal in [SIGINT, SIGTERM, SIGQUIT] {
                let handler = move || {
                    restore();
                    if signal == SIGQUIT {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                };
                // SAFETY: `restore` makes system calls that are safe in a handler, and takes no lock.
                unsafe { signal_hook::low_level::register(signal, handler) }?;
            }
            let (stop, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            signal_hook::flag::register(SIGTSTP, Arc::clone(&stop))?;
            signal_hook::flag::register(SIGCONT, Arc::clone(&go_on))?;
            for signal in [SIGTSTP, SIGCONT, SIGWINCH, SIGINT, SIGTERM] {
                signal_hook::low_level::pipe::register(signal, ringer.try_clone()?)?;
            }
            Ok(Terminal { output, keyboard, original, bell, ringer, stop, go_on })
        }

        pub(super) fn enter(&self) -> io::Result<()> {
            let mut raw = self.original.clone();
            cfmakeraw(&mut raw);
            ACTIVE.store(true, Ordering::Release);
            tcsetattr(&self.output, SetArg::TCSANOW, &raw)?;
            (&self.output).write_all(ENTER)
        }

        pub(super) fn stop(&self) -> io::Result<()> {
            self.stop.store(false, Ordering::Release);
            signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
            self.go_on.store(false, Ordering::Release);
            Ok(())
        }

        pub(super) fn wait(&self, patience: Duration) -> Heard {
            let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
            let mut waits = [
                PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
            ];
            let count = poll(&mut waits, patience);
            let [keyboard, bell] = waits.map(|wait| wait.revents().unwrap_or(PollFlags::empty()));
            if bell.contains(PollFlags::POLLIN) {
                let _ = (&self.bell).read(&mut [0; 256]);
            }
            if self.stop.swap(false, Ordering::AcqRel) {
                return Heard::Stop;
            }
            if self.go_on.swap(false, Ordering::AcqRel) {
                return Heard::Continue;
            }
            if keyboard.contains(PollFlags::POLLIN) {
                let mut bytes = [0; 256];
                return match (&self.keyboard).read(&mut bytes) {
                    Ok(0) => Heard::Closed,
                    Ok(count) => Heard::Input(bytes[..count].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => Heard::Woken,
                    Err(_) => Heard::Closed,
                };
            }
            if keyboard.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
                return Heard::Closed;
            }
            match count {
                Ok(0) => Heard::Nothing,
                _ => Heard::Woken,
            }
        }

        #[expect(unsafe_code, reason = "no crate in use reads the size of a terminal by descriptor")]
        pub(super) fn size(&self) -> (u16, u16) {
            let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
            // SAFETY: TIOCGWINSZ writes one `winsize` to the address given, which outlives the call.
            let answer = unsafe { libc::ioctl(self.output.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
            if answer == 0 && size.ws_col > 0 && size.ws_row > 0 {
                (size.ws_col, size.ws_row)
            } else {
                (80, 24)
            }
        }

        pub(super) fn waker(&self) -> io::Result<Bell> {
            self.ringer.try_clone().map(Bell)
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::fs::File;
    use std::io;
    use std::time::Duration;

    use super::Heard;

    pub(super) fn is_active() -> bool {
        false
    }

    pub(super) fn restore() {}

    pub(super) struct Terminal {
        pub(super) output: File,
    }

    pub(super) struct Bell;

    impl Bell {
        pub(super) fn ring(&self) {}
    }

    impl Terminal {
        pub(super) fn prepare() -> io::Result<Terminal> {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no live view"))
        }

        pub(super) fn enter(&self) -> io::Result<()> {
            Ok(())
        }

        pub(super) fn stop(&self) -> io::Result<()> {
            Ok(())
        }

        pub(super) fn wait(&self, _: Duration) -> Heard {
            Heard::Nothing
        }

        pub(super) fn size(&self) -> (u16, u16) {
            (80, 24)
        }

        pub(super) fn waker(&self) -> io::Result<Bell> {
            Ok(Bell)
        }
    }
}
