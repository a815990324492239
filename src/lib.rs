//! placeholder
#[allow(unsafe_code)]
pub mod sysv;
