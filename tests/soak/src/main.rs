//! Soak tests: what mqfs promises, tried for long and under faults. Each prints what it counted,
//! and exits with 0 only if everything held.
//!
//! ```sh
//! cargo run --release -p mqfs-soak -- faults --faults 2000 --seed 1
//! ```
//!
//! They run in IPC and pid namespaces of their own, so they touch no queue and no process that they
//! did not make, and all of theirs vanish when they are interrupted.

#![allow(unreachable_pub, missing_docs)]

mod endurance;
mod faults;
mod report;
mod site;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Parser;
use mqfs_kit::{build, children_of, unshared};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use report::Report;
use site::Site;

/// Soak tests of mqfs
#[derive(Debug, Parser)]
#[command(name = "mqfs-soak", after_help = "Exit status: 0 everything held; 1 something did not.")]
enum SoakTest {
    Faults(faults::Opts),
    Endurance(endurance::Opts),
}

/// Names the folder for all files. Set for the process inside the namespaces.
const FOLDER: &str = "MQFS_SOAK_FOLDER";

fn main() -> Result<ExitCode> {
    let test = SoakTest::parse();
    let Some(folder) = std::env::var_os(FOLDER) else { return run_in_own_namespaces() };
    let mut report = Report::default();
    let site = Site::new(PathBuf::from(folder))?;
    let outcome = match test {
        SoakTest::Faults(opts) => faults::run(&opts, &site, &mut report),
        SoakTest::Endurance(opts) => endurance::run(&opts, &site, &mut report),
    };
    if let Err(error) = outcome {
        report.wrong(format!("{error:#}"));
    }
    Ok(report.finish())
}

/// Runs this program again as the first process of a pid namespace: it adopts the children of
/// servers that died, and the kernel ends every other process with it.
fn run_in_own_namespaces() -> Result<ExitCode> {
    build(&["--bins"]);
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1));
    let mut namespaces = vec!["--ipc", "--pid", "--mount-proc"];
    if !geteuid().is_root() {
        namespaces.extend(["--user", "--map-current-user"]);
    }
    let mut unshare = unshared(&namespaces, &again).env(FOLDER, folder.path()).spawn()?;
    let pid = unshare.id() as i32;
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    // unshare ends only after the whole namespace, so the folder is not written to any more then.
    ctrlc::set_handler(move || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        for first in children_of(pid) {
            let _ = kill(Pid::from_raw(first), Signal::SIGKILL);
        }
    })?;
    let held = unshare.wait()?.success();
    let code = if INTERRUPTED.load(Ordering::SeqCst) { 130 } else { u8::from(!held) };
    Ok(ExitCode::from(code))
}
