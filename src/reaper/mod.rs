//! The reaper: finds the queues of dead processes, and removes them.
//!
//! It looks at every queue of the IPC namespace and judges each; only then, and only after a second
//! look, does it remove those whose owner is proven dead. A queue that is not mqfs's own is never
//! touched.

mod sweep;
mod verdict;

pub use sweep::{Action, remove, sweep};
pub use verdict::{Doubt, Finding, Proof, Verdict, survey};
