//! The clients, and their outcomes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mqfs_kit::{Process, Random, Running, seeded_noise};

use super::outcome::{Outcome, judge};
use crate::site::Site;

/// One fetch by one `mqfs-client`.
#[derive(Debug)]
pub struct Client {
    running: Running,
    pub process: Process,
    /// Which file it fetches.
    pub file: usize,
    pub copy: PathBuf,
    /// Whether `-o` writes the copy, so that it is complete or missing.
    pub to_file: bool,
    pub errors: PathBuf,
    pub retries: bool,
    started: Instant,
    stopped_for: Duration,
    // The faults that hit it.
    pub killed: bool,
    pub terminated: bool,
    pub queue_removed: bool,
}

/// The clients that run, and the outcomes of those that ended.
#[derive(Debug)]
pub struct Clients<'a> {
    site: &'a Site,
    pub files: Vec<Vec<u8>>,
    pub running: Vec<Client>,
    random: Random,
    timeout: Duration,
    pub tally: Tally,
}

/// The outcomes of all clients.
#[derive(Debug, Default)]
pub struct Tally {
    pub started: usize,
    pub completed: usize,
    pub resumed: usize,
    pub bytes: u64,
    pub killed: usize,
    pub terminated: usize,
    /// Error lines that the faults explain, and how often each came.
    pub failed: BTreeMap<String, usize>,
    pub hung: usize,
    pub wrong: Vec<String>,
    pub longest: Duration,
}

impl Client {
    /// How long it has run, without the time that it was stopped.
    pub fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.stopped_for)
    }
}

impl<'a> Clients<'a> {
    pub fn new(site: &'a Site, seed: u64, timeout: Duration) -> Result<Self> {
        let mut random = Random::new(seed ^ 0x00c1_1e47);
        let files: Vec<_> =
            sizes(&mut random).into_iter().map(|size| seeded_noise(seed, size)).collect();
        for (number, content) in files.iter().enumerate() {
            site.put(&format!("file-{number}"), content)?;
        }
        let (running, tally) = (Vec::new(), Tally::default());
        Ok(Self { site, files, running, random, timeout, tally })
    }

    pub fn pids(&self) -> Vec<i32> {
        self.running.iter().map(|client| client.process.pid).collect()
    }

    /// The client that a fault hits.
    pub fn victim(&mut self, number: u64) -> Option<&mut Client> {
        let count = self.running.len().max(1) as u64;
        self.running.get_mut((number % count) as usize)
    }

    pub fn start(&mut self) -> Result<()> {
        let (number, random) = (self.tally.started, &mut self.random);
        let file = random.below(self.files.len() as u64) as usize;
        let (to_file, retries) = (random.below(3) > 0, random.below(8) > 0);
        let copy = self.site.copies().join(format!("copy-{number}"));
        let errors = self.site.errors().join(number.to_string());
        let mut command = self.site.client(&errors)?;
        command.args(["--verbose", "--retries", if retries { "100" } else { "0" }]);
        command.args(["--timeout", &format!("{}ms", self.timeout.as_millis())]);
        if to_file {
            command.arg("-o").arg(&copy).stdout(Stdio::null());
        } else {
            command.stdout(File::create(&copy)?);
        }
        let running = Running::start(command.arg(format!("/file-{file}")));
        let process = Process::with_pid(running.pid()).context("/proc")?;
        self.tally.started += 1;
        self.running.push(Client {
            running,
            process,
            file,
            copy,
            to_file,
            errors,
            retries,
            started: Instant::now(),
            stopped_for: Duration::ZERO,
            killed: false,
            terminated: false,
            queue_removed: false,
        });
        Ok(())
    }

    pub fn was_stopped(&mut self, process: Process, time: Duration) {
        if let Some(client) = self.running.iter_mut().find(|client| client.process == process) {
            client.stopped_for += time;
        }
    }

    /// Judges the clients that ended, and kills those that run for too long.
    pub fn tend(&mut self, oldest: Duration, is_stopped: impl Fn(Process) -> bool) {
        for mut client in std::mem::take(&mut self.running) {
            if let Some(status) = client.running.ended() {
                self.tally.longest = self.tally.longest.max(client.age());
                let outcome = judge(&client, status, &self.files[client.file]);
                self.tally.count(outcome, self.files[client.file].len());
                let _ = fs::remove_file(&client.copy);
                let _ = fs::remove_file(&client.errors);
            } else if client.age() > oldest && !is_stopped(client.process) {
                self.tally.hung += 1;
                let (pid, age, wait) = (client.process.pid, client.age(), waits_in(&client));
                self.tally.wrong.push(format!("client {pid} hung: {age:.1?} old, {wait}"));
                client.killed = true;
                client.running.kill();
            } else {
                self.running.push(client);
            }
        }
    }
}

/// Where its threads wait in the kernel, as far as we may look.
fn waits_in(client: &Client) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", client.process.pid)).into_iter().flatten();
    let waits = tasks.flatten().map(|task| {
        fs::read_to_string(task.path().join("wchan")).unwrap_or_default().trim().to_owned()
    });
    let errors = fs::read_to_string(&client.errors).unwrap_or_default();
    format!(
        "threads in {:?}, fetches file-{}, said {errors:?}",
        waits.collect::<Vec<_>>(),
        client.file
    )
}

impl Tally {
    fn count(&mut self, outcome: Outcome, size: usize) {
        match outcome {
            Outcome::Completed { resumed } => {
                self.completed += 1;
                self.resumed += usize::from(resumed);
                self.bytes += size as u64;
            }
            Outcome::Killed => self.killed += 1,
            Outcome::Terminated => self.terminated += 1,
            Outcome::Failed(line) => *self.failed.entry(line).or_default() += 1,
            Outcome::Wrong(what) => self.wrong.push(what),
        }
    }
}

/// Sizes from 0 over one, two and three messages to several MiB.
fn sizes(random: &mut Random) -> Vec<usize> {
    let mut sizes = vec![0, 1, 8_135, 8_136, 8_137, 16_272, 24_409];
    for largest in [100, 100_000, 1 << 20].into_iter().chain([8 << 20; 10]) {
        sizes.push(random.below(largest) as usize + 1);
    }
    sizes
}
