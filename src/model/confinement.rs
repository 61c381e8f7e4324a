//! The privileges that a process dropped after binding.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Privileges that sockets opened later still need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Ports below `net.ipv4.ip_unprivileged_port_start` (CAP_NET_BIND_SERVICE).
    pub low_ports: bool,
    /// IP_TRANSPARENT (CAP_NET_RAW).
    pub transparent: bool,
    /// TCP ports that are bound later; 0 means a port chosen by the kernel.
    pub tcp_ports: Vec<u16>,
    /// The directory of the output file, which SIGHUP opens again after a rotation.
    pub log_directory: Option<PathBuf>,
    /// The directory in which a page gets its name at the end.
    pub page_directory: Option<PathBuf>,
}

/// Confinement of a process: the weakest of all its threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The capabilities that remain in any set except the bounding set (`CAP_NET_BIND_SERVICE`); null when unknown.
    pub capabilities: Option<Vec<String>>,
    /// Whether programs that it starts get no new privileges (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// The version of Landlock in effect (landlock(7)); null if none.
    pub landlock: Option<u32>,
    /// Why it is less confined than possible, one sentence each. Empty if every unneeded privilege was dropped.
    pub weaker_because: Vec<String>,
}

impl Confinement {
    /// The weaker of two threads in each field.
    #[must_use]
    pub fn weaker(mut self, other: Confinement) -> Confinement {
        self.capabilities = match (self.capabilities, other.capabilities) {
            (Some(mut left), Some(right)) => {
                left.extend(right);
                left.sort();
                left.dedup();
                Some(left)
            }
            _ => None,
        };
        self.no_new_privileges &= other.no_new_privileges;
        self.landlock = self.landlock.min(other.landlock);
        for reason in other.weaker_because {
            if !self.weaker_because.contains(&reason) {
                self.weaker_because.push(reason);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weaker_one_counts() {
        let strong = Confinement {
            capabilities: Some(vec!["CAP_NET_RAW".into()]),
            no_new_privileges: true,
            landlock: Some(7),
            weaker_because: Vec::new(),
        };
        let weak = Confinement {
            capabilities: Some(vec!["CAP_CHOWN".into(), "CAP_NET_RAW".into()]),
            no_new_privileges: false,
            landlock: None,
            weaker_because: vec!["why".into()],
        };
        let both = strong.clone().weaker(weak.clone());
        assert_eq!(both, weak.clone().weaker(strong.clone()));
        assert_eq!(both, weak);
        assert_eq!(strong.weaker(Confinement::default()).capabilities, None, "unknown is weaker than known");
    }
}
