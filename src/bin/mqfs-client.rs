//! `mqfs-client`: see [`mqfs::cli::client`].

/// The `pow` that the progress bar's library calls, in place of the C library's: nothing else here
/// needs libm, and to load it takes a tenth of the time of a small transfer.
#[allow(unsafe_code)]
// SAFETY: it computes what pow(3) does.
#[unsafe(no_mangle)]
extern "C" fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

fn main() -> std::process::ExitCode {
    mqfs::cli::client::main()
}
