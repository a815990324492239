//! Signals to idle and busy servers and clients: they end in time and leave nothing, whatever signals
//! their starter blocked or ignored, which stay so across execve(2).

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::Signal::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGPWR, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGXCPU,
};
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use sysv_ipc::MessageBuffer;
use tempfile::TempDir;

use crate::support::session::{Part, RawSession, fetch};
use crate::support::{
    Running, Server, by, in_own_namespace, is_full, noise, program, queue_of, reply_queues, run,
    serve_quietly, stat_of, state_of, stuck_client, unique_key, wait_until,
};

#[in_own_namespace]
fn an_idle_server_leaves_nothing_after_any_signal() {
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGVTALRM] {
        let mut server = Server::start::<&str>(&[]);
        server.signal(signal);
        assert!(server.running().wait().success(), "{signal}");
        assert_eq!(queue_of(server.key), None, "{signal}");
        assert!(sysv_ipc::Lock::open(server.key).is_err(), "{signal}");
    }
}

#[in_own_namespace]
fn a_server_that_stops_lets_its_children_finish() {
    for signal in [SIGINT, SIGTERM, SIGQUIT, SIGHUP] {
        for to_its_group in [false, true] {
            let (mut server, _folder, content) = serve(&[], |mut server| {
                server.process_group(0);
                server
            });
            let client = stuck_client(&server, "/file");
            match to_its_group {
                true => killpg(Pid::from_raw(server.pid()), signal).unwrap(),
                false => server.signal(signal),
            }
            wait_until("its queue is gone", || queue_of(server.key).is_none());
            assert_eq!(server.children().len(), 1, "{signal}: the child goes on");
            assert!(client.finish().success() == content, "{signal}");
            assert!(server.running().wait().success(), "{signal}");
        }
    }
}

