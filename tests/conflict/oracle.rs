//! A host to bind on, and the comparison of predicted with observed.

use std::fmt::Write as _;
use std::sync::RwLock;

use bindscope::code::Code;
use bindscope::model::{Errno, Family, Phase, Protocol, Snapshot, SocketSpec, V6Only};
use bindscope::plan::bind_check::{Availability, Rights, availability};
use bindscope::plan::conflict::Verdict;
use bindscope::plan::local_table::LocalAddresses;
use bindscope::plan::predict::{BindOutcome, predict_binds};
use bindscope::plan::socket_table::Tables;
use bindscope::sys;
use nix::unistd::{Uid, setfsuid};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::netns::Netns;
use crate::support::snapshot::snapshot;

/// When sockets listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each before the next one is bound, as a profile is opened.
    ListenEach,
    /// All after all are bound.
    ListenLast,
}

/// A namespace with two wires, odd addresses and local routes.
pub struct Host {
    pub ns: Netns,
    /// Keeps the far ends of the wires.
    _far: Netns,
    snapshot: Snapshot,
}

/// A program started by one thread holds the sockets of all others until it has begun, so nothing is started while sockets are
/// compared.
pub static STARTING: RwLock<()> = RwLock::new(());

/// What became of one socket: the call that failed, and how.
type OpenResult = Option<(Phase, Errno)>;

pub struct Session<'a> {
    snapshot: &'a Snapshot,
    local: LocalAddresses,
    /// Whether sockets of other users can be made here.
    pub other_users: bool,
}

impl Host {
    pub fn new() -> Host {
        Host::with(|_| {})
    }

