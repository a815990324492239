//! From a path to a descriptor: below the export's root and nowhere else.

pub(crate) mod export;
mod path_fd;

pub(crate) use path_fd::{PathFd, entry, itself, kind, meta};
