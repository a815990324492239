//! Finds message queues whose owner is dead, and removes them.
//!
//! [`Policy::survey`] looks at every queue of the IPC namespace and gives each a [`Verdict`].
//! [`remove`] looks at a queue a second time, and removes it only if its owner is proven dead.
//! Queues that mqfs did not make are left alone, unless a [`Policy`] includes them.
//!
//! ```no_run
//! for finding in mqfs::reaper::Policy::new().survey()? {
//!     let id = finding.queue.id();
//!     println!("{id}: {}: {}", finding.verdict.name(), finding.verdict);
//!     mqfs::reaper::remove(&finding); // only if it is an orphan, and still the same queue
//! }
//! # Ok::<(), sysv_ipc::Error>(())
//! ```
//!
//! The condition of a proof is in `judge`, and again in `removal`.

mod finding;
mod judge;
mod leftovers;
mod policy;
mod removal;
mod verdict;

pub use crate::ownership::liveness::{Alive, Dead};
pub use finding::Finding;
#[cfg(feature = "programs")]
pub(crate) use finding::{is_reply_queue, is_request_queue};
pub use policy::Policy;
pub use removal::{Action, remove, sweep};
pub use verdict::{ForeignReason, KeepReason, Proof, Verdict};
