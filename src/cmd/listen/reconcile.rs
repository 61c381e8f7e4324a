//! Listeners with `follow = true`: sockets are opened and closed as the addresses that they select come and go.

use std::io;

use crate::model::SocketSpec;
use crate::plan::expand::expand;
use crate::profile::Profile;
use crate::record::event::{ClosedSocket, Event};
use crate::serve::{Acceptor, Endpoint};

use super::reporter::Reporter;
use super::sockets::{self, HostContext, OpenResult, Opened};

/// The listeners that follow, and which of their sockets are open.
pub(super) struct Follower {
    profile: Profile,
    open: Vec<SocketSpec>,
    /// What failed a moment ago and is not to be tried again before the next change.
    tried: Vec<SocketSpec>,
}

impl Follower {
    /// `None` when no listener of the profile follows.
    pub(super) fn new(profile: &Profile, opened: &Opened) -> Option<Follower> {
        let mut profile = profile.clone();
        profile.listeners.retain(|listener| listener.follow);
        let follows =
            |spec: &SocketSpec| profile.listeners.iter().any(|listener| listener.name == spec.listener);
        if profile.listeners.is_empty() {
            return None;
        }
        let specs = opened.endpoints.iter().map(|endpoint| &endpoint.bound.spec);
        let open: Vec<_> = specs.filter(|spec| follows(spec)).cloned().collect();
        Some(Follower { profile, open, tried: opened.tried.clone() })
    }

    /// Looks at the host anew: closes what is not selected any more, opens what newly is. What cannot be opened is told, and
    /// tried again after the next change.
    pub(super) fn fit(&mut self, acceptor: &mut Acceptor, reporter: &mut Reporter<'_>) -> io::Result<()> {
        // While the host cannot be read nothing is closed on a guess; the next change asks again.
        let Ok(host) = super::look() else { return Ok(()) };
        let wanted = expand(&self.profile, &host).sockets;
        let (stays, goes): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(|spec| wanted.contains(spec));
        self.open = stays;
        if !goes.is_empty() {
            for socket in acceptor.retire(|spec| goes.contains(spec), reporter) {
                reporter.event(&Event::Closed(ClosedSocket { socket }));
            }
        }
        let tried = std::mem::take(&mut self.tried);
        let ground = HostContext::new(&host);
        for spec in wanted {
            if self.open.contains(&spec) || tried.contains(&spec) {
                continue;
            }
            // The loop must not wait for an address: when it becomes usable, that is the next change.
            if let OpenResult::Open(bound) = sockets::one(&spec, &[], &ground, || true, reporter) {
                acceptor.add(Endpoint { bound: *bound, inherited: false })?;
                self.open.push(spec);
            }
        }
        Ok(())
    }
}
