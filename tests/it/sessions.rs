//! Sessions: many questions to one child, from a client by hand or from `mqfs-client`. What they
//! answer and in which order; those that end because nobody uses them, or because others need their
//! children.

mod deaths;
mod rights;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use mqfs::wire::{Entry, Kind, Operation, Question};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use sysv_ipc::Queue;
use tempfile::TempDir;

use crate::support::session::{
    Part, RawSession, below, enter, fetch, list, lstat, names, question_message, range, stat,
};
use crate::support::*;

/// A server of `/small`, and of `/file`, which is larger than any queue.
fn serve(arguments: &[&str]) -> (Server, TempDir, Queue) {
    let (server, folder, _) = serve_quietly(4 << 20, arguments);
    let requests = queue_of(server.key).unwrap();
    (server, folder, requests)
}

/// Waits until a session that is idle now has been idle for so long that its child removes the
/// queue when it ends.
fn wait_until_long_idle() {
    let_pass(Duration::from_secs(4));
}

/// Idle sessions of this user. The process that has them ends with its handle.
fn idle_sessions(uid: u32, count: usize, requests: Queue) -> (Attack, Vec<Queue>) {
    let before = reply_queues();
    let user = Attack::start(uid, || {
        let _sessions: Vec<_> = (0..count).map(|_| RawSession::idle(requests)).collect();
        wait_for_ever()
    });
    let mut queues = Vec::new();
    wait_until("they are idle", || {
        queues = reply_queues().into_iter().filter(|queue| !before.contains(queue)).collect();
        let is_idle = |queue: &Queue| {
            queue.status().is_ok_and(|now| now.messages == 1 && now.received_at.is_some())
        };
        queues.len() == count && queues.iter().all(is_idle)
    });
    (user, queues)
}

/// Waits until the clock of the kernel's records, which counts whole seconds, shows a later time.
fn wait_for_the_next_second() {
    let second = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let before = second();
    wait_until("the next second", || second() > before + 1);
}

/// Whether the session has no more answers.
fn has_ended(session: &mut RawSession) -> bool {
    matches!(session.next_part(), Part::Gone | Part::Farewell(1 | 2))
}

#[in_own_namespace]
fn the_session_that_is_idle_for_longest_makes_way() {
    let (server, _folder, requests) = serve(&["--max-children", "64", "--idle-timeout", "1h"]);
    let mut oldest = RawSession::idle(requests);
    let mut used_again = RawSession::idle(requests);
    wait_for_the_next_second();
    used_again.answer_to(&fetch("/small")).unwrap();
    let mut others: Vec<_> = (0..62).map(|_| RawSession::idle(requests)).collect();
    others.push(used_again);
    assert_eq!(server.children().len(), 64);

    assert_eq!(server.fetch("/small"), b"small");
    assert!(has_ended(&mut oldest));
    // On a busy machine, others are asked before the first has ended.
    let mut went = 0;
    for mut session in others {
        let question = question_message(&fetch("/small"));
        let asked = session.queue.try_send(&question).is_ok();
        if !asked || has_ended(&mut session) {
            went += 1;
        }
    }
    assert!(went < 32, "{went} made way for one request");
}

#[in_own_namespace]
fn sessions_at_work_make_way_and_go_on() {
    let (server, _folder, _) = serve(&["--max-children", "4", "--idle-timeout", "1h"]);
    let is_over = AtomicBool::new(false);
    let work = || {
        let client = mqfs::Client::builder().key(server.key).build();
        let mut answers = 0;
        while !is_over.load(Ordering::Relaxed) {
            let small = client.open("/small").unwrap();
            assert_eq!(io::read_to_string(small).unwrap(), "small");
            answers += 1;
        }
        answers
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        wait_until("all children are taken", || server.children().len() == 4);
        for _ in 0..5 {
            assert_eq!(server.fetch("/small"), b"small", "while all four are at work");
        }
        is_over.store(true, Ordering::Relaxed);
        for worker in workers {
            assert!(worker.join().unwrap() > 0);
        }
    });
}

