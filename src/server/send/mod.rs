//! How bytes leave: what a request names is opened as a `Source`, and its bytes become the
//! messages of a reply.

mod failure;
mod file;
mod file_meta;
mod listing;
mod names;
mod open;
mod outbox;
mod packed;
mod queue_capacity;
mod source;
mod transfer;
mod tree;

pub(super) use failure::{SendFailure, Unanswerable};
pub(super) use open::open;
pub(super) use outbox::{Outbox, Undelivered};
pub(super) use queue_capacity::QueueCapacity;
pub(super) use transfer::send;
