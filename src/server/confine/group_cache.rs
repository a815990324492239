//! The groups of recent callers.
//!
//! Looking a user up reads files, or asks another program and waits for it. The parent must not
//! wait. So each child looks its caller up and leaves the result to later children, in shared
//! memory. A child unmaps that memory before it becomes the caller, so no caller can change it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::time::{ClockId, clock_gettime};
use sysv_ipc::{Gid, Uid};

use crate::sys::credentials::groups_of;
use crate::sys::shared_words::SharedWords;

/// The groups of recent callers, shared with every child that is forked while this exists.
#[derive(Debug)]
pub(crate) struct GroupCache(SharedWords);

/// A user's entry: eight cache lines, the first words of which are these, and then its groups.
///
/// The sequence is odd while a process writes. If a writer dies, the slot is lost, and its users
/// are looked up every time.
struct Slot<'a>(&'a [AtomicU64]);

const SEQUENCE: usize = 0;
const USER: usize = 1;
/// Seconds of `CLOCK_BOOTTIME`, which nobody can set; 0 in an empty slot.
const EXPIRES: usize = 2;
/// The [state of the database](database_state) at the look-up.
const DATABASE: usize = 3;
const COUNT: usize = 4;
const GROUPS: usize = 8;

const SLOT: usize = 64;
const SLOTS: usize = 64;

/// A user with more groups is looked up every time.
const MOST_GROUPS: usize = SLOT - GROUPS;

impl GroupCache {
    /// How long an entry is valid while the files of the database do not change. Other services may
    /// return older data: sssd.conf(5), nscd.conf(5).
    const LIFETIME: Duration = Duration::from_secs(10);

    /// Makes an empty cache.
    pub(crate) fn new() -> Result<Self, Errno> {
        SharedWords::new(const { NonZeroUsize::new(SLOT * SLOTS).unwrap() }).map(Self)
    }

    /// The groups of a user in the group database, and `gid`. Only `gid` for an unknown user.
    pub(crate) fn groups_of(&self, uid: Uid, gid: Gid) -> Result<Vec<Gid>, Errno> {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?.tv_sec().unsigned_abs();
        let slot = self.slot(uid);
        // Before the look-up, so that a change during it makes the entry invalid at once.
        let database = database_state();
        if let Some(groups) = slot.read(uid, gid, database, now) {
            return Ok(groups);
        }
        let groups = groups_of(uid, gid)?;
        slot.write(uid, gid, &groups, database, now + Self::LIFETIME.as_secs());
        Ok(groups)
    }

    fn slot(&self, uid: Uid) -> Slot<'_> {
        Slot(&self.0.words()[uid.as_raw() as usize % SLOTS * SLOT..][..SLOT])
    }
}

/// A number that changes with the files of the user and group database.
fn database_state() -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"] {
        let state = stat(file).map(|stat| {
            let changed = (stat.st_ctime, stat.st_ctime_nsec, stat.st_mtime, stat.st_mtime_nsec);
            (stat.st_dev, stat.st_ino, stat.st_size, changed)
        });
        state.ok().hash(&mut hasher);
    }
    hasher.finish()
}

fn user(uid: Uid, gid: Gid) -> u64 {
    u64::from(uid.as_raw()) << 32 | u64::from(gid.as_raw())
}

impl Slot<'_> {
    fn load(&self, word: usize) -> u64 {
        self.0[word].load(Relaxed)
    }

    fn read(&self, uid: Uid, gid: Gid, database: u64, now: u64) -> Option<Vec<Gid>> {
        let sequence = self.0[SEQUENCE].load(Acquire);
        let valid = self.load(USER) == user(uid, gid)
            && self.load(EXPIRES) > now
            && self.load(DATABASE) == database;
        let groups = (GROUPS..SLOT).take(self.load(COUNT) as usize);
        let groups = groups.map(|word| Gid::from_raw(self.load(word) as u32)).collect();
        fence(Acquire);
        let undisturbed = sequence.is_multiple_of(2) && self.load(SEQUENCE) == sequence;
        (valid && undisturbed).then_some(groups)
    }

    fn write(&self, uid: Uid, gid: Gid, groups: &[Gid], database: u64, expires: u64) {
        let sequence = self.load(SEQUENCE);
        let (taken, next) = (sequence.wrapping_add(1), sequence.wrapping_add(2));
        if groups.len() > MOST_GROUPS
            || !sequence.is_multiple_of(2)
            || self.0[SEQUENCE].compare_exchange(sequence, taken, Acquire, Relaxed).is_err()
        {
            return; // too many groups, or another child writes
        }
        fence(Release);
        let store = |word: usize, value: u64| self.0[word].store(value, Relaxed);
        store(USER, user(uid, gid));
        store(EXPIRES, expires);
        store(DATABASE, database);
        store(COUNT, groups.len() as u64);
        for (word, group) in (GROUPS..).zip(groups) {
            store(word, group.as_raw().into());
        }
        self.0[SEQUENCE].store(next, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{exit_now, exit_status, fork_child};

    const UID: Uid = Uid::from_raw(70_000);
    const GID: Gid = Gid::from_raw(70_001);

    #[test]
    fn the_groups_that_a_child_found_are_there_for_the_next_until_they_are_too_old() {
        let cache = GroupCache::new().unwrap();
        let slot = cache.slot(UID);
        assert_eq!(slot.read(UID, GID, 7, 0), None);
        let found = [GID, Gid::from_raw(5)];
        let child = fork_child(|| {
            slot.write(UID, GID, &found, 7, 100);
            exit_now(0)
        });
        assert_eq!(exit_status(child.unwrap()), Some(0));
        assert_eq!(slot.read(UID, GID, 7, 99).as_deref(), Some(&found[..]));
        assert_eq!(slot.read(UID, GID, 7, 100), None);
        assert_eq!(slot.read(UID, GID, 8, 99), None, "the database changed");
        assert_eq!(slot.read(UID, Gid::from_raw(1), 7, 0), None);
        let same_slot = Uid::from_raw(UID.as_raw() + SLOTS as u32);
        assert_eq!(slot.read(same_slot, GID, 7, 0), None);
    }

    #[test]
    fn while_a_child_writes_or_after_it_died_there_nothing_is_found() {
        let cache = GroupCache::new().unwrap();
        let slot = cache.slot(UID);
        slot.write(UID, GID, &[], 7, 100);
        slot.0[SEQUENCE].fetch_add(1, Relaxed);
        assert_eq!(slot.read(UID, GID, 7, 0), None);
        slot.write(UID, GID, &[GID], 7, 100);
        assert_eq!(slot.load(COUNT), 0);
        assert_eq!(cache.groups_of(UID, GID).unwrap(), [GID], "looked up");
    }

    #[test]
    fn a_user_with_more_groups_than_a_slot_holds_is_looked_up_every_time() {
        let cache = GroupCache::new().unwrap();
        let slot = cache.slot(UID);
        slot.write(UID, GID, &[GID; MOST_GROUPS + 1], 7, 100);
        assert_eq!(slot.read(UID, GID, 7, 0), None);
    }
}
