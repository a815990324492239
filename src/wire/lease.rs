//! The lease: the message at the head of a reply queue that identifies the queue's owner.

use std::fmt;

use subtle::ConstantTimeEq;
use sysv_ipc::{MessageType, QueueId};

use super::bytes::{Malformed, Reader};

/// The type of the lease at the head of a reply queue: "mqfs".
pub const LEASE_TYPE: MessageType = MessageType::new(0x6d71_6673).unwrap();

/// 16 random bytes that are in a lease and in its owner's requests, and that nobody else can read.
/// Comparison takes constant time. Debug output does not show the bytes.
#[derive(Clone, Copy)]
pub struct Cookie([u8; 16]);

impl Cookie {
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for Cookie {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Cookie {}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// A process, identified so that no later process with the same pid is mistaken for it. A field is
/// 0 if the owner has no /proc to read it from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId {
    /// In its own pid namespace.
    pub pid: i32,
    /// In clock ticks since boot, by the clock of its time namespace: proc_pid_stat(5).
    pub start_time: u64,
    /// An inode, like the following: namespaces(7).
    pub pid_namespace: u64,
    pub time_namespace: u64,
}

/// The first message of a reply queue. It stays there as long as the queue exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub owner: OwnerId,
    /// A request that names the queue must contain this cookie.
    pub cookie: Cookie,
    /// The queue of the request. A server that gets the reply queue can read the cookie: without
    /// this field, it could send requests to another server in the owner's name.
    pub request_queue: QueueId,
}

impl Lease {
    const MAGIC: &'static [u8; 8] = b"mqfs-own";
    const VERSION: u16 = 1;

    pub const SIZE: usize = 64;

    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(Self::MAGIC);
        bytes[8..10].copy_from_slice(&Self::VERSION.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.owner.pid.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.owner.start_time.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.owner.pid_namespace.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.owner.time_namespace.to_ne_bytes());
        bytes[40..56].copy_from_slice(self.cookie.as_bytes());
        bytes[56..60].copy_from_slice(&self.request_queue.get().to_ne_bytes());
        bytes
    }

    pub fn decode(mtype: MessageType, text: &[u8]) -> Result<Self, Malformed> {
        if mtype != LEASE_TYPE {
            return Err(Malformed::Type(mtype.get()));
        }
        let mut reader = Reader::new(text);
        reader.opening(Self::MAGIC, Self::VERSION)?;
        reader.u16()?; // reserved
        let owner = OwnerId {
            pid: reader.i32()?,
            start_time: reader.u64()?,
            pid_namespace: reader.u64()?,
            time_namespace: reader.u64()?,
        };
        let cookie = Cookie(reader.array()?);
        let request_queue = QueueId::new(reader.i32()?);
        reader.u32()?; // reserved
        Ok(Self { owner, cookie, request_queue })
    }
}
