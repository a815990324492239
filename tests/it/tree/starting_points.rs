//! A client that lies about where to resume: whatever starting point it names, it gets only what is
//! below the directory that it asked for, and nothing behind a link.

use std::fs;
use std::os::unix::fs::symlink;

use mqfs::ownership::lease;
use mqfs::wire::{
    Extension, LEASE_TYPE, NORMAL_PRIORITY, Operation, Reply, Request, Start, Trailer,
};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::mkfifo;
use sysv_ipc::{MessageBuffer, Mode, OwnedQueue, Select};

use super::Site;
use crate::support::{in_own_namespace, queue_of};

/// The bytes of all DATA of an answer, and whether it had an END.
fn ask(site: &Site, operation: Operation<'_>) -> (Vec<u8>, bool) {
    let requests = queue_of(site.server.key).unwrap();
    let queue = OwnedQueue::private(Mode::new(0o711)).unwrap();
    let lease = lease::new(requests.id()).unwrap();
    queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease.encode())).unwrap();
    let extension = Some(Extension { cookie: lease.cookie, operation });
    let request = Request { reply_queue: queue.id(), path: "/dir".as_ref(), extension };
    requests.send(&MessageBuffer::with_text(NORMAL_PRIORITY, &request.encode())).unwrap();
    let (mut message, mut data) = (MessageBuffer::with_capacity(65_536), Vec::new());
    loop {
        queue.receive(&mut message, Select::Except(LEASE_TYPE)).unwrap();
        match Reply::decode(message.mtype(), message.text()).unwrap() {
            Reply::Data(bytes) => data.extend_from_slice(bytes),
            Reply::End(Some(Trailer { bytes, .. })) => {
                assert_eq!(bytes, data.len() as u64);
                return (data, true);
            }
            Reply::Failure(_) => return (data, false),
            _ => {}
        }
    }
}

fn holds(data: &[u8], what: &str) -> bool {
    data.windows(what.len()).any(|window| window == what.as_bytes())
}

#[test]
fn a_starting_point_behind_a_link_is_refused() {
    in_own_namespace(|| {
        let site = Site::start();
        site.put("beside/file", "secret");
        site.put("dir/a/inside", "content");
        site.put("dir/z", "the last");
        symlink("../beside", site.at("dir/link")).unwrap();
        symlink("../beside/file", site.at("dir/to-file")).unwrap();
        symlink("/", site.at("dir/a/root")).unwrap();
        for path in [
            "link/",
            "link/file",
            "link/file/",
            "a/root/",
            "a/root/beside/file",
            "z/",
            "z/x",
            "none/",
            "none/none/none",
            "a/none/none/",
            "to-file",
            "link",
            "a/inside/x",
        ] {
            for arrived in [None, Some((0, 0)), Some((3, 9)), Some((u64::MAX - 1, 1))] {
                let start = Start { path: path.as_bytes(), arrived };
                let (data, has_end) = ask(&site, Operation::Tree(start));
                assert!(has_end, "{path}");
                assert!(!holds(&data, "secret"), "{path} {arrived:?}");
            }
        }
        let (data, _) = ask(&site, Operation::Tree(Start { path: b"link/file", arrived: None }));
        assert!(
            holds(&data, "it disappeared while the server was away") && holds(&data, "the last")
        );
        // The server compares what the client claims to have with the file.
        let half = |checksum| Some((3, checksum));
        let with = |arrived| ask(&site, Operation::Tree(Start { path: b"a/inside", arrived })).0;
        let right = with(half(crc32fast::hash(b"con")));
        assert!(holds(&right, "tent") && !holds(&right, "content"));
        assert!(holds(&with(half(1)), "content"), "another beginning: all of it");
        site.server.stop();
    });
}

#[test]
fn no_starting_point_opens_a_special_file() {
    in_own_namespace(|| {
        let site = Site::start();
        fs::create_dir(site.at("dir")).unwrap();
        mkfifo(&site.at("dir/fifo"), FileMode::S_IRWXU).unwrap();
        for arrived in [None, Some((0, 0)), Some((5, 5))] {
            for path in ["fifo", "fifo/", ""] {
                let start = Start { path: path.as_bytes(), arrived };
                let (_, has_end) = ask(&site, Operation::Tree(start));
                assert!(has_end, "{path} {arrived:?}");
            }
        }
        let (data, has_end) = ask(&site, Operation::List(Start { path: b"zzz", arrived: None }));
        assert_eq!((data, has_end), (Vec::new(), true), "behind the last is nothing");
        site.server.stop();
    });
}
