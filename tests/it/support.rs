//! The kit, and what several files here share.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use mqfs::counters::{Lookup, Snapshot};
pub use mqfs_kit::*;
use sysv_ipc::Key;

/// The same command, after a script in a mount namespace of its own.
pub fn after_mounting(script: &str, command: &Command) -> Command {
    by(&["unshare", "--mount", "sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")], command)
}

/// Fails the test unless a command prints nothing, and ends with this status and these words.
#[track_caller]
pub fn fails(command: &mut Command, code: i32, stderr: &str) {
    let ended = run(command);
    assert_eq!((ended.code(), &*ended.stderr), (Some(code), stderr));
    assert_eq!(ended.stdout, b"");
}

/// What a command prints when it succeeds.
#[track_caller]
pub fn text(command: &mut Command) -> String {
    String::from_utf8(run(command).success()).unwrap()
}

pub fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Without the kind of file.
pub fn mode_of(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A file to which nothing can be written.
pub fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// Those in a folder, in order; none if there is no folder.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[track_caller]
pub fn counters(key: Key) -> Snapshot {
    match mqfs::counters::read(key, None) {
        Ok(Lookup::Found(snapshot)) => *snapshot,
        other => panic!("{other:?}"),
    }
}
