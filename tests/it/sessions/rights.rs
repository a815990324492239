//! What the child of a session may do: what its caller may, below the root, question by question.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mqfs::wire::Kind;
use nix::errno::Errno;

use crate::support::session::{RawSession, below, enter, fetch, list, stat};
use crate::support::{
    ATTACKER, ForEverybody, OPERATOR, SOMEBODY, Server, Site, VICTIM, as_root_in_own_namespace,
    as_user, public_folder, queue_of, unique_key,
};

#[as_root_in_own_namespace]
fn each_question_is_answered_with_the_callers_rights() {
    let site = Site::start(&[]);
    site.put("own", 0o600, (VICTIM, VICTIM), "own");
    site.put("roots", 0o600, (0, 0), "secret");
    site.put("others", 0o600, (SOMEBODY, SOMEBODY), "secret");
    site.put("groups", 0o640, (0, 0), "secret");
    fs::create_dir(site.at("closed")).unwrap();
    site.put("closed/file", 0o644, (0, 0), "secret");
    fs::set_permissions(site.at("closed"), fs::Permissions::from_mode(0o711)).unwrap();
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
        server.stop();
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
