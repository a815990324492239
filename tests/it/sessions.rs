//! Sessions: many questions to one child, from a client by hand or from `mqfs-client`.

mod answers;
mod deaths;
mod hostile;
mod making_way;
mod rights;

use std::time::{Duration, Instant};

use nix::unistd::pause;
use sysv_ipc::Queue;
use tempfile::TempDir;

use crate::support::session::RawSession;
use crate::support::{Attack, Server, queue_of, reply_queues, serve_quietly, wait_until};

/// A server of `/small`, and of `/file`, which is larger than any queue.
fn serve(arguments: &[&str]) -> (Server, TempDir, Queue) {
    let (server, folder, _) = serve_quietly(4 << 20, arguments);
    let requests = queue_of(server.key).unwrap();
    (server, folder, requests)
}

/// Waits until a session that is idle now has been idle for so long that its child removes the
/// queue when it ends.
fn wait_until_long_idle() {
    let start = Instant::now();
    wait_until("four seconds pass", || start.elapsed() >= Duration::from_secs(4));
}

/// Idle sessions of this user. The process that has them ends with its handle.
fn idle_sessions(uid: u32, count: usize, requests: Queue) -> (Attack, Vec<Queue>) {
    let before = reply_queues();
    let user = Attack::start(uid, || {
        let _sessions: Vec<_> = (0..count).map(|_| RawSession::idle(requests)).collect();
        loop {
            pause();
        }
    });
    let mut queues = Vec::new();
    wait_until("they are idle", || {
        queues = reply_queues().into_iter().filter(|queue| !before.contains(queue)).collect();
        let is_idle = |queue: &Queue| {
            queue.status().is_ok_and(|now| now.messages == 1 && now.received_at.is_some())
        };
        queues.len() == count && queues.iter().all(is_idle)
    });
    (user, queues)
}
