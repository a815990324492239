//! A progress bar on stderr, for a transfer that takes more than half a second.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use console::{Alignment, Term, is_dumb, measure_text_width, pad_str, truncate_str};
use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState,
    ProgressStyle,
};
use nix::unistd::{getpgrp, tcgetpgrp};

use super::run_for_at_most;
use crate::escape::escape;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On a terminal, after half a second, unless the files go to a terminal themselves
    Auto,
    /// At once, and also where standard error is no terminal
    Always,
    /// Not at all
    Never,
}

/// Most transfers end sooner, and a bar would only flicker.
const DELAY: Duration = Duration::from_millis(500);

/// The bar of this process. It is global because every message on stderr must step aside for it.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

static IS_WAITING: AtomicBool = AtomicBool::new(false);
static NAME: Mutex<String> = Mutex::new(String::new());
static COMPLETE_FILES: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Shows the bar, when it is due. `into_terminal`: the files go to a terminal, where a bar would
/// mix with their content.
pub(super) fn start(when: When, into_terminal: bool) {
    let is_free = || !into_terminal && io::stderr().is_terminal() && !is_dumb();
    if when == When::Never || when == When::Auto && !is_free() {
        return;
    }
    let bar = BAR.get_or_init(|| {
        let hidden = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        hidden.with_style(style())
    });
    let show = move || {
        let now = when == When::Always;
        thread::sleep(if now { Duration::ZERO } else { DELAY });
        // On the terminal of another job, a bar would mix with what that one shows.
        let is_others = || tcgetpgrp(io::stderr()).is_ok_and(|foreground| foreground != getpgrp());
        if !bar.is_finished() && (now || !is_others()) {
            // Not by ProgressDrawTarget::stderr, which draws only on a terminal.
            let stderr = Box::new(Term::buffered_stderr());
            bar.set_draw_target(ProgressDrawTarget::term_like_with_hz(stderr, 20));
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    };
    // Without the thread there is no bar, which is no reason to fail.
    let _ = thread::Builder::new().name("progress".to_owned()).spawn(show);
}

/// A file or a tree begins, or begins again. `size`: how many bytes are to come, if known.
pub(super) fn begin(path: &OsStr, size: Option<u64>) {
    let Some(bar) = BAR.get() else { return };
    let name = escape(Path::new(path).file_name().unwrap_or(path)).to_string();
    *NAME.lock().unwrap_or_else(PoisonError::into_inner) = name;
    match size.filter(|&size| size > 0) {
        Some(size) => {
            bar.reset();
            bar.set_length(size);
        }
        None => {
            bar.set_position(BYTES.load(Ordering::Relaxed));
            bar.unset_length();
        }
    }
}

/// One line, even if the terminal takes a character for wider than we do: it does not wrap what is
/// too long, and the spaces at the end leave indicatif nothing to add.
fn style() -> ProgressStyle {
    // Source: console_codes(4). Below is the rest of a line that a narrower window broke.
    const ERASE_BELOW: &str = "\x1b[J";
    const NO_WRAP: &str = "\x1b[?7l";
    const WRAP: &str = "\x1b[?7h";
    // At the end of the line, an echoed ^C would begin a new line and leave the bar behind.
    const CURSOR_TO_START: &str = "\x1b[G";
    let style = ProgressStyle::with_template("{line}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key(
        "line",
        |state: &ProgressState, text: &mut dyn Write| {
            let columns = Term::stderr().size().1.into();
            let line = line(state, columns);
            let line = truncate_str(&line, columns, "…");
            let line = pad_str(&line, columns, Alignment::Left, None);
            let _ = write!(text, "{ERASE_BELOW}{NO_WRAP}{line}{WRAP}{CURSOR_TO_START}");
        },
    )
}

pub(super) fn advance(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    set_waiting(false);
    if let Some(bar) = BAR.get() {
        bar.inc(bytes as u64);
    }
}

pub(super) fn count_file() {
    COMPLETE_FILES.fetch_add(1, Ordering::Relaxed);
}

/// All that arrived, if anything did: `2 files, 16384 bytes in 0.01 s, 1.56 MiB/s`.
pub(super) fn summary(started: Instant) -> Option<String> {
    let (files, bytes) = (COMPLETE_FILES.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    let seconds = started.elapsed().as_secs_f64();
    let rate = HumanBytes((bytes as f64 / seconds) as u64);
    let s = if files == 1 { "" } else { "s" };
    (files > 0).then(|| format!("{files} file{s}, {bytes} bytes in {seconds:.2} s, {rate}/s"))
}

pub(super) fn set_waiting(is_waiting: bool) {
    IS_WAITING.store(is_waiting, Ordering::Relaxed);
}

/// A bar for a file of known size, counts for a tree or where a bar does not fit.
fn line(state: &ProgressState, columns: usize) -> String {
    const LONGEST_NAME: usize = 20;
    const SHORTEST_BAR: usize = 5;
    let waiting = if IS_WAITING.load(Ordering::Relaxed) { "waiting for the server, " } else { "" };
    let name = NAME.lock().unwrap_or_else(PoisonError::into_inner);
    let files = match COMPLETE_FILES.load(Ordering::Relaxed) {
        0 => waiting.to_owned(),
        1 => format!("{waiting}1 file done, "),
        files => format!("{waiting}{} files done, ", HumanCount(files)),
    };
    let (bytes, rate) = (HumanBytes(state.pos()), HumanBytes(state.per_sec() as u64));
    let Some(size) = state.len().map(HumanBytes) else {
        return format!("{files}{bytes}, {rate}/s: {name}");
    };
    let (done, time) = (f64::from(state.fraction()), HumanDuration(state.eta()));
    let short_name = truncate_str(&name, LONGEST_NAME, "…");
    let start = format!("{files}{short_name} {:>3.0}% [", done * 100.0);
    let end = format!("] {bytes} of {size}, {rate}/s, {time:#} left");
    let width = columns.saturating_sub(measure_text_width(&start) + measure_text_width(&end));
    if width < SHORTEST_BAR {
        return format!("{files}{:.0}% of {size}, {time:#} left, {rate}/s: {name}", done * 100.0);
    }
    let bar = "=".repeat((done * (width - 1) as f64) as usize) + ">";
    format!("{start}{bar:<width$}{end}")
}

pub(super) fn aside(say: impl FnOnce()) {
    match BAR.get() {
        Some(bar) => bar.suspend(say),
        None => say(),
    }
}

/// Clears the bar for good, before the process ends. Gives up after a moment: drawing on a stopped
/// terminal (Ctrl-S) blocks, and must not delay the end.
pub(super) fn clear() {
    if let Some(bar) = BAR.get() {
        run_for_at_most(DELAY, || bar.finish_and_clear());
    }
}
