//! Publishes the counters under the server's key.

use sysv_ipc::{Error, Key, QueueId, SharedMemory, Uid};

use super::{Attempt, removed, take_over, unless_gone};
use crate::counters::{self, Writer};
use crate::sys::geteuid;

/// Why there can be no segment under the key.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("the segment under the key belongs to uid {0} (as root: ipcrm -M KEY)")]
    Foreign(Uid),
    #[error("the segment under the key is another program's (if nothing needs it: ipcrm -M KEY)")]
    AnotherPrograms,
    #[error("somebody makes a segment under the key again and again")]
    Contended,
    #[error(transparent)]
    Os(#[from] Error),
}

/// Makes the counters of a server that holds the lock of this key. If a segment is in the way that
/// the server must not remove, it logs a warning and counts nothing.
pub(crate) fn publish_counters(key: Key, queue: QueueId, most_allowed: usize) -> Writer {
    const TRIES: u32 = 100;
    let mut tries = 0;
    let published = take_over(|| match Writer::create(key, queue, most_allowed) {
        Ok(writer) => Ok(Attempt::Done(writer)),
        Err(error) if error.already_exists() && tries < TRIES => {
            tries += 1;
            remove_predecessor(key)
        }
        Err(error) if error.already_exists() => Err(Obstacle::Contended),
        Err(error) => Err(error.into()),
    });
    match published {
        Ok((writer, removed)) => {
            if removed > 0 {
                tracing::warn!(%key, removed, "removed foreign segments of shared memory");
            }
            writer
        }
        Err(obstacle) => {
            tracing::warn!(%key, reason = obstacle.to_string(), "nothing is counted");
            Writer::disabled()
        }
    }
}

/// Removes a marked segment of our own: we hold the server lock, so a dead predecessor left it.
/// Root also removes segments of other users. An unmarked segment is another program's.
fn remove_predecessor(key: Key) -> Result<Attempt<Writer>, Obstacle> {
    let found = SharedMemory::open(key).and_then(|segment| Ok((segment.status()?, segment)));
    let Some((status, segment)) = unless_gone(found)? else { return Ok(Attempt::Retry) };
    let foreign =
        [status.permissions.uid, status.permissions.cuid].into_iter().find(|uid| *uid != geteuid());
    match foreign {
        Some(uid) if !geteuid().is_root() => return Err(Obstacle::Foreign(uid)),
        None if status.permissions.mode != counters::MODE => return Err(Obstacle::AnotherPrograms),
        _ => {}
    }
    match removed(segment.remove())? {
        Attempt::Removed if foreign.is_none() => Ok(Attempt::Retry), // not worth a warning
        attempt => Ok(attempt),
    }
}
