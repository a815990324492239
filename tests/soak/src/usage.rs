//! What a server uses while no request is under way.

use anyhow::{Context, Result};
use mqfs_kit::{Server, descriptors, number, zombies_of};

use crate::report::Report;
use crate::site::Site;

#[derive(Debug, Clone, Copy)]
pub struct Usage {
    zombies: usize,
    /// None where we may not look.
    descriptors: Option<usize>,
    queues: usize,
    segments: usize,
    anonymous_kib: u64,
    virtual_kib: u64,
}

/// A heap may grow so much without a leak.
const TOLERANCE_KIB: u64 = 256;

impl Usage {
    /// Waits until no child is left.
    pub fn of(server: &Server, site: &Site, report: &mut Report) -> Result<Self> {
        report.check(server.settles(), || "children stay".to_owned());
        let pid = server.pid();
        let kib = |name| number(pid, "status", name).context("/proc/PID/status");
        Ok(Self {
            zombies: zombies_of(pid),
            descriptors: descriptors(pid),
            queues: site.namespace.queues_left().len(),
            segments: site.namespace.left("shm"),
            anonymous_kib: kib("RssAnon")?,
            virtual_kib: kib("VmSize")?,
        })
    }

    pub fn compare(self, after: Self, report: &mut Report) {
        let kib = |kib: u64| Some(kib as usize);
        let most = |kib: u64| Some((kib + TOLERANCE_KIB) as usize);
        for (name, before, most, after) in [
            ("zombies", Some(self.zombies), Some(0), Some(after.zombies)),
            ("descriptors", self.descriptors, self.descriptors, after.descriptors),
            ("queues, with its own", Some(self.queues), Some(self.queues), Some(after.queues)),
            ("segments", Some(self.segments), Some(self.segments), Some(after.segments)),
            (
                "RssAnon, KiB",
                kib(self.anonymous_kib),
                most(self.anonymous_kib),
                kib(after.anonymous_kib),
            ),
            ("VmSize, KiB", kib(self.virtual_kib), most(self.virtual_kib), kib(after.virtual_kib)),
        ] {
            let Some((before, after)) = before.zip(after) else { continue };
            report.row(format!("the server's {name}"), format!("{before} before, {after} after"));
            let holds = most.is_none_or(|most| after <= most);
            report.check(holds, || format!("{name} grew: {before} before, {after} after"));
        }
    }
}
