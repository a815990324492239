//! What the kernel does with semaphore sets.

use std::time::{Duration, Instant};

use crate::common::{in_child, own_key, spawn, succeeded, wait_until};
use sysv_ipc::{
    Acquire, Key, Lock, Mode, OperateError, Operation, Owned, Pid, SemaphoreSet, Settings,
};

fn set(count: u16) -> Owned<SemaphoreSet> {
    Owned::new(SemaphoreSet::create(Key::PRIVATE, count, Mode::new(0o600)).unwrap())
}

#[test]
fn a_set_is_found_by_its_key_and_created_only_once() {
    let key = own_key();
    let own = Owned::new(SemaphoreSet::create(key, 3, Mode::new(0o640)).unwrap());
    assert_eq!(SemaphoreSet::open(key), Ok(*own));
    assert_eq!(SemaphoreSet::open_or_create(key, 3, Mode::new(0o600)), Ok(*own));
    assert!(SemaphoreSet::create(key, 3, Mode::new(0o640)).unwrap_err().already_exists());
    let larger = SemaphoreSet::open_or_create(key, 4, Mode::new(0o600)).unwrap_err();
    assert_eq!(larger.raw_os_error(), libc::EINVAL);
    let status = own.status().unwrap();
    assert_eq!((status.count, status.permissions.key), (3, key));
    assert_eq!(status.operated_at, None);
    let settings = Settings { mode: Mode::new(0o644), ..status.permissions.settings() };
    own.set(&settings).unwrap();
    assert_eq!(own.status().unwrap().permissions.settings(), settings);
}

#[test]
fn new_semaphores_are_zero_and_take_values() {
    let own = set(3);
    assert_eq!(own.values(), Ok(vec![0, 0, 0]));
    own.set_values(&[1, 2, 32_767]).unwrap();
    own.set_value(0, 7).unwrap();
    assert_eq!(own.values(), Ok(vec![7, 2, 32_767]));
    assert_eq!((own.value(0), own.value(2)), (Ok(7), Ok(32_767)));
    for error in [
        own.set_value(0, 32_768).unwrap_err(),
        own.set_values(&[1, 2]).unwrap_err(),
        own.set_values(&[1, 2, 3, 4]).unwrap_err(),
        own.set_values(&[1, 2, u16::MAX]).unwrap_err(),
    ] {
        assert_eq!(error.raw_os_error(), libc::ERANGE, "{error}");
    }
    assert_eq!(own.value(3).unwrap_err().raw_os_error(), libc::EINVAL);
    assert_eq!(own.values(), Ok(vec![7, 2, 32_767]));
}

#[test]
fn all_operations_of_a_call_are_performed_or_none() {
    let own = set(2);
    own.set_values(&[1, 0]).unwrap();
    let both = [Operation::subtract(0, 1), Operation::subtract(1, 1)];
    assert_eq!(own.try_operate(&both), Err(OperateError::WouldBlock));
    assert_eq!(own.values(), Ok(vec![1, 0]));
    own.operate(&[Operation::add(1, 1), both[0], both[1], Operation::wait_for_zero(1)]).unwrap();
    assert_eq!(own.values(), Ok(vec![0, 0]));
    assert_eq!(own.last_pid(1), Ok(Some(Pid::current())));
    assert_eq!(own.operate(&[]), Ok(()));
    let beyond = own.operate(&[Operation::add(2, 1)]).unwrap_err();
    assert!(matches!(beyond, OperateError::Os(error) if error.raw_os_error() == libc::EFBIG));
}

#[test]
fn a_wait_ends_by_its_timeout() {
    let own = set(1);
    let take = [Operation::subtract(0, 1)];
    let (start, timeout) = (Instant::now(), Duration::from_millis(30));
    assert_eq!(own.operate_for(&take, timeout), Err(OperateError::TimedOut));
    assert!(start.elapsed() >= timeout);
    own.operate(&[Operation::add(0, 1)]).unwrap();
    own.operate_for(&take, Duration::MAX).unwrap();
}

#[test]
fn those_who_wait_are_counted_and_woken() {
    let own = set(2);
    own.set_value(1, 1).unwrap();
    std::thread::scope(|scope| {
        let more = scope.spawn(|| own.operate(&[Operation::subtract(0, 2)]));
        let zero = scope.spawn(|| own.operate(&[Operation::wait_for_zero(1)]));
        wait_until("one waits for more", || own.waiting_for_more(0) == Ok(1));
        wait_until("one waits for zero", || own.waiting_for_zero(1) == Ok(1));
        assert_eq!((own.waiting_for_more(1), own.waiting_for_zero(0)), (Ok(0), Ok(0)));
        own.operate(&[Operation::add(0, 2), Operation::subtract(1, 1)]).unwrap();
        assert_eq!((more.join().unwrap(), zero.join().unwrap()), (Ok(()), Ok(())));
    });
}

#[test]
fn removal_wakes_those_who_wait() {
    let own = set(1);
    let gone = *own;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || gone.operate(&[Operation::subtract(0, 1)]));
        wait_until("one waits", || own.waiting_for_more(0) == Ok(1));
        own.remove().unwrap();
        assert_eq!(waiting.join().unwrap(), Err(OperateError::Gone));
    });
    assert_eq!(gone.try_operate(&[Operation::add(0, 1)]), Err(OperateError::Gone));
}

#[test]
fn the_kernel_undoes_what_a_dead_process_did() {
    let own = set(2);
    assert!(in_child(|| {
        own.operate(&[Operation::add(0, 5).undo(), Operation::add(1, 5)]).is_ok()
            && own.values() == Ok(vec![5, 5])
    }));
    assert_eq!(own.values(), Ok(vec![0, 5]));
}

#[test]
fn a_lock_is_free_again_when_its_holder_dies() {
    let own = Owned::new(Lock::open_or_create(own_key(), Mode::new(0o600)).unwrap().semaphores());
    let lock = Lock::open(own.status().unwrap().permissions.key).unwrap();
    assert_eq!(lock.semaphores(), *own);
    let holder = spawn(|| {
        let _ = lock.try_acquire();
        // Sleeps until it is killed: nobody adds to the semaphore.
        lock.semaphores().operate(&[Operation::subtract(0, 30_000)]).is_ok()
    });
    wait_until("the child waits", || lock.semaphores().waiting_for_more(0) == Ok(1));
    assert_eq!(lock.is_held(), Ok(true));
    assert_eq!(lock.last_pid(), Ok(Some(Pid::from_raw(holder.as_raw()))));
    assert_eq!(lock.try_acquire(), Ok(Acquire::Held));
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(!succeeded(holder));
    assert_eq!(lock.try_acquire(), Ok(Acquire::Acquired));
    assert!(in_child(|| lock.is_held() == Ok(true)), "a child that ends releases nothing");
    lock.release().unwrap();
    lock.release().unwrap();
    assert_eq!(lock.is_held(), Ok(false));
}
