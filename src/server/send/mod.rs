//! What leaves: a file, a listing or a tree, as the messages of a reply.

pub(crate) mod file;
mod listing;
mod names;
pub(crate) mod outbox;
mod packed;
pub(crate) mod queue_capacity;
pub(crate) mod transfer;
mod tree;
mod tree_file;

pub(crate) use listing::Listing;
pub(crate) use tree::Walk;
