//! A progress bar on stderr, for a transfer that takes more than half a second.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{panic, thread};

use clap::ValueEnum;
use console::{Term, truncate_str};
use indicatif::{
    HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::escape::escape;

/// When to show a progress bar.
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

/// How often the bar is drawn while nothing arrives.
const TICK: Duration = Duration::from_millis(100);

static IS_WAITING: AtomicBool = AtomicBool::new(false);

/// The bar of this process. It is global because every message on stderr must step aside for it.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Counts what arrives, and shows it. Dropping it clears the bar.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    /// None: nothing is ever shown.
    bar: Option<ProgressBar>,
    /// Complete files.
    files: Arc<AtomicU64>,
    /// Bytes that arrived.
    bytes: Cell<u64>,
}

impl Progress {
    /// Begins to count. `into_terminal`: the files go to a terminal, where a bar would mix with
    /// their content.
    pub(super) fn start(when: When, into_terminal: bool) -> Self {
        let mut this = Self {
            started: Instant::now(),
            bar: None,
            files: Arc::default(),
            bytes: Cell::default(),
        };
        let stderr = match when {
            When::Never => return this,
            When::Auto if into_terminal || !io::stderr().is_terminal() => return this,
            _ => ProgressDrawTarget::stderr(),
        };
        let (target, delay) = match when {
            When::Always if stderr.is_hidden() => (anywhere(), None),
            When::Always => (stderr, None),
            _ if stderr.is_hidden() => return this,
            _ => (stderr, Some(DELAY)),
        };
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(this.style(false));
        let _ = BAR.set(bar.clone());
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            clear(); // or the bar and the message would overlap
            report(panic);
        }));
        this.bar = Some(bar.clone());
        match delay {
            None => show(&bar, target),
            Some(delay) => {
                let later = move || {
                    thread::sleep(delay);
                    if !bar.is_finished() && is_in_foreground() {
                        show(&bar, target);
                    }
                };
                // Without the thread there is no bar, which is no reason to fail.
                let _ = thread::Builder::new().name("progress".to_owned()).spawn(later);
            }
        }
        this
    }

    /// A file or a tree begins, or begins again. `size`: how many bytes are to come, if known.
    pub(super) fn begin(&self, path: impl AsRef<OsStr>, size: Option<u64>) {
        const LONGEST: usize = 20;
        let Some(bar) = &self.bar else { return };
        let path = path.as_ref();
        let name = escape(Path::new(path).file_name().unwrap_or(path)).to_string();
        match size.filter(|&size| size > 0) {
            Some(size) => {
                bar.reset();
                bar.set_length(size);
                bar.set_style(self.style(true));
            }
            None => {
                bar.set_position(self.bytes.get());
                bar.set_style(self.style(false));
            }
        }
        bar.set_prefix(truncate_str(&name, LONGEST, "...").into_owned());
        bar.set_message(name);
    }

    /// A bar for a file of known size, a line of counts for a tree.
    fn style(&self, is_size_known: bool) -> ProgressStyle {
        const COLUMNS_FOR_A_BAR: u16 = 80;
        let template = if !is_size_known {
            "{files}{bytes}, {bytes_per_sec}: {wide_msg}"
        } else if Term::stderr().size().1 >= COLUMNS_FOR_A_BAR {
            "{files}{prefix} {percent:>3}% [{wide_bar:.cyan}] \
             {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
        } else {
            "{bytes} of {total_bytes}, {eta} left: {wide_msg}"
        };
        // The cursor returns to the start of the line: console_codes(4). At the end of the line, an
        // echoed ^C would begin a new line and leave the bar behind.
        const CURSOR_TO_START: &str = "\x1b[G";
        let style = ProgressStyle::with_template(&format!("{template}{CURSOR_TO_START}"));
        let files = Arc::clone(&self.files);
        style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ").with_key(
            "files",
            move |_: &ProgressState, text: &mut dyn Write| {
                if IS_WAITING.load(Ordering::Relaxed) {
                    let _ = text.write_str("waiting for the server, ");
                }
                let _ = match files.load(Ordering::Relaxed) {
                    0 => Ok(()),
                    1 => write!(text, "1 file done, "),
                    files => write!(text, "{} files done, ", HumanCount(files)),
                };
            },
        )
    }

    /// Counts bytes that arrived.
    pub(super) fn advance(&self, bytes: usize) {
        self.bytes.update(|all| all + bytes as u64);
        wait(false);
        if let Some(bar) = &self.bar {
            bar.inc(bytes as u64);
        }
    }

    /// A file is complete.
    pub(super) fn count_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// All that arrived, if anything did: `2 files, 16384 bytes in 0.01 s, 1.56 MiB/s`.
    pub(super) fn summary(&self) -> Option<String> {
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.get());
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = HumanBytes((bytes as f64 / seconds) as u64);
        let s = if files == 1 { "" } else { "s" };
        (files > 0).then(|| format!("{files} file{s}, {bytes} bytes in {seconds:.2} s, {rate}/s"))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows whether the client waits for its server.
pub(super) fn wait(is_waiting: bool) {
    IS_WAITING.store(is_waiting, Ordering::Relaxed);
}

fn show(bar: &ProgressBar, target: ProgressDrawTarget) {
    bar.set_draw_target(target);
    bar.set_style(bar.style()); // which now asks whether stderr, not stdout, has colours
    bar.enable_steady_tick(TICK);
}

/// Draws on stderr, although it is no terminal.
fn anywhere() -> ProgressDrawTarget {
    const PER_SECOND: u8 = 20;
    ProgressDrawTarget::term_like_with_hz(Box::new(Term::buffered_stderr()), PER_SECOND)
}

/// Whether stderr is free for a bar: not the terminal of another job.
fn is_in_foreground() -> bool {
    !tcgetpgrp(io::stderr()).is_ok_and(|foreground| foreground != getpgrp())
}

/// Prints a message on stderr, above the bar.
pub(super) fn aside(say: impl FnOnce()) {
    match BAR.get() {
        Some(bar) => bar.suspend(say),
        None => say(),
    }
}

/// Clears the bar for good, before the process ends. Gives up after a moment: drawing on a stopped
/// terminal (Ctrl-S) blocks, and must not delay the end.
pub(super) fn clear() {
    let Some(bar) = BAR.get() else { return };
    let (done, cleared) = mpsc::channel();
    let spawned = thread::Builder::new().spawn(move || {
        bar.finish_and_clear();
        let _ = done.send(());
    });
    if spawned.is_ok() {
        let _ = cleared.recv_timeout(DELAY);
    }
}
