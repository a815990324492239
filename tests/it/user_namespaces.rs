//! Clients in user namespaces, where the kernel shows users outside as the overflow uid.

use std::fs;
use std::process::Command;
use std::time::Instant;

use mqfs::wire::{FrameType, Request};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use sysv_ipc::{Key, Lock, MessageBuffer, Mode, Queue, Select};

use crate::support::*;

const UNKNOWN: &str = "only root or you could answer";
const DENIED: &str = "Permission denied";

/// Sandboxes that share the host's IPC namespace, and in which only the caller has a number, if
/// anybody has: the same, 0, or none.
const SANDBOXES: [&[&str]; 6] = [
    &["unshare", "--user"],
    &["unshare", "--user", "--map-current-user"],
    &["unshare", "--user", "--map-root-user"],
    &["bwrap", "--unshare-user", "--dev-bind", "/", "/"],
    &["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--dev-bind", "/", "/"],
    &["bwrap", "--unshare-user", "--unshare-pid", "--dev-bind", "/", "/", "--tmpfs", "/proc"],
];

/// The same command, as this user and in a sandbox of that user's.
fn inside(sandbox: &[&str], uid: u32, command: &Command) -> Command {
    as_uid(uid, &by(sandbox, command))
}

fn sandboxes() -> impl Iterator<Item = &'static [&'static str]> {
    SANDBOXES.into_iter().filter(|sandbox| can_make(sandbox))
}

/// Whether a sandbox can be made here. Says so if not.
fn can_make(sandbox: &[&str]) -> bool {
    let made = run(&mut inside(sandbox, VICTIM, &Command::new("true"))).status.success();
    if !made {
        eprintln!("skipped: {sandbox:?} does not work here");
    }
    made
}

/// A user namespace in which the victim is 0, and the 99 users after `FIRST` are 1 to 99.
struct ManyUsers(Running);

impl ManyUsers {
    const FIRST: u32 = 64_200;

    /// None: there are no such namespaces here.
    fn start(options: &[&str]) -> Option<Self> {
        let options = [&["unshare", "--user"], options].concat();
        if !can_make(&options) {
            return None;
        }
        let holder =
            Running::start(&mut inside(&options, VICTIM, Command::new("sleep").arg("600")));
        wait_until("it has its namespaces", || {
            fs::read_to_string(format!("/proc/{}/comm", holder.pid())).unwrap() == "sleep\n"
        });
        for map in ["uid_map", "gid_map"] {
            let ranges = format!("0 {VICTIM} 1\n1 {} 99\n", Self::FIRST + 1);
            fs::write(format!("/proc/{}/{map}", holder.pid()), ranges).unwrap();
        }
        Some(Self(holder))
    }

    /// The same command in its namespaces of these kinds.
    fn enter(&self, kinds: &[&str], uid: Option<u32>, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        entered.args(kinds.iter().map(|kind| format!("--{kind}=/proc/{}/ns/{kind}", self.0.pid())));
        if let Some(uid) = uid {
            entered.args([format!("--setuid={uid}"), format!("--setgid={uid}")]);
        }
        entered.arg(command.get_program()).args(command.get_args());
        entered
    }

    /// How many objects of a kind its IPC namespace has: proc_sysvipc(5).
    fn listed(&self, kind: &str) -> usize {
        let mut list = Command::new("cat");
        list.arg(format!("/proc/sysvipc/{kind}"));
        let list = run(&mut self.enter(&["ipc"], None, &list)).success();
        list.split(|&byte| byte == b'\n').count() - 2 // without the heading and the last end
    }
}

/// A client that is started by another command gets its user's file and a large one, alone and in a
/// session, and no file of others.
#[track_caller]
fn gets_what_its_user_may_read(site: &Site, uid: u32, by: impl Fn(&Command) -> Command) {
    site.put("mine", 0o600, (uid, uid), "mine");
    site.put("theirs", 0o600, (ATTACKER, ATTACKER), "theirs");
    let ask = |paths: &[&str]| run(&mut by(site.programs.client(site.server.key, 0).args(paths)));
    assert_eq!(ask(&["/mine"]).success(), b"mine");
    assert!(ask(&["/file"]).success() == site.file);
    assert!(ask(&["/mine", "/file"]).success() == [b"mine", &*site.file].concat());
    for paths in [&["/theirs"][..], &["/theirs", "/theirs"]] {
        let Finished { status, stdout, stderr } = ask(paths);
        assert_eq!((status.code(), &*stdout), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.contains(DENIED), "{stderr}");
    }
}

#[as_root_in_own_namespace]
fn roots_server_serves_a_user_in_a_sandbox() {
    let site = Site::start(&["--plain", "any"]);
    for sandbox in sandboxes() {
        let plain = |path| {
            let mut client = site.programs.client(site.server.key, 0);
            run(&mut inside(sandbox, VICTIM, client.args(["--plain", path])))
        };
        gets_what_its_user_may_read(&site, VICTIM, |client| inside(sandbox, VICTIM, client));
        assert_eq!(plain("/mine").success(), b"mine");
        assert!(plain("/theirs").stderr.contains(DENIED));
    }
    site.stop();
}

#[as_root_in_own_namespace]
fn a_users_own_server_serves_it_in_a_sandbox_and_nobody_elses_can() {
    for (owner, is_own) in [(VICTIM, true), (OPERATOR, false)] {
        let site = Site::start_as(owner, &[]);
        for sandbox in sandboxes() {
            let client = site.programs.client(site.server.key, 0);
            let client = with(client, &["--timeout", "500ms", "/file"]);
            let Finished { status, stdout, stderr } = run(&mut inside(sandbox, VICTIM, &client));
            assert_eq!(status.success(), is_own, "{sandbox:?}: {stderr}");
            assert!(stdout == if is_own { &*site.file } else { b"" });
            assert_eq!(stderr.contains(UNKNOWN), !is_own, "{sandbox:?}: {stderr}");
        }
        let refused = site.server.log().contains("it was not handed over to this server");
        assert_eq!(refused, !is_own, "{}", site.server.log());
        site.stop();
    }
}

