//! Tests of what the kernel does, by kind of object. Each test uses keys of its own, and removes
//! what it creates also when it fails.

mod common;
mod fork;
mod lists_and_limits;
mod queues;
mod semaphores;
mod shared_memory;
