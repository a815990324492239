use std::fs;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Service, on};
use crate::support::{in_own_namespace, run, wait_until};

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
