//! The server serves regular files below the root, with the caller's rights, and nothing else.

use std::fs;
use std::io::Write;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{
    ATTACKER, Server, Site, VICTIM, as_root_in_own_namespace, in_own_namespace, noise, run,
    serve_folder, stuck_client,
};

fn server() -> (Server, TempDir) {
    serve_folder(&[])
}

#[in_own_namespace]
fn files_of_size_zero_in_proc_arrive_whole() {
    let server = Server::start::<&str>(&[]);
    assert_eq!(server.fetch("/proc/version"), fs::read("/proc/version").unwrap());
    assert_eq!(server.fetch("/proc/cpuinfo").len(), fs::read("/proc/cpuinfo").unwrap().len());
    // Claims 4,096 bytes and has fewer.
    let claims = "/sys/kernel/mm/transparent_hugepage/enabled";
    if Path::new(claims).exists() {
        assert_eq!(server.fetch(claims), fs::read(claims).unwrap());
    }
    server.stop();
}

#[in_own_namespace]
fn a_shrinking_file_is_a_failure_and_a_changing_file_a_warning() {
    let (server, folder) = server();
    let file = folder.path().join("file");
    fs::write(&file, noise(1 << 20)).unwrap();
    let client = stuck_client(&server, "/file");
    fs::File::options().write(true).open(&file).unwrap().set_len(1 << 19).unwrap();
    let shrunk = client.finish();
    assert_eq!(shrunk.code(), Some(1));
    assert_eq!(shrunk.stderr, "mqfs-client: /file: the file shrank while it was read\n");

    fs::write(&file, noise(1 << 20)).unwrap();
    let client = stuck_client(&server, "/file");
    let mut grows = fs::File::options().append(true).open(&file).unwrap();
    grows.write_all(b"more").unwrap();
    let changed = client.finish();
    assert_eq!(changed.code(), Some(0));
    assert_eq!(changed.stderr, "mqfs-client: /file: warning: the file changed while it was read\n");
    assert_eq!(changed.stdout.len(), 1 << 20, "as much as there was");
    server.stop();
}

#[as_root_in_own_namespace]
fn roots_server_serves_each_user_what_that_user_could_open() {
    let site = Site::start(&[]);
    site.put("roots", 0o600, (0, 0), "roots");
    site.put("theirs", 0o600, (VICTIM, VICTIM), "theirs");
    site.put("everybodys", 0o644, (0, 0), "everybodys");
    for path in ["theirs", "everybodys"] {
        assert_eq!(run(site.client(VICTIM).arg(path)).success(), path.as_bytes());
    }
    for (uid, path) in [(VICTIM, "roots"), (ATTACKER, "theirs"), (ATTACKER, "roots")] {
        assert_eq!(site.denied(uid, path), "Permission denied", "{path}");
    }
    assert!(site.server.log().contains(&format!("uid={VICTIM}")), "{}", site.server.log());
    site.stop();
}
