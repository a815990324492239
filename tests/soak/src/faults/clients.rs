//! The clients, and their outcomes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mqfs_kit::{Process, Random, Running};

use super::files::Served;
use super::outcome::judge;
use crate::site::Site;

/// A program that fetches files.
#[derive(Debug)]
pub struct Client {
    running: Running,
    pub process: Process,
    pub way: Way,
    /// Which files it fetches.
    pub files: Vec<usize>,
    /// A file or a folder.
    pub copy: PathBuf,
    pub errors: PathBuf,
    pub retries: bool,
    started: Instant,
    stopped_for: Duration,
    // The faults that hit it.
    pub killed: bool,
    pub terminated: bool,
    pub queue_removed: bool,
    pub file_replaced: bool,
}

/// How a client fetches files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Stdout,
    /// Into one file, which is complete or missing.
    Output,
    Folder,
    Tree,
}

/// The clients that run, and the outcomes of those that ended.
#[derive(Debug)]
pub struct Clients<'a> {
    site: &'a Site,
    pub files: Vec<Served>,
    pub running: Vec<Client>,
    random: Random,
    timeout: Duration,
    pub tally: Tally,
}

/// The outcomes of all clients.
#[derive(Debug, Default)]
pub struct Tally {
    pub started: usize,
    /// How many ended in this way.
    pub ended: BTreeMap<String, usize>,
    pub bytes: u64,
    pub hung: usize,
    pub wrong: Vec<String>,
    pub longest: Duration,
}

impl Way {
    pub fn is_into_folder(self) -> bool {
        matches!(self, Self::Folder | Self::Tree)
    }
}

impl Client {
    /// How long it has run, without the time that it was stopped.
    pub fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.stopped_for)
    }

    /// Whether it asks several questions in one reply queue.
    pub fn has_sessions(&self) -> bool {
        self.files.len() > 1
    }

    pub fn fetches(&self) -> &'static str {
        match self.way {
            Way::Tree => "a tree",
            _ if self.has_sessions() => "several files",
            _ => "one file",
        }
    }
}

impl<'a> Clients<'a> {
    pub fn new(site: &'a Site, seed: u64, timeout: Duration) -> Result<Self> {
        let (random, files) = (Random::new(seed ^ 0x00c1_1e48), Served::make_all(site, seed)?);
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

    /// Chooses a way, and files: those of the tree, or some that are next to each other.
    fn choose(&mut self) -> (Way, Vec<usize>) {
        let (all, random) = (self.files.len(), &mut self.random);
        let single = self.files.iter().filter(|file| !file.is_in_tree()).count();
        let way = match random.below(20) {
            0..6 => Way::Stdout,
            6..12 => Way::Output,
            12..16 => Way::Folder,
            _ => return (Way::Tree, (single..all).collect()),
        };
        let is_alone = !way.is_into_folder() && random.below(3) > 0;
        let count = if is_alone { 1 } else { 2 + random.below(9) as usize };
        let first = random.below(single as u64) as usize;
        (way, (first..first + count).map(|number| number % single).collect())
    }

    pub fn start(&mut self) -> Result<()> {
        let (number, (way, files)) = (self.tally.started, self.choose());
        let retries = self.random.below(8) > 0;
        let copy = self.site.folder("copies").join(format!("copy-{number}"));
        let errors = self.site.folder("errors").join(number.to_string());
        let mut command = self.site.client(&errors)?;
        command.args(["--retries", if retries { "100" } else { "0" }]);
        command.args(["--timeout", &format!("{}ms", self.timeout.as_millis())]);
        if way.is_into_folder() {
            fs::create_dir(&copy)?;
            command.arg("--directory").arg(&copy);
        }
        match way {
            Way::Stdout => command.arg("--verbose").stdout(File::create(&copy)?),
            Way::Output => command.arg("--verbose").arg("--output").arg(&copy),
            Way::Folder => command.arg("--verbose"),
            Way::Tree => command.arg("--recursive"),
        };
        match way {
            Way::Tree => command.arg("/tree"),
            _ => command.args(files.iter().map(|&file| format!("/{}", self.files[file].path))),
        };
        let running = Running::start(&mut command);
        let process = Process::with_pid(running.pid()).context("/proc")?;
        self.tally.started += 1;
        self.running.push(Client {
            running,
            process,
            way,
            files,
            copy,
            errors,
            retries,
            started: Instant::now(),
            stopped_for: Duration::ZERO,
            killed: false,
            terminated: false,
            queue_removed: false,
            file_replaced: false,
        });
        Ok(())
    }

    /// Exchanges the versions of all files that a client fetches. Returns the client.
    pub fn replace_files(&mut self, number: u64) -> Result<Option<Process>> {
        let Some(client) = self.victim(number) else { return Ok(None) };
        let (process, files) = (client.process, client.files.clone());
        for client in &mut self.running {
            client.file_replaced |= client.files.iter().any(|file| files.contains(file));
        }
        files.iter().try_for_each(|&file| self.files[file].exchange())?;
        Ok(Some(process))
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
                let files: Vec<_> = client.files.iter().map(|&file| &self.files[file]).collect();
                match judge(&client, status, &files) {
                    Ok((how, bytes)) => {
                        *self.tally.ended.entry(how).or_default() += 1;
                        self.tally.bytes += bytes;
                    }
                    Err(wrong) => self.tally.wrong.push(wrong),
                }
                let _ = match client.way.is_into_folder() {
                    true => fs::remove_dir_all(&client.copy),
                    false => fs::remove_file(&client.copy),
                };
                let _ = fs::remove_file(&client.errors);
            } else if client.age() > oldest && !is_stopped(client.process) {
                self.tally.hung += 1;
                let wait = fs::read_to_string(format!("/proc/{}/wchan", client.process.pid));
                self.tally.wrong.push(format!("hung, in {wait:?}: {client:?}"));
                client.killed = true;
                client.running.kill();
            } else {
                self.running.push(client);
            }
        }
    }
}
