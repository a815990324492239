//! Landlock: the server and its children can only read, and only below the root and in /proc. It
//! enforces as much of this as the kernel supports.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags, path_beneath_rules,
};
use nix::errno::Errno;
use nix::sys::prctl;

use crate::sys::{credentials, geteuid};

/// The newest version that the crate knows.
const NEWEST: ABI = ABI::V9;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// Shows which processes are alive, their groups, and the limits of queues.
const PROCESSES: [&str; 1] = ["/proc"];

/// The restrictions of this thread and of all threads that it starts. Nothing can lift them.
pub(crate) struct Sandbox {
    /// For a child that has its file open. Making it costs more than entering it.
    sealed: RefCell<Option<OwnedFd>>,
}

impl Sandbox {
    /// Gives up what a server and its children do not need. Fails only if a resource is short.
    pub(crate) fn enter(root: impl AsFd) -> Result<Self, Errno> {
        if geteuid().is_root()
            && let Err(errno) = credentials::leave_session_keyring()
            && errno != Errno::ENOSYS
        {
            tracing::warn!(%errno, "children keep the keys of this session");
        }
        // No program that a child runs may give it more rights (set-user-ID, capabilities).
        prctl::set_no_new_privs()?;
        credentials::hide_memory()?;
        match server_ruleset(root).and_then(RulesetCreated::restrict_self) {
            Ok(status) => log(&status),
            Err(error) => do_without("no Landlock: only users' rights limit children", error)?,
        }
        let sealed = match sealed_ruleset() {
            Ok(sealed) => sealed.into(),
            Err(error) => do_without("children are not sealed", error).map(|()| None)?,
        };
        Ok(Self { sealed: RefCell::new(sealed) })
    }

    /// Gives up the right to open further files, except in /proc. Fails only if a resource is
    /// short. This closes the child's copy of the common ruleset: with it, a child could allow more
    /// to later children.
    pub(crate) fn seal(&self) -> Result<(), Errno> {
        // Not by the crate, whose code is another page fault. `enter` has set no_new_privs.
        match self.sealed.take().map_or(Ok(()), credentials::enter_landlock) {
            Err(errno) if errno != Errno::ENOMEM => {
                tracing::warn!(%errno, "a child is not sealed");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Closes the copy of the common ruleset, in the child of a session, which opens more files.
    pub(crate) fn close_ruleset(&self) {
        drop(self.sealed.take());
    }
}

/// Logs that the kernel does not support something. If only a resource is short, fails.
fn do_without(what: &str, error: RulesetError) -> Result<(), Errno> {
    let why = error.to_string();
    match Errno::from_raw(*landlock::Errno::from(error)) {
        errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => Err(errno),
        _ => {
            tracing::warn!(error = why, "{what}");
            Ok(())
        }
    }
}

fn log(status: &RestrictionStatus) {
    match status.landlock {
        LandlockStatus::Available { effective_abi: abi, .. } => {
            tracing::info!(?abi, "Landlock confines reading and denies writing");
        }
        LandlockStatus::NotEnabled => tracing::warn!(
            "Landlock is not enabled, only users' rights limit children: boot with lsm=landlock,..."
        ),
        LandlockStatus::NotImplemented => {
            tracing::warn!("no Landlock: only users' rights limit children");
        }
    }
}

/// The server's ruleset: it can read below the root and in /proc, and reach the socket of the
/// service manager that waits until the server is ready: sd_notify(3).
fn server_ruleset(root: impl AsFd) -> Result<RulesetCreated, RulesetError> {
    let service_manager = std::env::var_os("NOTIFY_SOCKET");
    deny_everything()?
        .create()?
        .add_rule(PathBeneath::new(root, READ))?
        .add_rules(path_beneath_rules(PROCESSES, READ))?
        .add_rules(path_beneath_rules(service_manager, AccessFs::ResolveUnix))
}

/// The ruleset of a child that has its file open. /proc shows whether its client is alive.
fn sealed_ruleset() -> Result<RulesetCreated, RulesetError> {
    deny_everything()?.create()?.add_rules(path_beneath_rules(PROCESSES, READ))
}

/// Denies all that this kernel can deny: landlock(7).
fn deny_everything() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::io::{self, Read};

    use nix::unistd::execv;

    use super::*;
    use crate::sys::{exit_now, exit_status, fork_child};

    fn denied<T>(outcome: io::Result<T>) -> bool {
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn a_server_reads_what_it_serves_and_a_child_then_nothing() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, secret) = (root.path().join("file"), outside.path().join("secret"));
        fs::write(&file, "file").unwrap();
        fs::write(&secret, "secret").unwrap();
        let program = root.path().join("false");
        fs::copy("/bin/false", &program).unwrap();
        let program = CString::new(program.into_os_string().into_encoded_bytes()).unwrap();
        let export = File::open(root.path()).unwrap();
        if Option::<OwnedFd>::from(sealed_ruleset().unwrap()).is_none() {
            return eprintln!("skipped: this kernel has no Landlock");
        }
        let child = fork_child(|| {
            let sandbox = Sandbox::enter(&export).unwrap();
            let mut opened = File::open(&file).unwrap();
            let mut checks = vec![
                ("processes are seen", fs::read("/proc/self/stat").is_ok()),
                ("no file outside is read", denied(fs::read(&secret))),
                ("no user database is read", denied(fs::read("/etc/passwd"))),
                ("none is made", denied(File::create(root.path().join("new")))),
                ("none is written", denied(File::options().append(true).open(&file))),
                ("none is removed", denied(fs::remove_file(&file))),
                ("none is run", execv(&program, &[c"false"]) == Err(Errno::EACCES)),
            ];
            let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
            let before = descriptors();
            sandbox.seal().unwrap();
            checks.extend([
                ("the ruleset is closed", descriptors() == before - 1),
                ("no other file is read", denied(fs::read(&file))),
                ("processes are seen still", fs::read("/proc/self/stat").is_ok()),
                ("the file is read", opened.read(&mut [0; 9]).is_ok_and(|read| read == 4)),
            ]);
            let failed = checks.into_iter().find(|(_, held)| !held);
            exit_now(failed.inspect(|(what, _)| eprintln!("not true: {what}")).map_or(0, |_| 1))
        });
        assert_eq!(exit_status(child.unwrap()), Some(0));
    }
}
