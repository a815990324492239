//! placeholder
#![cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), allow(unused))]

pub mod client;
#[allow(unsafe_code)]
pub mod process;
pub mod server;
#[allow(unsafe_code)]
pub mod sysv;
pub mod text;
pub mod wire;

pub use client::Client;
pub use wire::DEFAULT_KEY;
