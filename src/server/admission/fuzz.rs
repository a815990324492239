//! Admission against real queues: bytes → request → admitted or refused.
//!
//! The expected outcome follows from how each queue was made, not from what admission looks at.
//! tests/it/fuzz.rs says how to run this for longer.

mod case;
mod queue_samples;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use sysv_ipc::{Mode, Uid};

use super::policy::{Admitted, Policy};
use super::refusal::Refusal;
use super::reply_to::Dialect;
use crate::counters::RefusalReason;
use crate::server::config::{Config, PlainPolicy};
use crate::sys::{getegid, geteuid};
use crate::wire::{Operation, Range, Request};
use case::{Case, Server};
use queue_samples::{QueueSamples, Welcome};

/// The least number of inputs in a run of usual length.
const INPUTS: u64 = 150_000;

type Checked = Result<(), TestCaseError>;

#[test]
fn whatever_is_asked_only_who_may_be_answered_is_admitted() {
    let outcome = thread::spawn(|| {
        // Without the right to an IPC namespace of its own, this thread looks at queues of other
        // programs, but neither sends to them nor removes them.
        if geteuid().is_root() {
            let _ = unshare(CloneFlags::CLONE_NEWIPC);
        }
        let target =
            Target { samples: RefCell::new(QueueSamples::new()), tally: RefCell::default() };
        target.run("whatever_is_asked");
        target.check_tally();
    });
    if let Err(panic) = outcome.join() {
        resume_unwind(panic);
    }
}

impl Server {
    fn policy(self) -> Policy {
        let config = Config { plain: self.plain, mode: self.mode, ..Config::default() };
        let us = geteuid();
        let overflow_uid = if self.we_are_unknown { us } else { Uid::from_raw(us.as_raw() ^ 1) };
        Policy { overflow_uid, ..Policy::new(&config) }
    }

    fn takes_plain(self) -> bool {
        match self.plain {
            PlainPolicy::Never => false,
            PlainPolicy::Owner => self.mode == Mode::new(0o600),
            PlainPolicy::Any => true,
        }
    }
}

/// The expected outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Admitted,
    /// Refused, and the caller is told.
    Told,
    Dropped,
}

/// Step 4 of "The life of a transfer" in docs/protocol.md.
fn fate(samples: &QueueSamples, server: Server, request: &Request<'_>) -> Fate {
    let Some(queue) = samples.find(request.reply_queue) else { return Fate::Dropped };
    if server.we_are_unknown {
        return Fate::Dropped;
    }
    match (queue.welcome.get(), request.extension) {
        (Welcome::Plain, None) if server.takes_plain() => Fate::Admitted,
        (Welcome::Extended, Some(extension))
            if extension.cookie.as_bytes() == queue.cookie.as_bytes() =>
        {
            match extension.operation {
                Operation::Unknown { .. } => Fate::Told,
                _ => Fate::Admitted,
            }
        }
        _ => Fate::Dropped,
    }
}

/// The queues, and how many inputs had which outcome.
struct Target {
    samples: RefCell<QueueSamples>,
    tally: RefCell<BTreeMap<String, u64>>,
}

