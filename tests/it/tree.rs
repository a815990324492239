//! Whole trees: what arrives, what is reported missing, and what an interruption leaves.

mod interrupted;
mod malicious_server;

use std::collections::BTreeMap;
use std::fs::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::support::*;

/// A server of a tree, and a folder to write to.
pub struct Site {
    pub server: Server,
    pub folder: TempDir,
    pub here: TempDir,
}

impl Site {
    pub fn start() -> Self {
        let (server, folder) = serve_folder(&["--reap-interval", "1h"]);
        Self { server, folder, here: public_folder() }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn here(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), content).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.server.client();
        command.args(arguments).current_dir(self.here.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    /// Fails the test unless both trees have the same names, content, modes and times.
    #[track_caller]
    pub fn assert_same(&self) {
        let (there, here) = (tree_of(self.folder.path()), tree_of(self.here.path()));
        let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&there), names(&here));
        for (path, what) in &there {
            assert!(here[path] == *what, "{}", path.display());
        }
    }
}

/// The mode, time and content of every path in a tree.
pub type Tree = BTreeMap<PathBuf, (u32, SystemTime, Vec<u8>)>;

pub fn tree_of(top: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(top.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let full = top.join(&path);
            let metadata = fs::symlink_metadata(&full).unwrap();
            let content = match metadata.file_type() {
                kind if kind.is_dir() => {
                    folders.push(path.clone());
                    Vec::new()
                }
                kind if kind.is_symlink() => {
                    fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec()
                }
                kind if kind.is_file() => fs::read(&full).unwrap(),
                _ => continue, // what is not copied
            };
            tree.insert(path, (metadata.mode(), metadata.modified().unwrap(), content));
        }
    }
    tree
}

/// A tree with entries of every kind.
fn fill(site: &Site) {
    site.put("dir/empty", "");
    site.put("dir/small", "content");
    site.put("dir/sub/big", noise(3_000_000));
    site.put("dir/sub/exactly", noise(256 << 10));
    site.put("dir/sub/one-more", noise((256 << 10) + 1));
    site.put("dir/größe-名前\n\x1b[31m", "a name for the terminal");
    fs::create_dir_all(site.at("dir/hollow/below")).unwrap();
    symlink("../small", site.at("dir/sub/link")).unwrap();
    symlink("/etc/passwd", site.at("dir/away")).unwrap();
    let long = format!("{}//./end/", "a".repeat(99));
    for (number, target) in ["a//b/./c/", "//abs//x/", "http://x/", &long].iter().enumerate() {
        symlink(target, site.at(&format!("dir/broken{number}"))).unwrap();
    }
    symlink(&long, site.at(&format!("dir/{}", "n".repeat(200)))).unwrap();
    set_mode(site.at("dir/small"), 0o640);
    set_mode(site.at("dir/hollow/below"), 0o1755);
    set_mode(site.at("dir/sub"), 0o555);
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for name in ["dir/small", "dir/hollow/below", "dir/hollow", "dir/sub", "dir"] {
        fs::File::open(site.at(name)).unwrap().set_modified(old).unwrap();
    }
}

fn open_again(site: &Site) {
    for name in [site.at("dir/sub"), site.here("dir/sub")] {
        set_mode(name, 0o755);
    }
}

#[in_own_namespace]
fn a_tree_arrives_unchanged_in_one_request() {
    let site = Site::start();
    fill(&site);
    let told = site.run(&["-v", "-r", "/dir", "-C", "."]);
    let bytes = 7 + 3_000_000 + 2 * (256 << 10) + 1 + 23;
    let expected =
        format!("mqfs-client: /dir: 6 files, 4 directories, 7 links, {bytes} bytes, verified\n");
    let summary = told.stderr.strip_prefix(&expected).expect(&told.stderr);
    assert!(summary.starts_with(&format!("mqfs-client: 6 files, {bytes} bytes in ")));
    assert_eq!(told.code(), Some(0));
    site.assert_same();
    wait_until("told", || site.server.log().contains("outcome="));
    assert_eq!(site.server.log().matches("outcome=").count(), 1, "one child");
    // Once more, over the existing tree.
    set_mode(site.here("dir/sub"), 0o755);
    fs::write(site.here("dir/small"), "other").unwrap();
    fs::remove_file(site.here("dir/away")).unwrap();
    fs::write(site.here("dir/away"), "a file in the place of a link").unwrap();
    site.run(&["--recursive", "/dir", "--directory", "."]).success();
    site.assert_same();
    open_again(&site);
}

