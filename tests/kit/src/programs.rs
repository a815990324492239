//! The programs under test, as processes that end with the test.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::Key;
use tempfile::TempDir;

use crate::{DEADLINE, state_of, wait_until};

/// The folder that holds the programs: `target/PROFILE`, where cargo put this one or its `deps`.
pub fn build_folder() -> PathBuf {
    let own = std::env::current_exe().expect("/proc/self/exe");
    let folder = own.parent().expect("a folder");
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => folder.parent().expect("target/PROFILE").to_owned(),
        _ => folder.to_owned(),
    }
}

/// Builds targets of mqfs, such as `--bins`, by the profile of this program. Cargo builds them for
/// `cargo test`, but neither for `cargo bench` nor for `cargo run -p mqfs-soak`.
///
/// Does nothing if cargo did not start this program.
pub fn build(targets: &[&str]) {
    let Some(cargo) = std::env::var_os("CARGO") else { return };
    let folder = build_folder();
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "mqfs", "--profile", profile]).args(targets);
    command.arg("--target-dir").arg(folder.parent().expect("target/")).current_dir(root);
    assert!(command.status().expect("cargo starts").success(), "{targets:?} cannot be built");
}

/// One of mqfs's programs, or one of its examples.
pub fn program(name: &str) -> Command {
    let folder = build_folder();
    let folder = if name.starts_with("mqfs-") { folder } else { folder.join("examples") };
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: cargo build --bins --examples", path.display());
    let mut command = Command::new(path);
    command.env_remove("MQFS_KEY").stdin(Stdio::null());
    command
}

/// A user without privileges who owns nothing.
pub const SOMEBODY: u32 = 65_532;

/// Copies of the programs in a folder where every user may run them.
#[derive(Debug)]
pub struct ForEverybody {
    folder: TempDir,
}

impl ForEverybody {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["mqfs-server", "mqfs-client", "mqfs-reap", "mqfs-stat"] {
            // Another process copies: if this one did, a child that another test forks meanwhile
            // would inherit the open file, and nobody could run it (ETXTBSY).
            let built = program(name);
            run(Command::new("cp").arg(built.get_program()).arg(folder.path())).success();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn program(&self, name: &str, uid: u32) -> Command {
        let mut command = Command::new(self.path(name));
        command.env_remove("MQFS_KEY").stdin(Stdio::null()).uid(uid).gid(uid);
        command
    }

    pub fn client(&self, key: Key, uid: u32) -> Command {
        under(key, self.program("mqfs-client", uid))
    }

    pub fn server(&self, key: Key, uid: u32) -> Command {
        under(key, self.program("mqfs-server", uid))
    }
}

#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails the test unless the program succeeded; its standard output.
    #[track_caller]
    pub fn success(self) -> Vec<u8> {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self.stdout
    }
}

/// A program that runs. Ends with its handle.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Whether the test knows how it ended.
    pub(crate) is_judged: bool,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().expect("the program starts"), is_judged: false }
    }

    pub fn piped(command: &mut Command) -> Self {
        Self::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The file that the program is writing and that has no name yet, or a temporary one.
    pub fn incomplete_file(&self) -> Option<fs::Metadata> {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?;
        fds.flatten().find_map(|fd| {
            let file = fs::metadata(fd.path()).ok().filter(fs::Metadata::is_file)?;
            let name = fs::read_link(fd.path()).ok()?;
            let is_temporary = name.as_os_str().as_bytes().ends_with(b".part");
            (file.nlink() == 0 || is_temporary).then_some(file)
        })
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Stops it, and waits until it is stopped: until then it may still receive a message.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("it is stopped", || state_of(self.pid()) == Some('T'));
    }

    pub fn has_ended(&mut self) -> bool {
        self.ended().is_some()
    }

    /// Its exit status; None while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        self.is_judged |= status.is_some();
        status
    }

    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end, and fails the test if it does not come.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.ended();
            status.is_some()
        });
        status.unwrap()
    }

    /// Reads what it writes until it ends. Its output must be piped.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let (stdout, stderr) =
            (read_all(self.child.stdout.take()), read_all(self.child.stderr.take()));
        let status = self.wait();
        let stderr = stderr.join().unwrap();
        Finished {
            status,
            stdout: stdout.join().unwrap(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

impl Drop for Running {
    /// Asks it to end, so that it removes what it made, before it is killed.
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid());
        let start = Instant::now();
        while !self.has_ended() {
            if start.elapsed() > DEADLINE / 3 {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGTERM);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    Running::piped(command).finish()
}

/// `mqfs-client --key KEY`, without further arguments.
pub fn client(key: Key) -> Command {
    under(key, program("mqfs-client"))
}

pub fn server_of(key: Key) -> Command {
    under(key, program("mqfs-server"))
}

/// `mqfs-reap` with these arguments, run to its end.
#[track_caller]
pub fn reap(arguments: &[&str]) -> Finished {
    run(program("mqfs-reap").args(arguments))
}

pub fn stat_of(key: Key) -> Command {
    under(key, program("mqfs-stat"))
}

/// The same command with `--key KEY`.
pub fn under(key: Key, command: Command) -> Command {
    with(command, &["--key", &key.to_string()])
}

pub fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// The same command, started by another one, such as `unshare --mount`.
pub fn by(starter: &[&str], command: &Command) -> Command {
    let mut started = Command::new(starter[0]);
    started.args(&starter[1..]).arg(command.get_program()).args(command.get_args());
    started.env_remove("MQFS_KEY").stdin(Stdio::null());
    started
}

/// The same command as this user, without other groups.
pub fn as_uid(uid: u32, command: &Command) -> Command {
    let uid = uid.to_string();
    by(&["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"], command)
}
