//! Publishes the counters under the server's key.

use std::error::Error;

use sysv_ipc::{Key, QueueId, SharedMemory};

use super::{Attempt, removed, take_over, unless_gone};
use crate::counters::{self, Writer};
use crate::server::config::Config;
use crate::sys::geteuid;

/// Publishes the counters of a server that holds the lock of its key, unless they are published. If
/// a segment is in the way that the server must not remove, nothing is counted until a later call
/// finds none. `again`: an earlier call has warned of that, so this one is silent.
pub(crate) fn publish_counters(counters: &Writer, config: &Config, queue: QueueId, again: bool) {
    if counters.is_published() {
        return;
    }
    let key = config.key;
    let published = take_over("shared memory", key, || {
        match counters.publish(key, queue, config.max_children()) {
            Ok(()) => Ok(Attempt::Done(())),
            Err(error) if error.already_exists() => remove_predecessor(key),
            Err(error) => Err(error.into()),
        }
    });
    if let (Err(why), false) = (published, again) {
        let reason = why.to_string();
        tracing::warn!(%key, reason, "nothing is counted; later it is tried again");
    }
}

/// Removes a marked segment of our own: we hold the server lock, so a dead predecessor left it.
/// Root also removes segments of other users. An unmarked segment is another program's.
fn remove_predecessor(key: Key) -> Result<Attempt<()>, Box<dyn Error>> {
    let found = SharedMemory::open(key).and_then(|segment| Ok((segment.status()?, segment)));
    let Some((status, segment)) = unless_gone(found)? else { return Ok(Attempt::Retry) };
    let permissions = &status.permissions;
    match [permissions.uid, permissions.cuid].into_iter().find(|&uid| uid != geteuid()) {
        Some(uid) if !geteuid().is_root() => {
            return Err(format!("the segment under the key belongs to uid {uid}").into());
        }
        None if permissions.mode != counters::MODE => {
            return Err("the segment under the key is another program's".into());
        }
        _ => {}
    }
    Ok(removed(segment.remove(), permissions, None)?)
}
