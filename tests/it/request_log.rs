//! The line of the log for each request: callers who prevent it, and callers who fill the log.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Site, Stuck, VICTIM, as_root_in_own_namespace, as_user, in_own_namespace, run, serve_quietly,
    wait_until,
};

#[as_root_in_own_namespace]
fn a_caller_cannot_keep_its_request_out_of_the_log() {
    fn kill_it(child: i32) {
        let killed = as_user(VICTIM, || kill(Pid::from_raw(child), Signal::SIGKILL));
        assert_eq!(killed, Ok(()));
    }
    fn stop_it(child: i32) {
        assert_eq!(as_user(VICTIM, || kill(Pid::from_raw(child), Signal::SIGSTOP)), Ok(()));
    }
    fn limit_its_files(child: i32) {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--fsize=0", "--pid", &child.to_string()]).uid(VICTIM).gid(VICTIM);
        run(&mut prlimit).success();
    }
    for level in ["--log-format=text", "--quiet"] {
        let site = Site::start(&["--reap-interval", "1h", "--stall-timeout", "2s", level]);
        for (prevent, what, more) in [
            (kill_it as fn(i32), "a child was killed", &[][..]),
            (kill_it, "a child was killed", &["/file"]),
            (stop_it, "a child is stopped", &[]),
            (limit_its_files, "a child could not log: its file size is limited", &[]),
        ] {
            site.server.wait_until_idle();
            let client = Stuck::start(site.victim().args(more));
            let (child, pid) = (site.server.only_child().pid, client.client.pid());
            prevent(child);
            let line = format!(
                "{what} uid={VICTIM} client_pid={pid} queue={} operation=\"fetch\" path=\"/file\" \
                 session={} pid={child}",
                client.queue.id(),
                !more.is_empty(),
            );
            if !what.contains("stopped") {
                drop(client);
            }
            if level != "--quiet" || !what.contains("could not log") {
                wait_until("the log has it", || site.server.log().contains(&line));
            }
            let _ = kill(Pid::from_raw(child), Signal::SIGCONT);
        }
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
