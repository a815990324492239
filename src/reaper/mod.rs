//! The reaper: finds the queues of dead processes, and removes them.
//!
//! It looks at every queue of the IPC namespace and judges each; only then, and only after a second
//! look, does it remove those whose owner is proven dead. A queue that is not mqfs's own is never
//! touched, unless a [`Policy`] asks for it.
//!
//! ```no_run
//! for finding in mqfs::reaper::survey()? {
//!     let id = finding.queue.id();
//!     println!("{id}: {}: {}", finding.verdict.name(), finding.verdict);
//!     mqfs::reaper::remove(&finding); // only if it is an orphan, and still the same queue
//! }
//! # Ok::<(), sysv_ipc::Error>(())
//! ```

mod removal;
mod survey;
mod verdict;

pub use removal::{Action, remove, sweep};
pub use survey::{Finding, Policy, survey};
pub use verdict::{Doubt, Proof, Stranger, Verdict};
