//! `bindscope` without a command.

use super::{Context, Exit, Failure, interfaces};
use crate::library::groups_of;
use crate::model::{ListeningSocket, Snapshot};
use crate::plan::exposure::{Exposer, Facts};
use crate::{render, sys};

/// Prints the interfaces, what listens here by exposure, and three next commands. Binds nothing.
///
/// # Errors
/// Exit 4 when the system does not list its interfaces, 5 when the page cannot be written.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let (mut snapshot, _) = interfaces::checked_snapshot(false, interfaces::More::Tables)?;
    let options = sys::InventoryOptions { owners: false, ..sys::InventoryOptions::default() };
    let mut inventory = sys::inventory(&options);
    snapshot.groups = groups_of(&inventory.sockets);
    expose(&mut inventory.sockets, &snapshot);
    snapshot.packet_filters = Some(sys::packet_filters());
    let not_examined = sys::not_examined(&inventory.sockets);
    let page = render::summary::page(&snapshot, &inventory, &not_examined, context.color);
    context.show(&page, None)?;
    for problem in interfaces::problems(&snapshot) {
        context.say(&problem);
    }
    Ok(Exit::Success)
}

/// Fills in how far each socket is exposed.
pub(super) fn expose(sockets: &mut [ListeningSocket], snapshot: &Snapshot) {
    let exposer = Exposer::new(snapshot);
    for socket in sockets {
        socket.view.exposure = exposer.exposure(&Facts::of_view(&socket.view));
    }
}
