//! Starting a server: which server gets a key, and what happens to objects under that key.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::Signal;
use sysv_ipc::{Key, Lock, MessageBuffer, Mode, OwnedQueue, Queue, Select};

use crate::support::{
    ForEverybody, Running, Server, all_queues, as_root_in_own_namespace, children_of,
    in_own_namespace, noise, program, queue_of, run, stuck_client, unique_key, wait_until,
};

/// The error message of a server that does not start.
fn refused(key: Key) -> String {
    let refused = run(program("mqfs-server").args(["-k", &key.to_string()]));
    assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
    assert_eq!(refused.stdout, b"");
    refused.stderr
}

#[test]
fn a_second_server_on_a_key_is_refused_naming_the_first() {
    in_own_namespace(|| {
        let server = Server::start::<&str>(&[]);
        let expected = format!(
            "mqfs-server: key {} is in use: a server runs there already, pid {}\n",
            server.key,
            server.pid()
        );
        assert_eq!(refused(server.key), expected);
        server.freeze();
        assert_eq!(refused(server.key), expected, "while the first is stopped");
        server.signal(Signal::SIGCONT);
        assert!(!server.fetch("/proc/version").is_empty());
        server.stop();
    });
}

#[test]
fn a_second_server_is_refused_in_another_pid_namespace_too() {
    as_root_in_own_namespace(|| {
        let server = Server::start::<&str>(&[]);
        let mut elsewhere = std::process::Command::new("unshare");
        elsewhere
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(program("mqfs-server").get_program());
        let second = run(elsewhere.args(["-k", &server.key.to_string()]));
        assert_eq!(second.code(), Some(2), "{}", second.stderr);
        let expected = format!("key {} is in use: a server runs there already\n", server.key);
        assert!(second.stderr.ends_with(&expected), "{}", second.stderr);
        server.stop();
    });
}

#[test]
fn after_kill_9_the_next_server_starts_while_old_children_finish() {
    in_own_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let content = noise(1 << 20);
        fs::write(folder.path().join("file"), &content).unwrap();
        let mut first = Server::start(&["--root".as_ref(), folder.path()]);
        let old = stuck_client(&first, "/file");
        first.signal(Signal::SIGKILL);
        first.running().wait();
        let lost = queue_of(first.key).expect("the dead server's queue stays");

        let second = Server::start_on(first.key, &["--root".as_ref(), folder.path()]);
        assert_ne!(queue_of(second.key), Some(lost));
        assert!(second.fetch("/file") == content);
        assert!(old.finish().success() == content, "the old child finishes");
        second.stop();
    });
}

#[test]
fn of_twenty_servers_started_at_once_exactly_one_stays() {
    in_own_namespace(|| {
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
        assert_eq!(
            all_queues().iter().filter(|(_, status)| status.permissions.key == key).count(),
            1
        );
        last.signal(Signal::SIGTERM);
        assert!(last.wait().success());
    });
}

#[test]
fn another_programs_live_queue_is_never_removed() {
    in_own_namespace(|| {
        let key = unique_key();
        let theirs = OwnedQueue::create(key, Mode::new(0o622)).unwrap();
        let unread = refused(key);
        assert!(unread.contains("nothing says who receives from it"), "{unread}");
        assert!(unread.contains(&format!("ipcrm -Q {key}")), "{unread}");

        // Now its last receiver, this process, is alive.
        let message = MessageBuffer::with_text(NORMAL_PRIORITY, b"request");
        theirs.send(&message).unwrap();
        theirs.receive(&mut MessageBuffer::with_capacity(16), Select::Any).unwrap();
        let live = refused(key);
        assert!(live.contains(&format!("pid {} received from it", std::process::id())), "{live}");
        theirs.send(&message).expect("it is still there");
        assert!(Lock::open(key).is_err(), "a server that gives up leaves no lock");
    });
}

#[test]
fn a_dead_programs_queue_is_replaced() {
    in_own_namespace(|| {
        let key = unique_key();
        let mut theirs = program("textbook_server");
        let mut theirs =
            Running::start(theirs.args(["--key", &key.to_string()]).stdout(Stdio::null()));
        wait_until("it has its queue", || queue_of(key).is_some());
        let queue = queue_of(key).unwrap();
        assert!(refused(key).contains("is in use"));
        queue.send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"no request")).unwrap();
        wait_until("it has received", || queue.status().unwrap().last_receiver.is_some());
        theirs.signal(Signal::SIGKILL);
        theirs.wait();

        let server = Server::start_on::<&str>(key, &[]);
        assert_ne!(queue_of(key), Some(queue));
        server.stop();
    });
}

#[test]
fn a_queue_that_everybody_may_write_is_not_taken_for_a_servers() {
    in_own_namespace(|| {
        let key = unique_key();
        // All x bits, like our mark, but others may read.
        let theirs = OwnedQueue::create(key, Mode::new(0o777)).unwrap();
        assert!(refused(key).contains("another program's"));
        assert!(theirs.status().is_ok());
    });
}

