//! What the server and its children may do to files at all: read, below the root and where looking
//! up names and processes leads. As much of it as the kernel can enforce.

use std::cell::RefCell;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags, path_beneath_rules,
};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::geteuid;

use super::export::{Export, Opened};
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
#[derive(Debug)]
pub(super) struct Sandbox {
    /// For a child that has its file open. Made once: making it costs more than entering it.
    sealed: RefCell<Option<RulesetCreated>>,
}

/// A file that is open in a process that can open no other, but for those of /proc.
#[derive(Debug)]
pub(super) struct Sealed(Opened);

impl Sandbox {
    /// Gives up what a server and its children have no need of.
    ///
    /// # Errors
    /// None are known: a kernel without Landlock is told of in the log.
    pub(super) fn enter(export: &Export) -> Result<Self, Errno> {
        if geteuid().is_root() {
            prepare_to_become_others();
        }
        // Whatever a child became, no program that it could run would give it more.
        prctl::set_no_new_privs()?;
        credentials::close_memory()?;
        match serving(export).and_then(RulesetCreated::restrict_self) {
            Ok(status) => tell(&status),
            Err(error) => tracing::warn!(%error, "no Landlock: users' rights alone confine"),
        }
        let sealed =
            sealed().inspect_err(|error| tracing::warn!(%error, "children are not sealed"));
        Ok(Self { sealed: RefCell::new(sealed.ok()) })
    }

    /// Gives up, in a child that has its file open, all others. Takes the child's own copy of the
    /// ruleset, so that its descriptor is closed: it could be used to allow more to later children.
    pub(super) fn seal(&self, opened: Opened) -> Sealed {
        if let Some(Err(error)) = self.sealed.take().map(RulesetCreated::restrict_self) {
            tracing::warn!(%error, "a child is not sealed");
        }
        Sealed(opened)
    }
}

impl Sealed {
    pub(super) fn into_opened(self) -> Opened {
        self.0
    }
}

/// What every child of root's server would otherwise do, or have.
fn prepare_to_become_others() {
    credentials::load_name_services();
    match credentials::leave_session_keyring() {
        Ok(()) | Err(Errno::ENOSYS) => {}
        Err(errno) => tracing::warn!(%errno, "children keep the keys of this session"),
    }
}

fn tell(status: &RestrictionStatus) {
    match status.landlock {
        LandlockStatus::Available { effective_abi: abi, .. } => {
            tracing::info!(?abi, "Landlock confines reading and denies writing");
        }
        LandlockStatus::NotEnabled => tracing::warn!(
            "Landlock is not enabled, users' rights alone confine: boot with lsm=landlock,..."
        ),
        LandlockStatus::NotImplemented => {
            tracing::warn!("this kernel has no Landlock: users' rights alone confine");
        }
    }
}

/// To read what lies below the root, and what looking up names and processes takes.
fn serving(export: &Export) -> Result<RulesetCreated, RulesetError> {
    let ruleset = everything()?
        .create()?
        .add_rule(PathBeneath::new(export, READ))?
        .add_rules(path_beneath_rules(PROCESSES, READ))?;
    if !geteuid().is_root() {
        return Ok(ruleset); // it becomes nobody, so it looks up nobody
    }
    ruleset.add_rules(path_beneath_rules(NAMES, READ | AccessFs::ResolveUnix))
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
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::io::{self, Read};
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use nix::sys::stat::fstat;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{Uid, User, execv};

    use super::*;
    use crate::process::{exit_now, fork_child};
    use crate::wire::Range;

    /// Runs checks in a child of its own, and fails for the first that does not hold.
    fn in_child(checks: impl FnOnce() -> Vec<(&'static str, bool)>) {
        let child = fork_child(|| {
            let failed = checks().into_iter().find(|(_, held)| !held);
            if let Some((what, _)) = failed {
                eprintln!("does not hold: {what}");
            }
            exit_now(failed.map_or(0, |_| 1))
        });
        let child = child.unwrap();
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    }

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
        let export = Export::open_root(root.path()).unwrap();
        if Option::<OwnedFd>::from(sealed().unwrap()).is_none() {
            return eprintln!("skipped: this kernel has no Landlock");
        }
        in_child(|| {
            let sandbox = Sandbox::enter(&export).unwrap();
            let mut opened = open(&file);
            let mut checks = vec![
                ("processes are seen", fs::read("/proc/self/stat").is_ok()),
                ("the root is known", User::from_uid(Uid::from_raw(0)).is_ok()),
                ("no file outside is read", denied(fs::read(&secret))),
                ("none is made", denied(File::create(root.path().join("new")))),
                ("none is written", denied(File::options().append(true).open(&file))),
                ("none is removed", denied(fs::remove_file(&file))),
                ("none is run", execv(&program, &[c"false"]) == Err(Errno::EACCES)),
            ];
            let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
            let before = descriptors();
            opened = sandbox.seal(opened).into_opened();
            checks.extend([
                ("the ruleset is closed", descriptors() == before - 1),
                ("no other file is read", denied(fs::read(&file))),
                ("no name is looked up", denied(fs::read("/etc/passwd"))),
                ("processes are seen still", fs::read("/proc/self/stat").is_ok()),
                ("the file is read", opened.file.read(&mut [0; 9]).is_ok_and(|read| read == 4)),
            ]);
            checks
        });
    }

    fn open(path: &Path) -> Opened {
        let file = File::open(path).unwrap();
        Opened { stat: fstat(&file).unwrap(), file, range: Range::WHOLE }
    }
}
