//! A client, a child and a server are killed at each point of a session.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use sysv_ipc::Queue;
use tempfile::TempDir;

use super::{serve, wait_until_long_idle};
use crate::support::session::{Part, RawSession, fill, unfill};
use crate::support::*;

/// Where a session is when something is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// Its child waits to send the first answer.
    BeforeTheFirst,
    /// The client does not read an answer that is larger than its queue.
    InAnAnswer,
    /// The child has answered everything, and waits for a question.
    BetweenTwo,
    /// The child waits to send its farewell.
    AtTheFarewell,
    /// The child was asked to make way for another client, and has not seen that yet.
    MakingWay,
}

use Point::{AtTheFarewell, BeforeTheFirst, BetweenTwo, InAnAnswer, MakingWay};

const POINTS: [Point; 5] = [BeforeTheFirst, InAnAnswer, BetweenTwo, AtTheFarewell, MakingWay];

const ARGUMENTS: [&str; 4] = ["--max-children", "1", "--idle-timeout", "1h"];

const FILES: usize = 700;

/// A server of so many small files that a client asks for all only after it has written some.
struct Stage {
    server: Server,
    folder: TempDir,
}

/// A session at a point, where it stays as long as nobody reads its client's output.
struct Scene {
    point: Point,
    client: Running,
    /// What the client is to write.
    expected: Vec<u8>,
    queue: Queue,
    child: Process,
    /// Another client, for which the session is to make way.
    newcomer: Option<Running>,
}

impl Stage {
    fn new() -> Self {
        // So large a queue holds the answers to all that the client asks at once.
        fs::write("/proc/sys/kernel/msgmnb", "65536").unwrap();
        let (server, folder, _) = serve(&ARGUMENTS);
        fs::create_dir(folder.path().join("many")).unwrap();
        for n in 0..FILES {
            let path = folder.path().join(format!("many/{n}"));
            fs::write(path, format!("{n} ").repeat(80)).unwrap();
        }
        Self { server, folder }
    }

    /// A client that fetches the small files, as a tree or one by one, perhaps after a large one.
    fn client(&self, as_tree: bool, with_big: bool) -> Command {
        let mut command = self.server.client();
        if with_big {
            command.arg("/file");
        }
        match as_tree {
            true => command.args(["/many", "--tar"]),
            false => command.args((0..FILES).map(|n| format!("/many/{n}"))),
        };
        command
    }

    fn reach(&self, point: Point, as_tree: bool) -> Scene {
        let mut command = self.client(as_tree, point == InAnAnswer);
        let expected = run(&mut command).success();
        self.server.wait_until_idle();
        if point == BeforeTheFirst {
            self.server.freeze();
        }
        let client = Running::piped(&mut command);
        wait_until("it has a queue", || reply_queues().len() == 1);
        let queue = reply_queues()[0];
        if point == BeforeTheFirst {
            let requests = queue_of(self.server.key).unwrap();
            wait_until("it has asked", || requests.status().unwrap().messages == 1);
            fill(queue);
            self.server.signal(Signal::SIGCONT);
        }
        let child = self.server.only_child();
        let waits = |who: Process, call| {
            wait_until(&format!("{point:?}: it waits"), || who.waits_in(call));
        };
        match point {
            BeforeTheFirst => waits(child, libc::SYS_msgsnd),
            InAnAnswer => {
                wait_until("the queue is full", || is_full(queue));
                waits(child, libc::SYS_msgsnd);
                assert_eq!(windows().len(), 1, "the file goes through shared memory");
            }
            BetweenTwo | AtTheFarewell | MakingWay => {
                waits(Process::with_pid(client.pid()).unwrap(), libc::SYS_write);
                waits(child, libc::SYS_msgrcv);
            }
        }
        if point == AtTheFarewell {
            fill(queue);
            child.signal(Signal::SIGUSR1);
            waits(child, libc::SYS_msgsnd);
        }
        let newcomer = (point == MakingWay).then(|| {
            assert!(child.freeze());
            let newcomer = Running::piped(self.server.client().arg("/small"));
            wait_until("it is asked to make way", || {
                let pending = field(child.pid, "status", "ShdPnd").unwrap();
                u64::from_str_radix(&pending, 16).unwrap() & 1 << (libc::SIGUSR1 - 1) != 0
            });
            newcomer
        });
        Scene { point, client, expected, queue, child, newcomer }
    }
}

impl Scene {
    /// Lets everybody go on. All get the right bytes, and nothing is left.
    fn finish(self) {
        let Self { point, .. } = self;
        self.client.freeze(); // it would wait for an answer where there is no room for a question
        unfill(self.queue);
        self.client.signal(Signal::SIGCONT);
        self.child.signal(Signal::SIGCONT);
        let client = self.client.finish();
        assert!(client.stdout == self.expected, "{point:?}: {}", client.stderr);
        assert_eq!((client.code(), &*client.stderr), (Some(0), ""), "{point:?}");
        if let Some(newcomer) = self.newcomer {
            assert_eq!(newcomer.finish().success(), b"small");
        }
        wait_until("its child has ended", || !self.child.lives());
        assert_eq!(reply_queues(), [], "{point:?}");
    }
}

fn at_each_point(check: fn(&mut Stage, Scene)) {
    as_root_in_own_namespace(move || {
        let mut stage = Stage::new();
        for point in POINTS {
            for as_tree in [false, true] {
                let scene = stage.reach(point, as_tree);
                check(&mut stage, scene);
            }
        }
        stage.server.stop();
    });
}

#[test]
fn a_client_that_is_sent_away_asks_another_child() {
    at_each_point(|_, scene| scene.finish());
}

#[test]
fn nothing_is_left_of_a_killed_client() {
    at_each_point(|_, mut scene| {
        scene.client.kill();
        scene.child.signal(Signal::SIGCONT);
        wait_until("its child ends", || !scene.child.lives());
        if let Some(newcomer) = scene.newcomer {
            assert_eq!(newcomer.finish().success(), b"small");
        }
        wait_until("no window is left", || windows().is_empty()); // without a reaper
        if scene.point == BetweenTwo {
            assert_eq!(reply_queues(), [], "its child removes an idle client's queue");
        }
        // An answer that nobody has read may be in a queue that the child has left.
        reap(&[]).success();
        assert_eq!(reply_queues(), [], "{:?}", scene.point);
    });
}

#[test]
fn a_client_whose_child_is_killed_asks_another() {
    at_each_point(|_, scene| {
        assert!(scene.child.signal(Signal::SIGKILL));
        wait_until("it is gone", || !scene.child.lives());
        scene.finish();
    });
}

#[test]
fn a_client_whose_server_is_killed_asks_the_next() {
    at_each_point(|stage, scene| {
        stage.server.running().kill();
        stage.server.leave_key();
        let root = ["--root", stage.folder.path().to_str().unwrap()];
        stage.server = Server::start_on(
            stage.server.key,
            &[&ARGUMENTS[..], &root, &["--reap-interval", "1h"]].concat(),
        );
        scene.finish();
    });
}

#[as_root_in_own_namespace]
fn an_idle_session_does_not_outlive_its_server() {
    let (mut server, _folder, requests) = serve(&ARGUMENTS);
    let mut session = RawSession::idle(requests);
    let child = server.only_child();
    wait_until_long_idle();
    server.running().kill();
    assert_eq!(session.next_part(), Part::Gone);
    wait_until("its child has ended", || !child.lives());
}
