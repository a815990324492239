//! `mqfs-server`: see [`mqfs::cli::server`].

fn main() -> std::process::ExitCode {
    mqfs::cli::server::main()
}
