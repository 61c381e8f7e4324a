//! Events about sockets that could not be opened, or that other hosts can reach.

use crate::code::Code;
use crate::model::{Exposure, Family, FamilyExposure, Phase, SocketView};
use crate::plan::expand::Missing;
use crate::record::event::{Event, FailedSocket, Notice};

/// The event of a socket that is missing.
pub(super) fn failed_socket(missing: &Missing) -> Event {
    Event::BindFailed(FailedSocket {
        socket: missing.spec.view(FamilyExposure::default()),
        phase: Phase::Bind,
        errno: missing.errno,
        code: missing.code,
        message: missing.message.clone(),
        hint: missing.hint.clone(),
    })
}

/// The notice that other hosts can reach a socket, if they can.
pub(super) fn wide_open(socket: &SocketView) -> Option<Notice> {
    let exposure = socket.exposure;
    if exposure.widest() <= Exposure::Loopback {
        return None;
    }
    let families = Family::BOTH.map(|family| {
        let one = if family == Family::Ipv4 { exposure.ipv4 } else { exposure.ipv6 };
        (one > Exposure::Loopback).then(|| format!("over {family} ({one})"))
    });
    let families: Vec<_> = families.into_iter().flatten().collect();
    Some(Notice {
        code: Code::WIDE_OPEN,
        listener: socket.listener.clone(),
        message: format!("{socket} can be reached by other hosts {}", families.join(" and ")),
    })
}
