//! Windows: large files go through shared memory, of which nothing is ever left. Here: whose a window
//! is, and clients that misuse it or die.

mod bytes;
mod servers;

use std::fs;
use std::sync::atomic::Ordering;

use mqfs::wire::{LEASE_TYPE, WINDOW_MODE, WindowPart};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use sysv_ipc::{Key, MessageBuffer, Mode, Queue, QueueLimits, QueueSettings, Select, SharedMemory};

use crate::support::session::{Part, RawSession, fetch, stat};
use crate::support::{
    ATTACKER, OPERATOR, SOMEBODY, Site, Stuck, VICTIM, as_root_in_own_namespace, as_user, errno_of,
    exists, in_dead_process, in_own_namespace, noise, queue_of, reap, serve_quietly, set,
    wait_until, windows,
};

/// Waits until no window is left.
#[track_caller]
fn wait_until_gone() {
    wait_until("no window is left", || windows().is_empty());
}

/// Receives the first message about a window.
#[track_caller]
fn first_window(session: &mut RawSession) -> WindowPart {
    loop {
        if let Part::Window(part) = session.next_part() {
            return part;
        }
    }
}

/// Receives the rest of the answer, without a look at the window.
fn receive_all(session: &mut RawSession, first: WindowPart, mut meanwhile: impl FnMut()) {
    let mut sum = u64::from(first.length);
    loop {
        meanwhile();
        match session.next_part() {
            Part::Window(part) => sum += u64::from(part.length),
            Part::Data(bytes) => sum += bytes.len() as u64,
            Part::End(end) => return assert_eq!((end.bytes, sum), (8 << 20, 8 << 20)),
            other => panic!("{other:?}"),
        }
    }
}

fn resize(queue: Queue, max_bytes: u64) {
    let _ = set(queue, &QueueSettings { max_bytes, ..queue.status().unwrap().settings() });
}

type Misuse = fn(&mut RawSession, WindowPart);

/// Those after which the answer ends, and those after which it never does.
const MISUSES: [(&str, bool, Misuse); 5] = [
    ("never looks", true, |session, part| receive_all(session, part, || {})),
    ("scribbles", true, |session, part| {
        let memory = SharedMemory::from_id(part.segment).attach().unwrap();
        receive_all(session, part, || {
            memory.words().iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        });
    }),
    ("changes its room", true, |session, part| {
        let queue = *session.queue;
        let most = QueueLimits::current().unwrap().msgmnb as u64;
        receive_all(session, part, || {
            [1, most, 1 << 20].iter().for_each(|&max| resize(queue, max))
        });
    }),
    ("leaves no room", false, |session, _| resize(*session.queue, 1)),
    ("takes its lease", false, |session, _| {
        let mut lease = MessageBuffer::with_capacity(1024);
        session.queue.try_receive(&mut lease, Select::Type(LEASE_TYPE)).unwrap();
    }),
];

#[in_own_namespace]
fn clients_that_misuse_windows_harm_only_themselves() {
    let (server, _folder, file) = serve_quietly(8 << 20, &["--stall-timeout", "1s"]);
    let requests = queue_of(server.key).unwrap();
    for (how, ends, misuse) in MISUSES {
        let mut session = RawSession::with_windows(requests, &fetch("/file"));
        let child = server.only_child();
        let first = first_window(&mut session);
        misuse(&mut session, first);
        assert!(server.fetch("/file") == file, "{how}");
        if ends {
            assert!(child.lives(), "{how}");
            session.ask(&stat("/"));
            assert!(matches!(session.next_part(), Part::Meta(_)), "{how}");
        }
        wait_until(how, || ends || !child.lives());
        assert!(exists(*session.queue), "{how}");
        drop(session);
        wait_until_gone();
        server.wait_until_idle();
    }
    assert!(!server.log().contains("WARN") && !server.log().contains("ERROR"), "{}", server.log());
    server.stop();
}

#[as_root_in_own_namespace]
fn a_window_is_its_clients_alone() {
    for operator in [0, OPERATOR] {
        let (site, large) = (Site::start_as(operator, &[]), noise(8 << 20));
        fs::write(site.at("large"), &large).unwrap();
        let clients =
            [VICTIM, SOMEBODY].map(|uid| Stuck::start(site.client(uid).args(["/large", "/large"])));
        wait_until("both are attached", || {
            windows().iter().filter(|(_, status)| status.attached == 2).count() == 2
        });
        let mut owners = Vec::new();
        for (window, status) in windows() {
            let owner = status.permissions.uid.as_raw();
            let maker = if operator == 0 { owner } else { operator };
            assert_eq!(status.permissions.cuid.as_raw(), maker);
            assert_eq!((status.permissions.mode, status.is_removed), (WINDOW_MODE, true));
            for user in [ATTACKER, VICTIM, SOMEBODY] {
                let attached =
                    as_user(user, || window.attach_read_only().map(drop).map_err(errno_of));
                let expected = if user == owner { Ok(()) } else { Err(Errno::EACCES) };
                assert_eq!(attached, expected, "{user} of {owner}");
            }
            owners.push(owner);
        }
        owners.sort_unstable();
        assert_eq!(owners, [VICTIM, SOMEBODY]);
        for client in clients {
            assert!(client.finish() == large.repeat(2));
        }
        site.stop();
    }
}

#[in_own_namespace]
fn a_client_that_attaches_and_reads_no_more_is_given_up() {
    let (server, _folder, _) = serve_quietly(8 << 20, &["--stall-timeout", "1s"]);
    let requests = queue_of(server.key).unwrap();
    for (is_attached, is_killed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut session = RawSession::with_windows(requests, &fetch("/file"));
        let child = server.only_child();
        let part = first_window(&mut session);
        let window = SharedMemory::from_id(part.segment);
        let attached = is_attached.then(|| window.attach_read_only().unwrap());
        if is_killed {
            assert!(child.signal(Signal::SIGKILL));
        }
        server.wait_until_idle();
        assert_eq!(windows().len(), usize::from(is_attached));
        drop(attached);
        wait_until_gone();
    }
    assert_eq!(server.log().matches("client stalled").count(), 2, "{}", server.log());
    server.stop();
}

#[in_own_namespace]
fn windows_that_dead_children_left_are_removed() {
    let make = |mode| SharedMemory::create(Key::PRIVATE, 4096, mode).unwrap();
    in_dead_process(|| _ = make(WINDOW_MODE));
    let attached = windows()[0].0.attach_read_only().unwrap();
    in_dead_process(|| _ = make(WINDOW_MODE));
    in_dead_process(|| std::mem::forget(make(WINDOW_MODE).attach()));
    let others = [WINDOW_MODE, Mode::new(0o600)].map(make);
    assert_eq!(windows().len(), 4);
    for keeps in [&["--older-than", "1h"][..], &["--dry-run"], &["--uid", "64999"]] {
        assert_eq!((reap(keeps).stderr.as_str(), windows().len()), ("", 4), "{keeps:?}");
    }
    let told = reap(&[]);
    assert_eq!(told.stderr, "mqfs-reap: also removed 2 semaphores and segments of memory\n");
    // One is used, and the maker of the other lives.
    assert_eq!(windows().len(), 2);
    drop(attached);
    others.into_iter().chain([windows()[0].0]).for_each(|memory| _ = memory.remove());
}
