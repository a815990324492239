//! The limits per user, also for one who floods the request queue while another one fetches, or who
//! keeps requests out of the log or fills it.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mqfs::wire::{LEASE_TYPE, REPLY_QUEUE_MODE};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use sysv_ipc::{MessageBuffer, MessageType, OwnedQueue, Queue, QueueLimits};

use crate::support::*;

fn refusals(server: &Server) -> usize {
    server.log().matches("the user has as many children as one may have").count()
}

#[as_root_in_own_namespace]
fn a_user_with_too_many_transfers_is_told_to_try_again_and_others_go_on() {
    let (server, _folder, file) = serve_file(4 << 20, &["--mode", "0622", "--max-per-user", "2"]);
    let programs = ForEverybody::new();
    let client = |uid| with(programs.client(server.key, uid), &["/file"]);
    let first = Stuck::start(&mut client(SOMEBODY));
    let second = Stuck::start(&mut client(SOMEBODY));
    let why = "busy: as many transfers as one user may have are under way";
    let told = format!("mqfs-client: /file: {why}\n");
    fails(client(SOMEBODY).args(["--timeout", "200ms"]), 1, &told);
    assert!(run(&mut client(SOMEBODY - 1)).success() == file, "another user is served at once");

    let refused = || {
        let before = refusals(&server);
        let client = Running::piped(client(SOMEBODY).args(["--timeout", "1h"]));
        wait_until("it was told to try again", || refusals(&server) > before);
        client
    };
    let interrupted = refused();
    interrupted.signal(Signal::SIGTERM);
    let ended = interrupted.finish();
    assert_eq!((ended.code(), &*ended.stderr), (Some(130), "mqfs-client: interrupted\n"));
    assert_eq!(reply_queues().len(), 2);
    let third = refused();
    assert!(first.finish() == file);
    assert!(third.finish().success() == file, "it tried again");
    assert!(second.finish() == file);
}

/// Fetches as the victim during the flood, and once more. Returns how often.
fn fetch_during(flooder: &mut Attack, server: &Server, file: &[u8]) -> usize {
    let programs = ForEverybody::new();
    for fetched in 1.. {
        let over = !flooder.goes_on();
        assert!(run(programs.client(server.key, VICTIM).arg("/file")).success() == file);
        if over {
            return fetched;
        }
    }
    unreachable!()
}

/// The largest number of children that answer the flooder at once, until it is over.
fn most_children(server: &Server, over: &AtomicBool) -> usize {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        let children = server.children().into_iter();
        let uids = children.filter_map(|child| number(child, "status", "Uid"));
        most = most.max(uids.filter(|&uid| uid == u64::from(ATTACKER)).count());
    }
    most
}

#[as_root_in_own_namespace]
fn a_flood_of_garbage_and_requests_of_one_user_does_not_starve_another() {
    let (server, _folder, file) = serve_file(4 << 20, &["--mode", "0622"]);
    let requests = queue_of(server.key).unwrap();
    let mut flooder = Attack::start(ATTACKER, || flood(requests));
    let over = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let most = scope.spawn(|| most_children(&server, &over));
        let fetched = fetch_during(&mut flooder, &server, &file);
        over.store(true, Ordering::Relaxed);
        assert!(fetched > 1, "nobody fetched during the flood");
        most.join().unwrap()
    });
    assert!(most <= 16, "{most} children of the flooder");
    assert_eq!(flooder.finish(), Ok(()));
    wait_until("the queue is empty", || requests.status().unwrap().messages == 0);
    for reason in ["malformed", "as many children as one may have"] {
        assert!(server.log().contains(reason), "{}", server.log());
    }
    let lines = server.log().lines().filter(|line| line.contains("refused")).count();
    assert!(lines < 1000, "the flood is told of in a few lines");
    server.wait_until_idle();
}

/// Sends ten garbage messages of all types and lengths for each of 10,000 requests.
fn flood(requests: Queue) -> Result<(), Errno> {
    let ask = |path| {
        let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
        let request = leased_request(*queue, requests, path);
        (queue, request)
    };
    let mut askers: Vec<_> = (0..32).map(|_| ask("/file")).collect();
    let msgmax = QueueLimits::current().unwrap().msgmax;
    let garbage = noise(msgmax + 100_000);
    let types = [1, 2, 3, 4, 10, LEASE_TYPE.get(), i64::MAX - 1, i64::MAX];
    for n in 0..100_000 {
        let mtype = types.get(n % 16).copied().unwrap_or((n as i64) << (n % 40) | 1);
        let text = &garbage[n..][..n % (msgmax + 1)];
        sent(requests.send(&MessageBuffer::with_text(MessageType::new(mtype).unwrap(), text)))?;
        if n % 10 == 0 {
            let turn = n / 10 % askers.len();
            // Eight of them are valid, but nobody reads their replies, so they occupy their
            // children.
            if turn >= 8 {
                askers[turn] = ask("/small");
            }
            sent(requests.send(&askers[turn].1))?;
        }
    }
    Ok(())
}

#[as_root_in_own_namespace]
fn a_caller_cannot_keep_its_request_out_of_the_log() {
    for (prevent, what, more) in [
        (&["kill", "-KILL"][..], "a child was killed", &[][..]),
        (&["kill", "-KILL"], "a child was killed", &["/file"]),
        (&["kill", "-STOP"], "a child is stopped", &[]),
        (
            &["prlimit", "--fsize=0", "--pid"],
            "a child could not log: its file size is limited",
            &[],
        ),
    ] {
        let level = if what.contains("log") { "--log-format=text" } else { "--quiet" };
        let site = Site::start(&["--reap-interval", "1h", "--stall-timeout", "2s", level]);
        site.server.wait_until_idle();
        let client = Stuck::start(site.victim().args(more));
        let (child, pid) = (site.server.only_child(), client.client.pid());
        let mut attack = Command::new(prevent[0]);
        attack.args(&prevent[1..]).arg(child.pid.to_string()).uid(VICTIM).gid(VICTIM);
        run(&mut attack).success();
        let line = format!(
            "{what} uid={VICTIM} client_pid={pid} queue={} operation=\"fetch\" path=\"/file\" \
             session={} pid={}",
            client.queue.id(),
            !more.is_empty(),
            child.pid,
        );
        let client = (!what.contains("stopped")).then_some(client); // the others end with it
        drop(client);
        wait_until("the log has it", || site.server.log().contains(&line));
        child.signal(Signal::SIGCONT);
        site.stop();
    }
}

#[in_own_namespace]
fn a_user_who_fills_the_log_is_cut_off_and_the_lines_left_out_are_counted() {
    const REQUESTS: usize = 1_500;
    let (server, _folder, _) = serve_quietly(1, &["--log-format", "json"]);
    let before = server.log().len();
    let client = mqfs::Client::builder().key(server.key).sessions(false).build();
    let path = "\u{1}".repeat(1_000);
    for _ in 0..REQUESTS {
        assert!(client.open(&path).is_err());
    }
    server.wait_until_idle();
    let log = &server.stop()[before..];
    assert!(log.len() < 5 << 20, "{}", log.len());
    let lines = log.matches(r#""operation":"fetch""#).count();
    let left_out = log.split(r#""lines":"#).skip(1).map(|rest| rest.split('}').next().unwrap());
    let left_out: usize = left_out.map(|number| number.parse::<usize>().unwrap()).sum();
    assert_eq!(lines + left_out, REQUESTS, "lines, and lines left out");
    assert!(left_out > 0);
}
