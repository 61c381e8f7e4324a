//! Sockets that are opened and closed while others are served: those of listeners with `follow = true`, as the addresses that they
//! select come and go, and those whose address is waited for.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::model::{Snapshot, SocketSpec};
use crate::plan::expand::{Missing, expand, expand_beside};
use crate::profile::{Listener, Profile};
use crate::record::event::{ClosedSocket, Event};
use crate::serve::bind::Bound;
use crate::serve::{Acceptor, Endpoint};

use super::messages::failed_socket;
use super::reporter::Reporter;
use super::sockets::{self, Awaited, HostContext, OpenResult, Opened, WaitsElsewhere};

/// How long to wait before a socket whose address is not usable yet is tried again. A notification of the kernel ends the wait
/// sooner; this is for changes without one.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// A socket that is open: what was asked for, and the index of its device.
#[derive(PartialEq)]
struct OpenSocket {
    spec: SocketSpec,
    device_index: Option<u32>,
}

impl OpenSocket {
    fn of(bound: &Bound) -> OpenSocket {
        OpenSocket { spec: bound.spec.clone(), device_index: bound.device_index }
    }
}

/// What may still be opened, and which of that is open.
pub(super) struct Reconciler {
    profile: Profile,
    /// Sockets of listeners that follow or wait.
    open: Vec<OpenSocket>,
    /// How many more are open.
    others: usize,
    /// What failed a moment ago and is not to be tried again before the next change.
    tried: Vec<SocketSpec>,
    /// Listeners of which it was reported that not all sockets can be opened.
    beyond_limit: BTreeSet<String>,
    awaited: Vec<Awaited>,
    next_try: Instant,
    /// How many sockets were waited for in vain.
    failed: usize,
}

impl Reconciler {
    pub(super) fn new(profile: &Profile, opened: &Opened) -> Reconciler {
        let changes = |name: &str| {
            let follows = profile.listeners.iter().any(|listener| listener.name == name && listener.follow);
            follows || opened.awaited.iter().any(|awaited| awaited.listener() == name)
        };
        let bound = opened.endpoints.iter().map(|endpoint| &endpoint.bound);
        let open: Vec<_> = bound.filter(|bound| changes(&bound.spec.listener)).map(OpenSocket::of).collect();
        Reconciler {
            profile: profile.clone(),
            others: opened.endpoints.len() - open.len(),
            open,
            tried: opened.tried.clone(),
            beyond_limit: opened.beyond_limit.clone(),
            awaited: opened.awaited.clone(),
            next_try: Instant::now() + TRY_AGAIN,
            failed: 0,
        }
    }

    /// Whether a socket is waited for.
    pub(super) fn waits(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// How many sockets were waited for in vain.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// Whether sockets of this listener may still be opened.
    pub(super) fn may_open(&self, listener: &Listener) -> bool {
        listener.follow || self.awaited.iter().any(|awaited| awaited.listener() == listener.name)
    }

    /// Whether no more sockets may be opened.
    pub(super) fn is_done(&self) -> bool {
        !self.profile.listeners.iter().any(|listener| self.may_open(listener))
    }

    /// When to try again without a change of the network.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let first = self.awaited.iter().map(Awaited::until).min()?;
        Some(first.min(self.next_try))
    }

    /// Reads the host again: closes sockets that are no longer selected, opens newly selected ones, and gives up those whose wait
    /// is over. A socket that cannot be opened is reported, and tried again after the next change. Returns how many were opened.
    ///
    /// # Errors
    /// When a socket cannot be watched.
    pub(super) fn fit(&mut self, acceptor: &mut Acceptor, reporter: &mut Reporter<'_>) -> io::Result<usize> {
        self.next_try = Instant::now() + TRY_AGAIN;
        // While the host cannot be read nothing is closed on a guess; the next change asks again.
        let Ok(host) = super::look() else { return Ok(0) };
        let before = self.open.len();
        let closed = self.follow(&host, acceptor, reporter)?;
        self.wait(&host, acceptor, reporter)?;
        reporter.warn_of_open_ones();
        Ok(self.open.len() + closed - before)
    }

