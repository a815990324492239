//! Looking at every queue of the IPC namespace.

use sysv_ipc::{Error, queues};

use super::finding::{Finding, is_reply_queue};
use super::judge::Judge;
use super::policy::Policy;
use crate::ownership::lease::{self, Head};

impl Policy {
    /// Judges every queue that this policy covers.
    ///
    /// # Errors
    /// The kernel's list of queues cannot be read.
    pub fn survey(&self) -> Result<Vec<Finding>, Error> {
        let seen: Vec<_> = queues()?
            .filter(|(_, status)| self.covers_maker(status.permissions.cuid))
            .map(|(queue, status)| {
                let head = is_reply_queue(&status).then(|| lease::peek(queue));
                (queue, status, head)
            })
            .filter(|(_, _, head)| *head != Some(Head::Gone))
            .collect();
        // The observer inside must be younger than every lease that it is asked about.
        let mut judge = Judge::new(self);
        let judged = seen.into_iter().map(|(queue, status, head)| judge.judge(queue, status, head));
        Ok(judged.collect())
    }
}

/// Judges every queue of the IPC namespace, by the default [`Policy`].
///
/// # Errors
/// The kernel's list of queues cannot be read.
pub fn survey() -> Result<Vec<Finding>, Error> {
    Policy::new().survey()
}
