//! Signals that the starter of a program blocked or ignored: they stay so across execve(2).

use std::io::Write;
use std::process::Command;

use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};

use crate::support::session::RawSession;
use crate::support::{
    Running, Server, by, in_own_namespace, noise, program, queue_of, reply_queues, stat_of,
    state_of, stuck_client, unique_key, wait_until,
};

/// The same command, started by a program that holds back signals: env(1).
fn held_back(option: &str, command: &Command) -> Command {
    by(&["env", option], command)
}

/// A server of `/file`, started so.
fn serve(option: &str, arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let (folder, key) = (tempfile::tempdir().unwrap(), unique_key());
    std::fs::write(folder.path().join("file"), noise(4 << 20)).unwrap();
    let mut command = program("mqfs-server");
    command.args(["-k", &key.to_string(), "--root"]).arg(folder.path()).args(arguments);
    (Server::start_as(key, &mut held_back(option, &command)), folder)
}

#[in_own_namespace]
fn sigterm_ends_a_program_whose_starter_held_it_back() {
    for option in ["--block-signal", "--ignore-signal=TERM"] {
        let (server, _folder) = serve(option, &[]);
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
        let (server, _folder) = serve(option, &["--max-children", "1"]);
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
    let (server, folder) = serve(option, &[]);
    for signal in [SIGHUP, SIGINT, SIGQUIT] {
        let mut client = server.client();
        let client = Running::piped(&mut held_back(option, client.arg("/file")));
        wait_until("a child is at work", || !reply_queues().is_empty());
        client.signal(signal);
        server.signal(signal);
        assert!(client.finish().success() == std::fs::read(folder.path().join("file")).unwrap());
    }
    server.stop();
}