    fn follow(
        &mut self,
        host: &Snapshot,
        acceptor: &mut Acceptor,
        reporter: &mut Reporter<'_>,
    ) -> io::Result<usize> {
        let mut profile = self.profile.clone();
        profile.listeners.retain(|listener| listener.follow);
        if profile.listeners.is_empty() {
            return Ok(0);
        }
        let follows = |spec: &SocketSpec| profile.listeners.iter().any(|one| one.name == spec.listener);
        let (theirs, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(|open| follows(&open.spec));
        self.open = others;
        // A socket stays on the index of its device; an interface that takes the name of a deleted one has another index.
        let (alive, dead): (Vec<_>, Vec<_>) = theirs.into_iter().partition(|open| {
            let here = open.spec.device.as_ref().and_then(|device| host.interface_named(device));
            open.device_index.is_none()
                || open.spec.device.is_none()
                || here.is_none_or(|interface| Some(interface.index) == open.device_index)
        });
        profile.limits.max_sockets = profile.limits.max_sockets.saturating_sub(self.others + self.open.len());
        let specs: Vec<SocketSpec> = alive.iter().map(|open| open.spec.clone()).collect();
        let beside = expand_beside(&profile, host, &specs);
        let mut goes = dead;
        for (open, stays) in alive.into_iter().zip(beside.stays) {
            if stays { &mut self.open } else { &mut goes }.push(open);
        }
        let closed = goes.len();
        if !goes.is_empty() {
            for socket in acceptor.retire(|bound| goes.contains(&OpenSocket::of(bound)), reporter) {
                reporter.event(&Event::Closed(ClosedSocket { socket }));
            }
        }
        self.tell_limit(&beside.new.missing, reporter);
        let tried = std::mem::take(&mut self.tried);
        let ground = HostContext::new(host);
        for spec in beside.new.sockets {
            if tried.contains(&spec) || self.awaited.iter().any(|awaited| awaited.is_for(&spec)) {
                continue;
            }
            // The loop must not wait for an address: when it becomes usable, that is the next change.
            if let OpenResult::Open(bound) = sockets::one(&spec, &[], &ground, None, reporter) {
                self.serve(*bound, acceptor)?;
            }
        }
        Ok(closed)
    }

    /// Tells of sockets beyond the limit, once for each listener as long as that is so.
    fn tell_limit(&mut self, missing: &[Missing], reporter: &mut Reporter<'_>) {
        let beyond = missing.iter().filter(|missing| missing.code == Code::TOO_MANY_SOCKETS);
        let mut now = BTreeSet::new();
        for missing in beyond {
            let listener = &missing.spec.listener;
            if !self.beyond_limit.contains(listener) && now.insert(listener.clone()) {
                reporter.event(&failed_socket(missing));
            }
            now.insert(listener.clone());
        }
        self.beyond_limit = now;
    }

    /// Opens what was waited for and is here now.
    fn wait(
        &mut self,
        host: &Snapshot,
        acceptor: &mut Acceptor,
        reporter: &mut Reporter<'_>,
    ) -> io::Result<()> {
        let now = Instant::now();
        let all = std::mem::take(&mut self.awaited);
        for awaited in &all {
            let over = awaited.until() <= now;
            let more = match awaited {
                Awaited::Listener { listener, .. } => {
                    self.wait_for_listener(listener, (over, &all), host, acceptor, reporter)?
                }
                Awaited::Address { spec, .. } => {
                    let ground = HostContext::new(host);
                    let waits = (!over).then_some(WaitsElsewhere);
                    match sockets::one(spec, &[], &ground, waits, reporter) {
                        OpenResult::Open(bound) => self.serve(*bound, acceptor)?,
                        OpenResult::Failed => self.failed += 1,
                        OpenResult::LeftOut => {}
                        OpenResult::Awaited => {
                            self.awaited.push(awaited.clone());
                        }
                    }
                    false
                }
            };
            if more && !over {
                self.awaited.push(awaited.clone());
            }
        }
        Ok(())
    }

    /// Returns whether something is still missing.
    fn wait_for_listener(
        &mut self,
        listener: &Listener,
        (over, all): (bool, &[Awaited]),
        host: &Snapshot,
        acceptor: &mut Acceptor,
        reporter: &mut Reporter<'_>,
    ) -> io::Result<bool> {
        let mut profile = self.profile.clone();
        profile.listeners.retain(|one| one.name == listener.name);
        // What follows is opened as such.
        if !listener.follow {
            let (own, others): (Vec<_>, Vec<_>) =
                self.open.iter().map(|open| &open.spec).partition(|spec| spec.listener == listener.name);
            profile.limits.max_sockets =
                profile.limits.max_sockets.saturating_sub(self.others + others.len());
            let own: Vec<SocketSpec> = own.into_iter().cloned().collect();
            let ground = HostContext::new(host);
            for spec in expand_beside(&profile, host, &own).new.sockets {
                let mut awaited = all.iter().chain(&self.awaited);
                if self.tried.contains(&spec) || awaited.any(|awaited| awaited.is_for(&spec)) {
                    continue;
                }
                match sockets::one(&spec, &[], &ground, Some(WaitsElsewhere), reporter) {
                    OpenResult::Open(bound) => self.serve(*bound, acceptor)?,
                    OpenResult::Awaited => self.awaited.push(Awaited::address(&spec)),
                    OpenResult::Failed => {
                        self.failed += 1;
                        self.tried.push(spec);
                    }
                    OpenResult::LeftOut => self.tried.push(spec),
                }
            }
        }
        let missing = expand(&profile, host).missing;
        let missing: Vec<_> = missing.iter().filter(|missing| !missing.wait.is_zero()).collect();
        if over {
            self.failed += missing.len();
            for missing in &missing {
                reporter.event(&failed_socket(missing));
            }
        }
        Ok(!missing.is_empty())
    }

    fn serve(&mut self, bound: Bound, acceptor: &mut Acceptor) -> io::Result<()> {
        self.open.push(OpenSocket::of(&bound));
        acceptor.add(Endpoint { bound, inherited: false })
    }
}
