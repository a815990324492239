//! Links the unwinder of GCC into the programs: libgcc_s takes 0.1 ms to load, and each of its
//! mappings is copied by every fork of the server.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let set = |name| std::env::var_os(name).is_some();
    let gnu = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    // Without the programs, mqfs is a library: what that links is for others to say.
    if set("CARGO_FEATURE_PROGRAMS") && gnu {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