#[as_root_in_own_namespace]
fn at_a_users_limit_only_that_users_sessions_make_way() {
    let limits = ["--max-per-user", "3", "--idle-timeout", "1h", "--mode", "0622"];
    let (server, _folder, requests) = serve(&limits);
    let (other, others) = idle_sessions(ATTACKER, 3, requests);
    wait_for_the_next_second();
    let (user, own) = idle_sessions(SOMEBODY, 3, requests);
    wait_until_long_idle();
    let programs = ForEverybody::new();
    let fetched = run(programs.client(server.key, SOMEBODY).arg("/small")).success();
    assert_eq!(fetched, b"small");
    assert!(own.iter().any(|queue| !exists(*queue)));
    assert!(others.iter().all(|queue| exists(*queue)));
    drop((user, other));
    wait_until("their children remove the queues", || reply_queues().is_empty());
    assert!(server.log().contains("made way"), "{}", server.log());
}

#[in_own_namespace]
fn idle_sessions_cost_no_cpu() {
    let (server, _folder, requests) = serve(&["--idle-timeout", "1h"]);
    let _sessions: Vec<_> = (0..8).map(|_| RawSession::idle(requests)).collect();
    let children = server.children();
    let used = || -> f64 { children.iter().map(|&child| cpu_of(child).unwrap()).sum() };
    let before = used();
    let_pass(Duration::from_secs(3));
    let ticks = (used() - before) * ticks_per_second();
    assert!(ticks <= 4.0, "{ticks} ticks of 8 idle children in 3 seconds");
}

#[in_own_namespace]
fn a_session_that_nobody_uses_ends_and_leaves_only_what_nobody_has_read() {
    let (server, _folder, requests) = serve(&["--idle-timeout", "4s"]);
    let mut unread = RawSession::start(requests, &fetch("/small"));
    let mut idle = RawSession::idle(requests);
    assert_eq!(idle.next_part(), Part::Gone);
    server.wait_until_idle();
    assert_eq!(unread.answer().unwrap().bytes, b"small");
    assert_eq!(unread.next_part(), Part::Farewell(1));
}

#[in_own_namespace]
fn questions_are_answered_in_order_and_many_in_one_message() {
    let (server, folder, requests) = serve(&[]);
    let paths: Vec<_> = (0..60).map(|n| format!("/file-{n}")).collect();
    for path in paths.iter().filter(|path| !path.ends_with('7')) {
        fs::write(folder.path().join(&path[1..]), path).unwrap();
    }
    let mut session = RawSession::idle(requests);
    let child = server.only_child();
    assert!(child.freeze());
    let questions: Vec<_> = paths.iter().map(|path| fetch(path)).collect();
    questions[..20].iter().for_each(|question| session.ask(question));
    session.ask_all(&questions[20..]);
    session.messages = 0;
    child.signal(Signal::SIGCONT);
    for path in &paths {
        // A failure does not end the session.
        let expected = if path.ends_with('7') { Err(Errno::ENOENT) } else { Ok(&path[..]) };
        let answer = session.answer().map(|answer| String::from_utf8(answer.bytes).unwrap());
        assert_eq!(answer.as_deref().map_err(|errno| *errno), expected);
    }
    // A name that is not in the kernel's cache, and a pause, begin another message.
    assert!(session.messages < 30, "{} messages for 60 answers", session.messages);
    assert_eq!(server.only_child(), child);
}

