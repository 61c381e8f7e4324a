//! Giving up rights: capabilities(7), PR_SET_NO_NEW_PRIVS, landlock(7). All of them belong to a thread, and are inherited by
//! the threads that it starts.

use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};

use crate::model::confinement::{Confinement, Needs};

/// The newest rules of Landlock that are asked for: those of Linux 6.15, which these were tested on.
const NEWEST: ABI = ABI::V7;

/// Gives up what the calling thread does not need after binding, for good. Reading below `/proc` and `/sys` stays possible, and
/// what is open stays open.
#[must_use]
pub fn confine(needs: &Needs) -> Confinement {
    let mut confinement = Confinement::default();
    let mut weaker = |what: &str, why: &dyn std::fmt::Display| {
        confinement.weaker_because.push(format!("{what}: {why}"));
    };
    if let Err(error) = drop_capabilities(needs) {
        weaker("capabilities cannot be dropped", &error);
    }
    if let Err(errno) = nix::sys::prctl::set_no_new_privs() {
        weaker("new privileges cannot be ruled out", &errno);
    }
    let landlock = match restrict(needs) {
        Ok((version, LandlockStatus::Available { .. })) => {
            if version < NEWEST as u32 {
                weaker("this kernel's Landlock is old", &format_args!("version {version} of its rules"));
            }
            Some(version)
        }
        Ok((_, status)) => {
            weaker("Landlock is not there", &describe(&status));
            None
        }
        Err(error) => {
            weaker("Landlock was refused", &error);
            None
        }
    };
    confinement.landlock = landlock;
    confinement.no_new_privileges = nix::sys::prctl::get_no_new_privs().unwrap_or(false);
    confinement.capabilities = left();
    confinement
}

/// Adds what the kernel says of every other thread of this process, each of which must have confined itself.
#[must_use]
pub fn with_other_threads(mut confinement: Confinement) -> Confinement {
    let mut threads = 0;
    let tasks = Path::new("/proc/self/task");
    for thread in crate::sys::entries(tasks).into_iter().flatten() {
        // A thread that ends meanwhile has no rights any more.
        let Ok(status) = std::fs::read_to_string(tasks.join(thread).join("status")) else { continue };
        threads += 1;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut names = confinement.capabilities.take();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            let mask = field(set).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            names = match (names, mask) {
                (Some(names), Some(0)) => Some(names),
                (Some(mut names), Some(mask)) => {
                    names.extend(caps::all().into_iter().filter(|cap| mask & cap.bitmask() != 0).map(name));
                    Some(names)
                }
                _ => None,
            };
        }
        if let Some(names) = &mut names {
            names.sort();
            names.dedup();
        }
        confinement.capabilities = names;
        confinement.no_new_privileges &= field("NoNewPrivs:") == Some("1");
    }
    if threads == 0 {
        confinement.capabilities = None;
        confinement
            .weaker_because
            .push("the other threads cannot be looked at: /proc is not there".to_owned());
    }
    confinement
}

fn describe(status: &LandlockStatus) -> &'static str {
    match status {
        LandlockStatus::NotEnabled => "it is off in this kernel (add it to lsm= on its command line)",
        _ => "this kernel has none (Linux 5.13 and newer can)",
    }
}

fn name(capability: Capability) -> String {
    capability.to_string()
}

/// What is left to the calling thread, sorted; `None` when that cannot be told. What is ambient is permitted and inheritable, too
/// (capabilities(7)).
fn left() -> Option<Vec<String>> {
    let mut left = Vec::new();
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        left.extend(caps::read(None, set).ok()?.into_iter().map(name));
    }
    left.sort();
    left.dedup();
    Some(left)
}

