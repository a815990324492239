//! Windows: large files go through shared memory, of which nothing is ever left. The right bytes,
//! with a window and without; whose a window is; clients that misuse it or die; servers that send
//! nonsense about it.

use std::fs;
use std::io::{BufRead, Read};
use std::sync::atomic::Ordering;

use mqfs::Client;
use mqfs::wire::{FrameType, Kind, LEASE_TYPE, Question, WINDOW_MODE, WindowPart};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use sysv_ipc::{
    Attached, Key, MessageBuffer, Mode, Owned, OwnedQueue, Queue, QueueLimits, Select,
    SharedMemory, SharedMemoryId,
};

use crate::support::fake_server::{Answer, ask, encoded, entry, serve};
use crate::support::session::{Part, RawSession, fetch, stat};
use crate::support::*;

#[track_caller]
fn wait_until_gone() {
    wait_until("no window is left", || windows().is_empty());
}

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
    let _ = change(queue, |to| to.max_bytes = max_bytes);
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
}

#[as_root_in_own_namespace]
fn windows_that_dead_children_left_are_removed() {
    let make = |mode| SharedMemory::create(Key::PRIVATE, 4096, mode).unwrap();
    in_dead_process(|| _ = make(WINDOW_MODE));
    let first = windows()[0].0;
    let attached = first.attach_read_only().unwrap();
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
    others.into_iter().chain([first]).for_each(|memory| _ = memory.remove());
}

#[in_own_namespace]
fn files_of_any_size_arrive_whole() {
    // The last is too small for slots worth their messages.
    for window in ["2M", "0", "64M", "1000000"] {
        let (server, folder) = serve_folder(&["--window", window]);
        let target = folder.path().join("target");
        for size in [0, 1, 8136, 8137, (1 << 19) - 1, 1 << 19, (3 << 20) + 1, 20 << 20] {
            let content = noise(size);
            fs::write(folder.path().join("file"), &content).unwrap();
            let get = |options: &[&str]| run(server.client().args(options).arg("/file")).success();
            assert!(get(&[]) == content, "{size} bytes");
            assert!(get(&["--plain"]) == content, "{size} bytes, plain");
            get(&["-o", target.to_str().unwrap()]);
            assert!(fs::read(&target).unwrap() == content, "{size} bytes to a file");
            let part = get(&["--offset", "4097", "--length", "2M"]);
            let expected = content.get(4097..size.min(4097 + (2 << 20))).unwrap_or_default();
            assert!(part == expected, "a part of {size} bytes");
            let mut transfer = Client::new(server.key).open("/file").unwrap();
            let mut bytes = Vec::new();
            while bytes.len() < size {
                let taken = transfer.fill_buf().unwrap().len().min(50_001);
                bytes.extend_from_slice(&transfer.fill_buf().unwrap()[..taken]);
                transfer.consume(taken);
                (&mut transfer).take(1001).read_to_end(&mut bytes).unwrap();
            }
            assert_eq!(transfer.read(&mut [0]).unwrap(), 0);
            assert!(bytes == content, "{size} bytes, to a reader");
        }
    }
}

#[in_own_namespace]
fn large_and_small_files_arrive_in_one_session() {
    let (server, folder, file) = serve_quietly(8 << 20, &[]);
    let odd = noise((1 << 20) + 1);
    fs::write(folder.path().join("odd"), &odd).unwrap();
    fs::write(folder.path().join("small"), "small").unwrap();
    let paths = ["/file", "/small", "/odd", "/small", "/file"];
    let expected = [&file[..], b"small", &odd, b"small", &file].concat();
    assert!(run(server.client().args(paths)).success() == expected);
    // A reader may leave a file in the midst of a window.
    let client = Client::new(server.key);
    let (mut files, mut start) = (client.open_all(paths), [0; 5]);
    for expected in [&file[..5], b"small", &odd[..5], b"small", &file[..5]] {
        files.next_file().unwrap().unwrap().read_exact(&mut start).unwrap();
        assert_eq!(start, expected);
    }
}

