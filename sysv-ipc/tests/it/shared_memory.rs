//! What the kernel does with shared memory, and what this crate copies.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::atomic::Ordering::Relaxed;

use crate::common::{in_child, own_key};
use sysv_ipc::{Key, Mode, Owned, Pid, SharedMemory};

fn segment(size: usize) -> Owned<SharedMemory> {
    Owned::new(SharedMemory::create(Key::PRIVATE, size, Mode::new(0o600)).unwrap())
}

#[test]
fn a_segment_is_found_by_its_key_and_created_only_once() {
    let key = own_key();
    let own = Owned::new(SharedMemory::create(key, 100, Mode::new(0o640)).unwrap());
    assert_eq!(SharedMemory::open(key), Ok(*own));
    assert_eq!(SharedMemory::open_or_create(key, 100, Mode::new(0o600)), Ok(*own));
    let again = SharedMemory::create(key, 100, Mode::new(0o640)).unwrap_err();
    assert_eq!(again.call(), "shmget");
    assert!(again.already_exists());
    let status = own.status().unwrap();
    assert_eq!((status.permissions.key, status.size), (key, 100));
    assert_eq!((status.attached, status.is_removed), (0, false));
    assert_eq!((status.creator, status.last_user), (Some(Pid::current()), None));
    own.remove().unwrap();
    assert!(SharedMemory::open(key).unwrap_err().is_gone());
}

#[test]
fn words_are_those_that_fit_whole() {
    let own = segment(31);
    assert_eq!(own.attach().unwrap().words().len(), 3);
    let reader = own.attach_read_only().unwrap();
    assert_eq!((reader.len(), reader.load(2), reader.load(3)), (31, Some(0), None));
}

#[test]
fn a_removed_segment_lives_until_the_last_detaches() {
    let own = segment(8);
    let first = own.attach().unwrap();
    own.remove().unwrap();
    let second = own.attach().expect("a removed segment can still be attached");
    first.words()[0].store(7, Relaxed);
    drop(first);
    assert_eq!(second.words()[0].load(Relaxed), 7);
    let status = own.status().unwrap();
    assert_eq!((status.attached, status.is_removed), (1, true));
    drop(second);
    let gone = own.attach().unwrap_err();
    assert!(gone.is_gone());
    let id = own.id();
    assert_eq!(gone.to_string(), format!("shmat: shared memory {id}: EINVAL: Invalid argument"));
}

#[test]
fn owner_and_mode_can_be_changed() {
    let own = segment(8);
    let mut settings = own.status().unwrap().permissions.settings();
    settings.mode = Mode::new(0o444);
    own.set(&settings).unwrap();
    assert_eq!(own.status().unwrap().permissions.settings(), settings);
    if nix::unistd::geteuid().is_root() {
        let become_user = || nix::unistd::setuid(nix::unistd::Uid::from_raw(65_533)).is_ok();
        assert!(in_child(|| become_user() && own.attach_read_only().is_ok()));
        assert!(in_child(|| become_user() && own.attach().unwrap_err().is_denied()));
    }
}

#[test]
fn processes_and_threads_count_without_a_loss() {
    let own = segment(8);
    let attached = own.attach().unwrap();
    let count = || {
        for _ in 0..10_000 {
            attached.words()[0].fetch_add(1, Relaxed);
        }
        true
    };
    std::thread::scope(|scope| {
        scope.spawn(count);
        scope.spawn(count);
    });
    assert!(in_child(count));
    assert_eq!(own.attach_read_only().unwrap().load(0), Some(30_000));
}

#[test]
fn bytes_are_copied_to_and_from_any_place() {
    let own = segment(45);
    let attached = own.attach().unwrap();
    let mut model = [0_u8; 45];
    for at in 0..model.len() {
        for len in 0..=model.len() - at {
            let bytes: Vec<u8> = (0..len).map(|n| (7 * at + 31 * len + n) as u8).collect();
            attached.copy_from(at, &bytes);
            model[at..][..len].copy_from_slice(&bytes);
            let mut all = [1; 45];
            attached.copy_to(0, &mut all);
            assert_eq!(all, model, "{len} bytes at {at}");
            let mut part = vec![1; len];
            attached.copy_to(at, &mut part);
            assert_eq!(part, bytes, "{len} bytes at {at}");
        }
    }
    attached.copy_from(45, &[]);
}

#[test]
fn neighbours_that_share_a_word_do_not_disturb_each_other() {
    let own = segment(8);
    let attached = own.attach().unwrap();
    std::thread::scope(|scope| {
        for at in 0..8 {
            let attached = &attached;
            scope.spawn(move || {
                for value in 0..5_000_u32 {
                    let byte = value as u8;
                    attached.copy_from(at, &[byte]);
                    let mut seen = [0];
                    attached.copy_to(at, &mut seen);
                    assert_eq!(seen, [byte]);
                }
            });
        }
    });
}

#[test]
fn files_are_read_into_a_range_and_written_from_one() {
    let own = segment(100);
    let attached = own.attach().unwrap();
    let mut file = scratch();
    file.write_all(b"0123456789").unwrap();
    file.rewind().unwrap();
    assert_eq!(attached.read_from(&file, 51..54).unwrap(), 3);
    assert_eq!(attached.read_from(&file, 54..100).unwrap(), 7);
    assert_eq!(attached.read_from(&file, 61..100).unwrap(), 0, "the end of the file");
    let mut copy = [0; 12];
    attached.copy_to(50, &mut copy);
    assert_eq!(&copy, b"\x000123456789\x00");

    let reader = own.attach_read_only().unwrap();
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    assert_eq!(reader.write_to(&file, 53..56).unwrap(), 3);
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "234");
    let denied = attached.read_from(File::create("/dev/null").unwrap(), 0..1).unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(libc::EBADF));
}

/// A file without a name.
fn scratch() -> File {
    let path = std::env::temp_dir().join(format!("sysv-ipc-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn beyond_the_end_is_a_panic() {
    let own = segment(10);
    let attached = own.attach().unwrap();
    let file = File::open("/dev/zero").unwrap();
    let panics =
        |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
    assert!(panics(&|| attached.copy_from(9, b"ab")));
    assert!(panics(&|| attached.copy_from(usize::MAX, b"ab")));
    assert!(panics(&|| attached.copy_to(11, &mut [])));
    assert!(panics(&|| drop(attached.read_from(&file, 0..11))));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 5..4;
    assert!(panics(&|| drop(attached.write_to(&file, reversed.clone()))));
}
