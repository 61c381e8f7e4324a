//! Dropping privileges: capabilities(7), PR_SET_NO_NEW_PRIVS, landlock(7). All of these belong to a thread and are
//! inherited by the threads that it starts.

use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};

use crate::model::confinement::{Confinement, Needs};

/// The newest Landlock rules that are requested: those of Linux 6.15, with which this was tested.
const NEWEST: ABI = ABI::V7;

/// Permanently drops what the calling thread does not need after binding. Reading below `/proc` and `/sys` stays
/// possible, and open files stay open.
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

/// Includes the state of every other thread of this process, as the kernel reports it; each must have confined itself.
#[must_use]
pub fn with_other_threads(mut confinement: Confinement) -> Confinement {
    let mut threads = 0;
    let tasks = Path::new("/proc/self/task");
    for thread in crate::sys::entries(tasks).into_iter().flatten() {
        // A thread that ends in the meantime has no privileges.
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
        confinement.weaker_because.push("the other threads cannot be checked: /proc is missing".to_owned());
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

/// The remaining capabilities of the calling thread, sorted; `None` if unknown. Ambient capabilities are also permitted
/// and inheritable (capabilities(7)).
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
        // CAP_NET_ADMIN would be sufficient too, but permits far more (ip(7)).
        (needs.transparent, Capability::CAP_NET_RAW),
    ];
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept
        .into_iter()
        .filter(|(needed, capability)| *needed && permitted.contains(capability))
        .map(|(_, capability)| capability)
        .collect();
    // Capabilities that a program started from here could get from file capabilities. Dropping them needs CAP_SETPCAP;
    // without it PR_SET_NO_NEW_PRIVS has the same effect.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all() {
            let dropped = caps::drop(None, CapSet::Bounding, capability);
            // A capability that this kernel does not know cannot be dropped, and does not exist.
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

/// Blocks files outside `/proc` and `/sys` (except writing in the directory of the log or page), outgoing TCP connections, unneeded
/// TCP binds, and signals to and abstract Unix sockets of processes outside. [`NEWEST`] does not cover UDP. Returns the
/// version of the rules in effect.
fn restrict(needs: &Needs) -> Result<(u32, LandlockStatus), landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for directory in ["/proc", "/sys"] {
        // Missing paths cannot be read anyway.
        if let Ok(directory) = PathFd::new(directory) {
            rules = rules.add_rule(PathBeneath::new(directory, AccessFs::ReadFile | AccessFs::ReadDir))?;
        }
    }
    if let Some(directory) = needs.log_directory.as_deref().and_then(|path| PathFd::new(path).ok()) {
        rules = rules.add_rule(PathBeneath::new(directory, AccessFs::WriteFile | AccessFs::MakeReg))?;
    }
    if let Some(directory) = needs.page_directory.as_deref().and_then(|path| PathFd::new(path).ok()) {
        rules = rules.add_rule(PathBeneath::new(directory, AccessFs::MakeReg | AccessFs::RemoveFile))?;
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

    /// Runs on a separate thread; only this thread is confined.
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
        // The calling thread is unchanged.
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
