//! Writing what arrives: files that appear complete or not at all, and whole trees of them.

mod atomic_file;
mod cleanup_guard;
mod dir;
mod output_file;
mod output_target;
mod tree;

pub use cleanup_guard::CleanupGuard;
pub use dir::Dir;
pub use output_file::OutputFile;
pub use tree::{Event, Report, WriteOptions, write_file, write_tree};
