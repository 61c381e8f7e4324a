//! Number of connections that the kernel dropped because an accept queue was full.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// More than the size of `/proc/net/netstat`, about 4 KiB on Linux 6.
const LARGEST: usize = 16 << 10;

/// The counter `ListenOverflows` of the network namespace in which it was created, over all listeners there.
/// `tcp_v4_syn_recv_sock()` and `tcp_conn_request()` of the kernel count one for each SYN or ACK that finds a full
/// queue.
#[derive(Debug)]
pub struct Overflows {
    /// Kept open, so that it can be read after the privilege to open files was dropped.
    file: File,
    before: u64,
}

impl Overflows {
    /// Starts to count; `None` if there is no such counter.
    #[must_use]
    pub fn new() -> Option<Overflows> {
        let file = File::open("/proc/thread-self/net/netstat").ok()?;
        let mut new = Overflows { file, before: 0 };
        new.before = new.read()?;
        Some(new)
    }

    /// Number of overflows since the start.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        Some(self.read()?.saturating_sub(self.before))
    }

    fn read(&self) -> Option<u64> {
        // One read, because the kernel generates the whole text for each read.
        let mut bytes = vec![0; LARGEST];
        let count = self.file.read_at(&mut bytes, 0).ok()?;
        bytes.truncate(count);
        listen_overflows(std::str::from_utf8(&bytes).ok()?)
    }
}

/// The counter in a text of line pairs: names and values.
fn listen_overflows(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?.split_whitespace(), lines.next()?.split_whitespace());
    names.zip(values).find(|(name, _)| *name == "ListenOverflows")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let text =
            "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 40 41\nIpExt: A\nIpExt: 2\n";
        assert_eq!(listen_overflows(text), Some(40));
        for broken in
            ["", "TcpExt: ListenOverflows\n", "TcpExt: A\nTcpExt: 1\n", "TcpExt: ListenOverflows\nTcpExt: x"]
        {
            assert_eq!(listen_overflows(broken), None, "{broken}");
        }
        assert_eq!(Overflows::new().and_then(|overflows| overflows.count()), Some(0));
    }
}
