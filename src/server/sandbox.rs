//! What the server and its children may do to files at all: read, below the root and where looking
//! up names and processes leads. As much of it as the kernel can enforce.

use std::fmt;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags, path_beneath_rules,
};
use nix::errno::Errno;
use nix::sys::prctl;

use super::export::Export;
use crate::process::credentials;

/// The newest version that the library knows.
const NEWEST: ABI = ABI::V9;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

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

/// What this thread, and whatever it starts, is held to, for good.
pub(super) struct Sandbox {
    /// For a child that has its file open: made once, since making it costs more than entering it.
    sealed: Option<RulesetCreated>,
}

impl Sandbox {
    /// Gives up what a server and its children have no need of.
    ///
    /// # Errors
    /// None are known: a kernel without Landlock is told of in the log.
    pub(super) fn enter(export: &Export) -> Result<Self, Errno> {
        // Whatever a child became, no program that it could run would give it more.
        prctl::set_no_new_privs()?;
        credentials::close_memory()?;
        match serving(export).and_then(RulesetCreated::restrict_self) {
            Ok(RestrictionStatus {
                landlock: LandlockStatus::Available { effective_abi: abi, .. },
                ..
            }) => tracing::info!(?abi, "Landlock: reading is confined, writing is denied"),
            Ok(_) => tracing::warn!("this kernel has no Landlock: users' rights alone confine"),
            Err(error) => tracing::warn!(%error, "no Landlock: users' rights alone confine"),
        }
        Ok(Self { sealed: sealed().ok() })
    }

    /// Gives up, in a child that has its file open, all other files but those of /proc.
    pub(super) fn seal(&self) {
        let Some(ruleset) = self.sealed.as_ref().and_then(|ruleset| ruleset.try_clone().ok())
        else {
            return;
        };
        if let Err(error) = ruleset.restrict_self() {
            tracing::debug!(%error, "Landlock: not sealed");
        }
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

/// To read what lies below the root, and what looking up names and processes takes.
fn serving(export: &Export) -> Result<RulesetCreated, RulesetError> {
    everything()?
        .create()?
        .add_rule(PathBeneath::new(export, READ))?
        .add_rules(path_beneath_rules(PROCESSES, READ))?
        .add_rules(path_beneath_rules(NAMES, READ | AccessFs::ResolveUnix))
}

/// To see whether a client lives. No name is looked up any more, so no network is needed either.
fn sealed() -> Result<RulesetCreated, RulesetError> {
    everything()?
        .handle_access(AccessNet::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(PROCESSES, READ))
}

/// A ruleset that denies all that this kernel can deny, and that is not allowed by a rule: files;
/// signals and abstract sockets beyond the server and its children. Source: landlock(7).
fn everything() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{self, Read};
    use std::os::fd::OwnedFd;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{Uid, User};

    use super::*;
    use crate::process::{exit_now, fork_child};

    /// Runs checks in a child of its own, and fails for the first that does not hold.
    fn in_child(checks: impl FnOnce() -> Vec<bool>) {
        let child = fork_child(|| {
            let failed = checks().iter().position(|held| !held);
            exit_now(failed.map_or(0, |at| i32::try_from(at).unwrap_or(0) + 1))
        });
        let child = child.unwrap();
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    }

    fn denied<T>(outcome: io::Result<T>) -> bool {
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn a_server_reads_what_it_serves_and_what_names_take_and_a_child_then_nothing() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, secret) = (root.path().join("file"), outside.path().join("secret"));
        fs::write(&file, "file").unwrap();
        fs::write(&secret, "secret").unwrap();
        let export = Export::open_root(root.path()).unwrap();
        let status = serving(&export).unwrap();
        if Option::<OwnedFd>::from(status).is_none() {
            return eprintln!("skipped: this kernel has no Landlock");
        }
        in_child(|| {
            let sandbox = Sandbox::enter(&export).unwrap();
            let mut opened = File::open(&file).unwrap();
            let mut held = vec![
                fs::read("/proc/self/stat").is_ok(),
                User::from_uid(Uid::from_raw(0)).is_ok(),
                denied(fs::read(&secret)),
                denied(File::create(root.path().join("new"))),
                denied(File::options().append(true).open(&file)),
                denied(fs::remove_file(&file)),
                nix::unistd::execv(c"/bin/true", &[c"true"]).is_err(),
            ];
            sandbox.seal();
            held.extend([
                denied(fs::read(&file)),
                denied(fs::read("/etc/passwd")),
                fs::read("/proc/self/stat").is_ok(),
                opened.read_to_end(&mut Vec::new()).is_ok_and(|read| read == 4),
            ]);
            held
        });
    }
}
