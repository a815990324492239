//! What the server and its children may do to files at all: read, below the root and where looking
//! up names and processes leads. As much of it as the kernel can enforce.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::errno::Errno;
use nix::sys::prctl;

use super::export::Export;
use crate::process::credentials;

/// Where the C library, and the services that it may ask, keep users and groups: nsswitch.conf(5).
const NAMES: [&str; 11] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/run",
    "/var/db",
    "/var/lib/extrausers",
    "/var/lib/sss",
];

/// Who lives, and the limits of queues.
const PROCESSES: [&str; 1] = ["/proc"];

/// Restricts this thread, and whatever it starts, for good.
///
/// # Errors
/// None are known: a kernel without Landlock is told of in the log.
pub(super) fn enter(export: &Export) -> Result<(), Errno> {
    // Whatever a child became, no program that it could run would give it more.
    prctl::set_no_new_privs()?;
    credentials::close_memory()?;
    match landlock(export) {
        Ok(LandlockStatus::Available { effective_abi: abi, .. }) => {
            tracing::info!(?abi, "Landlock: reading is confined, writing is denied");
        }
        Ok(_) => tracing::warn!("this kernel has no Landlock: users' rights alone confine"),
        Err(error) => tracing::warn!(%error, "no Landlock: users' rights alone confine"),
    }
    Ok(())
}

/// Of everything that the newest version knows, what is not allowed here is denied. Signals and
/// abstract sockets do not reach beyond the server and its children; landlock(7).
fn landlock(export: &Export) -> Result<LandlockStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let look_up = read | AccessFs::ResolveUnix;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V9))?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?
        .add_rule(PathBeneath::new(export, read))?
        .add_rules(path_beneath_rules(PROCESSES, read))?
        .add_rules(path_beneath_rules(NAMES, look_up))?
        .restrict_self()?;
    Ok(status.landlock)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{Uid, User};

    use super::*;
    use crate::process::{exit_now, fork_child};

    #[test]
    fn inside_there_is_the_root_and_what_names_take_and_nothing_is_written() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let (file, secret) = (root.path().join("file"), outside.path().join("secret"));
        fs::write(&file, "file").unwrap();
        fs::write(&secret, "secret").unwrap();
        let export = Export::open_root(root.path()).unwrap();
        let child = fork_child(|| {
            enter(&export).unwrap();
            let denied = |outcome: io::Result<File>| {
                outcome.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            };
            let holds = [
                matches!(landlock(&export), Ok(LandlockStatus::Available { .. })),
                fs::read(&file).is_ok(),
                fs::read("/proc/self/stat").is_ok(),
                User::from_uid(Uid::from_raw(0)).is_ok(),
                denied(File::open(&secret)),
                denied(File::create(root.path().join("new"))),
                denied(File::options().append(true).open(&file)),
                fs::remove_file(&file).is_err(),
                nix::unistd::execv(c"/bin/true", &[c"true"]).is_err(),
            ];
            // The number of the first that does not hold; 0 if all do.
            exit_now(holds.iter().position(|held| !held).map_or(0, |at| at as i32 + 1))
        })
        .unwrap();
        let ended = waitpid(child, None).unwrap();
        if ended == WaitStatus::Exited(child, 1) {
            return eprintln!("skipped: this kernel has no Landlock");
        }
        assert_eq!(ended, WaitStatus::Exited(child, 0));
    }
}
