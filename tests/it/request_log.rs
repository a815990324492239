//! The line of the log for each request: callers who prevent it, and callers who fill the log.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{
    Site, Stuck, VICTIM, as_root_in_own_namespace, in_own_namespace, run, serve_quietly, wait_until,
};

#[as_root_in_own_namespace]
fn a_caller_cannot_keep_its_request_out_of_the_log() {
    for (prevent, what, more) in [
        (&["kill", "-KILL"][..], "a child was killed", &[][..]),
        (&["kill", "-KILL"], "a child was killed", &["/file"]),
        (&["kill", "-STOP"], "a child is stopped", &[]),
        (
            &["prlimit", "--fsize=0", "--pid"],
            "a child could not log: its file size is limited",
            &[],
        ),
    ] {
        let level = if what.contains("log") { "--log-format=text" } else { "--quiet" };
        let site = Site::start(&["--reap-interval", "1h", "--stall-timeout", "2s", level]);
        site.server.wait_until_idle();
        let client = Stuck::start(site.victim().args(more));
        let (child, pid) = (site.server.only_child(), client.client.pid());
        let mut attack = Command::new(prevent[0]);
        attack.args(&prevent[1..]).arg(child.pid.to_string()).uid(VICTIM).gid(VICTIM);
        run(&mut attack).success();
        let line = format!(
            "{what} uid={VICTIM} client_pid={pid} queue={} operation=\"fetch\" path=\"/file\" \
             session={} pid={}",
            client.queue.id(),
            !more.is_empty(),
            child.pid,
        );
        let client = (!what.contains("stopped")).then_some(client); // the others end with it
        drop(client);
        wait_until("the log has it", || site.server.log().contains(&line));
        child.signal(Signal::SIGCONT);
        site.stop();
    }
}

#[in_own_namespace]
fn a_user_who_fills_the_log_is_cut_off_and_the_lines_left_out_are_counted() {
    const REQUESTS: usize = 1_500;
    let (mut server, _folder, _) = serve_quietly(1, &["--log-format", "json"]);
    let before = server.log().len();
    let client = mqfs::Client::builder().key(server.key).sessions(false).build();
    let path = "\u{1}".repeat(1_000);
    for _ in 0..REQUESTS {
        assert!(client.open(&path).is_err());
    }
    server.wait_until_idle();
    server.signal(Signal::SIGTERM);
    assert!(server.running().wait().success());
    let log = &server.log()[before..];
    assert!(log.len() < 5 << 20, "{}", log.len());
    let lines = log.matches(r#""operation":"fetch""#).count();
    let left_out = log.split(r#""lines":"#).skip(1).map(|rest| rest.split('}').next().unwrap());
    let left_out: usize = left_out.map(|number| number.parse::<usize>().unwrap()).sum();
    assert_eq!(lines + left_out, REQUESTS, "lines, and lines left out");
    assert!(left_out > 0);
}
