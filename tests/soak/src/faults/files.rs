//! The files that are served. Each has two versions, and a fault exchanges one for the other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mqfs_kit::{Random, seeded_noise};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::site::Site;

/// A file that is served.
#[derive(Debug)]
pub struct Served {
    /// Its path below the server's root.
    pub path: String,
    versions: [Vec<u8>; 2],
    at: PathBuf,
    /// Where the other version is.
    spare: PathBuf,
}

impl Served {
    /// Makes files of all sizes, and those of the tree.
    pub fn make_all(site: &Site, seed: u64) -> Result<Vec<Self>> {
        let mut random = Random::new(seed ^ 0x00c1_1e47);
        for folder in ["tree", "tree/a", "tree/a/b"] {
            fs::create_dir(site.folder("root").join(folder))?;
        }
        // From 0 over one, two and three messages to several MiB.
        let mut sizes = vec![0, 1, 8_135, 8_136, 8_137, 16_272, 24_409];
        let largest = [100, 4_000, 100_000, 1 << 20].into_iter().chain([8 << 20; 8]);
        sizes.extend(largest.map(|largest| random.below(largest) as usize + 1));
        let single = sizes.into_iter().enumerate();
        let single = single.map(|(number, size)| (format!("file-{number}"), size));
        let in_tree = (0..60).map(|number| {
            let folder = ["tree", "tree/a", "tree/a/b"][number % 3];
            let largest = if number % 20 == 0 { 2 << 20 } else { 4_000 };
            (format!("{folder}/file-{number}"), random.below(largest) as usize)
        });
        let all = single.chain(in_tree).enumerate();
        all.map(|(number, (path, size))| Self::make(site, seed + number as u64, path, size))
            .collect()
    }

    /// The versions begin alike. So if one is continued with the other, this is found out at the
    /// end only.
    fn make(site: &Site, seed: u64, path: String, size: usize) -> Result<Self> {
        let one = seeded_noise(seed, size);
        let other = [&one[..size / 2], &seeded_noise(!seed, size / 2 + 1)].concat();
        let (at, spare) =
            (site.folder("root").join(&path), site.folder("spare").join(seed.to_string()));
        fs::write(&at, &one)?;
        fs::write(&spare, &other)?;
        Ok(Self { path, versions: [one, other], at, spare })
    }

    pub fn is_in_tree(&self) -> bool {
        self.path.starts_with("tree/")
    }

    /// Lets the path name the other version.
    pub fn exchange(&self) -> Result<()> {
        let flags = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &self.at, AT_FDCWD, &self.spare, flags).context("renameat2")
    }
}

/// Whether these bytes are the files one after the other: whole, or the beginning of each.
pub fn are(bytes: &[u8], files: &[&Served], whole: bool) -> bool {
    /// A file that ends here may begin like the rest of the one before, but not for long.
    const BY_CHANCE: usize = 3;
    let Some((file, rest)) = files.split_first() else { return bytes.is_empty() };
    file.versions.iter().any(|version| {
        let same = match bytes.starts_with(version) {
            true => version.len(),
            false => bytes.iter().zip(version).take_while(|(one, other)| one == other).count(),
        };
        let least = if whole { version.len() } else { same.saturating_sub(BY_CHANCE) };
        (least..=same).any(|end| are(&bytes[end..], rest, whole))
    })
}

/// Checks that a folder holds these files and no others; if not `all`, only some of them perhaps.
/// Returns how many bytes there are.
pub fn check_folder(folder: &Path, files: &[&Served], all: bool) -> Result<u64, String> {
    let (mut found, mut bytes) = (0, 0);
    for path in files_below(folder).map_err(|error| error.to_string())? {
        let content = fs::read(&path).map_err(|error| error.to_string())?;
        let file = files.iter().find(|file| folder.join(&file.path) == path);
        if !file.is_some_and(|file| are(&content, &[file], true)) {
            return Err(format!("WRONG BYTES: {}, {} bytes", path.display(), content.len()));
        }
        (found, bytes) = (found + 1, bytes + content.len() as u64);
    }
    match found < files.len() && all {
        true => Err(format!("{found} files instead of {}", files.len())),
        false => Ok(bytes),
    }
}

fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(files_below(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    Ok(found)
}
