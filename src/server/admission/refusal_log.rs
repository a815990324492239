//! Logs refusals at a limited rate, so that nobody can flood the log.

use std::time::{Duration, Instant};

use super::refusal::Refusal;
use crate::counters::RefusalReason;
use crate::server::loggable::loggable;
use crate::wire::Request;

/// How often each reason came up, and when the log last said so.
#[derive(Default)]
pub(crate) struct RefusalLog([Tally; RefusalReason::ALL.len()]);

#[derive(Default)]
struct Tally {
    total: u64,
    unlogged: u64,
    logged: Option<Instant>,
}

impl RefusalLog {
    /// The shortest time between two lines with the same reason.
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Logs a refusal, unless its reason was logged just now. The line says how many requests were
    /// refused for this reason since its last line.
    pub(crate) fn log(&mut self, refusal: &Refusal, request: Option<&Request<'_>>) {
        let tally = &mut self.0[refusal.reason as usize];
        tally.total += 1;
        tally.unlogged += 1;
        if tally.logged.is_some_and(|logged| logged.elapsed() < Self::INTERVAL) {
            return;
        }
        tally.logged = Some(Instant::now());
        let requests = std::mem::take(&mut tally.unlogged);
        let total = tally.total;
        let queue = request.map(|request| request.reply_queue.get());
        let operation = request.map(|request| request.question.operation.name());
        let path = request.map(|request| loggable(request.question.path));
        let detail = refusal.detail.as_deref();
        let reason = refusal.reason.to_string();
        tracing::warn!(reason, detail, queue, operation, path, requests, total, "refused");
    }
}
