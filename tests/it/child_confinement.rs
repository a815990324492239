//! The identity and rights of a server's child: no more than those of its caller.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use mqfs::wire::REPLY_QUEUE_MODE;
use nix::sys::signal::Signal;
use sysv_ipc::OwnedQueue;

use crate::support::{
    ForEverybody, SOMEBODY, Server, Stuck, as_root_in_own_namespace, fails, field, leased_request,
    noise, private_queue_with, public_folder, queue_of, run, serve_file, serve_quietly, unique_key,
    wait_until,
};

/// A field of /proc/PID/status, with single spaces.
fn status(pid: i32, name: &str) -> String {
    field(pid, "status", name).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_powerless(pid: i32) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0, "not dumpable");
}

#[as_root_in_own_namespace]
fn a_child_of_roots_server_has_only_the_callers_identity() {
    let (server, _folder, file) = serve_file(4 << 20, &["--mode", "0622"]);
    let programs = ForEverybody::new();
    for paths in [&["/file"][..], &["/file", "/file"]] {
        let stuck = Stuck::start(programs.client(server.key, SOMEBODY).args(paths));
        let child = server.only_child().pid;
        let ids = [SOMEBODY.to_string().as_str(); 4].join(" ");
        assert_eq!(status(child, "Uid"), ids);
        assert_eq!(status(child, "Gid"), ids);
        assert_eq!(status(child, "Groups"), "", "root's own are gone");
        assert_powerless(child);
        let nice = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields = stat.rsplit(") ").next().unwrap().split(' ');
            fields.skip(16).map(|field| field.parse::<i32>().unwrap()).next().unwrap()
        };
        assert!(nice(child) > nice(server.pid()) || nice(child) == 19);
        let mut look = Command::new("cat");
        look.arg(format!("/proc/{child}/maps")).uid(SOMEBODY).gid(SOMEBODY);
        assert!(!run(&mut look).status.success(), "the caller sees into its child");
        assert!(stuck.finish() == file.repeat(paths.len()));
        server.wait_until_idle();
    }
    server.stop();
}

/// Gives a command ambient capabilities, as `AmbientCapabilities=` does: capabilities(7).
#[as_root_in_own_namespace]
fn callers_do_not_get_the_capabilities_of_an_unprivileged_server() {
    let folder = public_folder();
    fs::write(folder.path().join("file"), noise(4 << 20)).unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let (key, programs) = (unique_key(), ForEverybody::new());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=64150", "--regid=64150", "--clear-groups"]);
    command.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]);
    command.arg(programs.path("mqfs-server")).args(["-k", &key.to_string()]);
    command.arg("--root").arg(folder.path());
    let server = Server::start_as(key, &mut command);
    assert_ne!(status(server.pid(), "CapEff"), "0000000000000000", "it has some to lose");
    let mut client = programs.client(key, 64_150);
    let denied = run(client.arg("/secret"));
    assert_eq!(denied.stderr, "mqfs-client: /secret: Permission denied\n");
    let stuck = Stuck::start(programs.client(key, 64_150).arg("/file"));
    assert_powerless(server.only_child().pid);
    assert!(stuck.finish() == noise(4 << 20));
    server.stop();
}

#[as_root_in_own_namespace]
fn an_unprivileged_server_warns_what_other_users_may_fetch() {
    let (key, programs) = (unique_key(), ForEverybody::new());
    for mode in ["0620", "0602", "0622"] {
        let expected = format!(
            "mqfs-server: mode {mode} lets others ask, and they get whatever uid 64152 may \
                 read: say with --root what that is (--root / for everything)\n"
        );
        fails(programs.server(key, 64_152).args(["--mode", mode]), 2, &expected);
    }
    for arguments in [&["--mode", "0600"][..], &["--mode", "0622", "--root", "/"]] {
        Server::start_as(key, programs.server(key, 64_152).args(arguments)).stop();
    }
    Server::start(&["--mode", "0622"]).stop(); // root's
}

#[as_root_in_own_namespace]
fn a_stopped_child_sends_nothing_to_a_later_queue_with_its_clients_id() {
    const ROOM: u64 = 256 << 20;
    let (server, folder, _) = serve_quietly(4 << 20, &[]);
    // A queue holds the whole file, for which a child needs some time.
    fs::write("/proc/sys/kernel/msgmnb", ROOM.to_string()).unwrap();
    fs::File::create(folder.path().join("sparse")).unwrap().set_len(ROOM / 2).unwrap();
    let requests = queue_of(server.key).unwrap();
    let mut caught = None;
    wait_until("a child is stopped in the middle of a transfer", || {
        server.wait_until_idle();
        let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
        requests.send(&leased_request(*queue, requests, "/sparse")).unwrap();
        wait_until("it sends", || queue.status().unwrap().messages > 10);
        let child = server.process().children().first().copied();
        caught = child.filter(|child| child.freeze()).map(|child| (child, queue));
        caught.is_some()
    });
    let (child, queue) = caught.unwrap();
    let id = queue.id();
    drop(queue);
    let other = private_queue_with(id, REPLY_QUEUE_MODE);
    thread::sleep(Duration::from_millis(30)); // what the child takes for a pause
    child.signal(Signal::SIGCONT);
    wait_until("it gives up", || !child.lives());
    // One, if it was stopped between the check and the call: no system call does both.
    assert!(other.status().unwrap().messages <= 1);
    assert!(server.log().contains("client gone"), "{}", server.log());
    server.stop();
}
