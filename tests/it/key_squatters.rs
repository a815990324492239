//! Users who put their own queue or semaphore under a server's key.

use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use sysv_ipc::{Key, Lock, MessageBuffer, Mode, OwnedQueue, Queue, QueueSettings, Select};

use crate::support::{
    ATTACKER, Attack, Finished, ForEverybody, OPERATOR, Server, Site, VICTIM,
    as_root_in_own_namespace, as_user, clear, errno_of, exists, queue_of, received, run, set,
    unique_key, wait_until,
};

/// A queue that the attacker made under a key, and the attacker's process.
struct Squatter {
    key: Key,
    queue: Queue,
    process: Attack,
}

impl Squatter {
    /// Makes a queue with this mode. Then its owner makes more calls, and receives from it if told
    /// to.
    #[track_caller]
    fn start(key: Key, mode: u16, then: impl FnOnce(Queue) -> Result<(), Errno>) -> Self {
        let process = Attack::start(ATTACKER, || {
            then(Queue::create(key, Mode::new(mode)).map_err(errno_of)?)?;
            loop {
                thread::sleep(Duration::from_secs(1));
            }
        });
        wait_until("it squats", || queue_of(key).is_some());
        Self { key, queue: queue_of(key).unwrap(), process }
    }

    #[track_caller]
    fn assert_was_sent_nothing(&self) {
        let status = self.queue.status().unwrap();
        assert_eq!((status.messages, status.last_sender, status.sent_at), (0, None, None));
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        clear(self.key);
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
        let ask = |uid, plain: &[&str]| {
            let mut client = programs.client(squatter.key, uid);
            refused(client.args(plain).arg("/file"))
        };
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
            let given = as_user(ATTACKER, || {
                let settings = squatter.queue.status().map_err(errno_of)?.settings();
                set(
                    squatter.queue,
                    &QueueSettings { uid: sysv_ipc::Uid::from_raw(owner), ..settings },
                )
            });
            assert_eq!(given, Ok(()));
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
        let site = Site::start_on(key, 0, &[]);
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
    server.stop();
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
            let site = Site::start_on(key, 0, arguments);
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
