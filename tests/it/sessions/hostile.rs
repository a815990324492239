//! Clients that misuse their session, and users who misuse that of another.

use mqfs::wire::{MAX_PATH, QUESTION_TYPE, Question};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pause};
use sysv_ipc::{MessageBuffer, SendError};

use super::serve;
use crate::support::session::{Part, RawSession, fetch, question_message};
use crate::support::{
    ATTACKER, Attack, Site, VICTIM, as_root_in_own_namespace, errno_of, in_own_namespace, reap,
    reply_queues, run, sent, wait_until,
};

#[in_own_namespace]
fn what_is_no_question_ends_the_session() {
    let (server, _folder, requests) = serve(&[]);
    let header = |length: usize| {
        let mut header = [0; Question::HEADER];
        header[6..8].copy_from_slice(&(length as u16).to_ne_bytes());
        header
    };
    let long = [&header(MAX_PATH + 1)[..], &[b'x'; MAX_PATH + 1]].concat();
    let nul = [&header(7)[..], b"/small\0"].concat();
    for text in [&b""[..], &header(0)[1..], &nul, &nul[..30], &long, &[0; 8000]] {
        let mut session = RawSession::idle(requests);
        session.ask(&fetch("/small"));
        session.queue.try_send(&MessageBuffer::with_text(QUESTION_TYPE, text)).unwrap();
        session.ask(&fetch("/small"));
        assert_eq!(session.answer().unwrap().bytes, b"small", "{} bytes", text.len());
        let Part::Failure(failure) = session.next_part() else { panic!("{} bytes", text.len()) };
        assert_eq!(failure.errno, Some(Errno::EBADMSG), "{} bytes", text.len());
        assert_eq!(session.next_part(), Part::Farewell(3), "{} bytes", text.len());
        server.wait_until_idle();
        assert_eq!(server.fetch("/small"), b"small");
    }
    assert_eq!(server.log().matches("not a question").count(), 6, "{}", server.log());
    server.stop();
}

#[as_root_in_own_namespace]
fn questions_without_end_and_no_reading_disturb_nobody() {
    let site = Site::start(&["--stall-timeout", "1s"]);
    let requests = site.requests();
    for waits in [false, true] {
        let mut attack = Attack::start(ATTACKER, || {
            let mut session = RawSession::start(requests, &fetch("/file"));
            session.next_part();
            let question = question_message(&fetch("/none"));
            for _ in 0..1_000_000 {
                match session.queue.try_send(&question) {
                    Err(SendError::Full) if waits => sent(session.queue.send(&question))?,
                    Err(SendError::Full) => {}
                    outcome => sent(outcome)?,
                }
            }
            sent(session.queue.send(&question)) // for ever
        });
        wait_until("it has a queue", || reply_queues().len() == 1);
        (0..3).for_each(|_| site.fetch_intact());
        wait_until("its child gives up", || site.server.log().contains("client stalled"));
        site.server.wait_until_idle();
        site.fetch_intact();
        attack.stop();
        reap(&[]).success();
    }
    site.stop();
}

#[in_own_namespace]
fn questions_before_the_first_answer_are_answered_after_it() {
    let (server, _folder, requests) = serve(&[]);
    server.freeze();
    let mut session = RawSession::start(requests, &fetch("/small"));
    session.ask(&fetch("/none"));
    session.ask(&fetch("/small"));
    server.signal(Signal::SIGCONT);
    assert_eq!(session.answer().unwrap().bytes, b"small");
    assert_eq!(session.answer(), Err(Errno::ENOENT));
    assert_eq!(session.answer().unwrap().bytes, b"small");
    drop(session);
    server.stop();
}

/// Root's server takes the caller's groups from the process that sent last, so that must have been
/// the lease.
#[as_root_in_own_namespace]
fn questions_before_the_first_answer_are_refused_by_roots_server() {
    let site = Site::start(&[]);
    let requests = site.requests();
    site.server.freeze();
    let mut asking = Attack::start(VICTIM, || {
        let mut session = RawSession::start(requests, &fetch("/file"));
        session.ask(&fetch("/file"));
        let Part::Refused(failure) = session.next_part() else { return Err(Errno::EBADMSG) };
        Err(failure.errno.unwrap())
    });
    wait_until("it has asked twice", || {
        assert!(asking.goes_on());
        reply_queues().first().is_some_and(|queue| queue.status().unwrap().messages == 2)
    });
    site.server.signal(Signal::SIGCONT);
    assert_eq!(asking.finish(), Err(Errno::EACCES));
    site.stop();
}

#[as_root_in_own_namespace]
fn a_user_who_stops_its_children_blocks_no_others() {
    let site = Site::start(&["--stall-timeout", "1s", "--max-children", "2"]);
    let requests = site.requests();
    let mut attack = Attack::start(ATTACKER, || {
        let mut sessions: Vec<_> = (0..2).map(|_| RawSession::idle(requests)).collect();
        let mut lost = sessions.pop().unwrap();
        for session in [&lost, &sessions[0]] {
            let child = session.queue.status().map_err(errno_of)?.last_sender.unwrap();
            kill(Pid::from_raw(child.as_raw()), Signal::SIGSTOP)?;
        }
        assert!(matches!(lost.next_part(), Part::Refused(_)), "it learns of its child's death");
        loop {
            pause();
        }
    });
    wait_until("both are stopped", || {
        let children = site.server.process().children();
        children.len() == 2 && children.iter().all(|child| child.is_stopped())
    });
    assert!(run(&mut site.victim()).success() == site.file);
    attack.stop();
    let children = site.server.process().children();
    children.iter().for_each(|child| assert!(child.signal(Signal::SIGCONT)));
    site.server.wait_until_idle();
    reap(&[]).success();
    site.stop();
}
