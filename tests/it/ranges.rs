//! Ranges of files.

use crate::support::{Stuck, in_own_namespace, noise};
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
    let stuck = Stuck::start(command.args(["-v", "--offset", "1000", "--length", "3M", "/file"]));
    site.server.kill_children();
    let finished = stuck.client.finish();
    let range = &file[1000..1000 + (3 << 20)];
    let checksum = crc32fast::hash(range);
    let how = format!("{} bytes, in 2 parts, verified (CRC-32 {checksum:08x})", range.len());
    assert!(finished.stderr.contains(&how), "{}", finished.stderr);
    assert!(finished.stderr.contains("waiting for the server"), "{}", finished.stderr);
    assert!(finished.success() == range);
    site.server.stop();
}