#[in_own_namespace]
fn each_operation_is_answered() {
    let (_server, folder, requests) = serve(&[]);
    symlink("small", folder.path().join("link")).unwrap();
    fs::create_dir(folder.path().join("many")).unwrap();
    let mut all: Vec<_> = (0..2000).map(|n| format!("{n}-{}", "n".repeat(200))).collect();
    all.iter().for_each(|name| fs::write(folder.path().join("many").join(name), "").unwrap());
    all.sort_unstable();

    let mut session = RawSession::start(requests, &fetch("/link"));
    assert_eq!(session.answer().unwrap().bytes, b"small");
    let part = session.answer_to(&range("/small", 1, 3)).unwrap();
    assert_eq!((&*part.bytes, part.size), (&b"mal"[..], 5));
    let big = session.answer_to(&fetch("/file")).unwrap();
    assert!(big.bytes == fs::read(folder.path().join("file")).unwrap());
    assert!(windows().is_empty(), "the request does not allow shared memory");
    let followed = session.answer_to(&stat("/link")).unwrap();
    assert_eq!((followed.kind, followed.size, &*followed.target), (Kind::Regular, 5, &b""[..]));
    let itself = session.answer_to(&lstat("/link")).unwrap();
    assert_eq!((itself.kind, &*itself.target), (Kind::Link, &b"small"[..]));
    assert_eq!(names(&session.answer_to(&list("/many")).unwrap()), all);
    assert_eq!(names(&session.answer_to(&list("/")).unwrap()), ["file", "link", "many", "small"]);
    for (question, errno) in [
        (fetch("/none"), Errno::ENOENT),
        (fetch("/many"), Errno::EISDIR),
        (list("/small"), Errno::ENOTDIR),
        (list("/none"), Errno::ENOENT),
        (stat(""), Errno::ENOENT),
        (fetch("/small/x"), Errno::ENOTDIR),
        (
            Question::new("/".as_ref(), Operation::Unknown { operation: 99, flags: 0 }),
            Errno::EPROTONOSUPPORT,
        ),
        (
            Question::new("/".as_ref(), Operation::Unknown { operation: 1, flags: 64 }),
            Errno::EPROTONOSUPPORT,
        ),
    ] {
        assert_eq!(session.answer_to(&question), Err(errno), "{question:?}");
        assert_eq!(session.answer_to(&fetch("/small")).unwrap().bytes, b"small");
    }
}

#[in_own_namespace]
fn a_question_below_a_directory_stays_there() {
    let (_server, folder, requests) = serve(&[]);
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("dir/sub")).unwrap();
    fs::write(at("dir/file"), "file").unwrap();
    fs::write(at("dir/sub/deep"), "deep").unwrap();
    symlink("file", at("dir/link")).unwrap();
    symlink("sub", at("dir/folder")).unwrap();

    let mut session = RawSession::start(requests, &below(fetch("dir/file")));
    assert_eq!(session.answer().unwrap().bytes, b"file", "below the root, unless one enters");
    assert_eq!(session.answer_to(&enter("/dir")).unwrap().kind, Kind::Directory);
    assert_eq!(session.answer_to(&below(fetch("file"))).unwrap().bytes, b"file");
    assert_eq!(session.answer_to(&below(fetch("sub/../sub/deep"))).unwrap().bytes, b"deep");
    assert_eq!(session.answer_to(&below(stat("link"))).unwrap().target, b"file");
    assert_eq!(
        names(&session.answer_to(&below(list("."))).unwrap()),
        ["file", "folder", "link", "sub"]
    );
    for (question, errno) in [
        (fetch("link"), Errno::ELOOP),
        (fetch("folder/deep"), Errno::ELOOP),
        (list("folder"), Errno::ENOTDIR),
        (fetch("../small"), Errno::EXDEV),
        (stat(".."), Errno::EXDEV),
        (list("sub/../.."), Errno::EXDEV),
        (fetch("/small"), Errno::EXDEV),
        (fetch("/dir/file"), Errno::EXDEV),
    ] {
        assert_eq!(session.answer_to(&below(question)), Err(errno), "{question:?}");
    }
    // Nothing is below what cannot be entered, or is no directory.
    assert_eq!(session.answer_to(&enter("/none")), Err(Errno::ENOENT));
    assert_eq!(session.answer_to(&below(fetch("file"))), Err(Errno::ENOENT));
    assert_eq!(session.answer_to(&enter("/small")).unwrap().kind, Kind::Regular);
    assert_eq!(session.answer_to(&below(fetch("file"))), Err(Errno::ENOTDIR));
    assert_eq!(session.answer_to(&enter("/dir")).unwrap().kind, Kind::Directory);
    assert_eq!(session.answer_to(&below(enter("sub"))).unwrap().kind, Kind::Directory);
    assert_eq!(session.answer_to(&below(fetch("deep"))).unwrap().bytes, b"deep");
}

