//! What the child of a session may do: what its caller may, below the root, question by question.
//! Clients that misuse their session, and users who misuse that of another.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use mqfs::wire::{Kind, MAX_PATH, QUESTION_TYPE, Question};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::{MessageBuffer, SendError};

use super::serve;
use crate::support::session::{
    Part, RawSession, below, enter, fetch, list, question_message, stat,
};
use crate::support::*;

#[as_root_in_own_namespace]
fn each_question_is_answered_with_the_callers_rights() {
    let site = Site::start(&[]);
    site.put("own", 0o600, (VICTIM, VICTIM), "own");
    site.put("roots", 0o600, (0, 0), "secret");
    site.put("others", 0o600, (SOMEBODY, SOMEBODY), "secret");
    site.put("groups", 0o640, (0, 0), "secret");
    fs::create_dir(site.at("closed")).unwrap();
    site.put("closed/file", 0o644, (0, 0), "secret");
    set_mode(site.at("closed"), 0o711);
    let requests = site.requests();
    let asked = as_user(VICTIM, || {
        let mut session = RawSession::start(requests, &fetch("/own"));
        assert_eq!(session.answer().unwrap().bytes, b"own");
        for _ in 0..3 {
            for path in ["/roots", "/others", "/groups"] {
                assert_eq!(session.answer_to(&fetch(path)), Err(Errno::EACCES), "{path}");
                assert_eq!(session.answer_to(&stat(path)).unwrap().kind, Kind::Regular);
            }
            assert_eq!(session.answer_to(&list("/closed")), Err(Errno::EACCES));
            assert_eq!(session.answer_to(&enter("/closed")).unwrap().kind, Kind::Directory);
            assert_eq!(session.answer_to(&below(list("."))), Err(Errno::EACCES));
            assert_eq!(session.answer_to(&below(fetch("file"))).unwrap().bytes, b"secret");
            assert_eq!(session.answer_to(&fetch("/own")).unwrap().bytes, b"own");
        }
        Ok(())
    });
    assert_eq!(asked, Ok(()));
    site.stop();
}

#[as_root_in_own_namespace]
fn a_directory_that_is_moved_out_of_the_root_leads_nowhere() {
    let (site, outside) = (Site::start(&[]), public_folder());
    fs::write(outside.path().join("file"), "secret").unwrap();
    fs::create_dir_all(site.at("moving/dir/sub")).unwrap();
    site.put("moving/dir/file", 0o644, (0, 0), "inside");
    let mut session = RawSession::start(site.requests(), &enter("/moving/dir"));
    assert_eq!(session.answer().unwrap().kind, Kind::Directory);
    assert_eq!(session.answer_to(&below(fetch("sub/../file"))).unwrap().bytes, b"inside");
    fs::rename(site.at("moving/dir"), outside.path().join("dir")).unwrap();
    for path in ["..", "../file", "sub/../../file"] {
        assert_eq!(session.answer_to(&below(stat(path))), Err(Errno::EXDEV), "{path}");
    }
    // Landlock closes even what is in it.
    for question in [fetch("file"), list("."), list("sub")] {
        assert_eq!(session.answer_to(&below(question)), Err(Errno::EACCES), "{question:?}");
    }
    drop(session);
    site.stop();
}

#[as_root_in_own_namespace]
fn a_session_serves_neither_its_own_process_nor_the_server() {
    for operator in [0, OPERATOR] {
        let (key, programs) = (unique_key(), ForEverybody::new());
        let server = Server::start_as(
            key,
            programs.server(key, operator).args(["--mode", "0622", "--root", "/"]),
        );
        let (requests, server_pid) = (queue_of(key).unwrap(), server.pid());
        let caller = if operator == 0 { ATTACKER } else { operator };
        let asked = as_user(caller, || {
            let mut session = RawSession::start(requests, &stat("/"));
            session.answer().unwrap();
            let child = session.queue.status().unwrap().last_sender.unwrap();
            for folder in [format!("/proc/{child}"), "/proc/self".to_owned()] {
                let _ = session.answer_to(&enter(&folder));
                for file in ["mem", "maps", "environ", "auxv", "syscall", "stack"] {
                    let named = session.answer_to(&fetch(&format!("{folder}/{file}")));
                    assert!(named.is_err(), "{folder}/{file}");
                    assert!(session.answer_to(&below(fetch(file))).is_err(), "{folder}/{file}");
                }
                for file in ["cwd", "exe", "root"] {
                    let named = session.answer_to(&stat(&format!("{folder}/{file}")));
                    assert!(named.is_err(), "{folder}/{file}");
                }
                for below_it in ["fd", "map_files", "task"] {
                    let listed = session.answer_to(&list(&format!("{folder}/{below_it}")));
                    assert!(listed.is_err(), "{folder}/{below_it}");
                    let listed = session.answer_to(&below(list(below_it)));
                    assert!(listed.is_err(), "{folder}/{below_it}");
                }
            }
            for file in ["mem", "maps", "environ", "auxv"] {
                let path = format!("/proc/{server_pid}/{file}");
                assert_eq!(session.answer_to(&fetch(&path)), Err(Errno::EACCES), "{file}");
            }
            Ok(())
        });
        assert_eq!(asked, Ok(()));
    }
}

#[as_root_in_own_namespace]
fn a_session_keeps_no_file_open() {
    let site = Site::start(&[]);
    let mut session = RawSession::start(site.requests(), &enter("/"));
    session.answer().unwrap();
    session.answer_to(&fetch("/file")).unwrap();
    session.answer_to(&list("/")).unwrap();
    let open_in = |pid: i32| -> BTreeSet<_> {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect()
    };
    let child = site.server.only_child().pid;
    let (own, servers) = (open_in(child), open_in(site.server.pid()));
    let own_descriptors = PathBuf::from(format!("/proc/{child}/fd"));
    assert_eq!(own.difference(&servers).collect::<Vec<_>>(), [&own_descriptors]);
    assert!(!own.iter().any(|file| file.ends_with("anon_inode:[landlock-ruleset]")), "{own:?}");
    drop(session);
    site.stop();
}

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
        wait_for_ever()
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
