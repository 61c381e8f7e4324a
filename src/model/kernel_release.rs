//! The Linux release of a host, and the known differences between kernels and the rules of [`crate::plan`].
//!
//! A difference is stated for releases that were measured. It is unknown for releases of which only the source was
//! read.

use super::Host;

/// A Linux release, as far as a host reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelRelease {
    /// Series, such as (6, 1).
    pub series: (u32, u32),
    /// Number within the series; `None` if a distribution uses its own number (`6.1.0-56-amd64`).
    pub patch: Option<u32>,
}

/// A difference between kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownDifference {
    /// bind(2) of a TCP socket to a v4-mapped address does not see another AF_INET6 socket at `::ffff:0.0.0.0`.
    MappedWildcardOverlooked,
    /// An interface that is up cannot be renamed (EBUSY).
    NoRenameWhileUp,
}

impl KnownDifference {
    /// All differences.
    pub const ALL: [KnownDifference; 2] =
        [KnownDifference::MappedWildcardOverlooked, KnownDifference::NoRenameWhileUp];

    /// Description, as a sentence without a full stop.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            KnownDifference::MappedWildcardOverlooked => {
                "a TCP bind to a v4-mapped address such as ::ffff:127.0.0.1 succeeds although another socket has ::ffff:0.0.0.0 on that port"
            }
            KnownDifference::NoRenameWhileUp => "an interface that is up cannot be renamed (EBUSY)",
        }
    }

    /// Whether `host` has this difference; `None` if its release does not determine it.
    #[must_use]
    pub fn applies_to(self, host: &Host) -> Option<bool> {
        if host.system != "linux" {
            return Some(false);
        }
        let release = KernelRelease::of(host)?;
        match self {
            // "tcp: Use bhash2 for v4-mapped-v6 non-wildcard address" is in Linux 6.8 together with its prerequisites.
            // Without them it is in 6.1.168 (measured on 6.1.192) and 6.6.131 (not measured).
            KnownDifference::MappedWildcardOverlooked => match (release.series, release.patch) {
                ((6, 1), Some(patch)) => Some(patch >= 168),
                ((6, 6), Some(patch)) if patch < 131 => Some(false),
                ((6, 1 | 6), _) => None,
                _ => Some(false),
            },
            // "net/core: Allow live renaming when an interface is up", Linux 6.2.
            KnownDifference::NoRenameWhileUp => Some(release.series < (6, 2)),
        }
    }
}

impl KernelRelease {
    /// The release of a Linux host; `None` if it is not reported.
    #[must_use]
    pub fn of(host: &Host) -> Option<KernelRelease> {
        let release = host.release.as_deref()?;
        let [major, minor, patch] = three(release)?;
        // Debian reports the release on which its build is based:
        // `#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-20)`.
        let named = host
            .build
            .as_deref()
            .and_then(|build| build.split_once("Debian "))
            .and_then(|(_, rest)| three(rest));
        let patch = match named {
            Some([a, b, named]) if (a, b) == (major, minor) => Some(named),
            _ => {
                let rest = release.split_once('-').map_or("", |(_, rest)| rest);
                let counted = patch == 0 && rest.starts_with(|c: char| c.is_ascii_digit());
                (!counted).then_some(patch)
            }
        };
        Some(KernelRelease { series: (major, minor), patch })
    }
}

/// The three numbers at the start of a release; a missing third number is 0.
fn three(text: &str) -> Option<[u32; 3]> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut numbers = text[..end].split('.').map(str::parse);
    let mut next = || numbers.next();
    Some([next()?.ok()?, next()?.ok()?, next().map_or(Some(0), Result::ok)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(release: &str, build: &str) -> Host {
        Host {
            system: "linux".into(),
            release: Some(release.into()),
            build: Some(build.into()),
            ..Host::default()
        }
    }

    #[test]
    fn releases_are_parsed_as_far_as_reported() {
        let of = |release, build| {
            KernelRelease::of(&host(release, build)).map(|release| (release.series, release.patch))
        };
        assert_eq!(of("6.18.44-fc-v669", "#1 SMP PREEMPT_DYNAMIC @0"), Some(((6, 18), Some(44))));
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-20)";
        assert_eq!(of("6.1.0-56-amd64", debian), Some(((6, 1), Some(192))));
        assert_eq!(of("6.8.0-31-generic", "#31-Ubuntu SMP PREEMPT_DYNAMIC Sat Apr 20"), Some(((6, 8), None)));
        assert_eq!(of("5.14.0-362.8.1.el9_3.x86_64", "#1 SMP"), Some(((5, 14), None)));
        assert_eq!(of("6.12", ""), Some(((6, 12), Some(0))));
        assert_eq!(of("6.19.0-rc3", ""), Some(((6, 19), Some(0))));
        assert_eq!(of("nonsense", debian), None);
        assert_eq!(of("6..3", ""), None);
    }

    #[test]
    fn differences_are_certain_where_they_were_measured() {
        use KnownDifference::{MappedWildcardOverlooked as Mapped, NoRenameWhileUp as Rename};
        let applies = |difference: KnownDifference, release| difference.applies_to(&host(release, ""));
        assert_eq!(applies(Mapped, "6.1.192"), Some(true));
        assert_eq!(applies(Mapped, "6.1.167"), Some(false));
        assert_eq!(applies(Mapped, "6.1.0-56-amd64"), None);
        assert_eq!(applies(Mapped, "6.6.140"), None);
        assert_eq!(applies(Mapped, "6.12.80"), Some(false));
        assert_eq!((applies(Rename, "6.1.192"), applies(Rename, "6.2.0")), (Some(true), Some(false)));
        assert_eq!(Mapped.applies_to(&Host::default()), Some(false));
    }
}
