//! `mqfs-client`: output, where it is written, and errors.

mod pool;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sysv_ipc::{Mode, OwnedQueue};

use crate::support::{
    Running, Stuck, after_mounting, as_root_in_own_namespace, client, fails, in_own_namespace,
    reply_queues, run, serve_file, serve_folder, stuck_client_without_retries, unique_key,
    wait_until,
};

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[in_own_namespace]
fn several_files_are_concatenated_like_cat() {
    let (server, folder) = serve_folder(&[]);
    fs::write(folder.path().join("a"), "first\n").unwrap();
    fs::write(folder.path().join("b"), "second\n").unwrap();
    let both = run(server.client().args(["/a", "b", "/missing", "/a"]));
    assert_eq!(both.stdout, b"first\nsecond\nfirst\n", "what can be had is written");
    assert_eq!(both.code(), Some(1));
    assert_eq!(both.stderr, "mqfs-client: /missing: No such file or directory\n");
    wait_until("told", || server.log().contains(" questions=4 failures=1 bytes=19 "));
    let quiet = run(server.client().args(["-q", "/missing"]));
    assert_eq!((quiet.code(), &*quiet.stderr), (Some(1), ""));
    server.stop();
}

#[in_own_namespace]
fn an_output_file_appears_complete_or_not_at_all() {
    let (server, _folder, file) = serve_file(100_000, &[]);
    let here = tempfile::tempdir().unwrap();
    let target = here.path().join("target");
    let fetch = |paths: &[&str]| run(server.client().arg("-o").arg(&target).args(paths)).code();

    assert_eq!(fetch(&["/missing"]), Some(1));
    assert_eq!(names_in(here.path()), [""; 0], "nothing appears");
    assert_eq!(fetch(&["/file"]), Some(0));
    assert!(fs::read(&target).unwrap() == file);

    fs::write(&target, "old").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fetch(&["/file", "/missing"]), Some(1));
    assert_eq!(fs::read(&target).unwrap(), b"old", "nothing is clobbered");
    assert_eq!(fetch(&["/file", "/file"]), Some(0));
    assert_eq!(fs::read(&target).unwrap().len(), 200_000);
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(names_in(here.path()), ["target"]);
    server.stop();
}

#[as_root_in_own_namespace]
fn a_killed_client_leaves_no_temporary_file() {
    let (server, _folder, _) = serve_file(4 << 20, &[]);
    let here = tempfile::tempdir().unwrap();
    let hide_proc = "mount -t tmpfs none /proc"; // then a file has a temporary name
    for (signal, prepare) in
        [(Signal::SIGTERM, "true"), (Signal::SIGKILL, "true"), (Signal::SIGTERM, hide_proc)]
    {
        server.freeze(); // so that it is still at work
        let mut client = server.client();
        client.arg("-o").arg(here.path().join("target")).arg("/file");
        let mut client = Running::start(after_mounting(prepare, &client).stderr(Stdio::null()));
        wait_until("it has asked", || !reply_queues().is_empty());
        assert_eq!(names_in(here.path()).len(), usize::from(prepare == hide_proc));
        client.signal(signal);
        client.wait();
        server.signal(Signal::SIGCONT);
        assert_eq!(names_in(here.path()), [""; 0], "{signal}");
        for queue in reply_queues() {
            queue.remove().unwrap(); // what SIGKILL leaves
        }
    }
    server.stop();
}

#[in_own_namespace]
fn without_a_server_a_client_ends_with_status_2_at_once() {
    let start = Instant::now();
    let key = unique_key();
    let alone = run(client(key).arg("/etc/hostname"));
    assert_eq!(alone.code(), Some(2));
    let expected = format!("mqfs-client: no server: nothing is under key {key} ");
    assert!(alone.stderr.starts_with(&expected), "{}", alone.stderr);
    assert_eq!(alone.stderr.lines().count(), 1);
    assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
}

#[in_own_namespace]
fn any_path_that_linux_has_works() {
    let (server, folder) = serve_folder(&[]);
    // 4,095 bytes: folders with names of 255 bytes, and a file.
    let mut long = Vec::new();
    while long.len() + 256 < 4095 {
        long.extend_from_slice(&[b"/".as_slice(), &[b'd'; 255]].concat());
    }
    long.push(b'/');
    long.resize(4095, b'f');
    for name in [
        b"/with space".to_vec(),
        b"/with\nnewline".to_vec(),
        b"/not\xff\xfeutf-8".to_vec(),
        "/größe".as_bytes().to_vec(),
        long,
    ] {
        create_below(folder.path(), &name);
        assert_eq!(server.fetch(OsString::from_vec(name.clone())), name);
    }
    server.stop();
}

