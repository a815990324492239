//! The right bytes, with a window and without.

use std::fs;
use std::io::{BufRead, Read};

use mqfs::Client;

use crate::support::{
    Server, allocate, as_root_in_own_namespace, by, in_own_namespace, noise, run, serve_folder,
    serve_quietly, stat_of, text,
};

#[in_own_namespace]
fn files_of_any_size_arrive_whole() {
    // The last is too small for slots worth their messages.
    for window in ["2M", "0", "64M", "1000000"] {
        let (server, folder) = serve_folder(&["--window", window]);
        let target = folder.path().join("target");
        for size in [0, 1, 8136, 8137, (1 << 19) - 1, 1 << 19, (3 << 20) + 1, 20 << 20] {
            let content = noise(size);
            fs::write(folder.path().join("file"), &content).unwrap();
            let get = |options: &[&str]| run(server.client().args(options).arg("/file")).success();
            assert!(get(&[]) == content, "{size} bytes");
            assert!(get(&["--plain"]) == content, "{size} bytes, plain");
            get(&["-o", target.to_str().unwrap()]);
            assert!(fs::read(&target).unwrap() == content, "{size} bytes to a file");
            let part = get(&["--offset", "4097", "--length", "2M"]);
            let expected = content.get(4097..size.min(4097 + (2 << 20))).unwrap_or_default();
            assert!(part == expected, "a part of {size} bytes");
            let mut transfer = Client::new(server.key).open("/file").unwrap();
            let mut bytes = Vec::new();
            while bytes.len() < size {
                let taken = transfer.fill_buf().unwrap().len().min(50_001);
                bytes.extend_from_slice(&transfer.fill_buf().unwrap()[..taken]);
                transfer.consume(taken);
                (&mut transfer).take(1001).read_to_end(&mut bytes).unwrap();
            }
            assert_eq!(transfer.read(&mut [0]).unwrap(), 0);
            assert!(bytes == content, "{size} bytes, to a reader");
        }
        server.stop();
    }
}

#[in_own_namespace]
fn large_and_small_files_arrive_in_one_session() {
    let (server, folder, file) = serve_quietly(8 << 20, &[]);
    let odd = noise((1 << 20) + 1);
    fs::write(folder.path().join("odd"), &odd).unwrap();
    fs::write(folder.path().join("small"), "small").unwrap();
    let paths = ["/file", "/small", "/odd", "/small", "/file"];
    let expected = [&file[..], b"small", &odd, b"small", &file].concat();
    assert!(run(server.client().args(paths)).success() == expected);
    // A reader may leave a file in the midst of a window.
    let client = Client::new(server.key);
    let (mut files, mut start) = (client.open_all(paths), [0; 5]);
    for expected in [&file[..5], b"small", &odd[..5], b"small", &file[..5]] {
        files.next_file().unwrap().unwrap().read_exact(&mut start).unwrap();
        assert_eq!(start, expected);
    }
    drop((files, client));
    server.stop();
}

#[as_root_in_own_namespace]
fn without_shared_memory_files_go_through_the_queue() {
    for (window, warnings) in [("2M", 1), ("0", 0)] {
        let (_, folder, file) = serve_quietly(8 << 20, &[]);
        let server = Server::start(&["--window", window]);
        fs::write("/proc/sys/kernel/shmmni", "0").unwrap();
        let fetch = |paths: &[&str]| run(server.client().args(paths)).success();
        // The size of this is unknown, so no window is tried.
        assert!(fetch(&["/proc/kallsyms"]).len() > 1 << 20);
        assert!(!server.log().contains("WARN"), "{}", server.log());
        let path = folder.path().join("file").to_str().unwrap().to_owned();
        assert!(fetch(&[&path]) == file);
        assert!(fetch(&[&path, &path]) == file.repeat(2));
        for warning in ["WARN", "no shared memory"] {
            assert_eq!(server.log().matches(warning).count(), warnings, "{}", server.log());
        }
        let table = text(&mut stat_of(server.key));
        let words: Vec<_> = table.split_whitespace().collect();
        let counted = [["windows", "failed", "2"]].repeat(warnings).concat();
        assert!(counted.is_empty() || words.windows(3).any(|row| row == counted), "{table}");
        fs::write("/proc/sys/kernel/shmmni", "4096").unwrap();
        server.stop();
    }
}

#[in_own_namespace]
fn a_client_that_cannot_attach_asks_again_and_once_only() {
    let (server, folder) = serve_folder(&["--window", "32M"]);
    let file = vec![0; 128 << 20];
    allocate(folder.path().join("file"), 128 << 20);
    let fetch = |paths: &[&str]| {
        let before = server.log().matches("outcome=").count();
        // All that it may map, which is little more than the window.
        let bytes = run(&mut by(&["prlimit", "--as=36000000"], server.client().args(paths)));
        server.wait_until_idle();
        (bytes.success(), server.log().matches("outcome=").count() - before)
    };
    assert!(fetch(&["/file"]) == (file.clone(), 2));
    assert!(fetch(&["/file", "/file"]) == (file.repeat(2), 2));
    server.stop();
}
