//! Tables of iptables-legacy and ip6tables-legacy: read in one network namespace, replaced in another one. A table that is asked
//! for comes into being, so only those are asked for that `/proc` lists.

use std::io;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use super::netlink::{read, until_nul};
use super::nftables::{MATCHES, TARGETS};
use crate::escape::escape;
use crate::model::ruleset::{LegacyTable, NftFamily};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES` and `IPT_SO_SET_REPLACE` of `linux/netfilter_ipv4/ip_tables.h`; those of IPv6 are equal.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
const SET_REPLACE: i32 = 64;
/// Length of `struct ipt_getinfo`, and of `struct ipt_get_entries` and `struct ipt_replace` before their entries.
const INFO: usize = 84;
const ENTRIES: usize = 40;
const REPLACE: usize = 96;
/// The longest name, and the longest blob that is carried.
const NAME: usize = 32;
const LARGEST: usize = 4 << 20;

/// The layout of `struct ipt_entry` and `struct ip6t_entry`: the place of `target_offset`, of the counters, and the length.
const fn layout(family: NftFamily) -> (usize, usize, usize) {
    match family {
        NftFamily::Ip6 => (140, 152, 168),
        _ => (88, 96, 112),
    }
}

fn socket(family: NftFamily) -> io::Result<(Socket, i32)> {
    let (domain, level) =
        if family == NftFamily::Ip6 { (Domain::IPV6, libc::SOL_IPV6) } else { (Domain::IPV4, libc::SOL_IP) };
    Ok((Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?, level))
}

/// A table of the calling thread's namespace, which must be in the list of those that exist.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn table(family: NftFamily, name: &str) -> io::Result<LegacyTable> {
    let (socket, level) = socket(family)?;
    let mut info = vec![0; INFO];
    put_name(&mut info, name)?;
    get(&socket, level, GET_INFO, &mut info)?;
    let word = |at: usize| read(&info, at).map_or(0, u32::from_ne_bytes);
    let words = |at: usize| (0..5).map(|number| word(at + 4 * number)).collect();
    let size = word(80);
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    if length > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the table is too large"));
    }
    let mut entries = vec![0; ENTRIES + length];
    put_name(&mut entries, name)?;
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    // EAGAIN when the table changed in between.
    get(&socket, level, GET_ENTRIES, &mut entries)?;
    Ok(LegacyTable {
        family,
        table: name.to_owned(),
        valid_hooks: word(32),
        hook_entry: words(36),
        underflow: words(56),
        entries: word(76),
        blob: entries.split_off(ENTRIES),
    })
}

/// Replaces tables in the calling thread's namespace. Returns what is missing, one sentence each.
#[must_use]
pub fn replay(tables: &[LegacyTable]) -> Vec<String> {
    let mut missing = Vec::new();
    // The kernel lists the newest one first.
    for one in tables.iter().rev() {
        let shown = format!("the table {} {} of iptables-legacy", one.family.name(), escape(&one.table));
        let result = check(one).and_then(|()| replace(one).map_err(|error| error.to_string()));
        match result {
            Ok(true) => {}
            Ok(false) => missing
                .push(format!("{shown} is not the same in the copy: the kernel reads it back differently")),
            Err(why) => missing.push(format!("{shown} is not copied: {why}")),
        }
    }
    missing
}

/// Whether a table holds what is known alone.
fn check(table: &LegacyTable) -> Result<(), String> {
    let known = ["filter", "nat", "mangle", "raw", "security"].contains(&table.table.as_str());
    let family = matches!(table.family, NftFamily::Ip | NftFamily::Ip6);
    if !known
        || !family
        || table.blob.len() > LARGEST
        || table.hook_entry.len() != 5
        || table.underflow.len() != 5
    {
        return Err("its family, name or size is not known".to_owned());
    }
    let mut count = 0;
    each_entry(table, |entry, target_at| {
        count += 1;
        let (.., header) = layout(table.family);
        let mut at = header;
        while at < target_at {
            at += extension(entry, at, target_at, MATCHES, "match")?;
        }
        extension(entry, target_at, entry.len(), TARGETS, "target")?;
        Ok(())
    })?;
    if count == table.entries {
        Ok(())
    } else {
        Err(format!("it has {count} rules and not {}", table.entries))
    }
}

/// Hands out each entry with the place of its target.
fn each_entry(
    table: &LegacyTable,
    mut each: impl FnMut(&[u8], usize) -> Result<(), String>,
) -> Result<(), String> {
    let (offsets, _, header) = layout(table.family);
    let mut rest = &table.blob[..];
    while !rest.is_empty() {
        let word = |at: usize| read(rest, at).map(|bytes| usize::from(u16::from_ne_bytes(bytes)));
        let (target, next) = word(offsets).zip(word(offsets + 2)).ok_or("a rule is cut short")?;
        if target < header || next <= target || next > rest.len() || next % 8 != 0 {
            return Err("the offsets of a rule are wrong".to_owned());
        }
        let (entry, others) = rest.split_at(next);
        each(entry, target)?;
        rest = others;
    }
    Ok(())
}

/// The length of a match or target (`struct xt_entry_match`), whose name must be known.
fn extension(entry: &[u8], at: usize, end: usize, known: &[&str], what: &str) -> Result<usize, String> {
    let size = read(entry, at).map(|bytes| usize::from(u16::from_ne_bytes(bytes)));
    let size =
        size.filter(|size| *size >= NAME && at + size <= end).ok_or(format!("a {what} is cut short"))?;
    let name = until_nul(entry.get(at + 2..at + 31).unwrap_or_default());
    // Verdicts and the heads of chains.
    let standard = what == "target" && (name.is_empty() || name == b"ERROR");
    if !standard && !known.iter().any(|known| known.as_bytes() == name) {
        return Err(format!("the {what} {} is not known", escape(&String::from_utf8_lossy(name))));
    }
    Ok(size)
}

/// Replaces a table; returns whether it reads back as it was sent.
fn replace(one: &LegacyTable) -> io::Result<bool> {
    let (socket, level) = socket(one.family)?;
    // The counters of the table that is there now are handed back.
    let now = table(one.family, &one.table)?;
    let mut counters = vec![0u64; 2 * usize::try_from(now.entries).unwrap_or(0)];
    let size = u32::try_from(one.blob.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = vec![0; NAME];
    put_name(&mut request, &one.table)?;
    let words = [one.valid_hooks, one.entries, size];
    let all = words.iter().chain(&one.hook_entry).chain(&one.underflow).chain([&now.entries]);
    request.extend(all.flat_map(|word| word.to_ne_bytes()));
    request.resize(REPLACE, 0);
    set(&socket, level, &mut request, &one.blob, &mut counters)?;
    let back = table(one.family, &one.table)?;
    Ok(plain(one) == plain(&back))
}

/// The rules without what the kernel counts and notes.
fn plain(table: &LegacyTable) -> Vec<Vec<u8>> {
    let (offsets, counters, header) = layout(table.family);
    let mut entries = Vec::new();
    let _ = each_entry(table, |entry, _| {
        let mut entry = entry.to_vec();
        entry[offsets + 4..offsets + 8].fill(0);
        entry[counters..header].fill(0);
        entries.push(entry);
        Ok(())
    });
    entries
}

fn put_name(bytes: &mut [u8], name: &str) -> io::Result<()> {
    // A NUL ends it.
    if name.len() >= NAME || bytes.len() < NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

#[expect(unsafe_code, reason = "no crate kept here wraps the options of ip_tables")]
fn get(socket: &Socket, level: i32, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads and writes at most `length` bytes, which is the length of `bytes`.
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "no crate kept here wraps the options of ip_tables")]
fn set(socket: &Socket, level: i32, head: &mut Vec<u8>, blob: &[u8], counters: &mut [u64]) -> io::Result<()> {
    // `counters` of `struct ipt_replace`: where the kernel writes the counters of the old table.
    let pointer = counters.as_mut_ptr() as usize;
    let at = REPLACE - size_of::<usize>();
    head[at..REPLACE].copy_from_slice(&pointer.to_ne_bytes());
    head.extend_from_slice(blob);
    let length = libc::socklen_t::try_from(head.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `length` bytes, which is the length of `head`, and writes sixteen bytes for each of the
    // `num_counters` entries in `head`, which is the length of `counters`; both live until the call returns.
    let answer =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, SET_REPLACE, head.as_ptr().cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
