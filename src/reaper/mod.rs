//! The reaper: finds the queues of dead processes, and removes them.
//!
//! It looks at every queue of the IPC namespace and judges each; only then, and only after a second
//! look, does it remove those whose owner is proven dead. A queue that is not mqfs's own is never
//! touched.
//!
//! ```no_run
//! for finding in mqfs::reaper::survey()? {
//!     let id = finding.queue.id();
//!     println!("{id}: {}: {}", finding.verdict.name(), finding.verdict);
//!     mqfs::reaper::remove(&finding); // only if it is an orphan, and still the same queue
//! }
//! # Ok::<(), mqfs::sysv::Error>(())
//! ```

mod sweep;
mod verdict;

pub use sweep::{Action, remove, sweep};
pub use verdict::{Doubt, Finding, Proof, Verdict, survey};
