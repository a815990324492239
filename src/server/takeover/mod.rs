//! The three objects under a server's key: the lock, the request queue and the counters.
//!
//! All of them outlive a server that was killed. A new server takes the lock first, which proves
//! that its predecessor is dead. Then it replaces what the predecessor left under the key, and
//! what root may remove. It never removes what may be another program's.

mod publish_counters;
mod request_queue;
mod server_lock;

use sysv_ipc::Error;

pub(super) use publish_counters::publish_counters;
pub(super) use request_queue::RequestQueue;
pub(super) use server_lock::ServerLock;

/// How an attempt to make the object under a key ended.
enum Attempt<T> {
    /// The object is ours.
    Done(T),
    /// We removed an object that was in the way.
    Removed,
    /// Nothing is in the way any more.
    Retry,
}

/// Makes the object under a key. Removes what is in the way, again if somebody makes it again.
/// Returns how many objects it removed, so that one log line can report them all.
fn take_over<T, E>(mut attempt: impl FnMut() -> Result<Attempt<T>, E>) -> Result<(T, u32), E> {
    let mut removed = 0;
    loop {
        match attempt()? {
            Attempt::Done(object) => return Ok((object, removed)),
            Attempt::Removed => removed += 1,
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

/// Removes an object that is in the way.
fn removed<T>(outcome: Result<(), Error>) -> Result<Attempt<T>, Error> {
    Ok(unless_gone(outcome)?.map_or(Attempt::Retry, |()| Attempt::Removed))
}
