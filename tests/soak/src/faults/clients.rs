//! The clients, and their outcomes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mqfs_kit::{Process, Random, Running};

use super::fault::{Fault, chosen};
use super::files::Served;
use super::outcome::judge;
use crate::site::Site;

/// A program that fetches files.
#[derive(Debug)]
pub struct Client {
    running: Running,
    pub process: Process,
    pub way: Way,
    /// Which files it fetches; several in one session.
    pub files: Vec<usize>,
    /// A file or a folder.
    pub copy: PathBuf,
    pub errors: PathBuf,
    pub retries: bool,
    pub hit_by: Vec<Fault>,
    started: Instant,
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
    pub started: usize,
    /// How many ended in this way.
    pub ended: BTreeMap<&'static str, usize>,
    pub wrong: Vec<String>,
}

/// The clients' --timeout.
pub const TIMEOUT: Duration = Duration::from_secs(10);

impl Way {
    pub fn is_into_folder(self) -> bool {
        matches!(self, Self::Folder | Self::Tree)
    }
}

impl<'a> Clients<'a> {
    pub fn new(site: &'a Site, seed: u64) -> Result<Self> {
        let (random, files) = (Random::new(seed ^ 0x00c1_1e48), Served::make_all(site, seed)?);
        let (running, ended, wrong) = (Vec::new(), BTreeMap::new(), Vec::new());
        Ok(Self { site, files, running, random, started: 0, ended, wrong })
    }

    pub fn pids(&self) -> Vec<i32> {
        self.running.iter().map(|client| client.process.pid).collect()
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
        let (way, files) = self.choose();
        let retries = self.random.below(8) > 0;
        let copy = self.site.folder("copies").join(format!("copy-{}", self.started));
        let errors = self.site.folder("errors").join(self.started.to_string());
        let mut command = self.site.client(&errors)?;
        command.args(["--retries", if retries { "100" } else { "0" }]);
        command.args(["--timeout", &format!("{}s", TIMEOUT.as_secs())]);
        if way.is_into_folder() {
            fs::create_dir(&copy)?;
            command.arg("--directory").arg(&copy);
        }
        match way {
            Way::Stdout => command.stdout(File::create(&copy)?),
            Way::Output => command.arg("--output").arg(&copy),
            Way::Folder => &mut command,
            Way::Tree => command.args(["--recursive", "/tree"]),
        };
        if way != Way::Tree {
            command.arg("--verbose");
            command.args(files.iter().map(|&file| format!("/{}", self.files[file].path)));
        }
        let (running, hit_by, started) = (Running::start(&mut command), vec![], Instant::now());
        let process = Process::with_pid(running.pid()).context("/proc")?;
        self.started += 1;
        self.running.push(Client {
            running,
            process,
            way,
            files,
            copy,
            errors,
            retries,
            hit_by,
            started,
        });
        Ok(())
    }

    /// Exchanges the versions of all files that a client fetches. Returns the client.
    pub fn replace_files(&mut self, number: u64) -> Result<Option<Process>> {
        let Some(client) = chosen(&mut self.running, number) else { return Ok(None) };
        let (process, files) = (client.process, client.files.clone());
        for client in &mut self.running {
            if client.files.iter().any(|file| files.contains(file)) {
                client.hit_by.push(Fault::ReplaceFiles);
            }
        }
        files.iter().try_for_each(|&file| self.files[file].exchange())?;
        Ok(Some(process))
    }

    /// Judges the clients that ended, and kills those that run for too long.
    pub fn tend(&mut self, oldest: Duration) {
        for mut client in std::mem::take(&mut self.running) {
            if let Some(status) = client.running.ended() {
                let files: Vec<_> = client.files.iter().map(|&file| &self.files[file]).collect();
                match judge(&client, status, &files) {
                    Ok(how) => *self.ended.entry(how).or_default() += 1,
                    Err(wrong) => self.wrong.push(wrong),
                }
                let _ = match client.way.is_into_folder() {
                    true => fs::remove_dir_all(&client.copy),
                    false => fs::remove_file(&client.copy),
                };
                let _ = fs::remove_file(&client.errors);
            } else if client.started.elapsed() > oldest {
                let wait = fs::read_to_string(format!("/proc/{}/wchan", client.process.pid));
                self.wrong.push(format!("hung, in {wait:?}: {client:?}"));
                client.running.kill();
            } else {
                self.running.push(client);
            }
        }
    }
}
