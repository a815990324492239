//! The groups of a caller: those that the process that sent the lease has now.

use std::fs::{self};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use mqfs::ownership::lease;
use mqfs::wire::{Failure, FrameHeader, FrameType, LEASE_TYPE};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, seteuid, setgroups, setresgid, setresuid};
use sysv_ipc::{MessageBuffer, Queue, Select};

use crate::support::*;

const FIRST: u32 = 64_181;
const SECOND: u32 = 64_182;
/// A group of the server alone.
const SERVERS: u32 = 64_183;
/// A group whose members may not read a file that everybody else may.
const DENIED: u32 = 64_184;
const GROUPS: [u32; 6] = [VICTIM, FIRST, SECOND, SERVERS, DENIED, 65_534];

/// What the server says of a caller whose groups it must not guess.
const REFUSED: &str = "the server cannot tell the caller's groups: ";
const GONE: &str = "the process that sent the lease has ended, or /proc hides it";
const OTHER_UIDS: &str = "the process that sent the lease has other user ids by now";
const USED: &str = "the reply queue has been used for more than the lease";

/// Root's server with a file for the members of each group, and one that is closed to `DENIED`.
fn site_by(by: impl FnOnce(Command) -> Command) -> Site {
    let site = Site::start_by(unique_key(), 0, &[], by);
    for gid in GROUPS {
        site.put(&gid.to_string(), 0o640, (0, gid), "for a group");
    }
    site.put("denied", 0o604, (0, DENIED), "for all others");
    site
}

fn site() -> Site {
    site_by(|server| by(&["setpriv", "--groups", &SERVERS.to_string()], &server))
}

/// Becomes the victim with these groups. The saved uid is kept, to change them later.
fn become_victim(gid: u32, groups: &[u32]) {
    victim_with([gid; 2], groups, 0);
}

/// Becomes the victim with these real, effective and supplementary groups, for good.
fn stay_victim(gids: [u32; 2], groups: &[u32]) {
    victim_with(gids, groups, VICTIM);
}

fn victim_with(gids: [u32; 2], groups: &[u32], saved: u32) {
    seteuid(Uid::from_raw(0)).unwrap();
    let groups: Vec<_> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    let [real, effective] = gids.map(Gid::from_raw);
    setgroups(&groups).unwrap();
    setresgid(real, effective, effective).unwrap();
    let uid = Uid::from_raw(VICTIM);
    setresuid(uid, uid, Uid::from_raw(saved)).unwrap();
}

fn stop() -> ! {
    loop {
        raise(Signal::SIGSTOP).unwrap();
    }
}

/// A process, and the reply queue that it made.
struct Sender {
    pid: Pid,
    queue: Queue,
}

impl Sender {
    /// Starts a process that becomes somebody, makes a leased reply queue, does something else, and
    /// then stops.
    #[track_caller]
    fn start(site: &Site, before: impl FnOnce(), after: impl FnOnce(Queue)) -> Self {
        let earlier = reply_queues();
        // In the name of the test, which lives.
        let lease = lease::new(site.requests().id()).unwrap();
        let child = fork_child(|| {
            before();
            after(marked_with(&lease.encode()).release());
            set_pdeathsig(Signal::SIGKILL).unwrap(); // a change of uid clears it
            stop()
        });
        let pid = child.unwrap();
        wait_until("it has done all that", || state_of(pid.as_raw()) == Some('T'));
        let queue = reply_queues().into_iter().find(|queue| !earlier.contains(queue));
        Self { pid, queue: queue.unwrap() }
    }

    /// Asks for a path in its name, as the process itself could; what a FAILURE says.
    #[track_caller]
    fn ask(self, site: &Site, path: &str) -> Result<(), String> {
        let cookie = lease_of(self.queue).cookie;
        site.requests().send(&request(self.queue, path, cookie)).unwrap();
        let mut answer = MessageBuffer::with_capacity(65_536);
        let which = Select::UpTo(FrameType::Meta.mtype());
        wait_until("an answer", || self.queue.try_receive(&mut answer, which).is_ok());
        let failure = match answer.mtype() == FrameType::Failure.mtype() {
            true => answer.text(), // the request failed
            false => {
                let frames = answer.text().strip_prefix(cookie.as_bytes()).unwrap();
                let (header, text) = frames.split_at(FrameHeader::SIZE);
                match FrameHeader::decode(header).unwrap().frame_type {
                    FrameType::Failure => text,
                    _ => return Ok(()),
                }
            }
        };
        Err(String::from_utf8(Failure::decode(failure).text).unwrap())
    }

    fn end(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end();
        let _ = self.queue.remove();
    }
}

