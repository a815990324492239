//! `mqfs-server --metrics-file`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::{Key, Mode, Semaphore, SharedMemory};
use tempfile::TempDir;

use super::segment::stop_alone;
use super::wait_for;
use crate::support::{
    OPERATOR, Server, as_root_in_own_namespace, children_of, in_own_namespace, noise, program,
    queue_of, run, state_of, unique_key, wait_until,
};

/// A folder with files to serve, and one for metrics.
struct Place {
    root: TempDir,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(root.path().join("small"), "small").unwrap();
        fs::write(root.path().join("big"), noise(1 << 20)).unwrap();
        Self { root, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("mqfs.prom")
    }

    fn start(&self, more: &[&str]) -> Server {
        self.start_on(unique_key(), more)
    }

    fn start_on(&self, key: Key, more: &[&str]) -> Server {
        let mut command = program("mqfs-server");
        command.args(["-k", &key.to_string(), "--reap-interval", "1h"]).args(more);
        command.arg("--root").arg(self.root.path()).arg("--metrics-file").arg(self.file());
        let server = Server::start_as(key, &mut command);
        // It keeps house before its first request.
        server.fetch("/small");
        wait_until("it has kept house", || children_of(server.pid()).len() == 1);
        server
    }

    /// The value of a sample.
    fn sample(&self, name: &str) -> Option<f64> {
        let text = fs::read_to_string(self.file()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    fn value(&self, key: Key, name: &str, label: &str) -> Option<f64> {
        let comma = if label.is_empty() { "" } else { "," };
        self.sample(&format!("{name}{{{label}{comma}key=\"{key}\"}}"))
    }

    fn names(&self) -> Vec<String> {
        let all = fs::read_dir(self.folder.path()).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// The only child of a server at rest.
fn writer(server: &Server) -> i32 {
    let [writer] = children_of(server.pid())[..] else { panic!("it is not at rest") };
    writer
}

#[test]
fn whoever_collects_it_may_read_it_whatever_the_umask() {
    in_own_namespace(|| {
        let (place, key) = (Place::new(), unique_key());
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 077; exec \"$0\" \"$@\""])
            .arg(program("mqfs-server").get_program());
        command.args(["-k", &key.to_string(), "--root"]).arg(place.root.path());
        let server = Server::start_as(key, command.arg("--metrics-file").arg(place.file()));
        assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o777, 0o644);
        server.stop();
    });
}

#[test]
fn the_file_is_there_from_the_start_and_complete_at_the_end() {
    in_own_namespace(|| {
        let place = Place::new();
        let server = place.start(&[]);
        let key = server.key;
        assert_eq!(place.value(key, "mqfs_up", ""), Some(1.0));
        assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o777, 0o644);
        server.fetch("/big");
        assert_eq!(run(server.client().arg("/none")).code(), Some(1));
        wait_for(key, "failed/not_found", 1);
        wait_for(key, "complete", 2);
        server.stop();

        for (name, label, value) in [
            ("mqfs_up", "", 0.0),
            ("mqfs_requests_total", "", 3.0),
            ("mqfs_bytes_sent_total", "", 5.0 + f64::from(1 << 20)),
            ("mqfs_failures_total", "reason=\"not_found\"", 1.0),
            ("mqfs_failures_total", "reason=\"denied\"", 0.0),
            ("mqfs_refused_total", "reason=\"malformed\"", 0.0),
            ("mqfs_children", "", 0.0),
            ("mqfs_children_limit", "", 64.0),
            ("mqfs_transfer_seconds_bucket", "le=\"+Inf\"", 2.0),
            ("mqfs_transfer_seconds_bucket", "le=\"250\"", 2.0),
            ("mqfs_transfer_seconds_count", "", 2.0),
        ] {
            assert_eq!(place.value(key, name, label), Some(value), "{name} {label}");
        }
        assert!(place.value(key, "mqfs_transfer_seconds_sum", "").unwrap() > 0.0);
        assert_eq!(place.names(), ["mqfs.prom"]);
        let text = fs::read_to_string(place.file()).unwrap();
        let buckets: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with("mqfs_transfer_seconds_bucket"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(buckets.is_sorted() && buckets.len() == 21, "{buckets:?}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let family = line.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| family.strip_suffix(end))
                .unwrap_or(family);
            assert_eq!(text.matches(&format!("# TYPE {family} ")).count(), 1, "{family}");
        }
    });
}

#[test]
fn the_file_is_written_again_while_the_server_runs() {
    in_own_namespace(|| {
        let place = Place::new();
        let server = place.start(&[]);
        let first = fs::metadata(place.file()).unwrap().ino();
        wait_until("it is another file", || fs::metadata(place.file()).unwrap().ino() != first);
        assert_eq!(place.value(server.key, "mqfs_requests_total", ""), Some(1.0));
        assert_eq!(place.value(server.key, "mqfs_queue_capacity_bytes", ""), Some(16384.0));
        assert_eq!(place.value(server.key, "mqfs_up", ""), Some(1.0));
        server.stop();
    });
}

#[test]
fn after_kill_9_of_the_server_the_file_says_so_and_the_writer_is_gone() {
    in_own_namespace(|| {
        let place = Place::new();
        let mut server = place.start(&[]);
        let writer = writer(&server);
        // A child that lives on keeps nothing open that the writer would wait for.
        let client = stuck_client_of(&server);
        server.signal(Signal::SIGKILL);
        server.running().wait();
        wait_until("the writer ends", || state_of(writer).is_none_or(|state| state == 'Z'));
        assert_eq!(place.value(server.key, "mqfs_up", ""), Some(0.0));
        assert_eq!(place.value(server.key, "mqfs_requests_total", ""), Some(2.0));
        drop(client);
    });
}

/// As `stuck_client`, which would wait for the writer to end.
fn stuck_client_of(server: &Server) -> crate::support::Stuck {
    crate::support::Stuck::start(server.client().args(["--retries", "0", "/big"]))
}

#[test]
fn a_server_whose_metrics_file_cannot_be_written_does_not_start_and_leaves_nothing() {
    in_own_namespace(|| {
        let place = Place::new();
        fs::create_dir(place.folder.path().join("folder")).unwrap();
        fs::write(place.folder.path().join("file"), "").unwrap();
        for (path, why) in [
            ("none/mqfs.prom", "No such file or directory"),
            ("file/mqfs.prom", "Not a directory"),
            ("folder", "Is a directory"),
            ("..", "Is a directory"),
            (&"long".repeat(100), "File name too long"),
        ] {
            let (key, path) = (unique_key(), place.folder.path().join(path));
            let mut command = program("mqfs-server");
            command.args(["-k", &key.to_string(), "--root", "/proc", "--metrics-file"]);
            let refused = run(command.arg(&path));
            assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
            let expected = format!("mqfs-server: metrics file {}: {why}\n", path.display());
            assert!(refused.stderr.ends_with(&expected), "{}", refused.stderr);
            assert_eq!(queue_of(key), None);
            assert!(SharedMemory::open(key).is_err() && Semaphore::open(key).is_err());
        }
        assert_eq!(place.names().len(), 2, "{:?}", place.names());
    });
}

#[test]
fn what_stands_under_the_files_name_is_replaced_and_never_written_to() {
    in_own_namespace(|| {
        let place = Place::new();
        let victim = place.root.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, place.file()).unwrap();
        symlink(&victim, place.folder.path().join(".mqfs.prom.tmp")).unwrap();
        let server = place.start(&[]);
        assert!(fs::symlink_metadata(place.file()).unwrap().is_file());
        server.stop();
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        assert_eq!(place.names(), ["mqfs.prom"]);
    });
}

