//! `bindscope` without a command.

use super::{Context, Exit, Failure, interfaces};
use crate::model::{ListeningSocket, Snapshot};
use crate::plan::exposure::{Exposer, Facts};
use crate::{render, sys};

/// Prints the interfaces, what listens here by exposure, and three next commands. Binds nothing.
///
/// # Errors
/// Exit 4 when the system does not list its interfaces, 5 when the page cannot be written.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let (snapshot, _) = interfaces::checked_snapshot(false, true)?;
    let options = sys::InventoryOptions { owners: false, ..sys::InventoryOptions::default() };
    let mut inventory = sys::inventory(&options);
    expose(&mut inventory.sockets, &snapshot);
    let page = render::summary::page(&snapshot, &inventory, context.color);
    context.emit(page.as_bytes(), None)?;
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
