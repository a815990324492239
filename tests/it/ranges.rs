//! Ranges of files, and where `-o` writes them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::process::Stdio;

use crate::support::{SOMEBODY, as_root_in_own_namespace, in_own_namespace, noise};
use crate::tree::Site;

/// A server of `/file`, of 4 MiB, a folder to write to, and the file.
fn site() -> (Site, Vec<u8>) {
    let (site, file) = (Site::start(), noise(4 << 20));
    site.put("file", &file);
    (site, file)
}

#[in_own_namespace]
fn a_range_matches_head_and_tail() {
    let (site, file) = site();
    let whole = file.len();
    for (offset, length, begin, end) in [
        ("0", Some("0"), 0, 0),
        ("0", Some("1"), 0, 1),
        ("1", None, 1, whole),
        ("8136", Some("8136"), 8136, 2 * 8136),
        ("1M", Some("1M"), 1 << 20, 2 << 20),
        ("4095K", Some("9G"), 4095 << 10, whole),
        ("4M", None, whole, whole),
        ("17T", Some("5"), whole, whole),
    ] {
        let length = length.map(|length| ["--length", length]).into_iter().flatten();
        let arguments: Vec<_> = ["/file", "--offset", offset].into_iter().chain(length).collect();
        assert!(site.run(&arguments).success() == file[begin..end], "{arguments:?}");
    }
    let twice = site.run(&["--offset", "2", "--length", "3", "/file", "/file"]).success();
    assert_eq!(twice, [&file[2..5], &file[2..5]].concat());
    site.server.stop();
}

#[in_own_namespace]
fn a_range_resumes_where_it_broke_off() {
    let (site, file) = site();
    let mut command = site.server.client();
    command.args(["--offset", "1000", "--length", "3M", "/file"]).stderr(Stdio::piped());
    let stuck = crate::support::Stuck::start(command.stdout(Stdio::piped()));
    site.server.kill_children();
    assert!(stuck.finish() == file[1000..1000 + (3 << 20)]);
    site.server.stop();
}

#[as_root_in_own_namespace]
fn links_of_others_in_a_shared_folder_are_not_followed() {
    let (site, file) = site();
    let shared = site.here("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    symlink("../victim", shared.join("link")).unwrap();
    lchown(shared.join("link"), Some(SOMEBODY), None).unwrap();
    let refused = site.run(&["-o", "shared/link", "/file"]);
    let expected = "mqfs-client: shared/link: Permission denied\n";
    assert_eq!((refused.code(), &*refused.stderr), (Some(2), expected));
    assert!(!site.here("victim").exists());
    // One's own links, and those of the folder's owner, are followed.
    lchown(shared.join("link"), Some(0), None).unwrap();
    site.run(&["-o", "shared/link", "/file"]).success();
    assert!(fs::read(site.here("victim")).unwrap() == file);
    // The file that is replaced belonged to another user, with a permissive mode.
    fs::set_permissions(site.here("victim"), Permissions::from_mode(0o666)).unwrap();
    chown(site.here("victim"), Some(SOMEBODY), None).unwrap();
    site.run(&["-o", "victim", "/file"]).success();
    let metadata = fs::metadata(site.here("victim")).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777 & 0o022), (0, 0));
    site.server.stop();
}
