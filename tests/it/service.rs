//! The server and a service manager, and the units that a package installs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::dist::has;
use crate::support::{
    DEADLINE, Server, in_own_namespace, noise, program, run, stuck_client, unique_key, wait_until,
};

/// A service manager's end of sd_notify(3).
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, folder }
    }

    /// A server with these arguments that notifies this manager.
    #[track_caller]
    fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Server {
        let key = unique_key();
        let mut command = program("mqfs-server");
        command.args(["-k", &key.to_string()]).args(arguments);
        Server::start_as(key, command.env("NOTIFY_SOCKET", self.folder.path().join("notify")))
    }

    #[track_caller]
    fn told(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("it is told in time");
        let text = std::str::from_utf8(&message[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[in_own_namespace]
fn a_service_manager_is_told_when_the_server_is_ready_and_when_it_stops() {
    let (manager, root) = (Manager::new(), tempfile::tempdir().unwrap());
    fs::write(root.path().join("big"), noise(4 << 20)).unwrap();
    let root = root.path().to_str().unwrap();
    let mut server = manager.start(&["--root", root, "--drain-timeout", "7s"]);
    let ready = manager.told();
    assert_eq!(ready[0], "READY=1");
    assert!(ready[1].starts_with(&format!("STATUS=ready: key {}, ", server.key)), "{ready:?}");
    let client = stuck_client(&server, "/big");
    server.signal(Signal::SIGTERM);
    let stopping = manager.told();
    assert_eq!(stopping[0], "STOPPING=1");
    assert_eq!(stopping[1], "STATUS=stopping: transfers under way may finish");
    assert_eq!(stopping[2], "EXTEND_TIMEOUT_USEC=12000000");
    client.finish().success();
    assert!(server.running().wait().success());
}

#[in_own_namespace]
fn a_server_serves_even_if_its_service_manager_does_not_listen() {
    let mut manager = Manager::new();
    manager.socket = UnixDatagram::unbound().unwrap(); // the old one closes
    let server = manager.start(&["--root", "/proc"]);
    assert!(!server.fetch("/version").is_empty());
    wait_until("it says so", || server.log().contains("cannot notify the service manager"));
    server.stop();
}

/// The units, and the exposure of those that systemd rates, which must not grow.
const UNITS: [(&str, Option<&str>); 6] = [
    ("mqfs-server.service", Some("32")),
    ("mqfs-server@.service", Some("31")),
    ("mqfs-reap.service", Some("20")),
    ("mqfs-reap.timer", None),
    ("mqfs-metrics.service", Some("20")),
    ("mqfs-metrics.timer", None),
];

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has("systemd-analyze") {
        return;
    }
    // The units with the paths of the built programs.
    let folder = tempfile::tempdir().unwrap();
    let paths = UNITS.map(|(unit, _)| folder.path().join(unit));
    for path in &paths {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd");
        let text = fs::read_to_string(unit.join(path.file_name().unwrap())).unwrap();
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_mqfs-server"));
        let start = format!("ExecStart={}/mqfs-", programs.parent().unwrap().display());
        fs::write(path, text.replace("ExecStart=mqfs-", &start)).unwrap();
    }
    let analyze = |arguments: &[&str], units: &[PathBuf]| {
        run(Command::new("systemd-analyze").args(arguments).args(units).stdin(Stdio::null()))
    };
    let verified = analyze(&["verify", "--man=no"], &paths);
    let words: Vec<_> = verified.stderr.lines().filter(|line| line.contains("mqfs")).collect();
    assert_eq!((verified.code(), words), (Some(0), vec![]), "{}", verified.stderr);
    for ((unit, exposure), path) in UNITS.into_iter().zip(paths) {
        let Some(exposure) = exposure else { continue };
        let judged = analyze(&["security", "--offline=true", "--threshold", exposure], &[path]);
        if judged.stderr.contains("offline") {
            return eprintln!("skipped: this systemd-analyze cannot: {}", judged.stderr);
        }
        let words = String::from_utf8_lossy(&judged.stdout).into_owned();
        assert_eq!(judged.code(), Some(0), "{unit}: {words}{}", judged.stderr);
    }
}
