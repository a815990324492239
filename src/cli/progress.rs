//! What a transfer shows on stderr while it lasts: for half a second nothing, then a line.
//!
//! Who receives only counts ([`Progress::advance`]). A thread of its own looks at the counters ten
//! times a second, and draws. It is not started unless there is something to draw on.
//!
//! The process has one such line, so it is kept in a static: whatever else is said on stderr steps
//! [`aside`] of it, and whoever ends the process takes it [away](take_away) first, also from the
//! thread that handles signals.

mod line;
mod terminal;

use std::ffi::{OsStr, OsString};
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::HumanBytes;

use self::line::Line;

/// When to show how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On a terminal, after half a second, unless the files go to a terminal themselves
    Auto,
    /// From the beginning, and whatever standard error is
    Always,
    /// Not at all
    Never,
}

/// Whatever is done within this time is not worth a line.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// What arrives while the program runs. Dropping it clears the line.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    counters: Arc<Counters>,
    painter: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counters {
    /// Of the present file. Only who receives writes it, so that takes no read-modify-write.
    bytes: AtomicU64,
    tally: Mutex<Tally>,
    /// Wakes the painter when all is over.
    over: Condvar,
}

#[derive(Debug, Default)]
struct Tally {
    present: Option<Present>,
    /// What is complete.
    files: u64,
    bytes: u64,
    is_over: bool,
}

/// The file that arrives.
#[derive(Debug)]
struct Present {
    name: OsString,
    /// None where it is not known, or nothing.
    size: Option<u64>,
    began: Instant,
}

impl Progress {
    /// Begins to count; `into_terminal`: a line would stand in the midst of the files.
    pub(super) fn start(when: When, into_terminal: bool) -> Self {
        let (counters, started) = (Arc::<Counters>::default(), Instant::now());
        let due = match when {
            When::Always => Some(started),
            When::Auto if terminal::is_there() && !into_terminal => Some(started + PATIENCE),
            _ => None,
        };
        let painter = due.and_then(|due| {
            take_away_on_panic();
            let counters = Arc::clone(&counters);
            let painter = thread::Builder::new().name("progress".to_owned());
            // Without it there is no line, which is no reason to fail.
            painter.spawn(move || paint(&counters, due)).ok()
        });
        Self { started, counters, painter }
    }

    /// A file begins, or begins anew; `size` is how much is to come, if that is known.
    pub(super) fn begin(&self, path: impl AsRef<OsStr>, size: Option<u64>) {
        let path = path.as_ref();
        let present = Present {
            name: Path::new(path).file_name().unwrap_or(path).to_owned(),
            size: size.filter(|&size| size > 0),
            began: Instant::now(),
        };
        let mut tally = lock(&self.counters.tally);
        self.counters.bytes.store(0, Ordering::Relaxed);
        tally.present = Some(present);
    }

    /// So many bytes of it came.
    pub(super) fn advance(&self, bytes: usize) {
        let before = self.counters.bytes.load(Ordering::Relaxed);
        self.counters.bytes.store(before + bytes as u64, Ordering::Relaxed);
    }

    /// It is complete.
    pub(super) fn finish(&self) {
        self.count_file();
        self.end();
    }

    /// A file of the tree that arrives is complete.
    pub(super) fn count_file(&self) {
        lock(&self.counters.tally).files += 1;
    }

    /// The tree has ended.
    pub(super) fn end(&self) {
        let mut tally = lock(&self.counters.tally);
        tally.bytes += self.counters.bytes.load(Ordering::Relaxed);
        self.counters.bytes.store(0, Ordering::Relaxed);
        tally.present = None;
    }

    /// What came in all, if anything did: `2 files, 16384 bytes in 0.01 s, 1.56 MiB/s`.
    pub(super) fn summary(&self) -> Option<String> {
        let tally = lock(&self.counters.tally);
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = HumanBytes((tally.bytes as f64 / seconds) as u64);
        let (files, bytes) = (tally.files, tally.bytes);
        let s = if files == 1 { "" } else { "s" };
        (files > 0).then(|| format!("{files} file{s}, {bytes} bytes in {seconds:.2} s, {rate}/s"))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        lock(&self.counters.tally).is_over = true;
        self.counters.over.notify_all();
        if let Some(painter) = self.painter.take() {
            let _ = painter.join();
            lock(&SHOWN).clear();
        }
    }
}

/// Draws until all is over.
fn paint(counters: &Counters, due: Instant) {
    let mut line = Line::new();
    let mut tally = lock(&counters.tally);
    loop {
        let text = line.text(&tally, counters.bytes.load(Ordering::Relaxed));
        let is_over = tally.is_over;
        drop(tally);
        // The last one would be gone at once, but where it is kept.
        if Instant::now() >= due && (!is_over || !terminal::is_there()) {
            lock(&SHOWN).draw(&text);
        }
        if is_over {
            return;
        }
        tally = lock(&counters.tally);
        if !tally.is_over {
            let woken = counters.over.wait_timeout(tally, FRAME);
            tally = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The line on this process's stderr.
static SHOWN: Mutex<Shown> = Mutex::new(Shown::Nothing);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Line,
    /// Nothing, for good: the process ends.
    Over,
}

impl Shown {
    fn draw(&mut self, text: &str) {
        if *self != Self::Over && terminal::draw(text) {
            *self = Self::Line;
        }
    }

    fn clear(&mut self) {
        if *self == Self::Line {
            terminal::clear();
            *self = Self::Nothing;
        }
    }
}

/// Says something on stderr in place of the line, which comes back below it.
pub(super) fn aside(say: impl FnOnce()) {
    let mut shown = lock(&SHOWN);
    shown.clear();
    say();
}

/// Clears the line for good, so that the process may end. Whoever is just writing to a terminal that
/// takes nothing is not waited for.
pub(super) fn take_away() {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut shown = match SHOWN.try_lock() {
            Ok(shown) => shown,
            Err(TryLockError::Poisoned(shown)) => shown.into_inner(),
            Err(TryLockError::WouldBlock) => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        shown.clear();
        *shown = Shown::Over;
        return;
    }
}

/// What a panic says begins on a line of its own.
fn take_away_on_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        take_away();
        say(info);
    }));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
