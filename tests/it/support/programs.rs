//! The programs under test, as processes that end with the test.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::Key;
use tempfile::TempDir;

use super::{DEADLINE, children_of, clear, state_of, unique_key, wait_until};

/// One of the package's programs, or one of its examples.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(match name {
        "mqfs-server" => PathBuf::from(env!("CARGO_BIN_EXE_mqfs-server")),
        "mqfs-client" => PathBuf::from(env!("CARGO_BIN_EXE_mqfs-client")),
        "mqfs-reap" => PathBuf::from(env!("CARGO_BIN_EXE_mqfs-reap")),
        "mqfs-stat" => PathBuf::from(env!("CARGO_BIN_EXE_mqfs-stat")),
        example => example_path(example),
    });
    command.env_remove("MQFS_KEY").stdin(Stdio::null());
    command
}

/// Cargo builds the examples for `cargo test`, but not for `cargo test --test it`.
fn example_path(name: &str) -> PathBuf {
    let path =
        PathBuf::from(env!("CARGO_BIN_EXE_mqfs-server")).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}

/// A user who is neither root nor anybody.
pub const SOMEBODY: u32 = 65_532;

/// The programs in a folder where every user may run them, whatever folder they were built in.
#[derive(Debug)]
pub struct ForEverybody {
    folder: TempDir,
}

impl ForEverybody {
    #[track_caller]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["mqfs-server", "mqfs-client", "mqfs-reap", "mqfs-stat"] {
            // By another process: a file that this one has open for writing could be inherited by
            // whatever another test forks just now, and then cannot be run (ETXTBSY).
            let built = program(name);
            run(Command::new("cp").arg(built.get_program()).arg(folder.path())).success();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program to be run as this user.
    pub fn program(&self, name: &str, uid: u32) -> Command {
        let mut command = Command::new(self.path(name));
        command.env_remove("MQFS_KEY").stdin(Stdio::null()).uid(uid).gid(uid);
        command
    }

    /// A client of the server under this key.
    pub fn client(&self, key: Key, uid: u32) -> Command {
        let mut command = self.program("mqfs-client", uid);
        command.args(["-k", &key.to_string()]);
        command
    }

    /// A server under this key, to be told more.
    pub fn server(&self, key: Key, uid: u32) -> Command {
        let mut command = self.program("mqfs-server", uid);
        command.args(["-k", &key.to_string()]);
        command
    }
}

/// How a program ended, and what it wrote.
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

/// A program that runs; killed when the test ends before it does.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the program starts"))
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Stops it, and waits until it stands: until then a message may still be handed to it.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("it stands", || state_of(self.pid()) == Some('T'));
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits for its end, and fails the test if it does not come.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits for its end before reading what it wrote: to be read would let it go on.
    #[track_caller]
    pub fn finish_unread(mut self) -> Finished {
        self.wait();
        self.finish()
    }

    /// Reads what it writes until it ends. Its output must be piped.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let stdout = self.0.stdout.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).unwrap();
                bytes
            })
        });
        let stderr = self.0.stderr.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        let status = self.wait();
        Finished {
            status,
            stdout: stdout.map(|thread| thread.join().unwrap()).unwrap_or_default(),
            stderr: stderr.map(|thread| thread.join().unwrap()).unwrap_or_default(),
        }
    }
}

impl Drop for Running {
    /// Asks it to end, so that it removes what it made, before it is killed.
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid());
        let start = Instant::now();
        while !self.has_ended() {
            if start.elapsed() > DEADLINE / 3 {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGTERM);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs a program to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).finish()
}

/// `mqfs-client -k KEY`, to be told more.
pub fn client(key: Key) -> Command {
    let mut command = program("mqfs-client");
    command.args(["-k", &key.to_string()]);
    command
}

/// `mqfs-reap` with arguments, run to its end.
#[track_caller]
pub fn reap(arguments: &[&str]) -> Finished {
    run(program("mqfs-reap").args(arguments))
}

/// `mqfs-stat -k KEY`, to be told more.
pub fn stat_of(key: Key) -> Command {
    let mut command = program("mqfs-stat");
    command.args(["-k", &key.to_string()]);
    command
}

/// A server under a key of its own, which can be asked.
#[derive(Debug)]
pub struct Server {
    pub key: Key,
    running: Running,
    log: TempDir,
    has_successor: bool,
}

impl Server {
    /// `mqfs-server` with arguments, on a key that no other test has.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        Self::start_on(unique_key(), arguments)
    }

    #[track_caller]
    pub fn start_on<S: AsRef<OsStr>>(key: Key, arguments: &[S]) -> Self {
        let mut command = program("mqfs-server");
        command.args(["-k", &key.to_string()]).args(arguments);
        Self::start_as(key, &mut command)
    }

    /// Any command that ends up as a server under this key.
    #[track_caller]
    pub fn start_as(key: Key, command: &mut Command) -> Self {
        let log = tempfile::tempdir().unwrap();
        let stderr = File::create(log.path().join("log")).unwrap();
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(stderr));
        let stdout = running.child().stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let server = Self { key, running, log, has_successor: false };
        assert!(line.starts_with("mqfs-server: ready: key "), "{line:?}\n{}", server.log());
        server
    }

    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// The children that answer requests, and the one that keeps house while it does.
    pub fn children(&self) -> Vec<i32> {
        children_of(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    #[track_caller]
    pub fn freeze(&self) {
        self.running.freeze();
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path().join("log")).unwrap_or_default()
    }

    /// A client of this server, to be told more.
    pub fn client(&self) -> Command {
        client(self.key)
    }

    /// Fetches a file with `mqfs-client`.
    #[track_caller]
    pub fn fetch(&self, path: impl AsRef<OsStr>) -> Vec<u8> {
        run(self.client().arg(path)).success()
    }

    /// Leaves what it left under its key to the next server there.
    pub fn make_way(mut self) {
        self.has_successor = true;
    }

    /// Stops it as a service manager would, and fails the test unless it ends well.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.running.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its children end by themselves once it is asked to stop; killed, it cannot ask them.
        // Not once it was waited for: its pid may be another process's by now.
        if !self.running.has_ended() {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGCONT);
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        }
        let start = Instant::now();
        while !self.running.has_ended() && start.elapsed() < DEADLINE / 3 {
            thread::sleep(Duration::from_millis(5));
        }
        if !self.has_successor {
            clear(self.key);
        }
    }
}
