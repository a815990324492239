//! `mqfs-reap`: see [`mqfs::cli::reap`].

fn main() -> std::process::ExitCode {
    mqfs::cli::reap::main()
}
