//! The servers that are compared: mqfs, the textbook's, and others. Each ends with its handle.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mqfs_kit::{Running, children_of, cpu_with_children_of, wait_until};

use crate::stage::{Stage, installed};

/// Whose a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    User,
    Root,
}

impl Owner {
    /// Lets the program run as root, if this is root. It has another user before.
    pub(crate) fn set(self, program: &mut Command) {
        if self == Self::Root {
            program.uid(0).gid(0);
        }
    }
}

/// An argument of a server of mqfs.
pub(crate) const WITHOUT_WINDOWS: &[&str] = &["--window", "0"];

#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    /// Where it takes requests: its key, the path of its socket, or its port.
    pub(crate) at: String,
}

impl Server {
    pub(crate) fn mqfs(stage: &Stage) -> Self {
        Self::mqfs_of(stage, "", &stage.data(), Owner::User, &[])
    }

    /// The same of another build, whose folder ends with a slash, with further arguments.
    pub(crate) fn of_build(stage: &Stage, build: &str, arguments: &[&str]) -> Self {
        Self::mqfs_of(stage, build, &stage.data(), Owner::User, arguments)
    }

    /// A server of mqfs: of which build, for the files of which folder, whose, and how.
    pub(crate) fn mqfs_of(
        stage: &Stage,
        build: &str,
        data: &Path,
        owner: Owner,
        arguments: &[&str],
    ) -> Self {
        let key = stage.key().to_string();
        let mut command = stage.command(format!("{build}mqfs-server"));
        command.args(["--quiet", "--key", &key, "--root"]).arg(data).args(arguments);
        if owner == Owner::Root {
            // It logs that it refuses a user who has --max-per-user children: the clients retry.
            owner.set(&mut command);
            command.stderr(Stdio::null());
            if !arguments.contains(&"--mode") {
                command.args(["--mode", "0622"]);
            }
        }
        Self::ready_by_line(&mut command, key)
    }

    pub(crate) fn textbook(stage: &Stage, owner: Owner) -> Self {
        let key = stage.key().to_string();
        let mut command = stage.command("textbook_server");
        owner.set(&mut command);
        command.args(["--key", &key]); // blocking, 8,192 bytes, requests of 4,100
        Self::ready_by_line(&mut command, key)
    }

    /// nginx as one process, with sendfile, on a UNIX socket.
    pub(crate) fn nginx(stage: &Stage, data: &Path) -> Option<Self> {
        let program = wanted("nginx")?;
        wanted("curl")?;
        let folder = own_folder(stage, "nginx");
        let configuration = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; default_type text/plain;\n\
             client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;\n\
             uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; open_file_cache max=16;\n\
             server {{ listen unix:{0}/socket backlog=1024; root {1}; }} }}\n",
            folder.display(),
            data.display()
        );
        fs::write(folder.join("nginx.conf"), configuration).expect("our own folder");
        let mut command = stage.command(program);
        command.arg("-p").arg(&folder).arg("-e").arg(folder.join("error.log"));
        command.arg("-c").arg(folder.join("nginx.conf"));
        Some(Self::ready_by_socket(&mut command, &folder.join("socket")))
    }

    /// The rsync daemon, on a port of the loopback interface.
    pub(crate) fn rsync(stage: &Stage, data: &Path) -> Option<Self> {
        let program = wanted("rsync")?;
        let folder = own_folder(stage, "rsync");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.ok()?.port();
        let configuration = format!(
            "use chroot = no\npid file = {0}/pid\nlog file = {0}/log\n[data]\npath = {1}\n",
            folder.display(),
            data.display()
        );
        fs::write(folder.join("rsyncd.conf"), configuration).expect("our own folder");
        let mut command = stage.command(program);
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg("--config").arg(folder.join("rsyncd.conf"));
        let server = Self { running: Running::start(&mut command), at: port.to_string() };
        wait_until("rsync answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(server)
    }

    fn ready_by_line(command: &mut Command, at: String) -> Self {
        let mut running = Running::start(command.stdout(Stdio::piped()));
        let line = running.first_line();
        assert!(line.contains("ready"), "{command:?} said {line:?}");
        Self { running, at }
    }

    fn ready_by_socket(command: &mut Command, socket: &Path) -> Self {
        let running = Running::start(command);
        let server = Self { running, at: socket.display().to_string() };
        wait_until("the server answers", || UnixStream::connect(socket).is_ok());
        server
    }

    pub(crate) fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// The CPU seconds of the server and of its children, which must have ended.
    pub(crate) fn cpu(&self) -> f64 {
        wait_until("the server's children ended", || children_of(self.pid()).is_empty());
        cpu_with_children_of(self.pid()).expect("the server still runs")
    }
}

fn own_folder(stage: &Stage, name: &str) -> PathBuf {
    let folder = stage.path(name);
    fs::create_dir_all(&folder).expect("our own folder");
    if let Some(uid) = stage.uid() {
        chown(&folder, Some(uid), Some(uid)).expect("our own folder");
    }
    folder
}

/// Finds a program, or says that it is missing.
fn wanted(name: &str) -> Option<PathBuf> {
    let found = installed(name);
    if found.is_none() {
        eprintln!("speed: without {name}, which is not installed");
    }
    found
}
