//! `mqfs-client`: see [`mqfs::cli::client`].

fn main() -> std::process::ExitCode {
    mqfs::cli::client::main()
}
