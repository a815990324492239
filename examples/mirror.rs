//! Copies a directory of a server, with all that is below it, into a folder here.
//!
//! ```sh
//! cargo run --example mirror -- /usr/share/doc/bash /tmp
//! ```

use std::path::PathBuf;

use mqfs::client::save::{Event, Folder, Options, write_tree};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let [from, to] = &arguments[..] else { return Err("usage: mirror FROM TO".into()) };
    let key = std::env::var("MQFS_KEY").map_or(Ok(mqfs::DEFAULT_KEY), |key| key.parse())?;

    let mut walk = mqfs::Client::connect(key)?.walk(from)?;
    let folder = Folder::open(to)?;
    let tell = &mut |event: Event<'_>| {
        if let Event::Problem { path, why } = event {
            eprintln!("mirror: {}: {why}", mqfs::escape::escape(path));
        }
    };
    let report = write_tree(&mut walk, &folder, from.file_name(), &Options::default(), tell)?;
    println!("{} files, {} bytes, {} missing", report.files, report.bytes, report.problems);
    Ok(())
}
