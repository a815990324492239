use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue};
use tempfile::TempDir;

use super::{Service, assert_nothing_left, on};
use crate::support::{Running, in_own_namespace, queue_of, run, unique_key, wait_until};

/// An LED as the kernel shows one, as far as a file can.
fn led() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("max_brightness"), "255\n").unwrap();
    let file = folder.path().join("brightness");
    fs::write(&file, "17\n").unwrap();
    let name = file.to_str().unwrap().to_owned();
    (folder, name)
}

#[track_caller]
fn wait_for(led: &str, brightness: &str) {
    wait_until(&format!("the brightness is {brightness}"), || {
        fs::read_to_string(led).unwrap() == format!("{brightness}\n")
    });
}

#[in_own_namespace]
fn commands_switch_the_led_and_exit_or_a_signal_leaves_it_as_it_was() {
    for signal in [None, Some(Signal::SIGINT), Some(Signal::SIGTERM), Some(Signal::SIGHUP)] {
        let (_folder, led) = led();
        let controller = Service::start("controller", &["--led", &led]);
        let send = |command| run(on(controller.key, "controller").arg(command)).success();
        for (command, brightness) in [("on", "255"), ("off", "0"), ("on", "255")] {
            assert_eq!(send(command), b"");
            wait_for(&led, brightness);
        }
        match signal {
            None => drop(send("exit")),
            Some(signal) => controller.signal(signal),
        }
        assert_eq!(controller.ended(), "");
        wait_for(&led, "17");
    }
}

#[in_own_namespace]
fn commands_are_messages_of_two_types_carried_out_in_order() {
    let (_folder, led) = led();
    let controller = Service::start("controller", &["--led", &led]);
    let queue = queue_of(controller.key).unwrap();
    for (mtype, text) in [(1, "on"), (1, "\x1b[2Jon"), (3, "on"), (1, "off\0"), (2, "exit")] {
        let mtype = MessageType::new(mtype).unwrap();
        queue.send(&MessageBuffer::with_text(mtype, text.as_bytes())).unwrap();
    }
    assert_eq!(
        controller.ended(),
        "controller: no command: type 1, \"\\u{1b}[2Jon\"\n\
             controller: no command: type 3, \"on\"\n"
    );
    wait_for(&led, "17");
}

#[in_own_namespace]
fn a_command_without_a_living_controller_fails_at_once() {
    let key = unique_key();
    let none = run(on(key, "controller").arg("on"));
    assert_eq!(none.code(), Some(1));
    assert!(none.stderr.contains("no server"), "{}", none.stderr);

    let (_folder, led) = led();
    let mut killed = Service::start("controller", &["--led", &led]);
    killed.kill();
    let dead = run(on(killed.key, "controller").arg("on"));
    assert_eq!(dead.code(), Some(1));
    assert!(dead.stderr.contains("is dead"), "{}", dead.stderr);
}

#[in_own_namespace]
fn the_controller_refuses_a_key_in_use_and_a_missing_led() {
    let (_folder, led) = led();
    let start = |key, led: &str| {
        let refused = run(on(key, "controller").args(["--led", led]));
        assert_eq!((refused.code(), refused.stdout), (Some(1), vec![]));
        refused.stderr
    };
    let first = Service::start("controller", &["--led", &led]);
    let (key, pid) = (first.key, first.pid());
    let told = start(key, &led);
    assert!(told.ends_with(&format!("runs there already, pid {pid}\n")), "{told}");
    first.stop();

    let key = unique_key();
    let foreign = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    let told = start(key, &led);
    assert!(told.ends_with(&format!(": ipcrm -Q {key}\n")), "{told}");
    drop(foreign);
    let told = start(key, "/no/such/led");
    assert!(told.starts_with("controller: /no/such/led: No such file"), "{told}");
    assert!(!Path::new("/no").exists(), "a missing file is not made");
    assert_nothing_left(key);
}

#[in_own_namespace]
fn a_command_does_not_wait_for_a_controller_that_does_not_keep_up() {
    let (_folder, led) = led();
    let controller = Service::start("controller", &["--led", &led]);
    controller.freeze();
    let queue = queue_of(controller.key).unwrap();
    let on_message = MessageBuffer::with_text(MessageType::new(1).unwrap(), b"on");
    while queue.try_send(&on_message).is_ok() {}
    let mut late = on(controller.key, "controller");
    let late = Running::start(late.arg("off").stderr(std::process::Stdio::piped())).finish();
    assert_eq!(late.code(), Some(1));
    assert_eq!(late.stderr, "controller: msgsnd: the queue is full\n");
    controller.signal(Signal::SIGCONT);
    controller.stop();
}
