//! The three objects under a server's key: the lock, the request queue and the counters.
//!
//! All of them outlive a server that was killed. A new server takes the lock first, which proves
//! that its predecessor is dead. Then it replaces what the predecessor left under the key, and
//! what root may remove. It never removes what may be another program's.

mod attempt;
mod counters;
mod lock;
mod request_queue;

pub(super) use counters::publish_counters;
pub(super) use lock::ServerLock;
pub(super) use request_queue::RequestQueue;
