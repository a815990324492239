//! The server serves regular files below the root, with the caller's rights, and nothing else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Server, Stuck, in_own_namespace, serve_file};

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
    let (server, folder, file) = serve_file(4 << 20, &[]);
    let path = folder.path().join("file");
    // Two files make a session.
    for (paths, status) in [(&["/file"][..], Some(0)), (&["/file", "/none"], Some(1))] {
        let changed = |change: fn(fs::File)| {
            fs::write(&path, &file).unwrap();
            let stuck = Stuck::start(server.client().args(paths));
            change(fs::File::options().append(true).open(&path).unwrap());
            stuck.client.finish()
        };
        let shrunk = changed(|file| file.set_len(1 << 19).unwrap());
        let expected = "mqfs-client: /file: the file shrank while it was read\n";
        assert_eq!(shrunk.code(), Some(1));
        assert!(shrunk.stderr.starts_with(expected), "{}", shrunk.stderr);
        let grown = changed(|mut file| file.write_all(b"more").unwrap());
        let expected = "mqfs-client: /file: warning: the file changed while it was read\n";
        assert_eq!(grown.code(), status);
        assert!(grown.stderr.starts_with(expected), "{}", grown.stderr);
        assert!(grown.stdout == file, "as much as there was");
    }
    // What changes no byte is no change.
    fs::write(&path, &file).unwrap();
    let stuck = Stuck::start(server.client().arg("/file"));
    fs::hard_link(&path, folder.path().join("link")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(&path, folder.path().join("renamed")).unwrap();
    let same = stuck.client.finish();
    assert_eq!((same.code(), &*same.stderr), (Some(0), ""));
    server.stop();
}
