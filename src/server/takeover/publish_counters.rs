//! Publishes the counters under the server's key.

use sysv_ipc::{Error, Key, QueueId, SharedMemory, Uid};

use super::{Attempt, removed, take_over, unless_gone};
use crate::counters::{self, Writer};
use crate::server::config::Config;
use crate::sys::geteuid;

/// Why there can be no segment under the key.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("the segment under the key belongs to uid {0}")]
    Foreign(Uid),
    #[error("the segment under the key is another program's")]
    AnotherPrograms,
    #[error("somebody makes a segment under the key again and again")]
    Contended,
    #[error(transparent)]
    Os(#[from] Error),
}

/// Publishes the counters of a server that holds the lock of its key, unless they are published. If
/// a segment is in the way that the server must not remove, nothing is counted until a later call
/// finds none.
pub(crate) fn publish_counters(counters: &Writer, config: &Config, queue: QueueId, again: bool) {
    const TRIES: u32 = 100;
    let (key, mut tries) = (config.key, 0);
    if counters.is_published() {
        return;
    }
    let published = take_over(|| match counters.publish(key, queue, config.max_children()) {
        Ok(()) => Ok(Attempt::Done(())),
        Err(error) if error.already_exists() && tries < TRIES => {
            tries += 1;
            remove_predecessor(key)
        }
        Err(error) if error.already_exists() => Err(Obstacle::Contended),
        Err(error) => Err(error.into()),
    });
    match published {
        Ok(((), removed)) if removed > 0 => {
            tracing::warn!(%key, removed, "removed foreign segments of shared memory");
        }
        Ok(_) if again => tracing::info!(%key, "the counters are published after all"),
        Ok(_) => {}
        Err(why) if !again => {
            let reason = why.to_string();
            tracing::warn!(%key, reason, "nothing is counted; later it is tried again");
        }
        Err(_) => {} // it was logged
    }
}

/// Removes a marked segment of our own: we hold the server lock, so a dead predecessor left it.
/// Root also removes segments of other users. An unmarked segment is another program's.
fn remove_predecessor(key: Key) -> Result<Attempt<()>, Obstacle> {
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
