//! The reaper and the monitor beside a process that hangs in execve(2), which /proc does not show.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mqfs::ownership::lease;
use mqfs::sys::exit_now;
use mqfs::wire::{LEASE_TYPE, REPLY_QUEUE_MODE};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::execv;
use sysv_ipc::{Key, MessageBuffer, Queue, QueueId};

use crate::reaper_foreign::{foreign, used_by_the_dead};
use crate::support::{
    HungMount, Running, Server, Unanswered, Verdicts, as_root_in_own_namespace, can_mount,
    dead_owner, exists, fork_child, leased, program, public_folder, reply_queues, run, stat_of,
    wait_until,
};

#[as_root_in_own_namespace]
fn process_that_hangs_in_execve_holds_nobody_up_and_counts_as_alive() {
    if !can_mount() {
        return;
    }
    let (started, folder) = (Instant::now(), public_folder());
    let mount = HungMount::on(&folder.path().join("hung"), Unanswered::Close);
    let file = folder.path().join("hung/file");
    let server = Server::start(&["--reap-interval", "100ms"]);
    let by_the_dead = used_by_the_dead(foreign());
    // Only this child opens the file, which execve then closes.
    let hung = fork_child(|| {
        let queue = Queue::create(Key::PRIVATE, REPLY_QUEUE_MODE).unwrap();
        let lease = lease::new(QueueId::new(0)).unwrap().encode();
        queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease)).unwrap();
        let _file = File::open(&file).unwrap();
        let _ = execv(c"/bin/true", &[c"true"]);
        exit_now(1)
    });
    let hung = hung.unwrap();
    let mut wchan = Command::new("timeout");
    wchan.args(["-s", "KILL", "0.3", "cat"]).arg(format!("/proc/{hung}/wchan"));
    wait_until("it hangs, and so does who reads it", || run(&mut wchan).code() != Some(0));

    let [queue] = reply_queues()[..] else { panic!("{:?}", reply_queues()) };
    let orphan = leased(dead_owner());
    wait_until("the server's housekeeping goes on", || !exists(*orphan));
    let verdicts = Verdicts::of(program("mqfs-reap").args(["--json", "--foreign"]));
    assert_eq!(verdicts.on(queue), ["alive", "a process has the owner's pid", "kept"]);
    let waits = ["foreign", "not made by mqfs, and a process may wait on it", "kept"];
    assert_eq!(verdicts.on(*by_the_dead), waits);
    run(&mut stat_of(server.key)).success();
    let mut watch = program("mqfs-reap");
    watch.args(["--watch", "100ms", "--foreign"]).stdout(Stdio::null());
    let watch = Running::start(&mut watch);
    let orphan = leased(dead_owner());
    wait_until("it goes on, too", || !exists(*orphan));
    watch.signal(Signal::SIGTERM);
    assert_eq!(watch.finish().code(), Some(0));
    // Sooner than the mount ends by itself, which would let everybody go.
    assert!(started.elapsed() < Duration::from_secs(100));

    kill(hung, Signal::SIGKILL).unwrap();
    drop(mount); // FUSE lets no process go whose request it has read, however it is killed.
    waitpid(hung, None).unwrap();
    wait_until("the dead owner's queue is removed", || !exists(queue));
    server.stop();
}
