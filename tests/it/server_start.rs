//! Starting a server: which server gets a key, and what happens to objects under that key.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use sysv_ipc::{Key, Lock, MessageBuffer, Mode, OwnedQueue};

use crate::support::{
    ForEverybody, Running, Server, after_mounting, all_queues, as_root_in_own_namespace, exists,
    fails, in_own_namespace, program, queue_of, run, unique_key, unshared, wait_until,
};

/// The error message of a server that does not start.
fn refused(key: Key) -> String {
    let refused = run(program("mqfs-server").args(["-k", &key.to_string()]));
    assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
    assert_eq!(refused.stdout, b"");
    refused.stderr
}

#[in_own_namespace]
fn a_second_server_on_a_key_is_refused_naming_the_first() {
    let server = Server::start::<&str>(&[]);
    let expected = format!(
        "mqfs-server: key {} is in use: a server of uid {} runs there already, pid {} (choose \
         another --key)\n",
        server.key,
        geteuid(),
        server.pid()
    );
    assert_eq!(refused(server.key), expected);
    server.freeze();
    assert_eq!(refused(server.key), expected, "while the first is stopped");
    if geteuid().is_root() {
        let mut second = program("mqfs-server");
        second.args(["-k", &server.key.to_string()]);
        let second = run(&mut unshared(&["--pid", "--mount-proc"], &second));
        assert_eq!(second.code(), Some(2), "{}", second.stderr);
        assert!(second.stderr.contains("runs there already (choose"), "{}", second.stderr);
    }
    server.signal(Signal::SIGCONT);
    assert!(!server.fetch("/proc/version").is_empty());
    server.stop();
}

#[in_own_namespace]
fn of_twenty_servers_started_at_once_exactly_one_stays() {
    let key = unique_key();
    let mut servers: Vec<_> = (0..20)
        .map(|_| {
            let mut command = program("mqfs-server");
            command.args(["-k", &key.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
            Running::start(&mut command)
        })
        .collect();
    wait_until("nineteen have given up", || {
        servers.retain_mut(|server| !server.has_ended());
        servers.len() <= 1
    });
    let mut last = servers.pop().expect("one stays");
    wait_until("it can be asked", || queue_of(key).is_some());
    assert!(!run(crate::support::client(key).arg("/proc/version")).success().is_empty());
    assert_eq!(all_queues().iter().filter(|(_, status)| status.permissions.key == key).count(), 1);
    last.signal(Signal::SIGTERM);
    assert!(last.wait().success());
}

#[in_own_namespace]
fn another_programs_queue_is_replaced_only_once_the_program_is_dead() {
    let key = unique_key();
    let mut theirs = program("textbook_server");
    let mut theirs = Running::start(theirs.args(["--key", &key.to_string()]).stdout(Stdio::null()));
    wait_until("it has its queue", || queue_of(key).is_some());
    let queue = queue_of(key).unwrap();
    let unread = refused(key);
    assert!(unread.contains("nothing says who receives from it"), "{unread}");
    assert!(unread.ends_with(" (choose another --key)\n"), "{unread}");
    queue.send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"no request")).unwrap();
    wait_until("it has received", || queue.status().unwrap().last_receiver.is_some());
    let live = refused(key);
    assert!(live.contains(&format!("pid {} received from it", theirs.pid())), "{live}");
    assert!(exists(queue));
    assert!(Lock::open(key).is_err(), "a server that gives up leaves no lock");
    theirs.kill();

    let server = Server::start_on::<&str>(key, &[]);
    assert_ne!(queue_of(key), Some(queue));
    server.stop();
}

#[in_own_namespace]
fn a_queue_that_everybody_may_write_is_not_taken_for_a_servers() {
    let key = unique_key();
    // All x bits, like our mark, but others may read.
    let theirs = OwnedQueue::create(key, Mode::new(0o777)).unwrap();
    assert!(refused(key).contains("another program's"));
    assert!(theirs.status().is_ok());
}

#[as_root_in_own_namespace]
fn a_server_without_a_free_queue_or_semaphore_names_the_remedy() {
    for (limit, none, remedy) in [
        ("msgmni", "0", "raising kernel.msgmni makes room"),
        ("sem", "250 32000 32 0", "raising the last number of kernel.sem makes room"),
    ] {
        fs::write(format!("/proc/sys/kernel/{limit}"), none).unwrap();
        let refused = refused(unique_key());
        assert!(refused.contains("ENOSPC"), "{refused}");
        assert!(refused.contains(remedy), "{refused}");
    }
}

#[as_root_in_own_namespace]
fn if_fork_fails_the_client_retries_until_its_timeout() {
    let (key, programs) = (unique_key(), ForEverybody::new());
    // Root's own processes are not limited in number.
    let mut command = programs.server(key, 64_123);
    let server = Server::start_as(key, command.args(["--root", "/proc"]));
    let fetch = || {
        let mut client = server.client();
        client.args(["--server-uid", "64123", "--timeout", "300ms", "/version"]);
        client
    };
    run(&mut fetch()).success();
    server.wait_until_idle();
    // As the same user: root may lack CAP_SYS_RESOURCE.
    let limit = |processes: &str| {
        let mut prlimit = std::process::Command::new("prlimit");
        prlimit.args(["--pid", &server.pid().to_string(), processes]).uid(64_123).gid(64_123);
        run(&mut prlimit).success();
    };
    limit("--nproc=1:");
    fails(&mut fetch(), 1, "mqfs-client: /version: busy: the server cannot fork\n");
    limit("--nproc=1000:");
    run(&mut fetch()).success();
    server.stop();
}

#[as_root_in_own_namespace]
fn without_proc_no_server_starts() {
    let mut server = program("mqfs-server");
    server.args(["-k", &unique_key().to_string()]);
    let why = "mqfs-server: /proc is not mounted here: mount -t proc proc /proc\n";
    fails(&mut after_mounting("mount -t tmpfs none /proc", &server), 2, why);
}