/// Fails the test unless each such process gets exactly the files of these groups, and `/file`.
#[track_caller]
fn gets(site: &Site, what: &str, theirs: &[u32], start: impl Fn(&Site) -> Sender) {
    assert_eq!(start(site).ask(site, "/file"), Ok(()), "{what}\n{}", site.server.log());
    for group in GROUPS {
        let expected =
            if theirs.contains(&group) { Ok(()) } else { Err("Permission denied".to_owned()) };
        assert_eq!(start(site).ask(site, &group.to_string()), expected, "{what}: {group}");
    }
}

fn member(site: &Site) -> Sender {
    Sender::start(site, || stay_victim([VICTIM; 2], &[FIRST]), |_| ())
}

/// Fails the test unless such a process gets nothing.
#[track_caller]
fn refuses(site: &Site, why: &str, start: impl Fn(&Site) -> Sender) {
    for path in ["/file", "/denied", &FIRST.to_string()] {
        assert_eq!(start(site).ask(site, path), Err(format!("{REFUSED}{why}")), "{path}");
    }
}

/// What a process is when it makes its queue, and what it does then.
type Case = (&'static str, &'static [u32], fn(), fn());

const CASES: [Case; 11] = [
    ("no group but one's own", &[VICTIM], || stay_victim([VICTIM; 2], &[]), || ()),
    ("two more", &[VICTIM, FIRST, SECOND], || stay_victim([VICTIM; 2], &[FIRST, SECOND]), || ()),
    ("newgrp", &[FIRST, VICTIM], || stay_victim([FIRST; 2], &[VICTIM]), || ()),
    (
        "a thousand more",
        &[VICTIM, SECOND],
        || stay_victim([VICTIM; 2], &(70_000..71_000).chain([SECOND]).collect::<Vec<_>>()),
        || (),
    ),
    (
        "revoked groups",
        &[VICTIM],
        || become_victim(VICTIM, &[FIRST, SECOND]),
        || stay_victim([VICTIM; 2], &[]),
    ),
    // The queue's record (cgid) still names the first, and nothing proves the second.
    (
        "another gid since",
        &[SECOND, 65_534],
        || become_victim(FIRST, &[]),
        || stay_victim([VICTIM; 2], &[SECOND]),
    ),
    (
        "the queue of a set-group-id program",
        &[VICTIM, 65_534],
        || stay_victim([VICTIM, FIRST], &[VICTIM]),
        || (),
    ),
    (
        "such a program executed since",
        &[VICTIM],
        || become_victim(VICTIM, &[]),
        || stay_victim([VICTIM, FIRST], &[]),
    ),
    (
        "executed since, and its real group",
        &[65_534],
        || become_victim(VICTIM, &[]),
        || stay_victim([FIRST; 2], &[]),
    ),
    (
        "executed since, and its groups swapped",
        &[65_534],
        || become_victim(VICTIM, &[]),
        || stay_victim([FIRST, VICTIM], &[]),
    ),
    (
        "a name like a line of /proc/PID/status",
        &[VICTIM],
        || {
            stay_victim([VICTIM; 2], &[]);
            nix::sys::prctl::set_name(c"x\nGroups:\t64181").unwrap();
        },
        || (),
    ),
];

#[as_root_in_own_namespace]
fn a_caller_has_the_groups_that_its_process_has_now_and_none_of_the_servers() {
    let site = site();
    for (what, theirs, before, after) in CASES {
        gets(&site, what, theirs, |site| Sender::start(site, before, |_| after()));
    }
    fn exec(_: Queue) {
        panic!("{}", Command::new("sh").args(["-c", "kill -STOP $$"]).exec());
    }
    gets(&site, "exec", &[VICTIM, FIRST], |site| {
        Sender::start(site, || stay_victim([VICTIM; 2], &[FIRST]), exec)
    });
    let ask = |groups: &'static [u32]| {
        let sender = Sender::start(&site, || stay_victim([VICTIM; 2], groups), |_| ());
        sender.ask(&site, "/denied")
    };
    assert_eq!(ask(&[DENIED]), Err("Permission denied".to_owned()));
    assert_eq!(ask(&[]), Ok(()));
    // A program that is set-group-id.
    let program = site.programs.path("mqfs-client");
    chown(&program, None, Some(FIRST)).unwrap();
    set_mode(&program, 0o2755);
    assert_eq!(site.denied(VICTIM, &FIRST.to_string()), "Permission denied");
    assert_eq!(run(site.client(VICTIM).arg("/file")).success(), site.file);
    site.stop();
}