#[as_root_in_own_namespace]
fn roots_server_serves_subordinate_users() {
    let Some(users) = ManyUsers::start(&[]) else { return };
    let site = Site::start(&[]);
    for (inner, outer) in [(0, VICTIM), (7, ManyUsers::FIRST + 7)] {
        gets_what_its_user_may_read(&site, outer, |client| {
            users.enter(&["user"], Some(inner), client)
        });
    }
    site.stop();
}

/// The IPC namespace belongs to the user namespace, so root of either may send to every queue.
#[as_root_in_own_namespace]
fn root_outside_and_root_inside_serve_users_of_a_sandboxs_own_ipc_namespace() {
    let Some(users) = ManyUsers::start(&["--ipc"]) else { return };
    for (kinds, uid) in [(&["ipc"][..], None), (&["user", "ipc"], Some(0))] {
        let enter = |server: Command| users.enter(kinds, uid, &server);
        let site = Site::start_by(unique_key(), 0, &[], enter);
        for (inner, outer) in [(0, VICTIM), (7, ManyUsers::FIRST + 7)] {
            gets_what_its_user_may_read(&site, outer, |client| {
                users.enter(&["user", "ipc"], Some(inner), client)
            });
        }
        assert_eq!(users.listed("msg"), 1, "reply queues left");
        site.server.stop();
        assert_eq!(["msg", "sem", "shm"].map(|kind| users.listed(kind)), [0; 3]);
    }
}

/// Takes requests that come to a queue of its own, and tries everything with the reply queues that
/// they name.
fn squat(key: Key, in_user_namespace: bool) -> Result<(), Errno> {
    if in_user_namespace {
        unshare(CloneFlags::CLONE_NEWUSER)?; // there it has every capability
    }
    let requests = Queue::create(key, Mode::new(0o733)).map_err(errno_of)?;
    let lock = Lock::open_or_create(key, Mode::new(0o644)).map_err(errno_of)?;
    let _ = lock.try_acquire().map_err(errno_of)?;
    let mut message = MessageBuffer::with_capacity(8192);
    loop {
        received(requests.receive(&mut message, Select::Any))?;
        let reply = Request::decode(message.text()).map_err(|_| Errno::EBADMSG)?.reply_queue;
        let reply = Queue::from_id(reply);
        let mut taken = MessageBuffer::with_capacity(8192);
        let Ok(_) = reply.status() else { continue }; // its client has given up
        let tries = [
            sent(reply.try_send(&MessageBuffer::with_text(FrameType::Data.mtype(), b"false"))),
            sent(reply.try_send(&MessageBuffer::with_text(FrameType::End.mtype(), b""))),
            received(reply.try_receive(&mut taken, Select::Any)),
            received(reply.peek(&mut taken, 0)),
            change(reply, |_| ()),
            give(reply, ATTACKER),
            reply.remove().map_err(errno_of),
        ];
        let denied = [Errno::EACCES, Errno::EPERM, Errno::EINVAL].map(Err);
        if !tries.iter().all(|outcome| denied.contains(outcome)) {
            return Err(Errno::EUCLEAN);
        }
    }
}

#[as_root_in_own_namespace]
fn a_squatter_can_tell_a_client_in_a_sandbox_nothing() {
    let programs = ForEverybody::new();
    for in_user_namespace in [false, true] {
        let key = unique_key();
        let mut squatter = Attack::start(ATTACKER, || squat(key, in_user_namespace));
        wait_until("it waits", || Lock::open(key).is_ok_and(|lock| lock.is_held() == Ok(true)));
        let variants: [&[&str]; 4] =
            [&["/file"], &["--plain", "/file"], &["-l", "/"], &["--server-uid", "65534", "/file"]];
        let start = Instant::now();
        let clients = sandboxes().flat_map(|sandbox| {
            variants.map(|arguments| {
                let client = &mut with(programs.client(key, 0), &["--timeout", "400ms"]);
                Running::piped(&mut inside(sandbox, VICTIM, client.args(arguments)))
            })
        });
        for client in clients.collect::<Vec<_>>() {
            let Finished { status, stdout, stderr } = client.finish();
            assert_eq!((status.code(), &*stdout), (Some(1), &b""[..]), "{stderr}");
            assert!(stderr.contains("timed out: nothing came"), "{stderr}");
        }
        assert!(start.elapsed() < DEADLINE / 3, "clients hang");
        squatter.stop();
        clear(key);
    }
}

#[as_root_in_own_namespace]
fn a_client_in_a_sandbox_asks_no_queue_that_somebody_gave_to_its_user() {
    let (key, programs) = (unique_key(), ForEverybody::new());
    let made = Attack::start(ATTACKER, || {
        give(Queue::create(key, Mode::new(0o733)).map_err(errno_of)?, VICTIM)
    });
    assert_eq!(made.finish(), Ok(()));
    for sandbox in sandboxes().skip(1) {
        let client = with(programs.client(key, 0), &["/file"]);
        let refused = run(&mut inside(sandbox, VICTIM, &client));
        assert_eq!(refused.code(), Some(2), "{sandbox:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("belongs to uid 65534"), "{}", refused.stderr);
    }
    assert_eq!(queue_of(key).unwrap().status().unwrap().messages, 0);
    clear(key);
}
