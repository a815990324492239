//! What the kernel tells about a whole IPC namespace.

use crate::common::in_own_namespace;
use sysv_ipc::{
    Key, MessageBuffer, Mode, Owned, OwnedQueue, QueueLimits, QueueUsage, SemaphoreLimits,
    SemaphoreSet, SemaphoreUsage, SharedMemory, SharedMemoryLimits, SharedMemoryUsage, queues,
    semaphore_sets, shared_memory_segments,
};

const MODE: Mode = Mode::new(0o600);

#[test]
fn lists_hold_every_object_of_their_kind_once() {
    in_own_namespace(|| {
        assert_eq!(queues().unwrap().count(), 0);
        let own: [OwnedQueue; 3] = std::array::from_fn(|_| OwnedQueue::private(MODE).unwrap());
        let sets: [_; 2] = std::array::from_fn(|n| {
            let count = n as u16 + 4;
            Owned::new(SemaphoreSet::create(Key::PRIVATE, count, MODE).unwrap())
        });
        let memory = Owned::new(SharedMemory::create(Key::PRIVATE, 5000, MODE).unwrap());
        own[1].remove().unwrap();

        let listed: Vec<_> = queues().unwrap().map(|(queue, _)| queue).collect();
        assert_eq!(listed, [*own[0], *own[2]]);
        let listed: Vec<_> =
            semaphore_sets().unwrap().map(|(set, status)| (set, status.count)).collect();
        assert_eq!(listed, [(*sets[0], 4), (*sets[1], 5)]);
        let listed: Vec<_> =
            shared_memory_segments().unwrap().map(|(segment, s)| (segment, s.size)).collect();
        assert_eq!(listed, [(*memory, 5000)]);
    });
}

#[test]
fn usage_counts_what_there_is() {
    in_own_namespace(|| {
        let queue = OwnedQueue::private(MODE).unwrap();
        queue.send(&MessageBuffer::with_text(crate::common::mtype(1), b"12345")).unwrap();
        let usage = QueueUsage::current().unwrap();
        assert_eq!((usage.queues, usage.messages, usage.bytes), (1, 1, 5));

        let _set = Owned::new(SemaphoreSet::create(Key::PRIVATE, 7, MODE).unwrap());
        let usage = SemaphoreUsage::current().unwrap();
        assert_eq!((usage.sets, usage.semaphores), (1, 7));

        let memory = Owned::new(SharedMemory::create(Key::PRIVATE, 5000, MODE).unwrap());
        memory.attach().unwrap().copy_from(0, b"a");
        let usage = SharedMemoryUsage::current().unwrap();
        assert_eq!((usage.segments, usage.pages, usage.resident), (1, 2, 1));
    });
}

#[test]
fn limits_are_those_of_proc() {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap();
        text.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<usize>>()
    };
    let queue = QueueLimits::current().unwrap();
    assert_eq!(
        [[queue.msgmax], [queue.msgmnb], [queue.msgmni]],
        [&read("msgmax")[..], &read("msgmnb"), &read("msgmni")]
    );
    let semaphore = SemaphoreLimits::current().unwrap();
    let all = [semaphore.semmsl, semaphore.semmns, semaphore.semopm, semaphore.semmni];
    assert_eq!(&all[..], read("sem"));
    assert_eq!(semaphore.semvmx, 32_767);
    let memory = SharedMemoryLimits::current().unwrap();
    assert_eq!(
        [[memory.shmmax], [memory.shmall], [memory.shmmni]],
        [&read("shmmax")[..], &read("shmall"), &read("shmmni")]
    );
    assert_eq!(memory.shmmin, 1);
}