#[test]
fn a_server_whose_writer_was_killed_says_so_and_serves_on() {
    in_own_namespace(|| {
        let place = Place::new();
        let server = place.start(&[]);
        kill(Pid::from_raw(writer(&server)), Signal::SIGKILL).unwrap();
        wait_until("it is said", || {
            server.log().contains("the metrics file is not written any more")
        });
        assert_eq!(server.fetch("/small"), b"small");
        server.stop();
    });
}

#[test]
fn the_writer_takes_no_childs_place_and_no_child_can_reach_it() {
    in_own_namespace(|| {
        let place = Place::new();
        let server = place.start(&["--max-children", "1"]);
        let writer = writer(&server);
        assert_eq!(server.fetch("/small"), b"small");
        if nix::unistd::geteuid().is_root() {
            let client = stuck_client_of(&server);
            let child = children_of(server.pid()).into_iter().find(|pid| *pid != writer).unwrap();
            let open = fs::read_dir(format!("/proc/{child}/fd")).unwrap();
            let targets = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
            let sockets: Vec<_> =
                targets.filter(|path| path.to_string_lossy().starts_with("socket:")).collect();
            assert!(sockets.is_empty(), "{sockets:?}");
            client.finish();
        }
        server.stop();
    });
}

#[test]
fn the_writer_can_write_in_its_folder_and_has_no_capability() {
    as_root_in_own_namespace(|| {
        let place = Place::new();
        let server = place.start(&[]);
        let status = fs::read_to_string(format!("/proc/{}/status", writer(&server))).unwrap();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        assert_eq!(field("Name:"), "mqfs-metrics");
        assert_eq!((field("CapEff:"), field("CapPrm:")), ("0".repeat(16), "0".repeat(16)));
        assert_eq!(field("NoNewPrivs:"), "1");
        server.stop();
    });
}

