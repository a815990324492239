//! `mqfs-client` with a server: what arrives, and what it says when nothing does.

use std::fs;

use crate::support::{Server, in_own_namespace, noise, run};

#[test]
fn a_file_arrives_byte_for_byte() {
    in_own_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&["--root".as_ref(), folder.path()]);
        for size in [0, 1, 8136, 8137, 1 << 20, (1 << 20) + 1] {
            let content = noise(size);
            fs::write(folder.path().join("file"), &content).unwrap();
            assert!(server.fetch("/file") == content, "{size} bytes");
        }
        let missing = run(server.client().arg("/missing"));
        assert_eq!(missing.code(), Some(1));
        assert_eq!(missing.stderr, "mqfs-client: /missing: No such file or directory\n");
        server.stop();
    });
}
