//! `mqfs-stat`: see [`mqfs::cli::stat`].

fn main() -> std::process::ExitCode {
    mqfs::cli::stat::main()
}