/// Makes a file whose content is its name. It makes one folder at a time, because the whole path
/// may be too long for system calls.
fn create_below(folder: &Path, name: &[u8]) {
    use nix::fcntl::{OFlag, open, openat};
    use nix::sys::stat::{Mode, mkdirat};
    let parts: Vec<_> = name.split(|&byte| byte == b'/').skip(1).collect();
    let (file, folders) = parts.split_last().unwrap();
    let mut at = open(folder, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    for part in folders {
        let _ = mkdirat(&at, *part, Mode::S_IRWXU);
        at = openat(&at, *part, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    let file = openat(&at, *file, OFlag::O_WRONLY | OFlag::O_CREAT, Mode::S_IRUSR).unwrap();
    std::io::Write::write_all(&mut File::from(file), name).unwrap();
}

#[as_root_in_own_namespace]
fn a_client_without_a_free_queue_names_the_remedy_and_the_server_goes_on() {
    let (server, _folder, file) = serve_file(7, &[]);
    fs::write("/proc/sys/kernel/msgmni", "3").unwrap();
    let taken: Vec<_> = (0..2).map(|_| OwnedQueue::private(Mode::new(0o600)).unwrap()).collect();
    let told = "mqfs-client: no queue left for the reply: 3 of 3 are in use \
                (mqfs-reap removes orphaned ones; raising kernel.msgmni makes room)\n";
    fails(server.client().arg("/file"), 2, told);
    drop(taken);
    assert_eq!(server.fetch("/file"), file);
    server.stop();
}

#[in_own_namespace]
fn a_removed_reply_queue_is_replaced_or_is_an_incomplete_transfer() {
    let (server, _folder, file) = serve_file(4 << 20, &[]);
    let stuck = Stuck::start(server.client().arg("/file"));
    stuck.queue.remove().unwrap();
    assert!(stuck.finish() == file);
    let client = stuck_client_without_retries(&server, "/file");
    for queue in reply_queues() {
        queue.remove().unwrap();
    }
    let client = client.finish();
    assert_eq!(client.code(), Some(1));
    let expected = "mqfs-client: /file: incomplete: the reply queue was removed\n";
    assert_eq!(client.stderr, expected);
    server.stop();
}

#[in_own_namespace]
fn a_transfer_reads_like_a_file_and_fails_like_one() {
    use std::io::{ErrorKind, Read};
    let (server, _folder, file) = serve_file(50_000, &[]);
    let client = mqfs::Client::new(server.key);
    let mut content = Vec::new();
    let mut transfer = client.open("/file").unwrap();
    assert_eq!(transfer.metadata().unwrap().len(), 50_000);
    transfer.read_to_end(&mut content).unwrap();
    assert!(content == file);
    assert!(transfer.is_verified() && transfer.received() == 50_000);
    drop(transfer);

    let missing = client.open("/missing").unwrap_err();
    assert_eq!(missing.kind(), mqfs::ErrorKind::NotFound);
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    let missing = std::io::Error::from(missing);
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.downcast::<mqfs::Error>().is_ok());
    let unfinished = client.open("/file").unwrap();
    drop(unfinished);
    assert_eq!(reply_queues(), [], "dropping a transfer removes its queue");
    server.stop();
    assert_eq!(client.open("/file").unwrap_err().kind(), mqfs::ErrorKind::NoServer);
}

#[in_own_namespace]
fn cancelling_a_client_leaves_others_of_the_same_builder_alone() {
    let (server, _folder, _) = serve_file(50_000, &[]);
    let builder = mqfs::Client::builder().key(server.key);
    let (one, other) = (builder.build(), builder.build());
    one.canceller().cancel();
    assert_eq!(one.open("/file").unwrap_err().kind(), mqfs::ErrorKind::Cancelled);
    assert_eq!(one.clone().open("/file").unwrap_err().kind(), mqfs::ErrorKind::Cancelled);
    assert_eq!(other.open("/file").unwrap().metadata().unwrap().len(), 50_000);
    server.stop();
}
