//! Taking over from a dead predecessor.

pub(crate) mod request_queue;