impl Target {
    /// Checks cases until they made enough inputs. Shrinks and reports the first that fails; keeps
    /// nothing for the next run.
    fn run(&self, name: &str) {
        let times = std::env::var("MQFS_FUZZ_TIMES");
        let times = times.map_or(1, |times| times.parse().expect("MQFS_FUZZ_TIMES is a number"));
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let seed = match config.rng_seed {
            RngSeed::Fixed(seed) => seed,
            RngSeed::Random => getrandom::u64().unwrap(),
        };
        let config = ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config };
        let (mut runner, cases, start) = (TestRunner::new(config), case::cases(), Instant::now());
        while self.inputs() < INPUTS * times {
            let case = cases.new_tree(&mut runner).unwrap();
            if let Err(error) = runner.run_one(case, |case| self.check(&case)) {
                let again = format!("PROPTEST_RNG_SEED={seed} MQFS_FUZZ_TIMES={times} cargo test");
                panic!("{error}\nonce more: {again} {name}");
            }
        }
        let (inputs, seconds) = (self.inputs(), start.elapsed().as_secs_f32());
        let tally = self.tally.borrow();
        eprintln!("{name}: {inputs} inputs in {seconds:.1} s, seed {seed}\n  {tally:?}");
    }

    fn check(&self, case: &Case) -> Checked {
        // A queue also changes when a case fails; smaller cases then need new queues.
        if self.samples.borrow().is_spent() || self.samples.borrow().check_untouched().is_err() {
            drop(self.samples.take());
            self.samples.replace(QueueSamples::new());
        }
        let (samples, policy) = (self.samples.borrow(), case.server.policy());
        for queue in &samples.queues {
            for text in case.texts(&samples, queue) {
                self.ask(&samples, case.server, &policy, &text).map_err(|error| {
                    let text = text.escape_ascii();
                    TestCaseError::fail(format!("{error}\nqueue: {queue:?}\nrequest: b\"{text}\""))
                })?;
            }
        }
        Ok(())
    }

    fn ask(&self, samples: &QueueSamples, server: Server, policy: &Policy, text: &[u8]) -> Checked {
        let request = match Request::decode(text) {
            Ok(request) => request,
            Err(malformed) => return self.count(&format!("malformed: {malformed}")),
        };
        let outcome = policy.admit(&request, queue_samples::ASKED);
        samples.check_untouched()?;
        let expected = fate(samples, server, &request);
        match outcome {
            Ok(admitted) if samples.find(request.reply_queue).is_none() => {
                // Another program's queue, outside a namespace of our own.
                prop_assert!(request.extension.is_none() && server.takes_plain(), "{:?}", admitted);
                self.count("admitted: not ours")
            }
            Ok(admitted) => {
                prop_assert_eq!(expected, Fate::Admitted);
                self.check_admitted(&request, &admitted)
            }
            Err(refused) => {
                prop_assert_ne!(expected, Fate::Admitted, "refused: {}", refused.reason);
                self.check_refused(samples, &request, &refused, expected)
            }
        }
    }

    fn check_admitted(&self, request: &Request<'_>, admitted: &Admitted<'_>) -> Checked {
        let status = admitted.reply.queue.status().unwrap();
        prop_assert_eq!(admitted.reply.queue.id(), request.reply_queue);
        prop_assert_eq!(admitted.reply.max_bytes, status.max_bytes);
        prop_assert!(status.permissions.key.is_private());
        // We made every queue, even those that we handed over.
        prop_assert_eq!((admitted.caller.uid, admitted.caller.gid), (geteuid(), getegid()));
        prop_assert_eq!(admitted.path, request.path);
        match (request.extension, admitted.reply.dialect) {
            (None, Dialect::Plain) => {
                prop_assert_eq!(admitted.operation, Operation::Fetch(Range::WHOLE));
                prop_assert_ne!(status.permissions.mode, Mode::new(0o711));
                self.count("admitted: plain")
            }
            (Some(extension), Dialect::Extended(Some(cookie))) => {
                prop_assert_eq!(admitted.operation, extension.operation);
                prop_assert_eq!(status.permissions.mode, Mode::new(0o711));
                prop_assert_eq!(cookie.as_bytes(), extension.cookie.as_bytes());
                self.count("admitted: extended")
            }
            (asked, answer) => Err(TestCaseError::fail(format!("{answer:?} to {asked:?}"))),
        }
    }

    /// Only a caller that knew the cookie is told, and only if its queue has room.
    fn check_refused(
        &self,
        samples: &QueueSamples,
        request: &Request<'_>,
        refused: &Refusal,
        expected: Fate,
    ) -> Checked {
        refused.tell_caller();
        if let (Fate::Told, Some(queue)) = (expected, samples.find(request.reply_queue))
            && !queue.is_full()
        {
            queue.take_failure()?;
        }
        samples.check_untouched()?;
        self.count(&refused.reason.to_string())
    }

    fn count(&self, came_to: &str) -> Checked {
        let mut tally = self.tally.borrow_mut();
        match tally.get_mut(came_to) {
            Some(count) => *count += 1,
            None => drop(tally.insert(came_to.to_owned(), 1)),
        }
        Ok(())
    }

    fn inputs(&self) -> u64 {
        self.tally.borrow().values().sum()
    }

    /// Checks that every outcome came up: inputs that all fail the first check prove little.
    fn check_tally(&self) {
        let tally = self.tally.borrow();
        let reasons = [
            RefusalReason::NoReplyQueue,
            RefusalReason::NotPrivate,
            RefusalReason::UnknownLease,
            RefusalReason::HandedToAnother,
            RefusalReason::Used,
            RefusalReason::ForAnotherServer,
            RefusalReason::NoLease,
            RefusalReason::WrongCookie,
            RefusalReason::UnknownUid,
            RefusalReason::Plain,
            RefusalReason::PlainForLeased,
            RefusalReason::Unsupported,
        ];
        let admitted = ["admitted: plain", "admitted: extended"].map(str::to_owned);
        for seen in reasons.iter().map(RefusalReason::to_string).chain(admitted) {
            let count = tally.get(&seen).copied().unwrap_or(0);
            assert!(count >= 100, "{count} inputs came to {seen:?}: {tally:?}");
        }
    }
}