fn drop_capabilities(needs: &Needs) -> Result<(), caps::errors::CapsError> {
    let kept = [
        (needs.low_ports, Capability::CAP_NET_BIND_SERVICE),
        // CAP_NET_ADMIN would do too, and allows far more (ip(7)).
        (needs.transparent, Capability::CAP_NET_RAW),
    ];
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept
        .into_iter()
        .filter(|(needed, capability)| *needed && permitted.contains(capability))
        .map(|(_, capability)| capability)
        .collect();
    // What a program started from here could get by file capabilities. Only who has CAP_SETPCAP may; for the others
    // PR_SET_NO_NEW_PRIVS does the same.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all() {
            let dropped = caps::drop(None, CapSet::Bounding, capability);
            // What this kernel does not know cannot be dropped, and is not there.
            if dropped.is_err() && caps::has_cap(None, CapSet::Bounding, capability).is_ok() {
                dropped?;
            }
        }
    }
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// Rules out files outside `/proc` and `/sys` (but writing them in the directory of the log), TCP connections from here, TCP binds but those that are needed, signals to and
/// abstract Unix sockets of processes outside. UDP is not ruled out by [`NEWEST`]. Returns the version of the rules that hold.
fn restrict(needs: &Needs) -> Result<(u32, LandlockStatus), landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for directory in ["/proc", "/sys"] {
        // What is not there cannot be read anyway.
        if let Ok(directory) = PathFd::new(directory) {
            rules = rules.add_rule(PathBeneath::new(directory, AccessFs::ReadFile | AccessFs::ReadDir))?;
        }
    }
    if let Some(directory) = needs.log_directory.as_deref().and_then(|path| PathFd::new(path).ok()) {
        rules = rules.add_rule(PathBeneath::new(directory, AccessFs::WriteFile | AccessFs::MakeReg))?;
    }
    for port in &needs.tcp_ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    let status = rules.restrict_self()?.landlock;
    let version = match status {
        LandlockStatus::Available { effective_abi, .. } => (effective_abi as u32).min(NEWEST as u32),
        _ => 0,
    };
    Ok((version, status))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// On a thread of its own, which is all that is confined.
    fn confined<T: Send>(needs: &Needs, body: impl FnOnce(Confinement) -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(|| body(confine(needs))).join().unwrap())
    }

    #[test]
    fn nothing_is_left_and_what_listen_does_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let to = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || TcpStream::connect(to).unwrap());
        confined(&Needs::default(), |confinement| {
            assert_eq!(confinement.capabilities.as_deref(), Some(&[][..]));
            assert!(confinement.no_new_privileges);
            assert_eq!(confinement.weaker_because.is_empty(), confinement.landlock == Some(NEWEST as u32));
            listener.accept().unwrap();
            std::io::Write::write_all(&mut file.as_file(), b"x").unwrap();
            assert!(std::fs::read_to_string("/proc/self/status").is_ok());
            assert!(std::process::Command::new("true").status().is_err() || confinement.landlock.is_none());
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
            if confinement.landlock.is_some() {
                assert!(std::fs::read(file.path()).is_err());
            }
            if confinement.landlock >= Some(ABI::V4 as u32) {
                assert!(TcpListener::bind("127.0.0.1:0").is_err());
                assert!(TcpStream::connect(to).is_err());
            }
        });
        client.join().unwrap();
        // This thread is as it was.
        assert!(TcpStream::connect(to).is_ok() && std::fs::read(file.path()).is_ok());
    }

    #[test]
    fn what_is_needed_later_is_kept() {
        let needs = Needs { low_ports: true, tcp_ports: vec![0], ..Needs::default() };
        let had = caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_BIND_SERVICE).unwrap();
        confined(&needs, |confinement| {
            let left = confinement.capabilities.unwrap();
            assert_eq!(left, if had { vec!["CAP_NET_BIND_SERVICE".to_owned()] } else { Vec::new() });
            assert!(TcpListener::bind("127.0.0.1:0").is_ok(), "port 0 is among those that are needed");
        });
    }

    #[test]
    fn a_thread_that_keeps_its_rights_is_seen() {
        let own = caps::read(None, CapSet::Permitted).unwrap().len();
        let confinement = confined(&Needs::default(), with_other_threads);
        assert_eq!(confinement.capabilities.unwrap().len(), own, "this thread has all it had");
        assert!(!confinement.no_new_privileges);
    }
}
