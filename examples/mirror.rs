//! Copies a directory of a server, with everything below it, into a local directory.
//!
//! ```sh
//! cargo run --example mirror -- /usr/share/doc/bash /tmp
//! ```

use std::path::PathBuf;

use mqfs::client::save::{Dir, Event, WriteOptions, write_tree};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let [from, to] = &arguments[..] else { return Err("usage: mirror FROM TO".into()) };
    let key = std::env::var("MQFS_KEY").map_or(Ok(mqfs::DEFAULT_KEY), |key| key.parse())?;

    let mut walk = mqfs::Client::new(key).walk(from)?;
    let dir = Dir::open(to)?;
    let tell = &mut |event: Event<'_>| {
        if let Event::Problem(path, why) | Event::Skipped(path, why) = event {
            eprintln!("mirror: {}: {why}", mqfs::escape::escape(path));
        }
    };
    let report = write_tree(&mut walk, &dir, from.file_name(), &WriteOptions::default(), tell)?;
    println!("{} files, {} bytes, {} missing", report.files, report.bytes, report.problems);
    Ok(())
}
