//! The signals that end a run (the first one in an orderly way, the second one at once), and those that must not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::system::poller::Poller;

/// Remembers which signals arrived.
pub struct Signals {
    asked: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    #[cfg(unix)]
    wake: std::os::unix::net::UnixStream,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM and SIGHUP (on Windows: Ctrl-C): each ends the run. A second SIGINT ends the process with 130,
    /// a second SIGTERM with 143. SIGUSR1 and SIGUSR2 do nothing.
    ///
    /// # Errors
    /// As `sigaction(2)`.
    pub fn new() -> io::Result<Signals> {
        Signals::register(true, false)
    }

    /// As [`Signals::new`], but SIGHUP asks for the output file to be opened again ([`Signals::take_reopen`]) and ends nothing.
    ///
    /// # Errors
    /// As `sigaction(2)`.
    pub fn with_reopen() -> io::Result<Signals> {
        Signals::register(true, true)
    }

    /// As [`Signals::new`], but SIGINT does nothing: it is meant for a program that this one runs on the same terminal.
    ///
    /// # Errors
    /// As `sigaction(2)`.
    pub fn for_a_program() -> io::Result<Signals> {
        Signals::register(false, false)
    }

    fn register(int_ends: bool, hup_reopens: bool) -> io::Result<Signals> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let asked = Arc::new(AtomicBool::new(false));
        let reopen = Arc::new(AtomicBool::new(false));
        // The order matters: when the first signal comes, the shutdown below sees the flag still down.
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
            if signal == SIGINT && !int_ends {
                signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)))?;
                continue;
            }
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&asked))?;
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        #[cfg(unix)]
        {
            use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};
            // A handler, not SIG_IGN: a program that is started from here begins with the default action then.
            for signal in [SIGUSR1, SIGUSR2] {
                signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
            }
            let on_hangup = if hup_reopens { &reopen } else { &asked };
            signal_hook::flag::register(SIGHUP, Arc::clone(on_hangup))?;
            let (wake, bell) = std::os::unix::net::UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            let waking = [Some(SIGINT).filter(|_| int_ends), Some(SIGTERM), Some(SIGHUP)];
            for signal in waking.into_iter().flatten() {
                signal_hook::low_level::pipe::register(signal, bell.try_clone()?)?;
            }
            Ok(Signals { asked, reopen, wake })
        }
        #[cfg(not(unix))]
        {
            let _ = hup_reopens;
            Ok(Signals { asked, reopen })
        }
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether SIGHUP arrived since the last call, after [`Signals::with_reopen`].
    #[must_use]
    pub fn take_reopen(&self) -> bool {
        if !self.reopen.load(Ordering::Relaxed) {
            return false;
        }
        // Before the flag goes down: a signal that comes in between wakes the poller once more.
        #[cfg(unix)]
        {
            use std::io::Read as _;
            while matches!((&self.wake).read(&mut [0; 64]), Ok(64)) {}
        }
        self.reopen.swap(false, Ordering::Relaxed)
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

/// Lets a write beyond the limit of a file's size (RLIMIT_FSIZE) fail with EFBIG, as on a full disk, instead of ending the process
/// (SIGXFSZ of signal(7)). A handler, not SIG_IGN: a program that is started from here begins with the default action then.
pub fn survive_file_size_limit() {
    // Where it cannot be set the limit ends the process, as it does without.
    #[cfg(unix)]
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Runs `body` while the calling thread takes no signal: one that arrives meanwhile is delivered afterwards. SIGKILL cannot be held
/// back.
pub fn without_signals<T>(body: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    {
        use nix::sys::signal::SigSet;
        /// Restores the signal mask of the thread, in a panic too.
        struct Restore(Option<SigSet>);
        impl Drop for Restore {
            fn drop(&mut self) {
                if let Some(before) = &self.0 {
                    let _ = before.thread_set_mask();
                }
            }
        }
        let before = SigSet::thread_get_mask().ok();
        let _restore = Restore(before.filter(|_| SigSet::all().thread_block().is_ok()));
        body()
    }
    #[cfg(not(unix))]
    body()
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_delivered_after_the_body() {
        let arrived = Arc::new(AtomicBool::new(false));
        // SIGWINCH: no other test of this process uses it, and it ends nothing.
        signal_hook::flag::register(signal_hook::consts::SIGWINCH, Arc::clone(&arrived)).unwrap();
        without_signals(|| {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGWINCH).unwrap();
            assert!(!arrived.load(Ordering::SeqCst));
        });
        assert!(arrived.load(Ordering::SeqCst));
    }
}
