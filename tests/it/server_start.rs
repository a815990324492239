//! Starting a server: which server gets a key, what happens to objects under that key, and users
//! who put their own queue or semaphore there.

use std::fs;
use std::process::{Command, Stdio};

use mqfs::wire::NORMAL_PRIORITY;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use sysv_ipc::{Key, Lock, MessageBuffer, Mode, OwnedQueue, Queue, Select};

use crate::support::*;

/// The error message of a server that does not start under this key.
#[track_caller]
fn not_started(key: Key) -> String {
    refused(&mut server_of(key))
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
    assert_eq!(not_started(server.key), expected);
    server.freeze();
    assert_eq!(not_started(server.key), expected, "while the first is stopped");
    if geteuid().is_root() {
        let second = server_of(server.key);
        let second = run(&mut unshared(&["--pid", "--mount-proc"], &second));
        assert_eq!(second.code(), Some(2), "{}", second.stderr);
        assert!(second.stderr.contains("runs there already (choose"), "{}", second.stderr);
    }
    server.signal(Signal::SIGCONT);
    assert!(!server.fetch("/proc/version").is_empty());
}

#[in_own_namespace]
fn of_twenty_servers_started_at_once_exactly_one_stays() {
    let key = unique_key();
    let start = |_| Running::start(server_of(key).stdout(Stdio::null()).stderr(Stdio::null()));
    let mut servers: Vec<_> = (0..20).map(start).collect();
    wait_until("nineteen have given up", || {
        servers.retain_mut(|server| !server.has_ended());
        servers.len() <= 1
    });
    let mut last = servers.pop().expect("one stays");
    wait_until("it can be asked", || queue_of(key).is_some());
    assert!(!run(client(key).arg("/proc/version")).success().is_empty());
    assert_eq!(all_queues().iter().filter(|(_, status)| status.permissions.key == key).count(), 1);
    last.signal(Signal::SIGTERM);
    assert!(last.wait().success());
}

#[in_own_namespace]
fn another_programs_queue_is_replaced_only_once_the_program_is_dead() {
    let key = unique_key();
    let mut theirs = Running::piped(&mut under(key, program("textbook_server")));
    wait_until("it has its queue", || queue_of(key).is_some());
    let queue = queue_of(key).unwrap();
    let unread = not_started(key);
    assert!(unread.contains("nothing says who receives from it"), "{unread}");
    assert!(unread.ends_with(" (choose another --key)\n"), "{unread}");
    queue.send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"no request")).unwrap();
    wait_until("it has received", || queue.status().unwrap().last_receiver.is_some());
    let live = not_started(key);
    assert!(live.contains(&format!("pid {} received from it", theirs.pid())), "{live}");
    assert!(exists(queue));
    assert!(Lock::open(key).is_err(), "a server that gives up leaves no lock");
    theirs.kill();

    let _server = Server::start_on::<&str>(key, &[]);
    assert_ne!(queue_of(key), Some(queue));
}

#[in_own_namespace]
fn a_queue_that_everybody_may_write_is_not_taken_for_a_servers() {
    let key = unique_key();
    // All x bits, like our mark, but others may read.
    let theirs = OwnedQueue::create(key, Mode::new(0o777)).unwrap();
    assert!(not_started(key).contains("another program's"));
    assert!(theirs.status().is_ok());
}

#[as_root_in_own_namespace]
fn a_server_without_a_free_queue_or_semaphore_names_the_remedy() {
    for (limit, none, remedy) in [
        ("msgmni", "0", "raising kernel.msgmni makes room"),
        ("sem", "250 32000 32 0", "raising the last number of kernel.sem makes room"),
    ] {
        fs::write(format!("/proc/sys/kernel/{limit}"), none).unwrap();
        let refused = not_started(unique_key());
        assert!(refused.contains("ENOSPC"), "{refused}");
        assert!(refused.contains(remedy), "{refused}");
    }
}

#[as_root_in_own_namespace]
fn if_fork_fails_the_client_retries_until_its_timeout() {
    let (key, programs) = (unique_key(), ForEverybody::new());
    // Root's own processes are not limited in number.
    let server = Server::start_as(key, programs.server(key, 64_123).args(["--root", "/proc"]));
    let arguments = ["--server-uid", "64123", "--timeout", "300ms", "/version"];
    let fetch = || with(server.client(), &arguments);
    run(&mut fetch()).success();
    server.wait_until_idle();
    // As the same user: root may lack CAP_SYS_RESOURCE.
    let pid = server.pid().to_string();
    let limit = |processes| {
        let prlimit = with(Command::new("prlimit"), &["--pid", &pid, processes]);
        run(&mut as_uid(64_123, &prlimit)).success();
    };
    limit("--nproc=1:");
    fails(&mut fetch(), 1, "mqfs-client: /version: busy: the server cannot fork\n");
    limit("--nproc=1000:");
    run(&mut fetch()).success();
}

#[as_root_in_own_namespace]
fn without_proc_no_server_starts() {
    let server = server_of(unique_key());
    let why = "mqfs-server: /proc is not mounted here: mount -t proc proc /proc\n";
    fails(&mut after_mounting("mount -t tmpfs none /proc", &server), 2, why);
}

/// A queue that the attacker made under a key, and the attacker's process.
struct Squatter {
    key: Key,
    queue: Queue,
    process: Attack,
    _clear: ClearAtEnd,
}

