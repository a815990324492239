//! The three objects under a server's key: the lock, the request queue and the counters.
//!
//! All of them outlive a server that was killed. A new server takes the lock first, which proves
//! that its predecessor is dead. Then it replaces what the predecessor left under the key, and
//! what root may remove. It never removes what may be another program's.

mod publish_counters;
mod request_queue;
mod server_lock;

use sysv_ipc::{Error, Key, Permissions, Pid, Uid};

use crate::ownership::server_state::untrusted_user;
use crate::sys::geteuid;

pub(super) use publish_counters::publish_counters;
pub(super) use request_queue::RequestQueue;
pub(super) use server_lock::ServerLock;

enum Attempt<T> {
    /// The object is ours.
    Done(T),
    /// Root removed an object that this user made, and this process was the last to use.
    Displaced(Uid, Option<Pid>),
    /// Nothing is in the way any more.
    Retry,
}

/// Makes the object under a key. Removes what is in the way, again if somebody makes it again, and
/// warns in one line of all that was another user's.
fn take_over<T, E>(
    what: &str,
    key: Key,
    mut attempt: impl FnMut() -> Result<Attempt<T>, E>,
) -> Result<T, E> {
    let (mut removed, mut displaced) = (0, None);
    loop {
        match attempt()? {
            Attempt::Done(object) => {
                if let Some((uid, pid)) = displaced {
                    tracing::warn!(%key, uid, pid, removed, "removed another user's {what}");
                }
                return Ok(object);
            }
            Attempt::Displaced(uid, pid) => {
                displaced = Some((uid.as_raw(), pid.map(Pid::as_raw)));
                removed += 1;
            }
            Attempt::Retry => {}
        }
    }
}

/// The outcome of a call on an object that was in the way. None: it has gone.
fn unless_gone<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Err(error) if error.is_gone() => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// The outcome of the removal of an object that is in the way.
fn removed<T>(
    outcome: Result<(), Error>,
    permissions: &Permissions,
    user: Option<Pid>,
) -> Result<Attempt<T>, Error> {
    let is_removed = unless_gone(outcome)?.is_some();
    let foreign = untrusted_user(permissions, geteuid()).filter(|_| is_removed);
    Ok(foreign.map_or(Attempt::Retry, |uid| Attempt::Displaced(uid, user)))
}