/// Otherwise a member of a group could hide it, to read what is closed to the group.
#[as_root_in_own_namespace]
fn a_caller_whose_groups_cannot_be_told_any_more_is_refused() {
    let site = site();
    let member = || stay_victim([VICTIM; 2], &[DENIED]);
    refuses(&site, GONE, |site| {
        let sender = Sender::start(site, member, |_| ());
        sender.end();
        sender
    });
    refuses(&site, OTHER_UIDS, |site| {
        Sender::start(site, || become_victim(VICTIM, &[DENIED]), |_| ())
    });
    refuses(&site, OTHER_UIDS, |site| {
        let before = || become_victim(VICTIM, &[DENIED]);
        Sender::start(site, before, |_| {
            seteuid(Uid::from_raw(0)).unwrap();
            let other = Uid::from_raw(ATTACKER);
            setresuid(other, other, other).unwrap();
        })
    });
    refuses(&site, USED, |site| {
        Sender::start(site, member, |queue| {
            let more = MessageBuffer::with_text(LEASE_TYPE, b"more");
            queue.try_send(&more).unwrap();
        })
    });
    site.stop();
}

#[as_root_in_own_pid_namespace]
fn another_process_with_the_same_pid_is_not_taken_for_the_sender() {
    let site = site();
    refuses(&site, GONE, |site| {
        let sender = Sender::start(site, || stay_victim([VICTIM; 2], &[]), |_| ());
        sender.end();
        sleep(Duration::from_millis(1_500)); // queues keep time in whole seconds
        let last = sender.pid.as_raw() - 1;
        fs::write("/proc/sys/kernel/ns_last_pid", last.to_string()).unwrap();
        let richer = fork_child(|| {
            stay_victim([VICTIM; 2], &[FIRST]);
            stop()
        });
        assert_eq!(richer.unwrap(), sender.pid);
        wait_until("it has stopped", || state_of(sender.pid.as_raw()) == Some('T'));
        sender
    });
    site.stop();
}

/// A server with this much of /proc.
fn with_proc(options: &str) -> impl FnOnce(Command) -> Command {
    let script = format!("mount -t proc -o {options} proc /proc");
    move |server| after_mounting(&script, &server)
}

#[as_root_in_own_namespace]
fn hidepid_hides_groups_only_from_a_server_that_is_not_in_its_group() {
    for options in ["hidepid=1", "hidepid=2"] {
        let site = site_by(with_proc(options));
        gets(&site, options, &[VICTIM, FIRST], member);
        site.stop();
    }
    // Landlock denies what the right to trace a process would show.
    let site = site_by(with_proc("hidepid=2,gid=64183"));
    let outcome = member(&site).ask(&site, "/file");
    if outcome != Ok(()) {
        assert_eq!(outcome, Err(format!("{REFUSED}{GONE}")));
        refuses(&site, GONE, member);
    } else {
        gets(&site, "visible", &[VICTIM, FIRST], member);
    }
}

#[as_root_in_own_namespace]
fn a_sandbox_with_a_pid_namespace_below_the_servers_keeps_its_groups() {
    let site = site();
    let (uid, groups) = (VICTIM.to_string(), format!("{FIRST},{SECOND}"));
    let starter = ["setpriv", "--reuid", &uid, "--regid", &uid, "--groups", &groups];
    let client = by(&starter, site.client(VICTIM).arg(FIRST.to_string()));
    for options in [&["--pid", "--mount-proc"][..], &["--pid"]] {
        let fetched = run(&mut unshared(options, &client)).success();
        assert_eq!(fetched, b"for a group");
    }
    site.stop();
}

#[as_root_in_own_namespace]
fn a_caller_that_the_server_cannot_see_has_no_groups() {
    let why = "its process is in a pid namespace that is not shown";
    for options in [&["--pid", "--mount-proc"][..], &["--pid"]] {
        let site = site_by(|server| unshared(options, &server));
        gets(&site, why, &[65_534], member);
        let told = format!("unknown_groups=\"{why}\"");
        wait_until("the log says so", || site.server.log().contains(&told));
        let warned = site.server.log().contains("/proc shows another pid namespace");
        assert_eq!(warned, options.len() == 1, "{}", site.server.log());
        site.server.stop_inner();
    }
}

#[as_root_in_own_namespace]
fn a_plain_request_proves_no_groups() {
    let site = Site::start(&["--plain", "any"]);
    site.put("theirs", 0o640, (0, VICTIM), "for a group");
    site.put("own", 0o600, (VICTIM, 0), "for its owner");
    let plainly = |path| run(site.client(VICTIM).args(["--plain", path]));
    assert_eq!(run(site.client(VICTIM).arg("/theirs")).success(), b"for a group");
    assert_eq!(plainly("/own").success(), b"for its owner");
    assert!(plainly("/theirs").stderr.contains("Permission denied"));
    let told = "unknown_groups=\"a plain request\"";
    assert_eq!(site.server.log().matches(told).count(), 2, "{}", site.server.log());
    site.stop();
}