#[in_own_namespace]
fn modes_and_times_are_kept_on_request_but_no_setuid_bits() {
    let site = Site::start();
    site.put("dir/file", "content");
    set_mode(site.at("dir/file"), 0o6751);
    set_mode(site.at("dir"), 0o2700);
    site.run(&["-r", "/dir", "-C", "."]).success();
    let mode = |name| mode_of(site.here(name));
    assert_eq!((mode("dir/file"), mode("dir")), (0o751, 0o700));
    fs::remove_dir_all(site.here("dir")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(site.at("dir/file")).unwrap().set_modified(old).unwrap();
    site.run(&["-r", "--no-preserve", "/dir", "-C", "."]).success();
    let mask = umask(Mode::from_bits_truncate(0o022));
    umask(mask);
    assert_eq!(mode("dir/file"), 0o666 & !mask.bits());
    assert_eq!(mode("dir"), 0o777 & !mask.bits());
    assert!(fs::metadata(site.here("dir/file")).unwrap().modified().unwrap() > old);
}

#[in_own_namespace]
fn several_paths_keep_their_base_names() {
    let site = Site::start();
    site.put("one/a", "in a");
    site.put("two/b", noise(1 << 20));
    set_mode(site.at("two/b"), 0o604);
    site.run(&["/one/a", "two/b", "-C", "."]).success();
    assert_eq!(fs::read(site.here("a")).unwrap(), b"in a");
    assert!(fs::read(site.here("b")).unwrap() == noise(1 << 20));
    assert_eq!(fs::metadata(site.here("b")).unwrap().mode() & 0o777, 0o604);
    let missing = site.run(&["/one", "/missing", "/one/a", "-C", "."]);
    assert_eq!(missing.code(), Some(1));
    let (one, missing) = missing.stderr.split_once('\n').unwrap();
    assert!(one.starts_with("mqfs-client: /one: Is a directory") && one.contains("-r"), "{one}");
    assert_eq!(missing, "mqfs-client: /missing: No such file or directory\n");

    fs::create_dir(site.here("trees")).unwrap();
    site.run(&["-r", "/one", "/two/", "/two/b", "-C", "trees"]).success();
    let names: Vec<_> = tree_of(&site.here("trees")).into_keys().collect();
    assert_eq!(names, ["b", "one", "one/a", "two", "two/b"].map(PathBuf::from));
    // A path without a base name stands for its content.
    fs::remove_dir_all(site.here.path()).unwrap();
    fs::create_dir(site.here.path()).unwrap();
    site.run(&["-r", "/", "-C", "."]).success();
    site.assert_same();
}

#[in_own_namespace]
fn special_files_are_named_and_left_out() {
    let site = Site::start();
    site.put("dir/a", "before");
    site.put("dir/z", "behind");
    mkfifo(&site.at("dir/fifo"), Mode::S_IRWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(site.at("dir/socket")).unwrap();
    let outcome = site.run(&["-r", "/dir", "-C", "."]);
    let expected = "mqfs-client: /dir/fifo: Is a FIFO, which is not copied\n\
                        mqfs-client: /dir/socket: Is a socket, which is not copied\n";
    assert_eq!((outcome.code(), &*outcome.stderr), (Some(0), expected));
    let names: Vec<_> = tree_of(site.here.path()).into_keys().collect();
    assert_eq!(names, ["dir", "dir/a", "dir/z"].map(PathBuf::from), "the rest is there");
    let quiet = site.run(&["-q", "-r", "/dir", "-C", "."]);
    assert_eq!((quiet.code(), &*quiet.stderr), (Some(0), ""));
    let missing = site.run(&["-r", "/none", "-C", "."]);
    assert_eq!(missing.stderr, "mqfs-client: /none: No such file or directory\n");
}

#[in_own_namespace]
fn a_tree_is_a_tar_archive_too() {
    let site = Site::start();
    fill(&site);
    site.put("dir/large", noise((1 << 20) + 1));
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000_000);
    fs::File::open(site.at("dir/large")).unwrap().set_modified(early).unwrap();
    let archive = site.run(&["--tar", "/dir"]).success();
    let archive_file = site.here("archive");
    fs::write(&archive_file, &archive).unwrap();
    run(Command::new("tar").args(["xpf", "archive"]).current_dir(&site.here)).success();
    fs::remove_file(&archive_file).unwrap();
    assert_eq!(fs::metadata(site.here("dir/large")).unwrap().modified().unwrap(), early);
    let what = |top: &Path| -> Vec<_> {
        let tree = tree_of(top).into_iter();
        tree.map(|(path, (mode, _, content))| (path, mode, content)).collect()
    };
    assert!(what(site.folder.path()) == what(site.here.path()));
    assert_eq!(site.run(&["-r", "--tar", "/dir"]).success(), archive, "the same each time");

    mkfifo(&site.at("dir/fifo"), Mode::S_IRWXU).unwrap();
    let without = site.run(&["--tar", "/dir"]);
    let told = "mqfs-client: /dir/fifo: Is a FIFO, which is not copied\n";
    assert_eq!((without.code(), &*without.stderr), (Some(0), told));
    assert_eq!(without.stdout.len(), archive.len());
    open_again(&site);
}

#[in_own_namespace]
fn a_private_file_is_private_while_it_is_written() {
    let site = Site::start();
    fs::create_dir(site.at("dir")).unwrap();
    let private = site.at("dir/private");
    // Large enough to be seen during the transfer.
    allocate(&private, 1 << 32);
    set_mode(&private, 0o600);
    for arguments in [["-r", "/dir", "-C", "."], ["-v", "/dir/private", "-C", "."]] {
        let client = Running::piped(&mut site.command(&arguments));
        let mut mode = None;
        wait_until("a file is on its way", || {
            mode = client.incomplete_file().map(|file| file.mode());
            mode.is_some()
        });
        client.signal(Signal::SIGTERM);
        assert_eq!(client.finish().code(), Some(130));
        assert_eq!(mode.unwrap() & 0o777, 0o600);
    }
}

#[in_own_namespace]
fn a_tree_can_be_written_again_over_read_only_folders() {
    let site = Site::start();
    site.put("dir/sub/file", "first");
    let mode = || mode_of(site.here("dir/sub"));
    set_mode(site.at("dir/sub"), 0o555);
    site.run(&["-r", "/dir", "-C", "."]).success();
    for (content, arguments) in [("second", &[][..]), ("third", &["--no-preserve"])] {
        set_mode(site.at("dir/sub"), 0o755);
        site.put("dir/sub/file", content);
        set_mode(site.at("dir/sub"), 0o555);
        site.run(&[&["-r", "/dir", "-C", "."], arguments].concat()).success();
        assert_eq!(fs::read_to_string(site.here("dir/sub/file")).unwrap(), content);
        assert_eq!(mode(), 0o555, "{arguments:?}");
    }
    // The same after a signal.
    site.put("dir/z", "");
    set_mode(site.at("dir"), 0o555);
    site.run(&["-r", "/dir", "-C", "."]).success();
    // More than the client can write before the signal.
    allocate(site.at("dir/z"), 1 << 30);
    let client = Running::piped(&mut site.command(&["-r", "/dir", "-C", "."]));
    let top = || mode_of(site.here("dir"));
    wait_until("it writes", || top() == 0o755);
    client.signal(Signal::SIGTERM);
    assert_eq!(client.finish().code(), Some(130));
    assert_eq!(top(), 0o555);
    for folder in ["dir", "dir/sub"] {
        set_mode(site.at(folder), 0o755);
        set_mode(site.here(folder), 0o755);
    }
}
