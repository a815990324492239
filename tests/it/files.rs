//! The server serves regular files below the root, with the caller's rights, and nothing else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{
    ForEverybody, Server, as_root_in_own_namespace, in_own_namespace, noise, run, serve_folder,
    stuck_client, unique_key,
};

fn server() -> (Server, TempDir) {
    serve_folder(&[])
}

#[test]
fn files_of_size_zero_in_proc_arrive_whole() {
    in_own_namespace(|| {
        let server = Server::start::<&str>(&[]);
        assert_eq!(server.fetch("/proc/version"), fs::read("/proc/version").unwrap());
        assert_eq!(server.fetch("/proc/cpuinfo").len(), fs::read("/proc/cpuinfo").unwrap().len());
        // Claims 4,096 bytes and has fewer.
        let claims = "/sys/kernel/mm/transparent_hugepage/enabled";
        if Path::new(claims).exists() {
            assert_eq!(server.fetch(claims), fs::read(claims).unwrap());
        }
        server.stop();
    });
}

#[test]
fn a_shrinking_file_is_a_failure_and_a_changing_file_a_warning() {
    in_own_namespace(|| {
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
        assert_eq!(
            changed.stderr,
            "mqfs-client: /file: warning: the file changed while it was read\n"
        );
        assert_eq!(changed.stdout.len(), 1 << 20, "as much as there was");
        server.stop();
    });
}

#[test]
fn roots_server_serves_each_user_what_that_user_could_open() {
    as_root_in_own_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = folder.path().to_str().unwrap();
        let server = Server::start(&["--root", root, "--mode", "0622"]);
        let make = |name: &str, mode: u32, owner: u32| {
            let path = folder.path().join(name);
            fs::write(&path, name).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        };
        make("roots", 0o600, 0);
        make("theirs", 0o600, 64_140);
        make("everybodys", 0o644, 0);
        let programs = ForEverybody::new();
        let fetch = |uid: u32, path: &str| run(programs.client(server.key, uid).arg(path));
        assert_eq!(fetch(64_140, "theirs").success(), b"theirs");
        assert_eq!(fetch(64_140, "everybodys").success(), b"everybodys");
        for (uid, path) in [(64_140, "roots"), (64_141, "theirs"), (64_141, "roots")] {
            let denied = fetch(uid, path);
            assert_eq!(denied.code(), Some(1));
            assert_eq!(denied.stderr, format!("mqfs-client: {path}: Permission denied\n"));
        }
        assert!(server.log().contains("uid=64140"), "{}", server.log());
        server.stop();
    });
}

#[test]
fn a_client_hands_its_reply_queue_to_an_unprivileged_server() {
    as_root_in_own_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("file"), noise(100_000)).unwrap();
        let (key, programs) = (unique_key(), ForEverybody::new());
        let mut command = programs.server(key, 64_142);
        command.args(["--mode", "0622", "--root"]).arg(folder.path());
        let server = Server::start_as(key, &mut command);
        let untrusted = run(programs.client(key, 64_143).arg("/file"));
        assert_eq!(untrusted.code(), Some(2));
        assert!(untrusted.stderr.contains("belongs to uid 64142"), "{}", untrusted.stderr);
        let mut command = programs.client(key, 64_143);
        command.args(["--server-uid", "64142", "/file"]);
        assert!(run(&mut command).success() == noise(100_000));
        server.stop();
    });
}
