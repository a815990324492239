//! Servers with files to serve: one without a periodic reaper, and one that every user may ask.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::{Key, Queue};
use tempfile::TempDir;

use crate::{
    ForEverybody, Process, Server, Stuck, VICTIM, exists, noise, queue_of, run, unique_key, with,
};

/// A server of an empty folder that every user may look into, and the folder.
pub fn serve_folder(arguments: &[&str]) -> (Server, TempDir) {
    let folder = public_folder();
    let root = folder.path().to_str().unwrap();
    (Server::start(&[&["--root", root], arguments].concat()), folder)
}

/// The same with `/small`, and `/file`, which has so many bytes of noise.
pub fn serve_file(length: usize, arguments: &[&str]) -> (Server, TempDir, Vec<u8>) {
    let (server, folder) = serve_folder(arguments);
    let file = noise(length);
    fs::write(folder.path().join("file"), &file).unwrap();
    fs::write(folder.path().join("small"), "small").unwrap();
    (server, folder, file)
}

/// The same. It has removed orphans once and does so again only after an hour, so that only
/// `mqfs-reap` removes any.
pub fn serve_quietly(length: usize, arguments: &[&str]) -> (Server, TempDir, Vec<u8>) {
    let served = serve_file(length, &[&["--reap-interval", "1h"], arguments].concat());
    served.0.fetch("/small"); // it removes orphans before its first request
    served.0.wait_until_idle();
    served
}

/// Such a server with a `/file` that is larger than any queue.
#[derive(Debug)]
pub struct QuietServer {
    pub server: Server,
    pub file: Vec<u8>,
    root: TempDir,
}

impl QuietServer {
    pub fn start() -> Self {
        let (server, root, file) = serve_quietly(4 << 20, &[]);
        Self { server, file, root }
    }

    /// A client that asks for `/file`, to be started.
    pub fn client(&self) -> Command {
        with(self.server.client(), &["/file"])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    #[track_caller]
    pub fn stop_children(&self) -> StoppedChildren {
        let children = self.server.children();
        for &child in &children {
            assert!(Process::with_pid(child).is_some_and(Process::freeze), "the child ended");
        }
        StoppedChildren(children)
    }

    #[track_caller]
    pub fn stop(self) {
        self.server.wait_until_idle();
    }
}

/// Stopped children, which go on when their handle goes.
#[derive(Debug)]
pub struct StoppedChildren(Vec<i32>);

impl Drop for StoppedChildren {
    fn drop(&mut self) {
        for &child in &self.0 {
            let _ = kill(Pid::from_raw(child), Signal::SIGCONT);
        }
    }
}

/// A server that every user may ask. It serves `/file`, which is larger than any queue.
#[derive(Debug)]
pub struct Site {
    pub server: Server,
    pub programs: ForEverybody,
    pub file: Vec<u8>,
    uid: u32,
    folder: TempDir,
}

impl Site {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(0, arguments)
    }

    /// A server of this user.
    pub fn start_as(uid: u32, arguments: &[&str]) -> Self {
        Self::start_by(unique_key(), uid, arguments, |server| server)
    }

    /// A server of this user, under this key, started by another command.
    pub fn start_by(
        key: Key,
        uid: u32,
        arguments: &[&str],
        by: impl FnOnce(Command) -> Command,
    ) -> Self {
        let (programs, folder) = (ForEverybody::new(), public_folder());
        let file = noise(4 << 20);
        fs::write(folder.path().join("file"), &file).unwrap();
        let mut command = programs.server(key, uid);
        command.args(["--mode", "0622"]).args(arguments).arg("--root").arg(folder.path());
        let server = Server::start_as(key, &mut by(command));
        Self { server, programs, file, uid, folder }
    }

    pub fn requests(&self) -> Queue {
        queue_of(self.server.key).unwrap()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: &str, mode: u32, owner: (u32, u32), content: &str) {
        let path = self.at(name);
        fs::write(&path, content).unwrap();
        chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    /// A user's client, without the path.
    pub fn client(&self, uid: u32) -> Command {
        let client = self.programs.client(self.server.key, uid);
        with(client, &["--server-uid", &self.uid.to_string()])
    }

    /// The victim's client for `/file`, to be started.
    pub fn victim(&self) -> Command {
        with(self.client(VICTIM), &["/file"])
    }

    #[track_caller]
    pub fn finish_intact(&self, victim: Stuck) {
        let queue = victim.queue;
        assert!(victim.finish() == self.file, "the victim's file is not what it was");
        assert!(!exists(queue), "a queue is left");
    }

    #[track_caller]
    pub fn fetch_intact(&self) {
        assert!(run(&mut self.victim()).success() == self.file, "the file is not what it was");
    }

    /// What the client of this user says of a path that is denied, after the path and before a
    /// remedy.
    #[track_caller]
    pub fn denied(&self, uid: u32, path: &str) -> String {
        let denied = run(self.client(uid).arg(path));
        assert_eq!(denied.code(), Some(1), "{path}: {}", denied.stderr);
        assert_eq!(denied.stdout, b"", "{path}");
        let line = denied.stderr.strip_prefix(&format!("mqfs-client: {path}: "));
        let line = line.unwrap_or(&denied.stderr).trim_end();
        line.split(" (").next().unwrap_or_default().to_owned()
    }

    /// Fails the test unless the server lives, serves, has no child left, and ends well.
    #[track_caller]
    pub fn stop(self) {
        self.fetch_intact();
        self.server.wait_until_idle();
    }
}

pub fn public_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}
