//! The shared memory of the counters: its owner, its lifetime, that it cannot harm the server, and
//! `mqfs-stat --prometheus`, which shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use serde_json::Value;
use sysv_ipc::{Key, Mode, OwnedQueue, SharedMemory};

use super::{look, others_queue, server, wait_for};
use crate::support::*;

/// A segment of this process. Removed with its handle.
struct Segment(SharedMemory);

impl Segment {
    fn create(key: Key, mode: u16) -> Self {
        Self(SharedMemory::create(key, 4096, Mode::new(mode)).unwrap())
    }

    /// A segment that another user made.
    fn of(uid: u32, key: Key, mode: u16) -> Self {
        let made = as_user(uid, || {
            SharedMemory::create(key, 4096, Mode::new(mode)).map(drop).map_err(errno_of)
        });
        assert_eq!(made, Ok(()));
        Self(SharedMemory::open(key).unwrap())
    }

    fn exists(&self) -> bool {
        self.0.status().is_ok_and(|status| !status.is_removed)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

#[in_own_namespace]
fn the_segment_lives_as_long_as_the_server_and_all_may_read_it() {
    let (server, _folder) = server();
    let segment = SharedMemory::open(server.key).unwrap();
    let status = segment.status().unwrap();
    assert_eq!((status.permissions.mode, status.size), (Mode::new(0o755), 4096));
    if nix::unistd::geteuid().is_root() {
        let errno = |outcome: Result<(), sysv_ipc::Error>| outcome.map_err(errno_of);
        let write = as_user(ATTACKER, || errno(segment.attach().map(drop)));
        assert_eq!(write, Err(Errno::EACCES));
        let read = as_user(ATTACKER, || errno(segment.attach_read_only().map(drop)));
        assert_eq!(read, Ok(()));
    }
    let key = server.key;
    server.stop();
    assert!(SharedMemory::open(key).is_err(), "it goes with the server");
}

#[in_own_namespace]
fn counters_of_a_killed_server_stay_until_the_next_server() {
    let (mut first, folder) = server();
    first.fetch("/small");
    wait_for(first.key, "complete", 1);
    first.wait_until_idle();
    first.running().kill();
    let finished = run(&mut stat_of(first.key));
    assert_eq!(finished.code(), Some(1));
    let table = String::from_utf8(finished.stdout).unwrap();
    assert!(table.contains("COUNTERS of a dead server (nobody holds"), "{table}");
    let seen = look(first.key);
    assert_eq!((&seen["server"], &seen["counters_are_current"]), (&"dead".into(), &false.into()));
    assert_eq!(seen["counters"]["complete"], 1);
    let dead = run(stat_of(first.key).arg("--prometheus"));
    assert_eq!((dead.code(), &*dead.stderr), (Some(1), ""));
    let (page, key) = (String::from_utf8(dead.stdout).unwrap(), first.key);
    assert!(page.contains(&format!("mqfs_up{{key=\"{key}\"}} 0\n")), "{page}");
    assert!(page.contains(&format!("mqfs_requests_total{{key=\"{key}\"}} 1\n")), "{page}");

    let next = Server::start_on(first.key, &["--root".as_ref(), folder.path()]);
    let seen = look(next.key);
    assert_eq!(seen["counters"]["complete"], 0);
    assert_eq!(seen["counters"]["server_pid"], next.pid());
    assert_eq!(seen["counters_are_current"], true);
    assert!(!next.log().contains("WARN"), "{}", next.log());
    first.make_way();

    // Without a queue under the key, or with another.
    let mut next = next;
    next.fetch("/small"); // its reaper would remove the queue
    next.wait_until_idle();
    next.running().kill();
    queue_of(next.key).unwrap().remove().unwrap();
    let dead = |status, why| {
        let told = run(stat_of(next.key).arg("--json"));
        assert_eq!(told.code(), Some(status));
        assert!(String::from_utf8(told.stdout).unwrap().contains(why), "{why}");
    };
    dead(2, "there is no queue under the key");
    let _other = OwnedQueue::create(next.key, Mode::new(0o711)).unwrap();
    dead(1, "another queue stands under the key");
}

#[in_own_namespace]
fn a_recreated_request_queue_is_recorded_in_the_segment() {
    let (server, _folder) = server();
    server.fetch("/small");
    wait_for(server.key, "complete", 1);
    let lost = queue_of(server.key).unwrap();
    lost.remove().unwrap();
    wait_until("it has a new queue", || queue_of(server.key).is_some_and(|queue| queue != lost));
    wait_until("the counters are current", || look(server.key)["counters_are_current"] == true);
    let seen = look(server.key);
    assert_eq!(seen["counters"]["queue"], queue_of(server.key).unwrap().id().get());
    assert_eq!(seen["counters"]["complete"], 1, "what was counted stays");
}

#[in_own_namespace]
fn changes_of_the_segment_do_not_affect_the_server() {
    let (server, _folder) = server();
    let memory = SharedMemory::open(server.key).unwrap().attach().unwrap();
    for value in [u64::MAX, 0, 1 << 63, 64] {
        // Counters may be any numbers. Without the magic and the version, there are none.
        for (first, are_shown) in [(2, true), (0, false)] {
            memory.words()[first..].iter().for_each(|word| word.store(value, Relaxed));
            assert_eq!(server.fetch("/small"), b"small");
            assert_eq!(run(server.client().arg("/none")).code(), Some(1));
            assert_eq!(look(server.key)["counters"].is_object(), are_shown);
            assert!(!run(stat_of(server.key).arg("--prometheus")).stdout.is_empty());
            assert!(!run(&mut stat_of(server.key)).stdout.is_empty());
        }
        let [magic, version] = [u64::from_ne_bytes(*b"mqfsstat"), 1];
        memory.words()[0].store(magic, Relaxed);
        memory.words()[1].store(version, Relaxed);
    }
}

#[as_root_in_own_namespace]
fn roots_server_removes_a_segment_that_another_user_made() {
    for mode in [0o644, 0o755, 0o600] {
        let key = unique_key();
        let squat = Segment::of(ATTACKER, key, mode);
        let server = Server::start_on(key, &["--root", "/proc"]);
        assert!(!squat.exists());
        assert!(server.log().contains("removed another user's shared memory"), "{}", server.log());
        assert_eq!(look(key)["counters"]["requests"], 0);
        std::mem::forget(squat); // its id may be the server's by now
    }
}

#[as_root_in_own_namespace]
fn an_unprivileged_server_works_without_a_segment() {
    let programs = ForEverybody::new();
    let folder = public_folder();
    fs::write(folder.path().join("file"), "file").unwrap();
    for mode in [0o755, 0o666, 0o600] {
        let key = unique_key();
        let squat = Segment::of(ATTACKER, key, mode);
        let mut command = programs.server(key, OPERATOR);
        command.args(["--reap-interval", "200ms", "--root"]).arg(folder.path());
        let server = Server::start_as(key, &mut command);
        assert_eq!(run(programs.client(key, OPERATOR).arg("/file")).success(), b"file");
        assert_eq!(squat.0.status().unwrap().attached, 0, "never attached");
        let seen = look(key);
        assert_eq!(seen["counters"], serde_json::Value::Null);
        let note = format!("not trusted: the segment belongs to uid {ATTACKER}");
        assert_eq!(seen["counters_note"], note);
        assert!(text(&mut stat_of(key)).contains(&format!("COUNTERS: {note}")));
        assert!(squat.exists(), "it is not the server's to remove");
        drop(squat);
        wait_until("it counts", || look(key)["counters"]["requests"] == 0);
        assert_eq!(run(programs.client(key, OPERATOR).arg("/file")).success(), b"file");
        wait_for(key, "complete", 1);
        assert_eq!(server.log().matches("nothing is counted").count(), 1, "{}", server.log());
    }
}

#[in_own_namespace]
fn a_segment_of_another_program_of_the_same_user_is_left_alone() {
    let key = unique_key();
    let others = Segment::create(key, 0o644);
    let server = Server::start_on(key, &["--root", "/proc"]);
    assert!(server.log().contains("is another program's"), "{}", server.log());
    assert!(!server.fetch("/version").is_empty());
    assert!(others.exists());
    let table = text(&mut stat_of(key));
    assert!(table.contains("COUNTERS: the segment under this key holds no known"), "{table}");
    server.make_way();
    assert!(others.exists());
}

fn metrics(key: Key) -> Finished {
    run(stat_of(key).arg("--prometheus"))
}

/// Parses the text exposition format: a family is one block that begins with HELP and TYPE, and no
/// sample occurs twice.
#[track_caller]
fn parse(page: &[u8]) -> BTreeMap<String, f64> {
    let page = std::str::from_utf8(page).unwrap();
    assert!(page.ends_with('\n') && !page.contains("\n\n"), "{page}");
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    for block in page.strip_prefix("# HELP ").unwrap().split("\n# HELP ") {
        let (family, _help) = block.split_once(' ').unwrap();
        assert!(families.insert(family), "{family} comes twice");
        let mut lines = block.lines().skip(1);
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).unwrap();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
        for sample in lines {
            let (name, value) = sample.rsplit_once(' ').unwrap();
            let suffix = name.split_once('{').unwrap().0.strip_prefix(family).unwrap();
            let is_known = ["_bucket", "_sum", "_count"].contains(&suffix);
            assert!(if kind == "histogram" { is_known } else { suffix.is_empty() }, "{sample}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{sample}");
            assert_eq!(samples.insert(name.to_owned(), value), None, "{sample}");
        }
    }
    samples
}

#[in_own_namespace]
fn prometheus_and_json_show_the_same_values() {
    let (server, _folder) = server();
    for path in ["/small", "/file", "/none"] {
        let _ = run(server.client().arg(path));
    }
    wait_for(server.key, "failed/not_found", 1);
    wait_for(server.key, "complete", 2);
    wait_for(server.key, "children", 0);
    let (json, printed) = (look(server.key), metrics(server.key));
    assert_eq!((printed.code(), &*printed.stderr), (Some(0), ""));
    let samples = parse(&printed.stdout);
    let key = server.key;
    let sample = |name: &str, label: &str| samples[&format!("{name}{{{label}key=\"{key}\"}}")];
    let of_json = |pointer: &str| json.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert_eq!(sample("mqfs_up", ""), 1.0);
    assert!(sample("mqfs_start_time_seconds", "") > 1.6e9);
    for (name, pointer) in [
        ("mqfs_requests_total", "/counters/requests"),
        ("mqfs_bytes_sent_total", "/counters/bytes_sent"),
        ("mqfs_clients_gone_total", "/counters/clients_gone"),
        ("mqfs_windows_failed_total", "/counters/windows_failed"),
        ("mqfs_children", "/counters/children"),
        ("mqfs_children_hung", "/counters/children_hung"),
        ("mqfs_children_peak", "/counters/children_peak"),
        ("mqfs_children_limit", "/counters/children_limit"),
        ("mqfs_transfer_seconds_sum", "/counters/transfer_seconds_sum"),
        ("mqfs_transfer_seconds_count", "/counters/complete"),
        ("mqfs_queue_messages", "/queue/messages"),
        ("mqfs_queue_bytes", "/queue/bytes"),
        ("mqfs_queue_capacity_bytes", "/queue/capacity"),
        ("mqfs_namespace_queues", "/namespace/queues"),
        ("mqfs_namespace_queues_limit", "/namespace/msgmni"),
    ] {
        assert_eq!(sample(name, ""), of_json(pointer), "{name}");
    }
    assert_eq!(of_json("/counters/bytes_sent"), 5.0 + f64::from(4 << 20));
    for (name, reasons) in [("mqfs_failures_total", "failed"), ("mqfs_refused_total", "refused")] {
        for (reason, count) in json["counters"][reasons].as_object().unwrap() {
            let label = format!("reason=\"{reason}\",");
            assert_eq!(sample(name, &label), count.as_f64().unwrap(), "{reason}");
        }
    }
    for bucket in json["counters"]["transfer_seconds"].as_array().unwrap() {
        let bound = bucket["le"].as_f64().map_or("+Inf".to_owned(), |bound| bound.to_string());
        let count = sample("mqfs_transfer_seconds_bucket", &format!("le=\"{bound}\","));
        assert_eq!(bucket["count"].as_f64(), Some(count), "{bound}");
        // A bucket holds all transfers that took at most `le` seconds.
        if bound == "250" || bound == "+Inf" {
            assert_eq!(count, 2.0, "{bound}");
        }
    }
}

#[in_own_namespace]
fn without_a_server_mqfs_up_is_0_and_the_status_is_that_of_json() {
    let key = unique_key();
    let up = format!("mqfs_up{{key=\"{key}\"}}");
    let absent = metrics(key);
    let told = format!("mqfs-stat: no queue under key {key}\n");
    assert_eq!((absent.code(), absent.stderr), (Some(2), told));
    let samples = parse(&absent.stdout);
    assert_eq!(samples[&up], 0.0);
    let queues = samples[&format!("mqfs_namespace_queues{{key=\"{key}\"}}")];
    assert_eq!(queues, listed("msg") as f64);

    let _queue = others_queue(key);
    let samples = parse(&metrics(key).success());
    assert_eq!(samples[&up], 0.0);
    assert!(!samples.keys().any(|name| name.starts_with("mqfs_queue")), "another program's");
}
