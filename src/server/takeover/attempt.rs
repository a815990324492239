//! Makes an object under a key, and removes what is in the way.

use sysv_ipc::Error;

/// How an attempt to make the object under a key ended.
pub(super) enum Attempt<T> {
    /// The object is ours.
    Done(T),
    /// We removed an object that was in the way.
    Removed,
    /// Nothing is in the way any more.
    Retry,
}

/// Makes the object under a key, and removes what is in the way as often as somebody makes it
/// again. Returns how many objects it removed, so that the log tells of them once.
pub(super) fn take_over<T, E>(
    mut attempt: impl FnMut() -> Result<Attempt<T>, E>,
) -> Result<(T, u32), E> {
    let mut removed = 0;
    loop {
        match attempt()? {
            Attempt::Done(object) => return Ok((object, removed)),
            Attempt::Removed => removed += 1,
            Attempt::Retry => {}
        }
    }
}

/// Looks up an object by its key, with its status. None: it has gone.
pub(super) fn find<T, S>(
    found: Result<T, Error>,
    status: impl FnOnce(&T) -> Result<S, Error>,
) -> Result<Option<(T, S)>, Error> {
    match found.and_then(|object| status(&object).map(|status| (object, status))) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The outcome of removing an object that was in the way.
pub(super) fn removed<T>(outcome: Result<(), Error>) -> Result<Attempt<T>, Error> {
    match outcome {
        Ok(()) => Ok(Attempt::Removed),
        Err(error) if error.is_gone() => Ok(Attempt::Retry),
        Err(error) => Err(error),
    }
}
