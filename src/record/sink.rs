//! Where lines go. A sink never blocks whoever writes to it: what it cannot take is counted.
//!
//! A regular file is written to directly, since its writes do not wait for a reader. Anything else (a terminal, a pipe, a
//! FIFO that nobody reads) gets a thread of its own and a bounded queue; a pipe that has room is given its lines at once, if
//! the system can write without waiting.

use std::fs::File;
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many bytes may wait for a slow reader before lines are dropped.
const QUEUE_LIMIT: usize = 8 << 20;

/// How many bytes a slow reader is given at once. A pipe takes so many whole or not at all (PIPE_BUF of limits.h on Linux), so
/// that a write which waits when the program ends has written nothing.
const WRITE_LIMIT: usize = 4096;

/// How many bytes are gathered before they are handed on without being asked.
const BATCH_LIMIT: usize = 64 << 10;

/// Lines on their way, with the length of each and whether it stands for an arrival.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: Vec<(u32, bool)>,
}

impl Batch {
    fn append(&mut self, other: &mut Batch) {
        self.bytes.append(&mut other.bytes);
        self.lines.append(&mut other.lines);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }

    /// Forgets the first lines, which are so many bytes.
    fn cut(&mut self, lines: usize, bytes: usize) {
        self.lines.drain(..lines);
        self.bytes.drain(..bytes);
    }

    /// The first lines behind `from`: at most [`WRITE_LIMIT`] bytes of whole lines, or one line that is longer. Returns their
    /// length, how many lines they are, and how many of those are arrivals; `None` at the end.
    fn chunk(&self, from: usize) -> Option<(usize, usize, u64)> {
        let (mut bytes, mut lines, mut arrivals) = (0, 0, 0);
        for &(length, arrival) in self.lines.get(from..)? {
            if lines > 0 && bytes + length as usize > WRITE_LIMIT {
                break;
            }
            bytes += length as usize;
            lines += 1;
            arrivals += u64::from(arrival);
        }
        (lines > 0).then_some((bytes, lines, arrivals))
    }

    /// Length of the whole lines within the first `written` bytes, and how many arrivals lie behind them.
    fn split(&self, written: usize) -> (usize, u64) {
        let (mut whole, mut lost) = (0, 0);
        let mut end = 0;
        for &(length, arrival) in &self.lines {
            end += length as usize;
            if end <= written {
                whole = end;
            } else if arrival {
                lost += 1;
            }
        }
        (whole, lost)
    }
}

/// What became of the lines.
#[derive(Debug, Default, Clone)]
pub struct Losses {
    /// Arrivals whose lines were not written.
    pub dropped: u64,
    /// The first error of a write, but for a closed pipe.
    pub error: Option<String>,
    /// Nobody reads any more (EPIPE).
    pub closed: bool,
}

/// Where lines go. [`Sink::another`] leads to the same place: each has lines of its own until it hands them on.
pub struct Sink {
    batch: Batch,
    target: Arc<Target>,
}

enum Target {
    File(Mutex<Direct>),
    Stream(Shared),
}

/// A regular file.
struct Direct {
    file: File,
    losses: Losses,
    reported: u64,
    /// Whether the last write failed.
    failing: bool,
}

/// What the loop and the writing thread share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Writes whole lines, at most [`WRITE_LIMIT`] bytes, all or none of them, and never waits.
type WriteNow = Box<dyn Fn(&[u8]) -> io::Result<usize> + Send>;

#[derive(Default)]
struct State {
    queue: Batch,
    /// The way past the thread, while the queue is empty.
    at_once: Option<WriteNow>,
    writing: bool,
    /// Arrivals that the thread has taken and not yet written.
    taken: u64,
    /// Nobody waits for what the thread has taken: it is counted as lost already.
    abandoned: bool,
    ended: bool,
    losses: Losses,
    reported: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Lines to a regular file, behind what is there.
    #[must_use]
    pub fn file(file: File) -> Sink {
        let direct = Direct { file, losses: Losses::default(), reported: 0, failing: false };
        Sink::to(Arc::new(Target::File(Mutex::new(direct))))
    }

