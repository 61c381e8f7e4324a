use std::io::Read as _;
use std::sync::mpsc;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// Blocks until the test sets how many bytes it may accept; then returns an error, if one is set.
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

fn push_line(sink: &mut Sink, line: &[u8], arrival: bool) {
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
    push_line(&mut sink, &line, true);
    sink.flush();
    // The writer must be busy before the queue fills. Otherwise it would empty the queue when it starts.
    while !writing(&sink) {
        std::thread::yield_now();
    }
    for _ in 1..total {
        push_line(&mut sink, &line, true);
    }
    assert_eq!(sink.take_dropped(), None, "no room to say so yet");
    assert!(sink.losses().dropped > 0);
    drop(open);
    let losses = sink.drain(LONG);
    let lines = seen.lock().unwrap().iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(lines as u64 + losses.dropped, total as u64);
    assert_eq!(sink.take_dropped(), Some(losses.dropped));
    assert_eq!(sink.take_dropped(), None);
}

#[test]
fn a_reader_that_never_reads_is_given_up_on() {
    let (_open, _, mut sink) = gate();
    push_line(&mut sink, b"first\n", true);
    sink.flush();
    while !writing(&sink) {
        std::thread::yield_now();
    }
    push_line(&mut sink, b"second\n", true);
    let losses = sink.finish(Duration::from_millis(10));
    assert_eq!(losses.dropped, 2, "the one that is still being written too");
    assert!(losses.error.is_some());
}

#[test]
fn lines_written_during_the_timeout_are_not_lost() {
    let (open, seen, mut sink) = gate();
    push_line(&mut sink, b"first\n", true);
    sink.flush();
    while !writing(&sink) {
        std::thread::yield_now();
    }
    push_line(&mut sink, b"second\n", true);
    assert_eq!(sink.drain(Duration::from_millis(10)).dropped, 2);
    assert_eq!(sink.take_dropped(), Some(2));
    open.send(Ok(100)).unwrap();
    while writing(&sink) {
        std::thread::yield_now();
    }
    assert_eq!((sink.take_dropped(), sink.losses().dropped), (None, 1));
    assert_eq!(seen.lock().unwrap().as_slice(), b"first\n");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let (open, _, mut sink) = gate();
    open.send(Err(ErrorKind::BrokenPipe)).unwrap();
    push_line(&mut sink, b"note\n", false);
    push_line(&mut sink, b"arrival\n", true);
    let losses = sink.drain(LONG);
    assert!(losses.closed && losses.error.is_none());
    assert_eq!(losses.dropped, 1);
    push_line(&mut sink, b"arrival\n", true);
    assert_eq!(sink.finish(LONG).dropped, 2);
}

#[test]
fn a_torn_line_counts_as_lost() {
    let (open, seen, mut sink) = gate();
    open.send(Ok(9)).unwrap();
    open.send(Err(ErrorKind::StorageFull)).unwrap();
    push_line(&mut sink, b"first\n", true);
    push_line(&mut sink, b"second\n", true);
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
fn drops_are_reported_until_the_notice_is_written() {
    let place = tempfile::NamedTempFile::new().unwrap();
    // Every write fails, as on a full disk.
    let mut sink = Sink::file(File::open(place.path()).unwrap());
    push_line(&mut sink, b"arrival\n", true);
    sink.flush();
    for room in [false, false, true] {
        if let (true, Target::File(direct)) = (room, &*sink.target) {
            lock(direct).file = tempfile::tempfile().unwrap();
        }
        assert_eq!(sink.take_dropped(), Some(1));
        push_line(&mut sink, b"dropped\n", false);
        sink.flush();
        sink.restore_dropped(1);
    }
    assert_eq!(sink.take_dropped(), None, "already reported");
    assert_eq!(sink.losses().dropped, 1);
}

/// A real pipe with the thread behind it: lines stay in order on both paths, and none is lost.
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
        push_line(&mut sink, text.as_bytes(), true);
        sink.flush();
    }
    assert_eq!(lock(&seen).as_slice(), b"first\n", "no wait for the thread, and none past the queue");
    *lock(&room) = 100;
    push_line(&mut sink, b"fourth\n", true);
    sink.flush();
    drop(open);
    assert_eq!(sink.drain(LONG).dropped, 0);
    push_line(&mut sink, b"fifth\n", true);
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
        push_line(&mut sink, b"arrival\n", true);
        let losses = sink.drain(LONG);
        assert_eq!((losses.closed, losses.dropped, losses.error), (closed, u64::from(closed), None));
        assert_eq!(lock(&seen).is_empty(), closed);
    }
}
