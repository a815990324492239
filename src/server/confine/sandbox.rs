//! What the server and its children may do to files at all: read, below the root and where looking
//! up names and processes leads. As much of it as the kernel can enforce.

use std::cell::RefCell;
use std::ffi::OsString;

use crate::sys::geteuid;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags, path_beneath_rules,
};
use nix::errno::Errno;
use nix::sys::prctl;

use crate::server::resolve::export::{Export, Opened};
use crate::sys::credentials;

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
pub(crate) struct Sandbox {
    /// For a child that has its file open. Made once: making it costs more than entering it.
    sealed: RefCell<Option<RulesetCreated>>,
}

/// What is open in a process that can open nothing else, but for files of /proc, and of a tree what
/// lies below it.
#[derive(Debug)]
pub(crate) struct Sealed<'a>(Opened<'a>);

impl Sandbox {
    /// Gives up what a server and its children have no need of.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`. A kernel without Landlock is told of in the log.
    pub(crate) fn enter(export: &Export) -> Result<Self, Errno> {
        if geteuid().is_root() {
            prepare_to_become_others();
        }
        // Whatever a child became, no program that it could run would give it more.
        prctl::set_no_new_privs()?;
        credentials::close_memory()?;
        match serving(export).and_then(RulesetCreated::restrict_self) {
            Ok(status) => tell(&status),
            Err(error) => do_without("no Landlock: users' rights alone confine", error)?,
        }
        let sealed = match sealed() {
            Ok(sealed) => Some(sealed),
            Err(error) => do_without("children are not sealed", error).map(|()| None)?,
        };
        Ok(Self { sealed: RefCell::new(sealed) })
    }

    /// Gives up, in a child that has its file open, all others. Takes the child's own copy of the
    /// ruleset, so that its descriptor is closed: it could be used to allow more to later children.
    ///
    /// A child that walks a tree makes a ruleset of its own: to add to the one that all have in common
    /// would allow the tree to all of them.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`: there is no room for that just now.
    pub(crate) fn seal<'a>(&self, opened: Opened<'a>) -> Result<Sealed<'a>, Errno> {
        let (common, not_sealed) = (self.sealed.take(), "a child is not sealed");
        let sealed = match opened.walked() {
            Some(directory) => {
                drop(common);
                let rule = PathBeneath::new(directory, READ);
                Some(sealed().and_then(|ruleset| ruleset.add_rule(rule)))
            }
            None => common.map(Ok),
        };
        if let Some(Err(error)) =
            sealed.map(|sealed| sealed.and_then(RulesetCreated::restrict_self))
        {
            do_without(not_sealed, error)?;
        }
        Ok(Sealed(opened))
    }
}

impl<'a> Sealed<'a> {
    pub(crate) fn into_opened(self) -> Opened<'a> {
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

/// What the kernel cannot do is done without, but not what it has no room for just now.
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
        .add_rules(path_beneath_rules(PROCESSES, READ))?
        .add_rules(path_beneath_rules(service_manager(), AccessFs::ResolveUnix))?;
    if !geteuid().is_root() {
        return Ok(ruleset); // it becomes nobody, so it looks up nobody
    }
    ruleset.add_rules(path_beneath_rules(NAMES, READ | AccessFs::ResolveUnix))
}

/// The socket of who is to be told that the server can be asked: sd_notify(3).
fn service_manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET")
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

    use nix::unistd::{Uid, User, execv};

    use super::*;
    use crate::server::resolve::PathFd;
    use crate::server::send::Walk;
    use crate::server::send::file::OpenedFile;
    use crate::sys::{exit_now, exit_status, fork_child};
    use crate::wire::{Range, Start};

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
        assert_eq!(exit_status(child), Some(0));
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
            let opened = Opened::File(open(&file));
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
            let Opened::File(mut opened) = sandbox.seal(opened).unwrap().into_opened() else {
                unreachable!()
            };
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

    fn open(path: &Path) -> OpenedFile {
        OpenedFile::new(File::open(path).unwrap(), Range::WHOLE, None).unwrap()
    }

    #[test]
    fn a_child_that_walks_a_tree_reads_what_is_below_it_and_no_other_child_does() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        for file in [tree.join("below/file"), root.path().join("beside"), outside.path().join("x")]
        {
            fs::write(file, "file").unwrap();
        }
        let export = Export::open_root(root.path()).unwrap();
        if Option::<OwnedFd>::from(sealed().unwrap()).is_none() {
            return eprintln!("skipped: this kernel has no Landlock");
        }
        in_child(|| {
            let sandbox = Sandbox::enter(&export).unwrap();
            let file = open(&root.path().join("beside"));
            let walk = fork_child(|| {
                let found = PathFd::new(File::open(&tree).unwrap().into()).unwrap();
                let walk = Opened::Tree(Box::new(Walk::open(found, Start::BEGINNING).unwrap()));
                let _sealed = sandbox.seal(walk).unwrap();
                let held = fs::read(tree.join("below/file")).is_ok()
                    && fs::read_dir(tree.join("below")).is_ok()
                    && denied(fs::read(root.path().join("beside")))
                    && denied(fs::read_dir(root.path()))
                    && denied(fs::read(outside.path().join("x")))
                    && denied(File::create(tree.join("new")));
                exit_now(i32::from(!held))
            });
            let walk = walk.unwrap();
            let walked = exit_status(walk) == Some(0);
            // The ruleset that all have in common allows no more than before.
            let _sealed = sandbox.seal(Opened::File(file)).unwrap();
            vec![
                ("the tree alone is read", walked),
                ("another child does not read it", denied(fs::read(tree.join("below/file")))),
            ]
        });
    }
}
