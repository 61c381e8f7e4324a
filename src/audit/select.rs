//! Selection of the sockets that are shown and counted.

use std::ops::RangeInclusive;

use super::{Published, Report};
use crate::model::{Exposure, Family, ListeningSocket, Protocol};
use crate::profile::bind::glob;

/// A selection; an empty field selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// TCP or UDP.
    pub protocol: Option<Protocol>,
    /// Sockets that serve this family.
    pub family: Option<Family>,
    /// Patterns for the name of a process, its executable, its unit, or the part of the kernel.
    pub process: Vec<String>,
    /// This exposure or wider, in the selected family or in either.
    pub exposure: Option<Exposure>,
}

impl Selection {
    /// Whether it selects all sockets.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Selection::default()
    }

    /// Whether it selects a socket. A socket with unknown exposure is selected.
    fn takes(&self, socket: &ListeningSocket, exposure_known: bool) -> bool {
        let view = &socket.view;
        let exposure = match self.family {
            Some(Family::Ipv4) => view.exposure.ipv4,
            Some(Family::Ipv6) => view.exposure.ipv6,
            None => view.exposure.widest(),
        };
        let wildcard6 = view.address.is_ipv6() && view.address.is_unspecified();
        let serves = |family| match family {
            Family::Ipv4 => view.address.to_canonical().is_ipv4() || wildcard6 && view.v6only != Some(true),
            Family::Ipv6 => view.address.to_canonical().is_ipv6(),
        };
        (self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(&view.port)))
            && self.protocol.is_none_or(|protocol| protocol == view.protocol)
            && self.family.is_none_or(serves)
            && self.exposure.is_none_or(|least| !exposure_known || exposure >= least)
            && (self.process.is_empty() || self.process.iter().any(|pattern| owned_by(socket, pattern)))
    }

    /// Keeps the selected sockets in a report, with the findings and checks about them and about no socket.
    pub fn apply(&self, report: &mut Report) {
        if self.is_all() {
            return;
        }
        let mut places = Vec::with_capacity(report.sockets.len());
        let mut kept = Vec::new();
        for socket in &report.sockets {
            let takes = self.takes(socket, report.exposure_known(socket));
            places.push(takes.then_some(kept.len()));
            if takes {
                kept.push(socket.clone());
            }
        }
        report.body.summary.not_selected += report.sockets.len() - kept.len();
        report.body.sockets = kept;
        let moved = |place: &mut Option<usize>| match *place {
            None => true,
            Some(old) => {
                *place = places.get(old).copied().flatten();
                place.is_some()
            }
        };
        report.body.findings.retain_mut(|finding| moved(&mut finding.socket));
        report.body.checks.retain_mut(|check| moved(&mut check.socket));
        let overlaps = |one: &Published| {
            let ports = one.ports.unwrap_or((0, u16::MAX));
            (self.ports.is_empty()
                || self.ports.iter().any(|own| ports.0 <= *own.end() && *own.start() <= ports.1))
                && self.protocol.is_none_or(|own| one.protocol.is_none_or(|protocol| protocol == own))
                && self.exposure.is_none_or(|least| one.exposure.widest() >= least)
                && self.process.is_empty()
        };
        let kept: Vec<bool> = report.body.published.iter().map(overlaps).collect();
        let new_place = |old: usize| {
            kept.get(old).is_some_and(|kept| *kept).then(|| kept[..old].iter().filter(|kept| **kept).count())
        };
        report.body.findings.retain_mut(|finding| match finding.published {
            None => true,
            Some(old) => {
                finding.published = new_place(old);
                finding.published.is_some()
            }
        });
        let mut all = kept.iter();
        report.body.published.retain(|_| all.next().copied().unwrap_or(true));
        report.body.skipped.retain(|skipped| self.takes(&skipped.socket, false));
        report.settle();
    }
}

/// Whether a process, unit or part of the kernel that owns the socket matches this pattern.
fn owned_by(socket: &ListeningSocket, pattern: &str) -> bool {
    let is = |name: &str| glob(pattern.as_bytes(), name.as_bytes());
    let file = |path: &str| is(path.rsplit('/').next().unwrap_or(path)) || is(path);
    let owner = socket.known_owners().iter().any(|owner| {
        is(&owner.command)
            || owner.exe.as_deref().is_some_and(file)
            || owner
                .unit
                .as_deref()
                .is_some_and(|unit| is(unit) || unit.strip_suffix(".service").is_some_and(is))
    });
    let kernel = socket
        .kernel
        .as_ref()
        .is_some_and(|holder| is("kernel") || is(&holder.kind) || holder.name.as_deref().is_some_and(is));
    let unit = socket.activation.as_ref().is_some_and(|one| is(&one.socket_unit) || is(&one.service));
    owner || kernel || unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::{host, report_of, socket};

    fn chosen(selection: &Selection) -> Vec<u16> {
        let texts =
            ["tcp 127.0.0.1:22", "tcp 0.0.0.0:80", "udp 0.0.0.0:53", "tcp [::]:443 dual", "tcp [::1]:22"];
        let mut report = report_of(texts.map(socket).into(), host());
        let findings = report.findings.len();
        selection.apply(&mut report);
        assert_eq!(report.summary.sockets + report.summary.not_selected, texts.len());
        assert!(
            report.findings.iter().all(|one| one.socket.is_none_or(|place| place < report.sockets.len()))
        );
        assert!(report.findings.len() <= findings);
        report.sockets.iter().map(|socket| socket.view.port).collect()
    }

    #[test]
    fn each_option_narrows_the_choice() {
        let all = Selection::default;
        assert_eq!(chosen(&all()).len(), 5);
        assert_eq!(chosen(&Selection { ports: vec![22..=22, 440..=450], ..all() }), [22, 443, 22]);
        assert_eq!(chosen(&Selection { protocol: Some(Protocol::Udp), ..all() }), [53]);
        assert_eq!(chosen(&Selection { family: Some(Family::Ipv4), ..all() }), [22, 80, 53, 443]);
        assert_eq!(chosen(&Selection { family: Some(Family::Ipv6), ..all() }), [443, 22]);
        assert_eq!(chosen(&Selection { exposure: Some(Exposure::Private), ..all() }), [80, 53, 443]);
        assert_eq!(chosen(&Selection { exposure: Some(Exposure::Global), ..all() }), [443]);
        let ipv4 = Some(Family::Ipv4);
        assert_eq!(
            chosen(&Selection { exposure: Some(Exposure::Global), family: ipv4, ..all() }),
            [] as [u16; 0]
        );
        let named = |name: &str| Selection { process: vec![name.to_owned()], ..all() };
        assert_eq!(chosen(&named("serv*")).len(), 5);
        assert_eq!(chosen(&named("/usr/sbin/server")).len(), 5);
        assert_eq!(chosen(&named("serv")), [] as [u16; 0]);
    }
}
