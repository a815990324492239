//! Admission against real queues: bytes → request → admitted or refused.
//!
//! The expected outcome follows from how each queue was made, not from what admission looks at.
//! tests/it/fuzz.rs says how to run this for longer.

mod case;
mod queue_samples;

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::thread;

use mqfs_kit::fuzz::{Tally, Target};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use sysv_ipc::{Gid, Mode};

use super::policy::{Admitted, Policy};
use super::refusal::Refusal;
use super::reply_to::Dialect;
use crate::counters::RefusalReason;
use crate::server::config::{Config, PlainPolicy};
use crate::sys::geteuid;
use crate::wire::{Operation, Request};
use case::{Case, Server};
use queue_samples::{ASKED, QueueSamples, Welcome};

type Checked = Result<(), TestCaseError>;

#[test]
fn whatever_is_asked_only_who_may_be_answered_is_admitted() {
    let outcome = thread::spawn(|| {
        // Without the right to an IPC namespace of its own, this thread looks at queues of other
        // programs, but neither sends to them nor removes them.
        if geteuid().is_root() {
            let _ = unshare(CloneFlags::CLONE_NEWIPC);
        }
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
        let mut outcomes = vec!["admitted: plain", "admitted: extended"];
        outcomes.extend(reasons.map(RefusalReason::name));
        let target = Target { name: "whatever_is_asked", inputs: 150_000, outcomes: &outcomes };
        let samples = RefCell::new(QueueSamples::new());
        target.run(&case::cases(), |case, tally| check(&samples, case, tally));
    });
    if let Err(panic) = outcome.join() {
        resume_unwind(panic);
    }
}

impl Server {
    fn policy(self) -> Policy {
        let config = Config { plain: self.plain, mode: self.mode, ..Config::default() };
        let unknown_uid = self.we_are_unknown.then(geteuid);
        Policy { unknown_uid, ..Policy::new(&config) }
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

/// "Admission" in docs/protocol.md.
fn fate(samples: &QueueSamples, server: Server, request: &Request<'_>) -> Fate {
    let Some(queue) = samples.find(request.reply_queue) else { return Fate::Dropped };
    let admitted = if server.we_are_unknown { Fate::Told } else { Fate::Admitted };
    match (queue.welcome.get(), request.extension) {
        (Welcome::Plain, None) if server.takes_plain() => admitted,
        (Welcome::Extended, Some(extension))
            if extension.cookie.as_bytes() == queue.cookie.as_bytes() =>
        {
            match request.question.operation {
                Operation::Unknown { .. } => Fate::Told,
                _ if extension.unknown_version.is_some() => Fate::Told,
                _ => admitted,
            }
        }
        _ => Fate::Dropped,
    }
}

fn check(samples: &RefCell<QueueSamples>, case: &Case, tally: &Tally) -> Checked {
    // A queue also changes when a case fails; smaller cases then need new queues.
    if samples.borrow().is_spent() || samples.borrow().check_untouched().is_err() {
        drop(samples.take());
        samples.replace(QueueSamples::new());
    }
    let (samples, policy) = (samples.borrow(), case.server.policy());
    for queue in &samples.queues {
        for text in case.texts(&samples, queue) {
            let outcome = ask(&samples, case.server, &policy, &text).map_err(|error| {
                let text = text.escape_ascii();
                TestCaseError::fail(format!("{error}\nqueue: {queue:?}\nrequest: b\"{text}\""))
            })?;
            tally.count(outcome);
        }
    }
    Ok(())
}

/// Asks once, and returns the outcome's name.
fn ask(
    samples: &QueueSamples,
    server: Server,
    policy: &Policy,
    text: &[u8],
) -> Result<&'static str, TestCaseError> {
    let Ok(request) = Request::decode(text) else { return Ok("malformed") };
    let outcome = policy.admit(&request, ASKED);
    samples.check_untouched()?;
    let expected = fate(samples, server, &request);
    match outcome {
        Ok(admitted) if samples.find(request.reply_queue).is_none() => {
            // Another program's queue, outside a namespace of our own.
            prop_assert!(request.extension.is_none() && server.takes_plain(), "{:?}", admitted);
            Ok("admitted: not ours")
        }
        Ok(admitted) => {
            prop_assert_eq!(expected, Fate::Admitted);
            check_admitted(&request, &admitted)
        }
        Err(refusal) => {
            prop_assert_ne!(expected, Fate::Admitted, "refused: {}", refusal.reason);
            check_refused(samples, &request, &refusal, expected)?;
            Ok(refusal.reason.name())
        }
    }
}

fn check_admitted(
    request: &Request<'_>,
    admitted: &Admitted<'_>,
) -> Result<&'static str, TestCaseError> {
    let status = admitted.reply.queue.status().unwrap();
    prop_assert_eq!(admitted.reply.queue.id(), request.reply_queue);
    prop_assert_eq!(admitted.reply.max_bytes as u64, status.max_bytes);
    prop_assert!(status.permissions.key.is_private());
    // We made every queue, even those that we handed over.
    prop_assert_eq!(
        (admitted.caller.uid, admitted.caller.gid),
        (geteuid(), Gid::from_raw(nix::unistd::getegid().as_raw()))
    );
    prop_assert_eq!(admitted.question, request.question);
    prop_assert_eq!(admitted.session, request.extension.is_some_and(|it| it.session));
    match (request.extension, admitted.reply.dialect) {
        (None, Dialect::Plain) => {
            prop_assert_ne!(status.permissions.mode, Mode::new(0o711));
            Ok("admitted: plain")
        }
        (Some(extension), Dialect::Extended(Some(cookie))) => {
            prop_assert_eq!(status.permissions.mode, Mode::new(0o711));
            prop_assert_eq!(cookie.as_bytes(), extension.cookie.as_bytes());
            Ok("admitted: extended")
        }
        (asked, answer) => Err(TestCaseError::fail(format!("{answer:?} to {asked:?}"))),
    }
}

/// Only a caller that knew the cookie is told, and only if its queue has room.
fn check_refused(
    samples: &QueueSamples,
    request: &Request<'_>,
    refusal: &Refusal,
    expected: Fate,
) -> Checked {
    refusal.tell_caller();
    if let (Fate::Told, Some(queue)) = (expected, samples.find(request.reply_queue))
        && !queue.is_full()
    {
        let errno = match refusal.reason {
            _ if request.extension.is_none() => None,
            RefusalReason::UnknownUid => Some(Errno::EACCES),
            _ => Some(Errno::EPROTONOSUPPORT),
        };
        queue.take_failure(errno)?;
    }
    samples.check_untouched()
}