#[as_root_with_mounts]
fn answers_that_are_ready_do_not_wait_for_a_file_system_that_hangs() {
    let (server, folder, requests) = serve(&[]);
    let mount = HungMount::on(&folder.path().join("hung"), Unanswered::Lookup);
    let mut session = RawSession::idle(requests);
    let child = server.only_child();
    assert!(child.freeze());
    session.ask(&fetch("/small"));
    session.ask(&fetch("/none"));
    session.ask(&fetch("/hung/file"));
    child.signal(Signal::SIGCONT);
    assert_eq!(session.answer().unwrap().bytes, b"small");
    assert_eq!(session.answer(), Err(Errno::ENOENT));
    drop(mount);
    assert!(session.answer().is_err());
}

/// `F_SETSIG` of Linux, asm-generic/fcntl.h; libc lacks it.
const F_SETSIG: libc::c_int = 10;

/// `fcntl(file, command, lease)`: fcntl(2), "Leases".
#[allow(unsafe_code)]
fn lease(file: &File, command: libc::c_int, lease: libc::c_int) -> libc::c_int {
    // SAFETY: takes integers; the descriptor is open.
    unsafe { libc::fcntl(file.as_raw_fd(), command, lease) }
}

fn leased_file(folder: &TempDir) -> File {
    let file = File::create(folder.path().join("leased")).unwrap();
    // The kernel's request to give the lease up is a signal, whose default action is to end us.
    assert_eq!(lease(&file, F_SETSIG, Signal::SIGURG as libc::c_int), 0);
    assert_eq!(lease(&file, libc::F_SETLEASE, libc::F_WRLCK), 0);
    file
}

#[in_own_namespace]
fn a_leased_file_is_sent_when_its_holder_gives_it_up() {
    let (server, folder, requests) = serve(&[]);
    let mut file = leased_file(&folder);
    let mut session = RawSession::idle(requests);
    let child = server.only_child();
    assert!(child.freeze());
    session.ask(&fetch("/small"));
    session.ask(&fetch("/leased"));
    child.signal(Signal::SIGCONT);
    assert_eq!(session.answer().unwrap().bytes, b"small");
    wait_until("the kernel asks for the lease", || {
        lease(&file, libc::F_GETLEASE, 0) != libc::F_WRLCK
    });
    file.write_all(b"flushed").unwrap();
    drop(file);
    assert_eq!(session.answer().unwrap().bytes, b"flushed");
}

#[in_own_namespace]
fn a_lease_that_its_holder_keeps_is_an_error_of_the_file() {
    let (server, folder, _) = serve(&[]);
    let _file = leased_file(&folder);
    let refused = run(server.client().args(["/leased", "/small"]));
    let expected = "mqfs-client: /leased: another process holds a lease on the file\n";
    assert_eq!((refused.code(), &*refused.stderr), (Some(1), expected));
    assert_eq!(refused.stdout, b"small");
}

#[in_own_namespace]
fn links_that_vanish_are_left_out_of_a_listing() {
    let (_server, folder, requests) = serve(&[]);
    let at = |n: u32| folder.path().join(format!("links/{n}"));
    fs::create_dir(folder.path().join("links")).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                (0..100).for_each(|n| symlink("target", at(n)).unwrap());
                (0..100).for_each(|n| fs::remove_file(at(n)).unwrap());
            }
        });
        let mut session = RawSession::start(requests, &list("/links"));
        for _ in 0..2000 {
            let listing = session.answer().unwrap().bytes;
            let mut rest = &listing[..];
            while let Ok(entry) = Entry::decode(rest) {
                assert_eq!((entry.errno, entry.target), (None, &b"target"[..]));
                rest = &rest[entry.encoded_len()..];
            }
            session.ask(&list("/links"));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
