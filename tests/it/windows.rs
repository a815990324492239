//! Windows: large files go through shared memory, of which nothing is ever left.

mod bytes;
mod clients;
mod servers;

use mqfs::wire::WindowPart;

use crate::support::session::{Part, RawSession};
use crate::support::{wait_until, windows};

/// Waits until no window is left.
#[track_caller]
fn wait_until_gone() {
    wait_until("no window is left", || windows().is_empty());
}

/// Receives the first message about a window.
#[track_caller]
fn first_window(session: &mut RawSession) -> WindowPart {
    loop {
        if let Part::Window(part) = session.next_part() {
            return part;
        }
    }
}
