//! Where an output leads: through which links, to which name or descriptor.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys::geteuid;
use nix::errno::Errno;

use super::{fd_path, is_same};

/// Where an output leads.
pub(super) enum Place {
    /// A path whose last component is no link.
    Path(PathBuf),
    /// One of our own descriptors, by way of /dev/stdout, /dev/fd/N or /proc/self/fd/N: what it is
    /// open on has its own place to write at, and perhaps no name.
    Descriptor(i32),
}

/// Follows links to where they lead, also if nothing is there.
pub(super) fn follow(target: &Path) -> io::Result<Place> {
    const MOST_LINKS: usize = 40; // as the kernel: path_resolution(7)
    let descriptors = resolve(Path::new("/proc/self/fd")).ok();
    let mut path = target.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return Ok(Place::Path(path)); // ".." or "/": a folder
        };
        let folder = resolve(folder_of(&path))?;
        if Some(&folder) == descriptors.as_ref()
            && let Some(Ok(number)) = name.to_str().map(str::parse)
        {
            return Ok(Place::Descriptor(number));
        }
        path = folder.join(name);
        match fs::read_link(&path) {
            Ok(link) => {
                check_may_follow(&path, &folder)?;
                path = folder.join(link);
            }
            Err(_) => return Ok(Place::Path(path)),
        }
    }
    Err(Errno::ELOOP.into())
}

/// A folder's path without links, which the kernel follows, as far as it lets us.
fn resolve(folder: &Path) -> io::Result<PathBuf> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    let there = opened.metadata()?;
    let path = fs::read_link(fd_path(&opened)).ok();
    // Of a folder that was removed it tells what it was, and more.
    let leads_there = |path: &PathBuf| fs::metadata(path).is_ok_and(|at| is_same(&at, &there));
    path.filter(leads_there).map_or_else(|| fs::canonicalize(folder), Ok)
}

/// Where everybody may make links, those of others lead nobody: `protected_symlinks`,
/// proc_sys_fs(5), whatever it is set to here.
fn check_may_follow(link: &Path, folder: &Path) -> io::Result<()> {
    const WRITTEN_BY_ALL: u32 = 0o002;
    let (link, folder) = (fs::symlink_metadata(link)?, fs::metadata(folder)?);
    let is_trusted = link.uid() == geteuid().as_raw() || link.uid() == folder.uid();
    if folder.mode() & WRITTEN_BY_ALL != 0 && !is_trusted {
        return Err(Errno::EACCES.into());
    }
    Ok(())
}

pub(super) fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