#[as_root_in_own_namespace]
fn without_shared_memory_files_go_through_the_queue() {
    for (window, warnings) in [("2M", 1), ("0", 0)] {
        let (_, folder, file) = serve_quietly(8 << 20, &[]);
        let server = Server::start(&["--window", window]);
        fs::write("/proc/sys/kernel/shmmni", "0").unwrap();
        let fetch = |paths: &[&str]| run(server.client().args(paths)).success();
        // The size of this is unknown, so no window is tried.
        assert!(fetch(&["/proc/kallsyms"]).len() > 1 << 20);
        assert!(!server.log().contains("WARN"), "{}", server.log());
        let path = folder.path().join("file").to_str().unwrap().to_owned();
        assert!(fetch(&[&path]) == file);
        assert!(fetch(&[&path, &path]) == file.repeat(2));
        for warning in ["WARN", "no shared memory"] {
            assert_eq!(server.log().matches(warning).count(), warnings, "{}", server.log());
        }
        let table = text(&mut stat_of(server.key));
        let words: Vec<_> = table.split_whitespace().collect();
        let counted = [["windows", "failed", "2"]].repeat(warnings).concat();
        assert!(counted.is_empty() || words.windows(3).any(|row| row == counted), "{table}");
        fs::write("/proc/sys/kernel/shmmni", "4096").unwrap();
    }
}

#[in_own_namespace]
fn a_client_that_cannot_attach_asks_again_and_once_only() {
    let (server, folder) = serve_folder(&["--window", "32M"]);
    let file = vec![0; 128 << 20];
    allocate(folder.path().join("file"), 128 << 20);
    let fetch = |paths: &[&str]| {
        let before = server.log().matches("outcome=").count();
        // All that it may map, which is little more than the window.
        let bytes = run(&mut by(&["prlimit", "--as=36000000"], server.client().args(paths)));
        server.wait_until_idle();
        (bytes.success(), server.log().matches("outcome=").count() - before)
    };
    assert!(fetch(&["/file"]) == (file.clone(), 2));
    assert!(fetch(&["/file", "/file"]) == (file.repeat(2), 2));
}

const SIZE: u32 = 65_536;

/// A segment with these bytes; it goes with the handle, if it was removed.
fn segment(bytes: &[u8]) -> Result<(SharedMemory, Attached), Errno> {
    let memory = SharedMemory::create(Key::PRIVATE, SIZE as usize, WINDOW_MODE);
    let memory = memory.map_err(errno_of)?;
    let attached = memory.attach().map_err(errno_of)?;
    attached.copy_from(0, bytes);
    Ok((memory, attached))
}

/// A file whose bytes are all in one window.
fn file(segment: SharedMemory, offset: u32, length: u32, bytes: &[u8]) -> Answer {
    let text = WindowPart { segment: segment.id(), offset, length }.encode();
    let meta = Answer::default().meta(&entry(Kind::Regular, "", ""));
    meta.frame(FrameType::Window, &text).end(bytes)
}

