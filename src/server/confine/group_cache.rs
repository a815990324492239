//! The groups of users, not looked up anew for every request.
//!
//! Looking a user up reads files or asks other programs, and may wait for them. A parent that serves
//! everybody cannot wait; so its children look up, and leave what they found to those that come after
//! them, in memory that all have in common. A child lets go of it before it becomes the caller, so no
//! caller can ever add to it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::stat::stat;
use nix::time::{ClockId, clock_gettime};
use sysv_ipc::{Gid, Uid};

use crate::sys::credentials::groups_of;

/// What was found of users lately. Shared with every process that is forked while this lives.
#[derive(Debug)]
pub(crate) struct Groups {
    table: NonNull<Table>,
}

/// As the kernel hands it out, that is zeroed, every slot is empty.
#[repr(C)]
struct Table([Slot; SLOTS]);

/// A user, protected by a sequence lock: even, unless somebody writes. Should a writer die, the slot
/// is lost, and its users are looked up every time.
#[repr(C)]
struct Slot {
    sequence: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    count: AtomicU32,
    /// Seconds of the clock that no one sets, or 0.
    expires: AtomicU64,
    /// What the database was then.
    database: AtomicU64,
    groups: [AtomicU32; MOST_GROUPS],
}

const SLOTS: usize = 64;

/// Who has more is looked up every time.
const MOST_GROUPS: usize = 32;

impl Groups {
    /// How long what was found is used while the files of the database do not change. What other
    /// services say they keep for longer themselves: sssd.conf(5), nscd.conf(5).
    const LIFETIME: Duration = Duration::from_secs(10);

    /// Nothing yet.
    ///
    /// # Errors
    /// `ENOMEM`: mmap(2).
    pub(crate) fn new() -> Result<Self, Errno> {
        let size = const { NonZeroUsize::new(size_of::<Table>()).unwrap() };
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: new memory, which nobody else refers to; mmap(2).
        let table = unsafe { mmap_anonymous(None, size, rights, MapFlags::MAP_SHARED) }?;
        Ok(Self { table: table.cast() })
    }

    /// The user's groups by the group database, with `gid`; just that where the user is unknown.
    ///
    /// # Errors
    /// Those of getpwuid(3) and getgrouplist(3).
    pub(crate) fn of(&self, uid: Uid, gid: Gid) -> Result<Vec<Gid>, Errno> {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?.tv_sec().unsigned_abs();
        // SAFETY: mapped for as long as this lives, and all in it is atomic; zero is valid.
        let table = unsafe { self.table.as_ref() };
        let slot = &table.0[uid.as_raw() as usize % SLOTS];
        // Before it is read: a change meanwhile makes what was found too old at once.
        let database = database();
        if let Some(groups) = slot.read(uid, gid, database, now) {
            return Ok(groups);
        }
        let groups = groups_of(uid, gid)?;
        slot.write(uid, gid, &groups, database, now + Self::LIFETIME.as_secs());
        Ok(groups)
    }
}

/// The state of the files of the database: another one after every change.
fn database() -> u64 {
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

impl Drop for Groups {
    fn drop(&mut self) {
        // SAFETY: mapped by new with this size, and nothing refers to it any more; munmap(2).
        let _ = unsafe { munmap(self.table.cast(), size_of::<Table>()) };
    }
}

impl Slot {
    fn read(&self, uid: Uid, gid: Gid, database: u64, now: u64) -> Option<Vec<Gid>> {
        let sequence = self.sequence.load(Ordering::Acquire);
        let load = |field: &AtomicU32| field.load(Ordering::Relaxed);
        let found = (load(&self.uid), load(&self.gid)) == (uid.as_raw(), gid.as_raw())
            && self.expires.load(Ordering::Relaxed) > now
            && self.database.load(Ordering::Relaxed) == database;
        let groups = self.groups.iter().take(load(&self.count) as usize);
        let groups = groups.map(|group| Gid::from_raw(load(group))).collect();
        fence(Ordering::Acquire);
        let undisturbed = sequence.is_multiple_of(2) && load(&self.sequence) == sequence;
        (found && undisturbed).then_some(groups)
    }

    fn write(&self, uid: Uid, gid: Gid, groups: &[Gid], database: u64, expires: u64) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let (taken, next) = (sequence.wrapping_add(1), sequence.wrapping_add(2));
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        if groups.len() > MOST_GROUPS
            || !sequence.is_multiple_of(2)
            || self.sequence.compare_exchange(sequence, taken, success, failure).is_err()
        {
            return; // too many, or somebody else writes
        }
        fence(Ordering::Release);
        let store = |field: &AtomicU32, value| field.store(value, Ordering::Relaxed);
        store(&self.uid, uid.as_raw());
        store(&self.gid, gid.as_raw());
        store(&self.count, groups.len() as u32);
        for (field, group) in self.groups.iter().zip(groups) {
            store(field, group.as_raw());
        }
        self.database.store(database, Ordering::Relaxed);
        self.expires.store(expires, Ordering::Relaxed);
        self.sequence.store(next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::sys::{exit_now, exit_status, fork_child};

    const USER: (Uid, Gid) = (Uid::from_raw(70_000), Gid::from_raw(70_001));

    fn slot(groups: &Groups) -> &Slot {
        // SAFETY: as in Groups::of.
        let table = unsafe { groups.table.as_ref() };
        &table.0[USER.0.as_raw() as usize % SLOTS]
    }

    #[test]
    fn what_a_child_found_is_there_for_the_next_until_it_is_too_old() {
        let groups = Groups::new().unwrap();
        assert_eq!(slot(&groups).read(USER.0, USER.1, 7, 0), None);
        let found = [Gid::from_raw(70_001), Gid::from_raw(5)];
        let child = fork_child(|| {
            slot(&groups).write(USER.0, USER.1, &found, 7, 100);
            exit_now(0)
        });
        let pid = child.unwrap();
        assert_eq!(exit_status(pid), Some(0));
        assert_eq!(slot(&groups).read(USER.0, USER.1, 7, 99).as_deref(), Some(&found[..]));
        assert_eq!(slot(&groups).read(USER.0, USER.1, 7, 100), None);
        assert_eq!(slot(&groups).read(USER.0, USER.1, 8, 99), None, "the database changed");
        let other_gid = Gid::from_raw(1);
        assert_eq!(slot(&groups).read(USER.0, other_gid, 7, 0), None);
        let same_slot = Uid::from_raw(USER.0.as_raw() + SLOTS as u32);
        assert_eq!(slot(&groups).read(same_slot, USER.1, 7, 0), None);
    }

    #[test]
    fn while_somebody_writes_or_after_it_died_there_nothing_is_found() {
        let groups = Groups::new().unwrap();
        slot(&groups).write(USER.0, USER.1, &[], 7, 100);
        slot(&groups).sequence.fetch_add(1, Ordering::Relaxed);
        assert_eq!(slot(&groups).read(USER.0, USER.1, 7, 0), None);
        slot(&groups).write(USER.0, USER.1, &[USER.1], 7, 100);
        assert_eq!(slot(&groups).count.load(Ordering::Relaxed), 0);
        assert_eq!(groups.of(USER.0, USER.1).unwrap(), [USER.1], "looked up");
    }

    #[test]
    fn a_user_with_more_groups_than_have_room_is_looked_up_every_time() {
        let groups = Groups::new().unwrap();
        slot(&groups).write(USER.0, USER.1, &[USER.1; MOST_GROUPS + 1], 7, 100);
        assert_eq!(slot(&groups).read(USER.0, USER.1, 7, 0), None);
    }
}
