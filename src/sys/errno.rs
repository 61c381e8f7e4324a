//! Maps this system's errno values to the names of the manual pages.

use std::io;

use crate::model::Errno;

/// The name of an I/O error's errno. An error without a number is [`Errno::EIO`].
#[must_use]
pub fn errno_of(error: &io::Error) -> Errno {
    let Some(raw) = error.raw_os_error() else { return Errno::EIO };
    by_number(raw).unwrap_or(Errno::Other(raw))
}

#[cfg(unix)]
fn by_number(raw: i32) -> Option<Errno> {
    /// A number above the errno values of every Unix.
    const NUMBERS: i32 = 256;
    // Called for each port of a port scan, so the names are compared only once.
    static TABLE: std::sync::OnceLock<Vec<Option<Errno>>> = std::sync::OnceLock::new();
    // nix knows the numbers of every Unix, and its names are the POSIX ones.
    let named = |raw| {
        Errno::from_name(&format!("{:?}", nix::errno::Errno::from_raw(raw)))
            .filter(|errno| !matches!(errno, Errno::Other(_)))
    };
    let table = TABLE.get_or_init(|| (0..NUMBERS).map(named).collect());
    *table.get(usize::try_from(raw).ok()?)?
}

#[cfg(windows)]
fn by_number(raw: i32) -> Option<Errno> {
    // winsock2.h, "Windows Sockets Error Codes".
    Some(match raw {
        5 | 10013 => Errno::EACCES,
        10004 => Errno::EINTR,
        10022 => Errno::EINVAL,
        10024 => Errno::EMFILE,
        10035 => Errno::EAGAIN,
        10040 => Errno::EMSGSIZE,
        10042 => Errno::ENOPROTOOPT,
        10043 => Errno::EPROTONOSUPPORT,
        10045 => Errno::EOPNOTSUPP,
        10047 => Errno::EAFNOSUPPORT,
        10048 => Errno::EADDRINUSE,
        10049 => Errno::EADDRNOTAVAIL,
        10050 => Errno::ENETDOWN,
        10051 => Errno::ENETUNREACH,
        10053 => Errno::ECONNABORTED,
        10054 => Errno::ECONNRESET,
        10055 => Errno::ENOBUFS,
        10057 => Errno::ENOTCONN,
        10060 => Errno::ETIMEDOUT,
        10061 => Errno::ECONNREFUSED,
        10065 => Errno::EHOSTUNREACH,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_error_gets_its_name() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = std::net::TcpListener::bind(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(errno_of(&error), Errno::EADDRINUSE);
    }
}
