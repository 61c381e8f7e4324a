//! Errors of socket calls with their POSIX names.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! errnos {
    ($($name:ident: $meaning:literal,)*) => {
        /// An error of a socket call, by its POSIX name. [`Errno::Other`] has the errors without a name here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(clippy::upper_case_acronyms)]
        pub enum Errno {
            $(#[doc = $meaning] $name,)*
            /// A system-specific number.
            Other(i32),
        }

        impl Errno {
            /// Every named error.
            pub const NAMED: &'static [Errno] = &[$(Errno::$name,)*];

            /// The error with this POSIX name, such as `EADDRINUSE`.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Errno> {
                match name {
                    $(stringify!($name) => Some(Errno::$name),)*
                    _ => name.strip_prefix("errno ")?.parse().ok().map(Errno::Other),
                }
            }

            /// A short description.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Errno::$name => $meaning,)*
                    Errno::Other(_) => "an error of this system",
                }
            }
        }

        impl fmt::Display for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Errno::$name => f.write_str(stringify!($name)),)*
                    Errno::Other(number) => write!(f, "errno {number}"),
                }
            }
        }
    };
}

errnos! {
    EPERM: "operation not permitted",
    ENOENT: "no such file or directory",
    EINTR: "interrupted",
    EIO: "input/output error",
    ENXIO: "no such device or address",
    EBADF: "bad descriptor",
    EAGAIN: "try again",
    ENOMEM: "out of memory",
    EACCES: "permission denied",
    EBUSY: "busy",
    EEXIST: "exists already",
    ENODEV: "no such device",
    EINVAL: "invalid argument",
    ENFILE: "too many open files in the system",
    EMFILE: "too many open files in this process",
    ENOSPC: "no space left",
    EROFS: "read-only file system",
    EPIPE: "the reader has closed the other end",
    ENOSYS: "not implemented",
    EPROTO: "protocol error",
    ENOTSOCK: "not a socket",
    EDESTADDRREQ: "destination address required",
    EMSGSIZE: "message too long",
    EPROTOTYPE: "wrong protocol for this socket",
    ENOPROTOOPT: "option not available",
    EPROTONOSUPPORT: "protocol not supported",
    EOPNOTSUPP: "operation not supported",
    EAFNOSUPPORT: "address family not supported",
    EADDRINUSE: "address already in use",
    EADDRNOTAVAIL: "address not available here",
    ENETDOWN: "network is down",
    ENETUNREACH: "network unreachable",
    ECONNABORTED: "connection aborted",
    ECONNRESET: "connection reset by peer",
    ENOBUFS: "no buffer space",
    EISCONN: "already connected",
    ENOTCONN: "not connected",
    ETIMEDOUT: "timed out",
    ECONNREFUSED: "connection refused",
    EHOSTDOWN: "host is down",
    EHOSTUNREACH: "host unreachable",
    EALREADY: "already in progress",
    EINPROGRESS: "in progress",
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Errno {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Errno, D::Error> {
        let name = String::deserialize(deserializer)?;
        Errno::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format_args!("{name:?} is not an errno name")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for &errno in Errno::NAMED.iter().chain(&[Errno::Other(131)]) {
            assert_eq!(Errno::from_name(&errno.to_string()), Some(errno));
        }
    }
}
