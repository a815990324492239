use sysv_ipc::QueueLimits;

use crate::support::{Finished, in_own_namespace, program, run};

#[track_caller]
fn assert_shown(shown: Finished, expected: &[String]) {
    let shown = String::from_utf8(shown.success()).unwrap();
    for line in expected {
        assert!(shown.contains(&format!("{line}\n")), "{line} is missing in\n{shown}");
    }
}

/// What is the same wherever it runs.
fn sizes(limits: QueueLimits) -> Vec<String> {
    let (msgmax, msgmnb) = (limits.msgmax, limits.msgmnb);
    let full = "msgsnd: the queue is full";
    vec![
        format!("msgmax: a message of {msgmax} bytes: done"),
        format!(
            "msgmax: a message of {} bytes: msgsnd: the message is larger than kernel.msgmax",
            msgmax + 1
        ),
        format!(
            "msgmnb: {} messages of 1024 bytes in a queue for {msgmnb}; then {full}",
            msgmnb / 1024
        ),
        format!("msgmnb: {msgmnb} messages of 0 bytes in a queue for {msgmnb}; then {full}"),
        format!("msgmnb: a queue for {} bytes (IPC_SET): done", msgmnb / 2),
    ]
}

#[in_own_namespace]
fn among_others_it_makes_a_hundred_queues_and_removes_them() {
    let limits = QueueLimits::current().unwrap();
    let (msgmni, msgmax) = (limits.msgmni, limits.msgmax);
    let mut expected = sizes(limits);
    expected.push("in the IPC namespace of others".to_owned());
    expected.push(format!("msgmax {msgmax:>11} {msgmax:>9}"));
    let far = format!("far from {msgmni}, which is for everybody");
    expected.push(format!("msgmni: 100 queues made; then {far}"));
    assert_shown(run(program("limits").arg("--here")), &expected);
}

#[in_own_namespace]
fn on_its_own_it_makes_as_many_queues_as_there_can_be() {
    let shown = run(&mut program("limits"));
    if shown.stdout.starts_with(b"in the IPC namespace of others\n") {
        return eprintln!("skipped: it may not make a namespace");
    }
    // A new namespace has the kernel's defaults: proc_sys_kernel(5).
    let enospc = "msgget: key 0x00000000: ENOSPC: No space left on device";
    assert_shown(
        shown,
        &[
            "in an IPC namespace of its own".to_owned(),
            format!("msgmni {:>11} {:>9}  0 queues", 32_000, 32_000),
            format!("msgmni: 32000 queues made; then {enospc}"),
            "msgmax: a message of 8193 bytes: msgsnd: the message is larger than kernel.msgmax"
                .to_owned(),
        ],
    );
}
