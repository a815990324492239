//! Where the programs are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The programs on trial, which stand in the folder above the example's.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Finds the programs. `cargo run --example` builds only the example: so where Cargo runs it
    /// (`CARGO` is set), they are built first, by the same profile, lest old ones be tried.
    pub fn find() -> Result<Self> {
        let example = env::current_exe().context("/proc/self/exe")?;
        let folder = example.parent().and_then(Path::parent).context("the example's folder")?;
        if let Some(cargo) = env::var_os("CARGO") {
            build(Command::new(cargo), folder)?;
        }
        for name in ["mqfs-server", "mqfs-client", "mqfs-reap"] {
            let missing = folder.join(name);
            ensure!(missing.exists(), "{} is missing: cargo build --bins", missing.display());
        }
        Ok(Self { folder: folder.to_owned() })
    }

    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.env_remove("MQFS_KEY").stdin(Stdio::null());
        command
    }
}

/// `target/PROFILE` is where it must end up.
fn build(mut cargo: Command, folder: &Path) -> Result<()> {
    let target = folder.parent().context("the target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        name => name.context("the profile's folder")?,
    };
    cargo.args(["build", "--quiet", "--bins", "--profile", profile, "--target-dir"]).arg(target);
    if let Some(package) = env::var_os("CARGO_MANIFEST_DIR") {
        cargo.arg("--manifest-path").arg(Path::new(&package).join("Cargo.toml"));
    }
    ensure!(cargo.status().context("cargo")?.success(), "the programs cannot be built");
    Ok(())
}