#[test]
fn a_foreign_semaphore_that_cannot_be_read_is_named_with_the_remedy() {
    as_root_in_own_namespace(|| {
        let key = unique_key();
        let _semaphore = Lock::open_or_create(key, Mode::new(0o600)).unwrap();
        let programs = ForEverybody::new();
        let other = run(programs.server(key, 64_126).args(["--root", "/proc"]));
        assert_eq!(other.code(), Some(2));
        let expected = "its semaphore belongs to uid 0 (as root: ipcrm -S";
        assert!(other.stderr.contains(expected), "{}", other.stderr);
        Lock::open(key).unwrap().remove().unwrap();
    });
}

#[test]
fn a_server_without_a_free_queue_names_the_remedy() {
    as_root_in_own_namespace(|| {
        fs::write("/proc/sys/kernel/msgmni", "0").unwrap();
        let refused = refused(unique_key());
        assert!(refused.contains("ENOSPC"), "{refused}");
        assert!(refused.contains("raising kernel.msgmni makes room"), "{refused}");
    });
}

#[test]
fn an_impossible_root_ends_with_status_2_and_leaves_nothing() {
    in_own_namespace(|| {
        let key = unique_key().to_string();
        for (arguments, expected) in [
            (vec!["--root", "/no/such/folder"], "root /no/such/folder: ENOENT"),
            (vec!["--root", "/etc/passwd"], "root /etc/passwd: ENOTDIR"),
            (vec!["--mode", "0666"], "mode 0666: it must be 0600, 0620, 0602 or 0622"),
            (vec!["--mode", "0400"], "mode 0400"),
            (vec!["--mode", "9"], "not a mode"),
            (vec!["--max-children", "0"], "1..=65535"),
            (vec!["--key", "0"], "IPC_PRIVATE"),
            (vec!["--key-file", "/no/such/file"], "--key-file /no/such/file"),
            (vec!["--stall-timeout", "0s"], "more than zero"),
        ] {
            let mut command = program("mqfs-server");
            if !arguments.iter().any(|argument| argument.starts_with("--key")) {
                command.args(["-k", &key]);
            }
            let refused = run(command.args(&arguments));
            assert_eq!(refused.code(), Some(2), "{arguments:?}: {}", refused.stderr);
            assert!(refused.stderr.contains(expected), "{arguments:?}: {}", refused.stderr);
        }
    });
}

#[test]
fn if_fork_fails_the_client_retries_until_its_timeout() {
    as_root_in_own_namespace(|| {
        let (key, programs) = (unique_key(), ForEverybody::new());
        // Root's own processes are not limited in number.
        let mut command = programs.server(key, 64_123);
        let server = Server::start_as(key, command.args(["--root", "/proc"]));
        run(server.client().args(["--server-uid", "64123", "/version"])).success();
        wait_until("its housekeeping is done", || children_of(server.pid()).is_empty());
        // As the same user: root may lack CAP_SYS_RESOURCE.
        let limit = |processes: &str| {
            let mut prlimit = std::process::Command::new("prlimit");
            prlimit.args(["--pid", &server.pid().to_string(), processes]).uid(64_123).gid(64_123);
            run(&mut prlimit).success();
        };
        limit("--nproc=1:");
        let mut command = server.client();
        command.args(["--server-uid", "64123", "--timeout", "300ms", "/version"]);
        let busy = run(&mut command);
        assert_eq!(busy.code(), Some(1));
        assert_eq!(busy.stderr, "mqfs-client: /version: busy: the server cannot fork\n");

        let mut command = server.client();
        command.args(["--server-uid", "64123", "/version"]);
        let patient = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let refused = |log: &str| log.matches("fork failed").count();
        let before = refused(&server.log());
        wait_until("it was told to try again", || refused(&server.log()) > before);
        limit("--nproc=1000:");
        assert!(!patient.finish().success().is_empty());
        server.stop();
    });
}

#[test]
fn root_removes_a_foreign_semaphore_and_other_users_name_it() {
    as_root_in_own_namespace(|| {
        let (key, programs) = (unique_key(), ForEverybody::new());
        // A killed server leaves its semaphore; its queue does not matter here.
        let mut command = programs.server(key, 64_124);
        let mut squatter = Server::start_as(key, command.args(["--root", "/proc"]));
        squatter.signal(Signal::SIGKILL);
        squatter.running().wait();
        let _ = Queue::open(key).and_then(Queue::remove); // its housekeeping may have been faster
        let mut command = programs.server(key, 64_125);
        command.args(["--root", "/proc"]);
        let other = run(&mut command);
        assert_eq!(other.code(), Some(2));
        assert!(other.stderr.contains("its semaphore belongs to uid 64124"), "{}", other.stderr);
        let server = Server::start_on::<&str>(key, &[]);
        server.stop();
        drop(squatter);
    });
}

#[test]
fn without_proc_no_server_starts() {
    as_root_in_own_namespace(|| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", r#"mount -t tmpfs none /proc; exec "$@""#, "sh"]);
        command.arg(program("mqfs-server").get_program());
        let refused = run(command.args(["-k", &unique_key().to_string()]));
        assert_eq!(refused.code(), Some(2));
        let why = "mqfs-server: /proc is not mounted here: mount -t proc proc /proc\n";
        assert_eq!(refused.stderr, why);
    });
}
