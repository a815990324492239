//! Servers that send nonsense about shared memory: the client ends with a clear error.

use mqfs::wire::{FrameType, Kind, Question, WINDOW_MODE, WindowPart};
use nix::errno::Errno;
use nix::unistd::{geteuid, pause};
use sysv_ipc::{Attached, Key, Mode, OwnedQueue, SharedMemory, SharedMemoryId};

use crate::support::fake_server::{Answer, ask, encoded, entry, serve};
use crate::support::{
    ATTACKER, Attack, Finished, ForEverybody, VICTIM, as_root_in_own_namespace, clear, errno_of,
    in_own_namespace, noise, public_folder, queue_of, run, unique_key, wait_until, windows,
};

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
    staying.remove().unwrap();
}

/// Shared memory of another user, and the process that has it attached.
fn segment_of(uid: u32, bytes: &[u8]) -> (Attack, SharedMemory) {
    let attack = Attack::start(uid, || {
        let (memory, _attached) = segment(bytes)?;
        memory.remove().map_err(errno_of)?;
        loop {
            pause();
        }
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
    let mut client = programs.client(key, VICTIM);
    let Finished { status, stdout, stderr } =
        run(client.args(["--server-uid", &ATTACKER.to_string(), "--timeout", "2s", "/a"]));
    assert_eq!((status.code(), &*stdout), (Some(1), &b""[..]), "{stderr}");
    assert!(stderr.ends_with("the shared memory is another user's\n"), "{stderr}");
    drop(rogue);
    clear(key);
}
