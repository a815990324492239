//! From a path to an open file: below the root and nowhere else.

mod export;
mod path_fd;

pub(super) use export::{Entered, Export};
pub(super) use path_fd::{PathFd, entry, kind};
