//! The signals that end a run: the first one in an orderly way, the second one at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::system::poller::Poller;

/// Remembers that somebody asked for the end.
pub struct Signals {
    asked: Arc<AtomicBool>,
    #[cfg(unix)]
    wake: std::os::unix::net::UnixStream,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM and SIGHUP (on Windows: Ctrl-C). A second SIGINT ends the process with 130, a second
    /// SIGTERM with 143.
    ///
    /// # Errors
    /// As `sigaction(2)`.
    pub fn new() -> io::Result<Signals> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let asked = Arc::new(AtomicBool::new(false));
        // The order matters: when the first signal comes, the shutdown below sees the flag still down.
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&asked))?;
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        #[cfg(unix)]
        {
            signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&asked))?;
            let (wake, bell) = std::os::unix::net::UnixStream::pair()?;
            for signal in [SIGINT, SIGTERM, signal_hook::consts::SIGHUP] {
                signal_hook::low_level::pipe::register(signal, bell.try_clone()?)?;
            }
            Ok(Signals { asked, wake })
        }
        #[cfg(not(unix))]
        Ok(Signals { asked })
    }

    /// As [`Signals::new`], but SIGINT does nothing: it is meant for a program that this one runs on the same terminal.
    ///
    /// # Errors
    /// As `sigaction(2)`.
    pub fn for_a_program() -> io::Result<Signals> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)))?;
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(SIGTERM, 143, Arc::clone(&asked))?;
        signal_hook::flag::register(SIGTERM, Arc::clone(&asked))?;
        #[cfg(unix)]
        {
            signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&asked))?;
            let (wake, bell) = std::os::unix::net::UnixStream::pair()?;
            for signal in [SIGTERM, signal_hook::consts::SIGHUP] {
                signal_hook::low_level::pipe::register(signal, bell.try_clone()?)?;
            }
            Ok(Signals { asked, wake })
        }
        #[cfg(not(unix))]
        Ok(Signals { asked })
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Lets a signal end the poller's wait. Returns false where it cannot: then waits must be short.
    ///
    /// # Errors
    /// As the poller's.
    pub fn watch(&self, poller: &Poller, key: u64) -> io::Result<bool> {
        #[cfg(unix)]
        {
            poller.add(&self.wake, key, super::Interest::Read)?;
            Ok(true)
        }
        #[cfg(not(unix))]
        {
            let _ = (poller, key);
            Ok(false)
        }
    }

    /// Ends what [`Signals::watch`] began.
    pub fn unwatch(&self, poller: &Poller) {
        #[cfg(unix)]
        let _ = poller.remove(&self.wake);
        #[cfg(not(unix))]
        let _ = poller;
    }
}

/// The signal that ended a program, if one did.
#[must_use]
pub fn signal_of(status: std::process::ExitStatus) -> Option<i32> {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    {
        let _ = status;
        None
    }
}