    /// Lines to anything else.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stream(writer: impl Write + Send + 'static) -> io::Result<Sink> {
        Sink::stream_prepared(writer, || ()).map(|(sink, ())| sink)
    }

    /// Lines to anything else; the thread that writes them does `prepare` first, and is waited for so long.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stream_prepared<T: Send + 'static>(
        writer: impl Write + Send + 'static,
        prepare: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<(Sink, T)> {
        let target = Arc::new(Target::Stream(Shared::default()));
        let theirs = Arc::clone(&target);
        let (tell, prepared) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("sink".into()).spawn(move || {
            let _ = tell.send(prepare());
            if let Target::Stream(shared) = &*theirs {
                write_all_batches(shared, writer);
            }
        })?;
        let prepared = prepared.recv().map_err(io::Error::other)?;
        Ok((Sink::to(target), prepared))
    }

    /// The same, on a pipe with a way past the thread: `at_once` writes there without waiting, at most 4096 bytes, all or none
    /// of them, and answers [`ErrorKind::WouldBlock`] when there is no room.
    #[must_use]
    pub fn at_once(self, at_once: impl Fn(&[u8]) -> io::Result<usize> + Send + 'static) -> Sink {
        if let Target::Stream(shared) = &*self.target {
            lock(&shared.state).at_once = Some(Box::new(at_once));
        }
        self
    }

    /// Another one that leads to the same place, for another thread.
    #[must_use]
    pub fn clone_for_thread(&self) -> Sink {
        Sink::to(Arc::clone(&self.target))
    }

    fn to(target: Arc<Target>) -> Sink {
        Sink { batch: Batch::default(), target }
    }

    /// Takes one line, with its newline, as `write` adds it; nothing added is no line. `arrival` tells whether it stands for a
    /// connection or datagram and is to be counted when it cannot be written.
    pub fn line(&mut self, arrival: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.batch.bytes.len();
        write(&mut self.batch.bytes);
        let length = self.batch.bytes.len() - before;
        if length == 0 {
            return;
        }
        self.batch.lines.push((u32::try_from(length).unwrap_or(u32::MAX), arrival));
        if self.batch.bytes.len() >= BATCH_LIMIT {
            self.flush();
        }
    }

    /// Whether lines wait to be handed on.
    #[must_use]
    pub fn has_gathered(&self) -> bool {
        !self.batch.lines.is_empty()
    }

    /// Hands on what was gathered.
    pub fn flush(&mut self) {
        if self.batch.lines.is_empty() {
            return;
        }
        match &*self.target {
            Target::File(direct) => lock(direct).write(&self.batch),
            Target::Stream(shared) => {
                let mut state = lock(&shared.state);
                state.write_at_once(&mut self.batch);
                if state.losses.closed || state.queue.bytes.len() + self.batch.bytes.len() > QUEUE_LIMIT {
                    state.losses.dropped += self.batch.split(0).1;
                } else if !self.batch.lines.is_empty() {
                    state.queue.append(&mut self.batch);
                    shared.changed.notify_all();
                }
            }
        }
        self.batch.clear();
    }

    /// What was lost so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        match &*self.target {
            Target::File(direct) => lock(direct).losses.clone(),
            Target::Stream(shared) => lock(&shared.state).losses.clone(),
        }
    }

    /// Whether the reader has gone away.
    #[must_use]
    pub fn closed(&self) -> bool {
        match &*self.target {
            Target::File(_) => false,
            Target::Stream(shared) => lock(&shared.state).losses.closed,
        }
    }

    /// How many arrivals were dropped since this was last asked, once there is room again to say so.
    /// When the line that says so is lost too (see [`Sink::restore_dropped`]), they are to be told again.
    pub fn take_dropped(&mut self) -> Option<u64> {
        let newly = |losses: &Losses, reported: &mut u64, room: bool| {
            let count = losses.dropped.saturating_sub(*reported);
            if count == 0 || !room || losses.closed {
                return None;
            }
            *reported = losses.dropped;
            Some(count)
        };
        match &*self.target {
            Target::File(direct) => {
                let direct = &mut *lock(direct);
                newly(&direct.losses, &mut direct.reported, true)
            }
            Target::Stream(shared) => {
                let state = &mut *lock(&shared.state);
                newly(&state.losses, &mut state.reported, state.queue.bytes.len() < QUEUE_LIMIT / 2)
            }
        }
    }

    /// Takes back that `count` arrivals were told as dropped, if the file did not take the last lines.
    pub fn restore_dropped(&mut self, count: u64) {
        if let Target::File(direct) = &*self.target {
            let mut direct = lock(direct);
            if direct.failing {
                direct.reported -= count;
            }
        }
    }

    /// Waits up to `patience` until everything is written, and then gives up on the rest: what still waits counts as
    /// dropped, and the losses are final.
    pub fn drain(&mut self, patience: Duration) -> Losses {
        self.flush();
        if let Target::Stream(shared) = &*self.target {
            let deadline = Instant::now() + patience;
            let mut state = lock(&shared.state);
            while (state.writing || !state.queue.lines.is_empty()) && !state.losses.closed {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let (_, waiting) = state.queue.split(0);
                    state.losses.dropped += waiting + std::mem::take(&mut state.taken);
                    state.abandoned = state.writing;
                    state.losses.error.get_or_insert_with(|| "the reader does not read".to_owned());
                    state.queue.clear();
                    break;
                }
                state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        self.losses()
    }

    /// Writes what is left, as [`Sink::drain`], and ends.
    #[must_use]
    pub fn finish(mut self, patience: Duration) -> Losses {
        let losses = self.drain(patience);
        if let Target::Stream(shared) = &*self.target {
            lock(&shared.state).ended = true;
            shared.changed.notify_all();
        }
        losses
    }
}