#[in_own_namespace]
fn a_client_leaves_no_queue_after_any_signal_during_a_transfer() {
    let (server, _folder, _) = serve_quietly(4 << 20, &[]);
    for signal in
        [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU, SIGPWR, SIGIO]
    {
        let client = stuck_client(&server, "/file");
        client.signal(signal);
        let client = client.finish_unread();
        assert_eq!(client.code(), Some(130), "{signal}");
        assert_eq!(client.stderr, "mqfs-client: interrupted\n", "{signal}");
        assert_eq!(reply_queues(), [], "{signal}");
        server.wait_until_idle();
        let log = server.log();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(r#"outcome="client gone""#), "{signal}: {log}");
    }
    server.stop();
}

#[in_own_namespace]
fn a_client_leaves_no_queue_if_the_same_ctrl_c_ends_its_reader() {
    let (server, _folder, _) = serve_quietly(4 << 20, &[]);
    for _ in 0..20 {
        let mut client = stuck_client(&server, "/file");
        client.signal(SIGINT);
        drop(client.child().stdout.take());
        // Whichever it notices first: the signal or the closed pipe.
        assert!(matches!(client.wait().code(), Some(130 | 141)));
        assert_eq!(reply_queues(), []);
    }
    server.stop();
}

#[in_own_namespace]
fn a_server_that_stops_ends_its_sessions_after_the_answer_in_hand() {
    let timeouts = ["--drain-timeout", "1h", "--idle-timeout", "1h"];
    let (mut server, _folder, content) = serve_quietly(4 << 20, &timeouts);
    let requests = queue_of(server.key).unwrap();
    let mut idle: Vec<_> = (0..3).map(|_| RawSession::idle(requests)).collect();
    let mut working = RawSession::start(requests, &fetch("/file"));
    wait_until("it waits for room", || is_full(*working.queue));
    server.signal(SIGTERM);
    idle.iter_mut().for_each(|session| assert_eq!(session.next_part(), Part::Farewell(1)));
    assert!(working.answer().unwrap().bytes == content);
    assert!(matches!(working.next_part(), Part::Farewell(1) | Part::Gone));
    assert!(server.running().wait().success());
}

#[in_own_namespace]
fn a_client_of_a_dead_server_is_told_at_once_also_if_it_waits_to_send_its_request() {
    let (mut server, _folder, _) = serve_quietly(4 << 20, &[]);
    server.freeze();
    let requests = queue_of(server.key).unwrap();
    for size in [1000, 10, 1] {
        let filler = MessageBuffer::with_text(NORMAL_PRIORITY, &vec![0xff; size]);
        while requests.try_send(&filler).is_ok() {}
    }
    let client = Running::start(server.client().arg("/file").stderr(Stdio::piped()));
    wait_until("it has its queue", || !reply_queues().is_empty());
    let start = Instant::now();
    server.running().kill();
    let expected = format!("mqfs-client: no server: the one under key {} is dead ", server.key);
    for client in [client.finish(), run(server.client().arg("/file"))] {
        assert_eq!(client.code(), Some(2), "{}", client.stderr);
        assert!(client.stderr.starts_with(&expected), "{}", client.stderr);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
}

/// The same command, started by a program that holds back signals: env(1).
fn held_back(option: &str, command: &Command) -> Command {
    by(&["env", option], command)
}

/// A server of a `/file` of 4 MiB, started by another command.
fn serve(arguments: &[&str], by: impl FnOnce(Command) -> Command) -> (Server, TempDir, Vec<u8>) {
    let (folder, file, key) = (tempfile::tempdir().unwrap(), noise(4 << 20), unique_key());
    fs::write(folder.path().join("file"), &file).unwrap();
    let mut command = program("mqfs-server");
    command.args(["-k", &key.to_string(), "--root"]).arg(folder.path()).args(arguments);
    (Server::start_as(key, &mut by(command)), folder, file)
}

#[in_own_namespace]
fn sigterm_ends_a_program_whose_starter_held_it_back() {
    for option in ["--block-signal", "--ignore-signal=TERM"] {
        let (server, _folder, _) = serve(&[], |server| held_back(option, &server));
        server.freeze();
        let (_unread, mut full) = std::io::pipe().unwrap();
        full.write_all(&vec![b'\n'; 65_536]).unwrap(); // the capacity of a pipe: pipe(7)
        let mut client = server.client();
        client.arg("/file");
        for (command, code) in
            [(client, Some(130)), (program("mqfs-reap"), None), (stat_of(server.key), None)]
        {
            let mut command = held_back(option, &command);
            let mut running = Running::start(command.stdout(full.try_clone().unwrap()));
            wait_until("it waits", || {
                let exe = std::fs::read_link(format!("/proc/{}/exe", running.pid()));
                let is_client_ready = code.is_none() || !reply_queues().is_empty();
                exe.is_ok_and(|exe| exe.to_string_lossy().contains("mqfs-"))
                    && is_client_ready
                    && state_of(running.pid()) == Some('S')
            });
            running.signal(SIGTERM);
            assert_eq!(running.wait().code(), code, "{command:?}");
        }
        server.signal(SIGCONT);
        server.stop();
    }
}

#[in_own_namespace]
fn children_end_and_make_way_whatever_the_starter_of_the_server_held_back() {
    for option in ["--block-signal", "--ignore-signal=CHLD,ALRM,USR1,PIPE,XFSZ"] {
        let (server, _folder, _) =
            serve(&["--max-children", "1"], |server| held_back(option, &server));
        let client = stuck_client(&server, "/file");
        client.signal(SIGKILL);
        wait_until("its child notices", || reply_queues().is_empty());
        assert_eq!(state_of(client.pid()), Some('Z'), "nobody has waited for the client");
        server.wait_until_idle();
        assert!(server.log().contains("client dead"), "{}", server.log());
        let _session = RawSession::idle(queue_of(server.key).unwrap());
        assert_eq!(server.fetch("/file").len(), 4 << 20, "the session makes way");
        server.wait_until_idle();
        server.stop();
    }
}

#[in_own_namespace]
fn what_nohup_and_shells_ignore_ends_neither_server_nor_client() {
    let option = "--ignore-signal=HUP,INT,QUIT";
    let (server, _folder, file) = serve(&[], |server| held_back(option, &server));
    for signal in [SIGHUP, SIGINT, SIGQUIT] {
        let mut client = server.client();
        let client = Running::piped(&mut held_back(option, client.arg("/file")));
        wait_until("a child is at work", || !reply_queues().is_empty());
        client.signal(signal);
        server.signal(signal);
        assert!(client.finish().success() == file);
    }
    server.stop();
}
