//! Sockets that another program opened and passed: the protocol of sd_listen_fds(3), used by systemd and others.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Socket, Type};

use crate::model::Protocol;
use crate::sys::socket_types::Inherited;

/// The first passed descriptor (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// The sockets passed by `LISTEN_FDS`, if `LISTEN_PID` names this process. A socket that cannot be served becomes a
/// sentence. Must be called once, before this process opens anything.
///
/// # Errors
/// Why there are none, as a sentence.
pub fn inherited() -> Result<Vec<Result<Inherited, String>>, String> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| format!("{name} is not set: no program handed sockets over"))
    };
    let pid = variable("LISTEN_PID")?;
    if pid.parse() != Ok(std::process::id()) {
        return Err(format!("LISTEN_PID is {pid:?}, so the sockets are for another process"));
    }
    let count: RawFd = variable("LISTEN_FDS")?
        .parse()
        .ok()
        .filter(|count| (1..=65_536).contains(count))
        .ok_or("LISTEN_FDS is not a valid number of descriptors")?;
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    Ok((0..count)
        .map(|offset| {
            let number = usize::try_from(offset).unwrap_or(0);
            let name = names.get(number).filter(|name| !name.is_empty() && **name != "unknown");
            let name = name.map_or_else(|| format!("fd{}", FIRST + offset), |name| (*name).to_owned());
            take(FIRST + offset, &name)
        })
        .collect())
}

#[expect(unsafe_code, reason = "a number from the environment becomes a descriptor")]
fn take(number: RawFd, name: &str) -> Result<Inherited, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        format!("inherited descriptor {number} ({name}): {what}: {error}")
    };
    // SAFETY: fcntl only asks about the number; the borrow ends with the call.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_GETFD).map_err(|error| failed("it is not open", &error))?;
    // SAFETY: it is open, the environment says that it is ours, and we are called before anything else is opened.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    let _ = fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    let socket = Socket::from(owned);
    let kind = socket.r#type().map_err(|error| failed("it is not a socket", &error))?;
    let domain = socket.domain().map_err(|error| failed("its family cannot be read", &error))?;
    if domain != Domain::IPV4 && domain != Domain::IPV6 {
        return Err(failed("it cannot be served", &"it is neither IPv4 nor IPv6"));
    }
    let protocol = match kind {
        Type::STREAM if super::options::is_listener(&socket).unwrap_or(false) => Protocol::Tcp,
        Type::STREAM => return Err(failed("it cannot be served", &"it does not listen")),
        Type::DGRAM => Protocol::Udp,
        _ => return Err(failed("it cannot be served", &"it is neither TCP nor UDP")),
    };
    socket.set_nonblocking(true).map_err(|error| failed("non-blocking mode", &error))?;
    Ok(Inherited { name: name.to_owned(), socket, protocol })
}