impl State {
    /// Writes what the pipe takes without a wait, as long as nothing is before it, and cuts that off. What is left is for the
    /// thread, and so is every error but the reader's end.
    fn write_at_once(&mut self, batch: &mut Batch) {
        if self.writing || !self.queue.lines.is_empty() || self.losses.closed {
            return;
        }
        let Some(at_once) = &self.at_once else { return };
        let (mut line, mut start) = (0, 0);
        while let Some((length, lines, _)) = batch.chunk(line).filter(|(length, ..)| *length <= WRITE_LIMIT) {
            match at_once(batch.bytes.get(start..start + length).unwrap_or_default()) {
                Ok(count) if count == length => (line, start) = (line + lines, start + length),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    self.losses.closed = true;
                    break;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                // The system cannot do it here.
                _ => {
                    self.at_once = None;
                    break;
                }
            }
        }
        batch.cut(line, start);
    }
}

impl Direct {
    /// Writes a batch at once: with O_APPEND the lines of two programs do not mix then. When the disk is full, what was
    /// written of a torn line is taken back; later batches try again, for room may come.
    fn write(&mut self, batch: &Batch) {
        let mut written = 0;
        self.failing = false;
        while let Some(rest) = batch.bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return self.failed(batch, written, &io::Error::from(ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.failed(batch, written, &error),
            }
        }
    }

    fn failed(&mut self, batch: &Batch, written: usize, error: &io::Error) {
        let (whole, lost) = batch.split(written);
        self.failing = true;
        self.losses.dropped += lost;
        self.losses.error.get_or_insert_with(|| error.to_string());
        if written > whole && self.take_back((written - whole) as u64).is_err() {
            // Somebody else writes there too: end the torn line at least.
            let _ = self.file.write(b"\n");
        }
    }

    /// Cuts the last `torn` bytes off, if they are still the last ones.
    fn take_back(&mut self, torn: u64) -> io::Result<()> {
        let position = self.file.stream_position()?;
        if position != self.file.metadata()?.len() {
            return Err(ErrorKind::Other.into());
        }
        let whole = position.checked_sub(torn).ok_or(ErrorKind::Other)?;
        self.file.set_len(whole)?;
        self.file.seek(SeekFrom::Start(whole)).map(drop)
    }
}

/// The writing thread: takes whatever waits and writes it.
fn write_all_batches(shared: &Shared, mut writer: impl Write) {
    let mut batch = Batch::default();
    loop {
        {
            let mut state = lock(&shared.state);
            state.writing = false;
            state.abandoned = false;
            shared.changed.notify_all();
            while state.queue.lines.is_empty() {
                if state.ended {
                    return;
                }
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batch, &mut state.queue);
            state.writing = true;
            state.taken = batch.split(0).1;
        }
        let (mut line, mut start) = (0, 0);
        while let Some((length, lines, arrivals)) = batch.chunk(line) {
            let result = write_batch(&mut writer, batch.bytes.get(start..start + length).unwrap_or_default());
            let mut state = lock(&shared.state);
            if state.abandoned {
                // What was written after all, while it was being given up on, is not lost.
                if result.is_ok() {
                    state.losses.dropped = state.losses.dropped.saturating_sub(arrivals);
                }
                break;
            }
            match result {
                Ok(()) => state.taken = state.taken.saturating_sub(arrivals),
                Err((error, written)) => {
                    // Nothing of this batch is tried again: what is left of it is lost.
                    let _ = std::mem::take(&mut state.taken);
                    state.losses.dropped += batch.split(start + written).1;
                    if error.kind() == ErrorKind::BrokenPipe {
                        state.losses.closed = true;
                        state.losses.dropped += state.queue.split(0).1;
                        state.queue.clear();
                        state.writing = false;
                        shared.changed.notify_all();
                        return;
                    }
                    state.losses.error.get_or_insert_with(|| error.to_string());
                    break;
                }
            }
            (line, start) = (line + lines, start + length);
        }
        batch.clear();
    }
}

fn write_batch(writer: &mut impl Write, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match writer.write(rest) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), written)),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((error, written)),
        }
    }
    writer.flush().map_err(|error| (error, written))
}

#[cfg(test)]
mod tests;
