//! Output of lines. A sink never blocks its writer: lines that do not fit are counted as dropped.
//!
//! A regular file is written directly, because such writes do not wait for a reader. Any other output (a terminal, a
//! pipe, a FIFO without a reader) has a separate thread and a bounded queue. A pipe with free space receives its lines
//! immediately, if the system supports writing without waiting.

use std::fs::File;
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of bytes that wait for a slow reader; further lines are dropped.
const QUEUE_LIMIT: usize = 8 << 20;

/// Maximum number of bytes per write to a slow reader. A pipe accepts this many bytes completely or not at all
/// (PIPE_BUF of limits.h on Linux). A write that still waits at the end of the program has therefore written nothing.
const WRITE_LIMIT: usize = 4096;

/// Number of collected bytes that triggers a flush.
const BATCH_LIMIT: usize = 64 << 10;

/// Queued lines, each with its length and whether it represents an arrival.
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

    /// Removes the first lines, which have this many bytes.
    fn cut(&mut self, lines: usize, bytes: usize) {
        self.lines.drain(..lines);
        self.bytes.drain(..bytes);
    }

    /// The first lines after `from`: at most [`WRITE_LIMIT`] bytes of whole lines, or one longer line. Returns their
    /// length, their number, and the number of arrivals; `None` at the end.
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

    /// The length of the whole lines within the first `written` bytes, and the number of arrivals after them.
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

/// The final state of the lines.
#[derive(Debug, Default, Clone)]
pub struct Losses {
    /// Number of arrivals whose lines were not written.
    pub dropped: u64,
    /// The first write error, except for a closed pipe.
    pub error: Option<String>,
    /// The reader has closed the pipe (EPIPE).
    pub closed: bool,
}

/// A destination for lines. [`Sink::clone_for_thread`] returns a second sink for the same destination; each has its own buffer
/// until it is flushed.
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

/// State shared by the loop and the writing thread.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Writes whole lines, at most [`WRITE_LIMIT`] bytes, all or none, and never waits.
type WriteNow = Box<dyn Fn(&[u8]) -> io::Result<usize> + Send>;

#[derive(Default)]
struct State {
    queue: Batch,
    /// Direct write past the thread, used while the queue is empty.
    at_once: Option<WriteNow>,
    writing: bool,
    /// Number of arrivals that the thread has taken but not yet written.
    taken: u64,
    /// No caller waits for the lines that the thread has taken: they already count as lost.
    abandoned: bool,
    ended: bool,
    losses: Losses,
    reported: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// A sink that appends to a regular file.
    #[must_use]
    pub fn file(file: File) -> Sink {
        let direct = Direct { file, losses: Losses::default(), reported: 0, failing: false };
        Sink::to(Arc::new(Target::File(Mutex::new(direct))))
    }

    /// A sink for any other output.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn stream(writer: impl Write + Send + 'static) -> io::Result<Sink> {
        Sink::stream_prepared(writer, || ()).map(|(sink, ())| sink)
    }

    /// A sink for any other output. The writing thread first runs `prepare`, and the caller waits for this.
    ///
    /// # Errors
    /// If no thread can be started.
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

    /// A sink for a pipe with direct writes past the thread. `at_once` writes without waiting, at most 4096 bytes, all
    /// or none. It returns [`ErrorKind::WouldBlock`] if there is no space.
    #[must_use]
    pub fn at_once(self, at_once: impl Fn(&[u8]) -> io::Result<usize> + Send + 'static) -> Sink {
        if let Target::Stream(shared) = &*self.target {
            lock(&shared.state).at_once = Some(Box::new(at_once));
        }
        self
    }

    /// A second sink for the same destination, for another thread.
    #[must_use]
    pub fn clone_for_thread(&self) -> Sink {
        Sink::to(Arc::clone(&self.target))
    }

    fn to(target: Arc<Target>) -> Sink {
        Sink { batch: Batch::default(), target }
    }

    /// Goes on in another regular file, where lines went to one so far: what was gathered goes to the old one.
    pub fn go_on_in(&mut self, file: File) {
        self.flush();
        if let Target::File(direct) = &*self.target {
            lock(direct).file = file;
        }
    }

    /// Adds the line that `write` appends, with its newline. If `write` appends nothing, there is no line. `arrival`
    /// says whether the line represents a connection or datagram, which is counted if it cannot be written.
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

    /// Whether lines wait to be flushed.
    #[must_use]
    pub fn has_gathered(&self) -> bool {
        !self.batch.lines.is_empty()
    }

    /// Flushes the collected lines.
    pub fn flush(&mut self) {
        if self.batch.lines.is_empty() {
            return;
        }
        match &*self.target {
            Target::File(direct) => lock(direct).write(&self.batch),
            Target::Stream(shared) => {
                let mut state = lock(&shared.state);
                state.write_at_once(&mut self.batch);
                // One document that is longer than the queue may be is taken while nothing else waits.
                let full = state.queue.bytes.len() + self.batch.bytes.len() > QUEUE_LIMIT
                    && !state.queue.bytes.is_empty();
                if state.losses.closed || full {
                    state.losses.dropped += self.batch.split(0).1;
                } else if !self.batch.lines.is_empty() {
                    state.queue.append(&mut self.batch);
                    shared.changed.notify_all();
                }
            }
        }
        self.batch.clear();
    }

    /// The losses so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        match &*self.target {
            Target::File(direct) => lock(direct).losses.clone(),
            Target::Stream(shared) => lock(&shared.state).losses.clone(),
        }
    }

    /// Whether the reader has closed the output.
    #[must_use]
    pub fn closed(&self) -> bool {
        match &*self.target {
            Target::File(_) => false,
            Target::Stream(shared) => lock(&shared.state).losses.closed,
        }
    }

    /// Returns and resets the number of dropped arrivals, once there is space for a notice. If the notice is lost too,
    /// [`Sink::restore_dropped`] adds the number back.
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

    /// Adds `count` dropped arrivals back if the file did not accept the last lines, which contained the notice.
    pub fn restore_dropped(&mut self, count: u64) {
        if let Target::File(direct) = &*self.target {
            let mut direct = lock(direct);
            if direct.failing {
                direct.reported -= count;
            }
        }
    }

    /// Waits up to `patience` until everything is written. Then the remaining lines count as dropped, and the losses
    /// are final.
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

    /// Writes the remaining lines, as [`Sink::drain`] does, and ends.
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
    /// If the queue is empty, writes what the pipe accepts without waiting, and removes it from the buffer. The thread
    /// handles the rest, and every error except a closed pipe.
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
                // The system does not support this here.
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
    /// Writes a batch in one call: with O_APPEND the lines of two programs do not mix. If the disk is full, an
    /// incomplete line is removed. Later batches are tried again, because space may become free.
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
            // Another process writes to the file too: end the incomplete line at least.
            let _ = self.file.write(b"\n");
        }
    }

    /// Removes the last `torn` bytes, if they are still at the end.
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

/// The writing thread: takes queued lines and writes them.
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
                // Lines that were written during the timeout are not lost.
                if result.is_ok() {
                    state.losses.dropped = state.losses.dropped.saturating_sub(arrivals);
                }
                break;
            }
            match result {
                Ok(()) => state.taken = state.taken.saturating_sub(arrivals),
                Err((error, written)) => {
                    // The batch is not retried: the rest of it is lost.
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