impl Squatter {
    /// Makes a queue with this mode. Then its owner makes more calls, and receives from it if told
    /// to.
    #[track_caller]
    fn start(key: Key, mode: u16, then: impl FnOnce(Queue) -> Result<(), Errno>) -> Self {
        let process = Attack::start(ATTACKER, || {
            then(Queue::create(key, Mode::new(mode)).map_err(errno_of)?)?;
            wait_for_ever()
        });
        wait_until("it squats", || queue_of(key).is_some());
        Self { key, queue: queue_of(key).unwrap(), process, _clear: ClearAtEnd(key) }
    }

    #[track_caller]
    fn assert_was_sent_nothing(&self) {
        let status = self.queue.status().unwrap();
        assert_eq!((status.messages, status.last_sender, status.sent_at), (0, None, None));
    }
}

/// The error message of a program that ends at once.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let Finished { status, stdout, stderr } = run(command);
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert_eq!(stdout, b"");
    stderr
}

#[as_root_in_own_namespace]
fn a_client_sends_no_request_to_a_squatters_queue() {
    let programs = ForEverybody::new();
    // The modes of another program, of an mqfs server, of an open and of a closed queue.
    for mode in [0o622, 0o733, 0o711, 0o666, 0o777, 0o600, 0] {
        let squatter = Squatter::start(unique_key(), mode, |_| Ok(()));
        let client = |uid| programs.client(squatter.key, uid);
        let ask = |uid, plain: &[&str]| refused(client(uid).args(plain).arg("/file"));
        for uid in [VICTIM, OPERATOR, 0] {
            let expected = format!(
                "mqfs-client: not trusted: the queue under key {} belongs to uid {ATTACKER}, \
                     not to root or you (",
                squatter.key
            );
            for arguments in [&[][..], &["--plain"], &["--server-uid", &OPERATOR.to_string()]] {
                let told = ask(uid, arguments);
                assert!(told.starts_with(&expected) && told.contains("--server-uid"), "{told}");
            }
        }
        squatter.assert_was_sent_nothing();
        // The creator can still read it after giving it away.
        for owner in [0, VICTIM] {
            assert_eq!(as_user(ATTACKER, || give(squatter.queue, owner)), Ok(()));
            assert!(ask(VICTIM, &[]).contains(&format!("belongs to uid {ATTACKER}")));
        }
        squatter.assert_was_sent_nothing();
    }
}

#[as_root_in_own_namespace]
fn roots_server_replaces_a_squatters_marked_queue_and_semaphore() {
    for taken in [false, true] {
        let key = unique_key();
        let mut squatter = Squatter::start(key, 0o733, |queue| {
            let lock = Lock::open_or_create(key, Mode::new(0o666)).unwrap();
            if taken {
                let _ = lock.try_acquire().unwrap();
            }
            received(queue.receive(&mut MessageBuffer::with_capacity(8192), Select::Any))
        });
        wait_until("it has a semaphore", || {
            Lock::open(key).is_ok_and(|lock| !taken || lock.is_held() == Ok(true))
        });
        let site = Site::start_by(key, 0, &[], |server| server);
        assert!(!exists(squatter.queue));
        let log = site.server.log();
        let pid = if taken { format!(" pid={}", squatter.process.pid()) } else { String::new() };
        for what in
            [format!("server lock key={key} uid={ATTACKER}{pid} "), format!("queue key={key} uid=")]
        {
            assert!(log.contains(&format!("removed another user's {what}")), "{what}: {log}");
        }
        wait_until("the squatter has lost its queue", || !squatter.process.goes_on());
        site.stop();
    }
}

#[as_root_in_own_namespace]
fn another_users_server_names_who_is_in_the_way_and_advises_no_harm() {
    let (key, programs) = (unique_key(), ForEverybody::new());
    let start = |who: &str| {
        let said = refused(programs.server(key, OPERATOR).args(["--root", "/proc"]));
        assert!(said.contains(who) && said.ends_with(" (choose another --key)\n"), "{said}");
    };
    let squatter = Squatter::start(key, 0o733, |_| Ok(()));
    start(&format!("queue {} of uid {ATTACKER}", squatter.queue.id()));
    assert!(exists(squatter.queue));
    drop(squatter);
    let server = Server::start_as(key, programs.server(key, ATTACKER).args(["--root", "/proc"]));
    start(&format!("a server of uid {ATTACKER} runs there already, pid {}", server.pid()));
    drop(server);
    for mode in [0o666, 0o600] {
        let squat = || Lock::open_or_create(key, Mode::new(mode)).map(drop);
        assert_eq!(as_user(ATTACKER, || squat().map_err(errno_of)), Ok(()));
        start(&format!("its semaphore belongs to uid {ATTACKER}"));
        Lock::open(key).unwrap().remove().unwrap();
    }
}

#[as_root_in_own_namespace]
fn a_persistent_squatter_does_not_keep_roots_server_from_starting() {
    for (mode, arguments) in [(0o733, &[][..]), (0o666, &["--claim-key"])] {
        let key = unique_key();
        let mut squatter = Attack::start(ATTACKER, || {
            loop {
                let _ = OwnedQueue::create(key, Mode::new(mode)).map(OwnedQueue::release);
                let _ = Lock::open_or_create(key, Mode::new(0o644));
            }
        });
        wait_until("it squats", || queue_of(key).is_some());
        for _ in 0..5 {
            let site = Site::start_by(key, 0, arguments, |server| server);
            let owner = site.requests().status().unwrap().permissions.cuid;
            assert_eq!(owner, sysv_ipc::Uid::ROOT);
            site.stop();
        }
        assert!(squatter.goes_on());
        squatter.stop();
        clear(key);
    }
    let programs = ForEverybody::new();
    let said = refused(programs.server(unique_key(), OPERATOR).arg("--claim-key"));
    assert_eq!(said, "mqfs-server: --claim-key is for root\n");
}
