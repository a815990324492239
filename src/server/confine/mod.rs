//! What a child may still do.

#[allow(unsafe_code)]
pub(crate) mod group_cache;
pub(crate) mod own_proc_files;
pub(crate) mod sandbox;
