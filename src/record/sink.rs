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
    pub fn another(&self) -> Sink {
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
    /// When the line that says so is lost too (see [`Sink::unsaid`]), they are to be told again.
    pub fn newly_dropped(&mut self) -> Option<u64> {
        let newly = |losses: &Losses, reported: &mut u64, room: bool| {
            let count = losses.dropped - *reported;
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
    pub fn unsaid(&mut self, count: u64) {
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
mod tests {
    use std::io::Read as _;
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Blocks until told how many bytes it may take; then answers with an error, if one is set.
    struct Gate {
        budget: mpsc::Receiver<Result<usize, ErrorKind>>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.budget.recv() {
                Ok(Ok(count)) => count.min(bytes.len()),
                Ok(Err(kind)) => return Err(kind.into()),
                Err(_) => bytes.len(),
            };
            self.seen.lock().unwrap().extend(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Budget = mpsc::Sender<Result<usize, ErrorKind>>;

    fn gate() -> (Budget, Arc<Mutex<Vec<u8>>>, Sink) {
        let (sender, budget) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink::stream(Gate { budget, seen: Arc::clone(&seen) }).unwrap();
        (sender, seen, sink)
    }

    fn tell(sink: &mut Sink, line: &[u8], arrival: bool) {
        sink.line(arrival, |out| out.extend_from_slice(line));
    }

    fn writing(sink: &Sink) -> bool {
        matches!(&*sink.target, Target::Stream(shared) if lock(&shared.state).writing)
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_but_never_blocks() {
        let (open, seen, mut sink) = gate();
        let line = [b'x'; 1023].iter().copied().chain([b'\n']).collect::<Vec<_>>();
        let total = 3 * QUEUE_LIMIT / line.len();
        tell(&mut sink, &line, true);
        sink.flush();
        // The writer has its hands full before the queue fills; else it would empty the queue when it comes at last.
        while !writing(&sink) {
            std::thread::yield_now();
        }
        for _ in 1..total {
            tell(&mut sink, &line, true);
        }
        assert_eq!(sink.newly_dropped(), None, "no room to say so yet");
        assert!(sink.losses().dropped > 0);
        drop(open);
        let losses = sink.drain(LONG);
        let lines = seen.lock().unwrap().iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(lines as u64 + losses.dropped, total as u64);
        assert_eq!(sink.newly_dropped(), Some(losses.dropped));
        assert_eq!(sink.newly_dropped(), None);
    }

    #[test]
    fn a_reader_that_never_reads_is_given_up_on() {
        let (_open, _, mut sink) = gate();
        tell(&mut sink, b"first\n", true);
        sink.flush();
        while !writing(&sink) {
            std::thread::yield_now();
        }
        tell(&mut sink, b"second\n", true);
        let losses = sink.finish(Duration::from_millis(10));
        assert_eq!(losses.dropped, 2, "the one that is still being written too");
        assert!(losses.error.is_some());
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let (open, _, mut sink) = gate();
        open.send(Err(ErrorKind::BrokenPipe)).unwrap();
        tell(&mut sink, b"note\n", false);
        tell(&mut sink, b"arrival\n", true);
        let losses = sink.drain(LONG);
        assert!(losses.closed && losses.error.is_none());
        assert_eq!(losses.dropped, 1);
        tell(&mut sink, b"arrival\n", true);
        assert_eq!(sink.finish(LONG).dropped, 2);
    }

    #[test]
    fn a_torn_line_counts_as_lost() {
        let (open, seen, mut sink) = gate();
        open.send(Ok(9)).unwrap();
        open.send(Err(ErrorKind::StorageFull)).unwrap();
        tell(&mut sink, b"first\n", true);
        tell(&mut sink, b"second\n", true);
        let losses = sink.finish(LONG);
        assert_eq!(seen.lock().unwrap().as_slice(), b"first\nsec");
        assert_eq!(losses.dropped, 1);
        assert!(losses.error.is_some() && !losses.closed);
    }

    #[test]
    fn a_file_takes_back_a_torn_line() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"first\nsec").unwrap();
        let mut direct = Direct { file, losses: Losses::default(), reported: 0, failing: false };
        let mut batch = Batch::default();
        for line in [&b"first\n"[..], b"second\n"] {
            batch.bytes.extend_from_slice(line);
            batch.lines.push((u32::try_from(line.len()).unwrap(), true));
        }
        direct.failed(&batch, 9, &io::Error::from(ErrorKind::StorageFull));
        assert_eq!(direct.losses.dropped, 1);
        direct.write(&batch);
        let mut text = String::new();
        direct.file.seek(SeekFrom::Start(0)).unwrap();
        direct.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first\nfirst\nsecond\n");
    }

    #[test]
    fn drops_are_told_until_the_file_takes_the_line_that_says_so() {
        let place = tempfile::NamedTempFile::new().unwrap();
        // Every write fails, as on a full disk.
        let mut sink = Sink::file(File::open(place.path()).unwrap());
        tell(&mut sink, b"arrival\n", true);
        sink.flush();
        for room in [false, false, true] {
            if let (true, Target::File(direct)) = (room, &*sink.target) {
                lock(direct).file = tempfile::tempfile().unwrap();
            }
            assert_eq!(sink.newly_dropped(), Some(1));
            tell(&mut sink, b"dropped\n", false);
            sink.flush();
            sink.unsaid(1);
        }
        assert_eq!(sink.newly_dropped(), None, "it was said");
        assert_eq!(sink.losses().dropped, 1);
    }

    /// A pipe as it is, and the thread behind it: lines come in order whichever way they take, and none is lost.
    #[test]
    fn a_pipe_with_room_takes_lines_at_once_and_a_full_one_later() {
        let room = Arc::new(Mutex::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (open, budget) = mpsc::channel();
        let (their_room, theirs) = (Arc::clone(&room), Arc::clone(&seen));
        let at_once = move |bytes: &[u8]| {
            let mut room = lock(&their_room);
            if *room < bytes.len() {
                return Err(ErrorKind::WouldBlock.into());
            }
            *room -= bytes.len();
            lock(&theirs).extend_from_slice(bytes);
            Ok(bytes.len())
        };
        let mut sink = Sink::stream(Gate { budget, seen: Arc::clone(&seen) }).unwrap().at_once(at_once);
        *lock(&room) = 12;
        for text in ["first\n", "second\n", "third\n"] {
            tell(&mut sink, text.as_bytes(), true);
            sink.flush();
        }
        assert_eq!(lock(&seen).as_slice(), b"first\n", "no wait for the thread, and none past the queue");
        *lock(&room) = 100;
        tell(&mut sink, b"fourth\n", true);
        sink.flush();
        drop(open);
        assert_eq!(sink.drain(LONG).dropped, 0);
        tell(&mut sink, b"fifth\n", true);
        sink.flush();
        assert_eq!(lock(&room).clone(), 94, "at once again");
        assert_eq!(String::from_utf8(lock(&seen).clone()).unwrap(), "first\nsecond\nthird\nfourth\nfifth\n");
    }

    #[test]
    fn a_pipe_that_cannot_be_written_to_at_once_or_is_closed() {
        for (kind, closed) in [(ErrorKind::Unsupported, false), (ErrorKind::BrokenPipe, true)] {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let (_, budget) = mpsc::channel();
            let mut sink = Sink::stream(Gate { budget, seen: Arc::clone(&seen) })
                .unwrap()
                .at_once(move |_| Err(kind.into()));
            tell(&mut sink, b"arrival\n", true);
            let losses = sink.drain(LONG);
            assert_eq!((losses.closed, losses.dropped, losses.error), (closed, u64::from(closed), None));
            assert_eq!(lock(&seen).is_empty(), closed);
        }
    }
}
