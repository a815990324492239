//! The caller's identity: users whose files others cannot read, and users whom the server does not
//! know.

use std::ffi::CStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;

use crate::support::{
    ForEverybody, OPERATOR, Server, Site, Stuck, VICTIM, as_root_in_own_namespace, by, refusals,
    run, unique_key,
};

const UNKNOWN_UID: &str = "the caller's uid is unknown in this user namespace";
const UNKNOWN_GID: &str = "the caller's gid is unknown in this user namespace";
const UNKNOWN_CALLER: &str = "your user or group has no number in the server's user namespace";
const DENIED: &str = "Permission denied";

/// Keys of a session keyring give all its processes access to encrypted and network files:
/// keyrings(7).
#[as_root_in_own_namespace]
fn a_child_cannot_use_the_servers_session_keyring() {
    if !Path::new("/proc/keys").exists() {
        return eprintln!("skipped: this kernel has no keys");
    }
    join_session_with_key(c"mqfs-test-secret");
    let server = Server::start(&["--mode", "0622", "--root", "/proc"]);
    let programs = ForEverybody::new();
    let own = fs::read_to_string("/proc/keys").unwrap();
    assert!(own.contains("mqfs-test-secret"), "the server's own: {own}");
    let shown =
        String::from_utf8(run(programs.client(server.key, VICTIM).arg("/keys")).success()).unwrap();
    assert!(!shown.contains("mqfs-test"), "{shown}");
    server.stop();
}

/// Gives this thread, and what it starts, a session keyring with a key.
#[allow(unsafe_code)]
fn join_session_with_key(name: &CStr) {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    const SESSION_KEYRING: libc::c_int = -3;
    let session = c"mqfs-test".as_ptr();
    // SAFETY: the string outlives the call; keyctl(2).
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, session) };
    assert!(joined > 0, "{}", Errno::last());
    let (kind, name) = (c"user".as_ptr(), name.as_ptr());
    // SAFETY: two strings and one byte outlive the call; add_key(2).
    let added = unsafe { libc::syscall(libc::SYS_add_key, kind, name, kind, 1, SESSION_KEYRING) };
    assert!(added > 0, "{}", Errno::last());
}

/// The kernel shows its uid for unknown users too, but only where there are any.
#[as_root_in_own_namespace]
fn nobody_is_a_user_like_others_where_every_user_has_a_number() {
    let nobody = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap();
    let nobody = nobody.trim().parse().unwrap();
    for operator in [0, OPERATOR, nobody] {
        let site = Site::start_as(operator, &[]);
        site.put("own", 0o600, (nobody, nobody), "own");
        assert!(run(site.client(nobody).arg("/file")).success() == site.file);
        if operator == OPERATOR {
            assert_eq!(site.denied(nobody, "/own"), DENIED);
        } else {
            assert_eq!(run(site.client(nobody).arg("/own")).success(), b"own");
        }
        site.stop();
    }
}

#[as_root_in_own_namespace]
fn a_server_in_a_user_namespace_refuses_unmapped_users() {
    let inside = |command: Command| {
        let uid = OPERATOR.to_string();
        let user = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"];
        by(&[&user[..], &["unshare", "--user", "--map-root-user"]].concat(), &command)
    };
    if !run(&mut inside(Command::new("true"))).status.success() {
        return eprintln!("skipped: users may not make user namespaces here");
    }
    let site = Site::start_by(unique_key(), OPERATOR, &[], inside);
    site.put("secret", 0o600, (OPERATOR, OPERATOR), "secret");
    // The only mapped user, as root.
    let fetched = run(site.client(OPERATOR).arg("/secret")).success();
    assert_eq!(fetched, b"secret");
    let victim = Stuck::start(site.client(OPERATOR).arg("/file"));
    for uid in [VICTIM, 0] {
        for path in ["/file", "/secret"] {
            assert_eq!(site.denied(uid, path), UNKNOWN_CALLER);
        }
    }
    assert!(refusals(&site.server, UNKNOWN_UID) > 0);
    let of_unknown_group = run(site.client(OPERATOR).gid(VICTIM).arg("/file"));
    assert_eq!((of_unknown_group.code(), &*of_unknown_group.stdout), (Some(1), &b""[..]));
    assert!(of_unknown_group.stderr.contains(UNKNOWN_CALLER), "{}", of_unknown_group.stderr);
    assert!(refusals(&site.server, UNKNOWN_GID) > 0);
    assert_eq!(site.server.log().matches("outcome=").count(), 1, "{}", site.server.log());
    site.finish_intact(victim);
    assert_eq!(run(site.client(OPERATOR).arg("/file")).success(), site.file);
    site.server.stop();
}
