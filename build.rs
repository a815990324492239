//! Links the unwinder of GCC into the programs: to load libgcc_s takes 0.15 ms, a tenth of a small
//! transfer, and every fork of the server copies its mappings.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let gnu = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    // Without the programs, mqfs is a library: what that links is for others to say.
    if gnu && env::var_os("CARGO_FEATURE_PROGRAMS").is_some() && has_static_unwinder() {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// Whether the linker finds it. Where it is not installed, the shared library will do.
fn has_static_unwinder() -> bool {
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let found = Command::new(linker).arg("-print-file-name=libgcc_eh.a").output();
    found.is_ok_and(|found| {
        str::from_utf8(&found.stdout).is_ok_and(|path| Path::new(path.trim()).is_absolute())
    })
}
