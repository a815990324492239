//! The identity of a caller, and the identity and rights of the child that serves it: no more than
//! those of its caller.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use mqfs::wire::REPLY_QUEUE_MODE;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use sysv_ipc::OwnedQueue;

use crate::support::*;

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
        let mut look = as_uid(SOMEBODY, Command::new("cat").arg(format!("/proc/{child}/maps")));
        assert!(!run(&mut look).status.success(), "the caller sees into its child");
        assert!(stuck.finish() == file.repeat(paths.len()));
        server.wait_until_idle();
    }
}

/// A server that has ambient capabilities (`AmbientCapabilities=`): its callers get none of them.
#[as_root_in_own_namespace]
fn callers_do_not_get_the_capabilities_of_an_unprivileged_server() {
    let capabilities = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
    let user = ["setpriv", "--reuid=64150", "--regid=64150", "--clear-groups"];
    let starter = [&user[..], &capabilities].concat();
    let site = Site::start_by(unique_key(), 64_150, &[], |server| by(&starter, &server));
    site.put("secret", 0o600, (0, 0), "secret");
    assert_ne!(status(site.server.pid(), "CapEff"), "0000000000000000", "it has some to lose");
    assert_eq!(site.denied(64_150, "/secret"), DENIED);
    let stuck = Stuck::start(site.client(64_150).arg("/file"));
    assert_powerless(site.server.only_child().pid);
    site.finish_intact(stuck);
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
}

const UNKNOWN_UID: &str = "the caller's uid is unknown in this user namespace";
const UNKNOWN_GID: &str = "the caller's gid is unknown in this user namespace";
const UNKNOWN_CALLER: &str = "your user or group is not mapped in the server's user namespace";
const DENIED: &str = "Permission denied";

/// Keys of a session keyring give all its processes access to encrypted and network files:
/// keyrings(7).
#[as_root_in_own_namespace]
fn a_child_cannot_use_the_servers_session_keyring() {
    if !Path::new("/proc/keys").exists() {
        return eprintln!("skipped: this kernel has no keys");
    }
    join_session_with_key(c"mqfs-test-secret");
    let server = Server::start(&["--mode", "0622", "--root", "/proc"]);
    let programs = ForEverybody::new();
    let own = fs::read_to_string("/proc/keys").unwrap();
    assert!(own.contains("mqfs-test-secret"), "the server's own: {own}");
    let shown = text(programs.client(server.key, VICTIM).arg("/keys"));
    assert!(!shown.contains("mqfs-test"), "{shown}");
}

/// Gives this thread, and what it starts, a session keyring with a key.
#[allow(unsafe_code)]
fn join_session_with_key(name: &CStr) {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    const SESSION_KEYRING: libc::c_int = -3;
    let session = c"mqfs-test".as_ptr();
    // SAFETY: the string outlives the call; keyctl(2).
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, session) };
    assert!(joined > 0, "{}", Errno::last());
    let (kind, name) = (c"user".as_ptr(), name.as_ptr());
    // SAFETY: two strings and one byte outlive the call; add_key(2).
    let added = unsafe { libc::syscall(libc::SYS_add_key, kind, name, kind, 1, SESSION_KEYRING) };
    assert!(added > 0, "{}", Errno::last());
}

/// The kernel shows its uid for unknown users too, but only where there are any.
#[as_root_in_own_namespace]
fn nobody_is_a_user_like_others_where_every_user_has_a_number() {
    let nobody = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap();
    let nobody = nobody.trim().parse().unwrap();
    for operator in [0, OPERATOR, nobody] {
        let site = Site::start_as(operator, &[]);
        site.put("own", 0o600, (nobody, nobody), "own");
        assert!(run(site.client(nobody).arg("/file")).success() == site.file);
        if operator == OPERATOR {
            assert_eq!(site.denied(nobody, "/own"), DENIED);
        } else {
            assert_eq!(run(site.client(nobody).arg("/own")).success(), b"own");
        }
        site.stop();
    }
}

#[as_root_in_own_namespace]
fn a_server_in_a_user_namespace_refuses_unmapped_users() {
    let inside = |command: Command| {
        as_uid(OPERATOR, &by(&["unshare", "--user", "--map-root-user"], &command))
    };
    if !run(&mut inside(Command::new("true"))).status.success() {
        return eprintln!("skipped: users may not make user namespaces here");
    }
    let site = Site::start_by(unique_key(), OPERATOR, &[], inside);
    site.put("secret", 0o600, (OPERATOR, OPERATOR), "secret");
    // The only mapped user, as root.
    let fetched = run(site.client(OPERATOR).arg("/secret")).success();
    assert_eq!(fetched, b"secret");
    let victim = Stuck::start(site.client(OPERATOR).arg("/file"));
    for uid in [VICTIM, 0] {
        for path in ["/file", "/secret"] {
            assert_eq!(site.denied(uid, path), UNKNOWN_CALLER);
        }
    }
    assert!(refusals(&site.server, UNKNOWN_UID) > 0);
    let of_unknown_group = run(site.client(OPERATOR).gid(VICTIM).arg("/file"));
    assert_eq!((of_unknown_group.code(), &*of_unknown_group.stdout), (Some(1), &b""[..]));
    assert!(of_unknown_group.stderr.contains(UNKNOWN_CALLER), "{}", of_unknown_group.stderr);
    assert!(refusals(&site.server, UNKNOWN_GID) > 0);
    assert_eq!(site.server.log().matches("outcome=").count(), 1, "{}", site.server.log());
    site.finish_intact(victim);
    assert_eq!(run(site.client(OPERATOR).arg("/file")).success(), site.file);
}
