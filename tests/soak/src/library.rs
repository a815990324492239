//! A program that fetches files by the library, in threads that share a client and its sessions. It
//! pauses, so that sessions become idle, and does not read every file to its end. The faults hit it
//! like any other client.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mqfs::client::save::{Dir, WriteOptions, write_file};
use mqfs::{Client, ErrorKind};
use mqfs_kit::Random;
use sysv_ipc::Key;

/// Fetch files by the library
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Opts {
    #[arg(long)]
    key: Key,
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[arg(long)]
    retries: u32,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    directory: PathBuf,
    paths: Vec<PathBuf>,
}

const THREADS: u64 = 3;

pub fn run(opts: &Opts) -> ExitCode {
    let client = Client::builder().key(opts.key).timeout(opts.timeout).retries(opts.retries);
    let (client, next, failed) = (client.build(), AtomicUsize::new(0), AtomicUsize::new(0));
    let work = |random: &mut Random| {
        while let Some(path) = opts.paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let longest = if random.below(8) == 0 { 2_500 } else { 50 };
            thread::sleep(random.up_to(Duration::from_millis(longest)));
            if let Err(error) = fetch(&client, path, opts, random) {
                eprintln!("mqfs-soak: {}: {error:#}", path.display());
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || work(&mut Random::new(opts.seed ^ number)));
        }
    });
    if failed.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fetch(client: &Client, path: &PathBuf, opts: &Opts, random: &mut Random) -> Result<()> {
    let (directory, name) = (Dir::open(&opts.directory)?, path.file_name().context("a name")?);
    if random.below(4) == 0 {
        let mut unfinished = client.open(path)?;
        unfinished.fill_buf()?;
    }
    loop {
        ensure!(client.metadata(path)?.is_file(), "not a file");
        let mut file = client.open(path)?;
        match write_file(&mut file, &directory, name, &WriteOptions::default(), &mut |_| {}) {
            Err(error) if error.kind() == ErrorKind::FileChanged => {}
            Err(error) => return Err(error.into()),
            Ok(report) => {
                ensure!(report.problems == 0, "it cannot be written");
                return Ok(());
            }
        }
    }
}
