//! Listings of directories, and the metadata of one file.

use std::fs::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::support::session::{RawSession, below, enter, list};
use crate::support::*;

/// A server of a folder with a file of each kind, and the folder.
fn server() -> (Server, tempfile::TempDir) {
    let folder = public_folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "content").unwrap();
    fs::write(at("Zed"), "").unwrap();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/below"), "").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("dir", at("to-dir")).unwrap();
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    set_mode(at("file"), 0o4640);
    let server = Server::start(&["--root".as_ref(), folder.path()]);
    (server, folder)
}

#[in_own_namespace]
fn a_listing_matches_ls() {
    let (server, folder) = server();
    let words = |text: &str| -> Vec<Vec<String>> {
        let lines = text.lines().filter(|line| !line.starts_with("total"));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    // Without a path, as in the root; relative paths begin there.
    for paths in [&[][..], &["dir", "file", "fifo", "Zed"], &["file"], &["dir", "dir"]] {
        let ours = text(server.client().arg("-l").args(paths));
        let mut ls = Command::new("ls");
        ls.env("LC_ALL", "C").arg("-lA").args(paths).current_dir(folder.path());
        assert_eq!(words(&ours), words(&text(&mut ls)));
    }
    let both = run(server.client().args(["-l", "/dir", "/none", "/to-dir"]));
    assert_eq!(both.code(), Some(1));
    assert_eq!(both.stderr, "mqfs-client: /none: No such file or directory\n");
    let both = String::from_utf8(both.stdout).unwrap();
    assert!(both.starts_with("/dir:\n-") && both.contains("\n\n/to-dir:\n-"), "{both}");
}

#[in_own_namespace]
fn a_directory_that_was_removed_is_no_empty_one() {
    let folder = public_folder();
    let root = folder.path().join("release");
    fs::create_dir(&root).unwrap();
    let server = Server::start(&["--root".as_ref(), root.as_path()]);
    assert_eq!(run(server.client().args(["-l", "/"])).success(), b"");
    fs::remove_dir(&root).unwrap();
    for arguments in [&["-l", "/"][..], &["-r", "-C", ".", "/"], &["/file"]] {
        let refused = run(server.client().current_dir(folder.path()).args(arguments));
        let why = "the directory that the server serves was removed";
        assert_eq!(refused.code(), Some(1), "{arguments:?}");
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    assert!(server.log().contains("WARN"), "{}", server.log());
}

/// The kernel mounts debugfs/tracing when somebody looks into it, as with autofs.
#[as_root_in_own_namespace]
fn what_is_mounted_on_demand_is_seen() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let folder = public_folder();
    let at = folder.path().join("debug");
    fs::create_dir(&at).unwrap();
    let sh = |script: &str| run(Command::new("sh").args(["-c", script]).arg(&at)).code() == Some(0);
    if !sh("mount --make-rprivate / && mount -t debugfs none \"$0\"") {
        return eprintln!("skipped: cannot mount debugfs");
    }
    let server = Server::start(&["--root".as_ref(), folder.path()]);
    let tracing = at.join("tracing");
    let mounted = || fs::read_dir(&tracing).unwrap().count();
    let listed = run(server.client().args(["-l", "/debug/tracing"])).success();
    assert_eq!(listed.iter().filter(|&&byte| byte == b'\n').count(), mounted());
    assert!(sh("umount \"$0/tracing\""));
    // As in a tree.
    let mut session = RawSession::start(queue_of(server.key).unwrap(), &enter("/debug/tracing"));
    assert!(session.answer().is_ok());
    assert!(!session.answer_to(&below(list("."))).unwrap().bytes.is_empty());
    drop(session);
    server.stop();
    assert!(sh("umount --lazy \"$0\""));
}

#[in_own_namespace]
fn names_are_shown_as_written_and_only_what_harms_is_escaped() {
    let (server, folder) = server();
    for (name, shown) in [
        ("cafe\u{301} हिन्दी ที่อยู่ می\u{200c}خواهم", None),
        ("👩\u{200d}🚒 ❤\u{fe0f} so\u{ad}ft a\u{a0}b 10\u{202f}AM \u{3000}", None),
        ("evil\u{202e}gpj \u{2066} \u{200f}", Some(r"evil\u{202e}gpj \u{2066} \u{200f}")),
        ("\u{9b}2J\u{7f}\u{2028}\n\"\\", Some(r#"\u{9b}2J\u{7f}\u{2028}\n"\"#)),
    ] {
        let shown = shown.unwrap_or(name);
        fs::create_dir(folder.path().join(name)).unwrap();
        let list = text(server.client().args(["-l", "/"]));
        assert!(list.contains(&format!(" {shown}\n")), "{name}");
        let told = format!("mqfs-client: /{shown}/none: No such file or directory\n");
        fails(server.client().arg(format!("/{name}/none")), 1, &told);
        let logged = shown.replace("\"\\", r#"\"\\"#);
        let logged = format!("path=\"/{logged}/none\" ");
        wait_until("it is logged", || server.log().contains(&logged));
        fs::remove_dir(folder.path().join(name)).unwrap();
    }
}

#[in_own_namespace]
fn names_are_escaped_for_a_terminal_and_complete_in_json() {
    let (server, folder) = server();
    let hostile = std::ffi::OsStr::from_bytes(b"x\x1b[31m\n\xff");
    fs::write(folder.path().join("dir").join(hostile), "12345").unwrap();
    symlink("\x1b]0;title\x07", folder.path().join("dir/target")).unwrap();
    let no_text = std::ffi::OsStr::from_bytes(b"\xfe");
    symlink(no_text, folder.path().join("dir/where")).unwrap();
    let shown = text(server.client().args(["-l", "/dir"]));
    assert!(shown.contains("x\\u{1b}[31m\\n\\xff\n"), "{shown}");
    assert!(shown.contains("target -> \\u{1b}]0;title\\u{7}\n"), "{shown}");
    assert_eq!(shown.lines().count(), 4);
    fs::write(folder.path().join("dir/z\u{9b}2J"), "").unwrap();
    let lines = text(server.client().args(["-l", "--json", "/dir"]));
    assert!(!lines.contains('\u{9b}'), "{lines}");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["name"], "below");
    assert_eq!(lines[1]["target"], "\x1b]0;title\x07");
    assert_eq!(lines[1].get("target_hex"), None);
    assert_eq!(lines[2]["target_hex"], "fe");
    assert_eq!(lines[3]["name_hex"], "781b5b33316d0aff");
    assert_eq!(lines[4]["name"], "z\u{9b}2J");
    assert_eq!((&lines[3]["size"], &lines[3]["kind"]), (&5.into(), &"regular file".into()));
}

#[in_own_namespace]
fn stat_shows_the_file_itself_and_not_a_links_target() {
    let (server, folder) = server();
    for name in ["file", "dir", "link", "fifo", "Zed"] {
        let path = format!("/{name}");
        let shown = run(server.client().args(["--stat", "--json", &path])).success();
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        let expected = fs::symlink_metadata(folder.path().join(name)).unwrap();
        assert_eq!(shown["mode"], format!("{:04o}", expected.mode() & 0o7777), "{name}");
        assert_eq!(shown["size"], expected.size(), "{name}");
        assert_eq!(shown["inode"], expected.ino(), "{name}");
        assert_eq!(shown["uid"], expected.uid(), "{name}");
        assert_eq!(shown["mtime"], expected.mtime(), "{name}");
    }
    let shown = text(server.client().args(["--stat", "/link"]));
    assert!(shown.starts_with("  File: /link -> file\n  Size: 4  Kind: symbolic link\n"));
    let told = "mqfs-client: /none: No such file or directory\n";
    fails(server.client().args(["--stat", "/none"]), 1, told);
}

#[as_root_in_own_namespace]
fn a_listing_without_permission_is_refused() {
    let site = Site::start(&[]);
    fs::create_dir(site.at("closed")).unwrap();
    fs::create_dir(site.at("names-only")).unwrap();
    site.put("names-only/file", 0o644, (0, 0), "");
    set_mode(site.at("closed"), 0o711);
    set_mode(site.at("names-only"), 0o744);
    let denied = "mqfs-client: /closed: Permission denied\n";
    fails(site.client(VICTIM).args(["-l", "/closed"]), 1, denied);
    let names = run(site.client(VICTIM).args(["-l", "/names-only"]));
    assert_eq!(names.code(), Some(1));
    assert_eq!(names.stderr, "mqfs-client: /names-only/file: Permission denied\n");
    let names = String::from_utf8(names.stdout).unwrap();
    assert_eq!(names.split_whitespace().collect::<Vec<_>>().join(" "), "?????????? ? ? ? ? ? file");
    let names = run(site.client(VICTIM).args(["-l", "--json", "/names-only"])).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&names).unwrap();
    assert_eq!(shown["error"], "Permission denied");
    site.stop();
}

#[in_own_namespace]
fn the_library_lists_like_std_fs() {
    let (server, _folder) = server();
    let client = mqfs::Client::new(server.key);
    let entries: Result<Vec<_>, _> = client.read_dir("/").unwrap().collect();
    let entries = entries.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_str().unwrap()).collect();
    assert_eq!(names, ["Zed", "dir", "fifo", "file", "link", "to-dir"]);
    assert!(entries[1].file_type().unwrap().is_dir());
    assert!(entries[3].file_type().unwrap().is_file());
    assert_eq!(entries[4].link_target().unwrap().to_str(), Some("file"));
    assert_eq!(client.metadata("/link").unwrap().len(), 7);
    let link = client.symlink_metadata("/link").unwrap();
    assert!(link.is_symlink() && link.len() == 4);
    assert_eq!(client.read_link("/link").unwrap().to_str(), Some("file"));
    assert_eq!(client.read_link("/file").unwrap_err().raw_os_error(), Some(libc::EINVAL));
    let no_dir: std::io::Error = client.read_dir("/file").unwrap_err().into();
    assert_eq!(no_dir.kind(), std::io::ErrorKind::NotADirectory);
    let mut walk = client.walk("/").unwrap();
    let mut paths = Vec::new();
    while let Some(mut entry) = walk.next_entry().unwrap() {
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
        paths.push(format!("{} {} {content}", entry.depth(), entry.path().display()));
    }
    let first = ["0  ", "1 Zed ", "1 dir ", "2 dir/below ", "1 fifo ", "1 file content"];
    assert_eq!(paths, [&first[..], &["1 link ", "1 to-dir "]].concat());
    assert!(walk.next_entry().unwrap().is_none());
}

#[in_own_namespace]
fn the_examples_print_files_and_copy_trees() {
    let (server, _folder) = server();
    let here = public_folder();
    let example = |name: &str| {
        let mut command = program(name);
        command.env("MQFS_KEY", server.key.to_string()).current_dir(here.path());
        command
    };
    let printed = run(example("cat").args(["/file", "/file"])).success();
    assert_eq!(printed, b"contentcontent");
    assert_eq!(run(example("cat").arg("/none")).code(), Some(1));
    let copied = run(example("mirror").args(["/dir", "."])).success();
    assert_eq!(copied, b"1 files, 0 bytes, 0 missing\n");
    assert!(here.path().join("dir/below").exists());
    let incomplete = run(example("mirror").args(["/", "."]));
    assert_eq!(incomplete.stderr, "mirror: fifo: Is a FIFO, which is not copied\n");
    assert_eq!(fs::read(here.path().join("file")).unwrap(), b"content");
}
