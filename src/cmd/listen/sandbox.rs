//! What `listen` still needs once its sockets are open, and giving up the rest.

use crate::code::Code;
use crate::model::confinement::{Confinement, Needs};
use crate::model::{Protocol, Snapshot};
use crate::profile::{Listener, Profile};
use crate::record::event::{Event, Notice};
use crate::sys;

use super::reporter::Reporter;

/// Listeners of which `may_open` says that they bind again later; all others are done.
pub(super) fn needs(profile: &Profile, host: &Snapshot, may_open: impl Fn(&Listener) -> bool) -> Needs {
    let first_free = host.setting("net.ipv4.ip_unprivileged_port_start").unwrap_or(1024);
    let mut needs = Needs::default();
    for listener in profile.listeners.iter().filter(|listener| may_open(listener)) {
        needs.low_ports |= listener.ports.iter().any(|port| *port != 0 && i64::from(*port) < first_free);
        needs.transparent |= listener.transparent;
        if listener.protocol == Protocol::Tcp {
            needs.tcp_ports.extend(&listener.ports);
        }
    }
    needs
}

/// Drops the privileges that this process does not need. `of_sink` is what the writing thread has dropped so far. A confinement that
/// is weaker than possible is reported.
pub(super) fn process(
    needs: &Needs,
    of_sink: Option<Confinement>,
    reporter: &mut Reporter<'_>,
) -> Confinement {
    let mut confinement = sys::confine(needs);
    if let Some(of_sink) = of_sink {
        confinement = confinement.weaker(of_sink);
    }
    let confinement = sys::with_other_threads(confinement);
    if !confinement.weaker_because.is_empty() {
        reporter.event(&Event::Notice(Notice {
            code: Code::RIGHTS_KEPT,
            listener: None,
            message: format!(
                "not all rights could be given up after binding: {}",
                confinement.weaker_because.join("; ")
            ),
        }));
    }
    confinement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile;

    fn of(listeners: &str, first_free: Option<i64>) -> Needs {
        let text = format!("schema = 1\nname = 'needs'\n{listeners}");
        let profile = profile::parse("test", &text).unwrap();
        let mut host = Snapshot::default();
        host.settings.extend(first_free.map(|port| ("net.ipv4.ip_unprivileged_port_start".to_owned(), port)));
        needs(&profile, &host, |listener| listener.follow)
    }

    #[test]
    fn only_who_follows_needs_anything_later() {
        let listener = "[[listener]]\nname = 'a'\nbind = { interface = 'eth*' }\nport = [80, 8080]\n";
        assert_eq!(of(listener, None), Needs::default());
        let follows = format!("{listener}follow = true\n");
        let low =
            Needs { low_ports: true, transparent: false, tcp_ports: vec![80, 8080], ..Needs::default() };
        assert_eq!(of(&follows, None), low);
        assert!(!of(&follows, Some(80)).low_ports);
        let udp = of(&format!("{follows}protocol = 'udp'\ntransparent = true\n"), None);
        assert_eq!(udp, Needs { low_ports: true, transparent: true, ..Needs::default() });
    }
}