#[in_own_namespace]
fn a_wrong_window_is_an_error() {
    let (bytes, here) = (noise(SIZE as usize), public_folder());
    let (memory, _attached) = segment(&bytes).unwrap();
    memory.remove().unwrap();
    let (staying, _attached) = segment(&bytes).unwrap();
    let _removed_at_the_end = Owned::new(staying);
    let (gone, attached) = segment(&bytes).unwrap();
    gone.remove().unwrap();
    drop(attached);
    let none = SharedMemory::from_id(SharedMemoryId::new(-1));
    let short = Answer::default().meta(&entry(Kind::Regular, "", ""));
    let beyond = "bytes beyond the end of the shared memory";
    let mut wrong = vec![
        (file(memory, 0, SIZE + 1, b""), beyond),
        (file(memory, SIZE - 1, 2, b""), beyond),
        (file(memory, u32::MAX, u32::MAX, b""), beyond),
        (file(memory, u32::MAX, 1, b""), beyond),
        (file(memory, 0, 0, b""), "protocol error: a field out of range"),
        (file(none, 0, 1, b""), "protocol error: a field out of range"),
        (short.frame(FrameType::Window, &[0; 15]), "protocol error: too short"),
        (file(staying, 0, 1, b""), "the shared memory would stay for ever"),
        (file(gone, 0, 1, b""), "incomplete: the server's child died on the way"),
        (file(memory, 0, 1, b"12"), "not as many bytes arrived as were sent"),
        (file(memory, 0, 1, b"1"), "the checksum is not that of the bytes sent"),
    ];
    let others = geteuid().is_root().then(|| segment_of(ATTACKER, &bytes));
    if let Some((_, memory)) = &others {
        wrong.push((file(*memory, 0, 1, b""), "the shared memory is another user's"));
    }
    for paths in [&["/a"][..], &["/a", "/b"]] {
        // Bytes behind a window in the same message are read after it.
        let right = file(memory, 1, SIZE - 1, &bytes[1..]);
        let whole = ask(|_: &Question<'_>| right.clone(), paths, here.path());
        assert!(whole.success() == bytes[1..].repeat(paths.len()));
        for (answer, why) in &wrong {
            let outcome = ask(|_: &Question<'_>| answer.clone(), paths, here.path());
            let told: Vec<_> = outcome.stderr.lines().collect();
            assert_eq!((outcome.code(), told.len()), (Some(1), paths.len()), "{why}: {told:?}");
            assert!(told.iter().all(|line| line.ends_with(why)), "{told:?} is not {why}");
        }
    }
    let mut list = file(memory, 0, SIZE, &bytes);
    list.frames[0].1 = encoded(&[entry(Kind::Directory, "", "")]);
    let plain = file(memory, 0, SIZE, &bytes);
    for (answer, arguments) in [(list, ["-l", "/"]), (plain, ["--plain", "/a"])] {
        let Finished { status, stdout, stderr } =
            ask(|_: &Question<'_>| answer.clone(), &arguments, here.path());
        assert_eq!((status.code(), &*stdout, stderr.lines().count()), (Some(1), &b""[..], 1));
    }
}

/// Shared memory of another user, and the process that has it attached.
fn segment_of(uid: u32, bytes: &[u8]) -> (Attack, SharedMemory) {
    let attack = Attack::start(uid, || {
        let (memory, _attached) = segment(bytes)?;
        memory.remove().map_err(errno_of)?;
        wait_for_ever()
    });
    let find = || windows().into_iter().find(|(_, s)| s.permissions.cuid.as_raw() == uid);
    wait_until("it is there", || find().is_some_and(|(_, status)| status.is_removed));
    (attack, find().unwrap().0)
}

/// A client may publish what it gets from that server, so it must not get what another server
/// sends it at the same time.
#[as_root_in_own_namespace]
fn a_server_cannot_make_a_client_take_its_own_window_for_the_servers() {
    let (programs, key) = (ForEverybody::new(), unique_key());
    let (_victims, secret) = segment_of(VICTIM, b"secret");
    let rogue = Attack::start(ATTACKER, || {
        let requests = OwnedQueue::create(key, Mode::new(0o733)).map_err(errno_of)?;
        serve(*requests, &|_| file(secret, 0, 6, b"secret"));
        Ok(())
    });
    wait_until("the rogue listens", || queue_of(key).is_some());
    let arguments = ["--server-uid", &ATTACKER.to_string(), "--timeout", "2s", "/a"];
    let Finished { status, stdout, stderr } = run(programs.client(key, VICTIM).args(arguments));
    assert_eq!((status.code(), &*stdout), (Some(1), &b""[..]), "{stderr}");
    assert!(stderr.ends_with("the shared memory is another user's\n"), "{stderr}");
    drop(rogue);
    clear(key);
}