    /// One that `change` has been made to.
    pub fn with(change: impl FnOnce(&Netns)) -> Host {
        let _alone = STARTING.write().unwrap();
        let (ns, far) = (Netns::new(), Netns::new());
        ns.wire("va", &far, "fa");
        ns.wire("vb", &far, "fb");
        for (device, addresses) in [
            ("va", &["10.1.0.1/24", "fd01::1/64", "fe80::1:1/64"][..]),
            ("vb", &["10.2.0.1/24", "fd02::1/64", "fe80::2:1/64", "10.7.7.7/32"]),
            ("lo", &["10.77.3.1/24"]),
        ] {
            for address in addresses {
                ns.address(device, address);
            }
        }
        ns.ip("route add local 198.51.100.0/24 dev lo");
        ns.ip("-6 route add local 2001:db8:51::/64 dev lo");
        change(&ns);
        Host { snapshot: snapshot(&ns), ns, _far: far }
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub fn index(&self, device: &str) -> u32 {
        self.ns.index(device)
    }

    pub fn run(&self, body: impl FnOnce(&Session<'_>) + Send) {
        let _others = STARTING.read().unwrap();
        self.ns.run(|| {
            // The owner of a socket is the file system user of its maker, and that is a thread's own affair.
            setfsuid(Uid::from_raw(1001));
            let other_users = setfsuid(Uid::from_raw(0)) == Uid::from_raw(1001);
            let local = LocalAddresses::new(&self.snapshot);
            body(&Session { snapshot: &self.snapshot, local, other_users });
        });
    }
}

impl Session<'_> {
    /// Tells every difference between prediction and kernel for these sockets, opened in this order by these users.
    pub fn compare(&self, set: &[(SocketSpec, u32)], mode: Mode) -> Option<String> {
        let predicted = self.predict(set, mode);
        let observed = open(set, mode);
        let mut same = predicted == observed;
        // The way the program takes must come to the same.
        if mode == Mode::ListenEach && set.iter().all(|(_, uid)| *uid == 0) {
            let specs: Vec<SocketSpec> = set.iter().map(|(spec, _)| spec.clone()).collect();
            let binds = predict_binds(&specs, self.snapshot, rights(0), &[]);
            let fates: Vec<OpenResult> = binds
                .predictions
                .iter()
                .map(|prediction| {
                    assert_ne!(prediction.outcome, BindOutcome::Uncertain);
                    Some((prediction.phase?, prediction.errno?))
                })
                .collect();
            same &= fates == observed;
        }
        if same {
            return None;
        }
        let mut text = format!("{mode:?}\n");
        for (((spec, uid), predicted), observed) in set.iter().zip(&predicted).zip(&observed) {
            let _ = writeln!(
                text,
                "  {:?} {:?} {:?} dev {:?} zone {} reuse {}/{} uid {uid}: predicted {predicted:?}, observed {observed:?}",
                spec.protocol,
                spec.address,
                spec.v6only,
                spec.device,
                spec.scope_id,
                spec.reuse_address,
                spec.reuse_port,
            );
        }
        Some(text)
    }

    /// The prediction for one socket alone.
    pub fn predict_one(&self, spec: &SocketSpec) -> Option<(Phase, Errno, Code)> {
        match availability(spec, self.snapshot, &self.local, rights(0)) {
            Availability::Available(_) => None,
            Availability::Refused(refusal) => Some((refusal.phase, refusal.errno, refusal.code)),
            Availability::Unknown(..) => panic!("unknown"),
        }
    }

    /// Whether each bind alone, without listen, is predicted and observed to succeed.
    pub fn bind_only(&self, set: &[(SocketSpec, u32)]) -> (Vec<bool>, Vec<bool>) {
        let mut tables = Tables::of(self.snapshot);
        let predicted = set.iter().map(|(spec, uid)| self.bind(&mut tables, spec, *uid).is_ok()).collect();
        let sockets: Vec<_> = set.iter().map(|(spec, uid)| bind(spec, *uid)).collect();
        (predicted, sockets.iter().map(Result::is_ok).collect())
    }

    fn bind(&self, tables: &mut Tables, spec: &SocketSpec, uid: u32) -> Result<usize, (Phase, Errno)> {
        let entry = match availability(spec, self.snapshot, &self.local, rights(uid)) {
            Availability::Available(entry) => entry,
            Availability::Refused(refusal) => return Err((refusal.phase, refusal.errno)),
            Availability::Unknown(..) => panic!("unknown"),
        };
        match tables.bind_verdict(&entry) {
            Verdict::Free => Ok(tables.insert(entry, false)),
            Verdict::InUse(_) => Err((Phase::Bind, Errno::EADDRINUSE)),
            Verdict::Unknown(_) => panic!("nothing is unknown here"),
        }
    }

    pub fn predict(&self, set: &[(SocketSpec, u32)], mode: Mode) -> Vec<OpenResult> {
        let mut tables = Tables::of(self.snapshot);
        let mut ids = Vec::new();
        let mut fates = Vec::new();
        let listen = |tables: &mut Tables, id: usize| match tables.listen_verdict(id) {
            Verdict::Free => {
                tables.listen(id);
                None
            }
            Verdict::InUse(by) => {
                assert!(!by.is_empty());
                Some((Phase::Listen, Errno::EADDRINUSE))
            }
            Verdict::Unknown(_) => panic!("nothing is unknown here"),
        };
        for (spec, uid) in set {
            let bound = self.bind(&mut tables, spec, *uid);
            ids.push(bound.ok());
            fates.push(match bound {
                Ok(id) if mode == Mode::ListenEach && spec.protocol == Protocol::Tcp => {
                    listen(&mut tables, id)
                }
                Ok(_) => None,
                Err(fate) => Some(fate),
            });
        }
        if mode == Mode::ListenLast && set[0].0.protocol == Protocol::Tcp {
            for (id, fate) in ids.iter().zip(&mut fates) {
                if let Some(id) = *id {
                    *fate = listen(&mut tables, id);
                }
            }
        }
        fates
    }
}

fn rights(uid: u32) -> Rights {
    Rights { uid, privileged_ports: true, transparent: true }
}

/// Opens the sockets for real.
fn open(set: &[(SocketSpec, u32)], mode: Mode) -> Vec<OpenResult> {
    let listen = |socket: &Socket| socket.listen(8).err().map(|error| (Phase::Listen, sys::errno_of(&error)));
    let mut sockets = Vec::new();
    let mut fates = Vec::new();
    for (spec, uid) in set {
        let tcp = spec.protocol == Protocol::Tcp;
        match bind(spec, *uid) {
            Ok(socket) => {
                let fate = if tcp && mode == Mode::ListenEach { listen(&socket) } else { None };
                fates.push(fate);
                sockets.push(fate.is_none().then_some(socket));
            }
            Err(fate) => {
                fates.push(Some(fate));
                sockets.push(None);
            }
        }
    }
    if mode == Mode::ListenLast && set[0].0.protocol == Protocol::Tcp {
        for (socket, fate) in sockets.iter().zip(&mut fates) {
            if let Some(socket) = socket {
                *fate = listen(socket);
            }
        }
    }
    fates
}

fn bind(spec: &SocketSpec, uid: u32) -> Result<Socket, (Phase, Errno)> {
    let at = |phase| move |error: std::io::Error| (phase, sys::errno_of(&error));
    let domain = if spec.domain() == Family::Ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let kind = if spec.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    setfsuid(Uid::from_raw(uid));
    let socket = Socket::new(domain, kind, None).map_err(at(Phase::Socket));
    setfsuid(Uid::from_raw(0));
    let socket = socket?;
    let set = at(Phase::Setsockopt);
    match spec.v6only {
        V6Only::On if domain == Domain::IPV6 => socket.set_only_v6(true).map_err(set)?,
        V6Only::Off if domain == Domain::IPV6 => socket.set_only_v6(false).map_err(set)?,
        _ => {}
    }
    if spec.reuse_address {
        socket.set_reuse_address(true).map_err(set)?;
    }
    if spec.reuse_port {
        socket.set_reuse_port(true).map_err(set)?;
    }
    if spec.freebind {
        socket.set_freebind_v4(true).map_err(set)?;
    }
    if spec.transparent {
        socket.set_ip_transparent_v4(true).map_err(set)?;
    }
    if let Some(device) = &spec.device {
        socket.bind_device(Some(device.as_bytes())).map_err(set)?;
    }
    socket.bind(&SockAddr::from(spec.socket_addr())).map_err(at(Phase::Bind))?;
    Ok(socket)
}

/// Fails with the first few differences when there are any.
pub fn assert_none<'a>(wrong: impl IntoIterator<Item = &'a String>, trials: usize) {
    let mut wrong: Vec<_> = wrong.into_iter().collect();
    wrong.sort_by_key(|text| text.lines().count());
    let shown: String = wrong.iter().take(5).map(|text| text.as_str()).collect();
    assert!(wrong.is_empty(), "{} of {trials} differ from the kernel:\n{shown}", wrong.len());
}