#[test]
fn figures_that_nobody_else_can_see_still_come_into_the_file() {
    in_own_namespace(|| {
        let (place, key) = (Place::new(), unique_key());
        let others = SharedMemory::create(key, 8, Mode::new(0o644)).unwrap();
        let server = place.start_on(key, &[]);
        stop_alone(server);
        others.remove().unwrap();
        assert_eq!(place.value(key, "mqfs_requests_total", ""), Some(1.0));
    });
}

#[test]
fn another_users_server_writes_its_file_with_that_users_rights() {
    as_root_in_own_namespace(|| {
        let programs = crate::support::ForEverybody::new();
        let place = Place::new();
        fs::set_permissions(place.root.path(), Permissions::from_mode(0o755)).unwrap();
        let start = |key| {
            let mut command = programs.server(key, OPERATOR);
            command.arg("--root").arg(place.root.path()).arg("--metrics-file").arg(place.file());
            command
        };
        let refused = run(&mut start(unique_key()));
        assert_eq!(refused.code(), Some(2));
        assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
        std::os::unix::fs::chown(place.folder.path(), Some(OPERATOR), None).unwrap();
        let key = unique_key();
        Server::start_as(key, &mut start(key)).stop();
        assert_eq!(fs::metadata(place.file()).unwrap().uid(), OPERATOR);
        assert_eq!(place.value(key, "mqfs_up", ""), Some(0.0));
    });
}

#[test]
fn a_server_that_drains_counts_to_the_end() {
    in_own_namespace(|| {
        let place = Place::new();
        let mut server = place.start(&[]);
        let client = stuck_client_of(&server);
        server.signal(Signal::SIGTERM);
        wait_until("its queue is gone", || queue_of(server.key).is_none());
        assert!(SharedMemory::open(server.key).is_err(), "the next server can count");
        assert_eq!(client.finish().len(), 1 << 20);
        assert!(server.running().wait().success());
        let bytes = place.value(server.key, "mqfs_bytes_sent_total", "");
        assert_eq!(bytes, Some(5.0 + f64::from(1 << 20)));
    });
}

#[test]
fn a_server_that_drains_leaves_the_file_to_the_next_one() {
    in_own_namespace(|| {
        let place = Place::new();
        let mut first = place.start(&[]);
        let client = stuck_client_of(&first);
        first.signal(Signal::SIGTERM);
        wait_until("its lock is gone", || Semaphore::open(first.key).is_err());
        let next = place.start_on(first.key, &[]);
        assert_eq!(client.finish().len(), 1 << 20);
        assert!(first.running().wait().success());
        first.make_way();
        assert_eq!(place.value(next.key, "mqfs_up", ""), Some(1.0));
        next.stop();
    });
}
