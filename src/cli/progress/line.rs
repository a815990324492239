//! What the line says.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike,
};

use super::{PATIENCE, Tally, lock, terminal};
use crate::escape::escape;

/// A file with its bar, or all files so far:
///
/// ```text
/// debian.iso  45% [=====>      ] 284.20 MiB of 631.00 MiB, 170.34 MiB/s, 2s left
/// notes.txt: 1,234 files done, 12.30 MiB, 101.20 MiB/s
/// ```
#[derive(Debug)]
pub(super) struct Line {
    bar: ProgressBar,
    paper: Paper,
    colours: bool,
    rate: Rate,
}

impl Line {
    pub(super) fn new() -> Self {
        Self::on(Paper::default(), terminal::has_colours())
    }

    fn on(paper: Paper, colours: bool) -> Self {
        // No limit to how often: it is drawn on paper.
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), u8::MAX);
        let bar = ProgressBar::with_draw_target(None, target);
        Self { bar, paper, colours, rate: Rate::default() }
    }

    /// What it says of what was counted. A file that takes its time has the line to itself.
    pub(super) fn text(&mut self, tally: &Tally, bytes: u64) -> String {
        self.rate.record(tally.bytes + bytes);
        let rate = format!("{}/s", HumanBytes(self.rate.per_second()));
        let files = match tally.files {
            0 => String::new(),
            1 => "1 file done, ".to_owned(),
            files => format!("{} files done, ", HumanCount(files)),
        };
        let Some(present) = &tally.present else {
            return self.draw("{wide_msg}", format!("{files}{}, {rate}", HumanBytes(tally.bytes)));
        };
        let takes_its_time = tally.files == 0 || present.began.elapsed() >= PATIENCE;
        match present.size {
            Some(size) if takes_its_time => {
                let left = match self.rate.left(size.saturating_sub(bytes)) {
                    Some(left) => format!("{:#} left", HumanDuration(left)),
                    None => "stalled".to_owned(),
                };
                self.bar.set_length(size);
                self.bar.set_position(bytes);
                self.bar.set_prefix(format!("{files}{}", name(&present.name)));
                let amount = format!("{} of {}", HumanBytes(bytes), HumanBytes(size));
                let bar = if self.colours { "\x1b[36m[{wide_bar}]\x1b[0m" } else { "[{wide_bar}]" };
                let template = format!("{{prefix}} {{percent:>3}}% {bar} {{msg}}");
                self.draw(&template, format!("{amount}, {rate}, {left}"))
            }
            _ => {
                let (name, bytes) = (name(&present.name), HumanBytes(tally.bytes + bytes));
                self.draw("{wide_msg}", format!("{name}: {files}{bytes}, {rate}"))
            }
        }
    }

    fn draw(&self, template: &str, message: String) -> String {
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.set_message(message);
        lock(&self.paper.0).clear();
        self.bar.tick();
        lock(&self.paper.0).trim_end().to_owned()
    }
}

/// A file's name in few columns. Source: `printable`, which lets no control character through.
fn name(name: &std::ffi::OsStr) -> String {
    const LONGEST: usize = 20;
    let name = escape(name).to_string();
    match name.char_indices().nth(LONGEST) {
        None => name,
        Some(_) => name.chars().take(LONGEST - 3).chain("...".chars()).collect(),
    }
}

/// Bytes in the last seconds.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    const WINDOW: Duration = Duration::from_secs(3);

    fn record(&mut self, bytes: u64) {
        let now = Instant::now();
        // One that begins anew has fewer.
        if self.0.back().is_some_and(|&(_, before)| before > bytes) {
            self.0.clear();
        }
        self.0.push_back((now, bytes));
        while self.0.len() > 2 && now - self.0[0].0 > Self::WINDOW {
            self.0.pop_front();
        }
    }

    fn per_second(&self) -> u64 {
        match (self.0.front(), self.0.back()) {
            (Some(first), Some(last)) if last.0 > first.0 => {
                ((last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()) as u64
            }
            _ => 0,
        }
    }

    /// How long so many bytes will take; None: nothing moves.
    fn left(&self, bytes: u64) -> Option<Duration> {
        match self.per_second() {
            0 => None,
            rate => Some(Duration::from_secs((bytes as f64 / rate as f64).ceil() as u64)),
        }
    }
}

/// What indicatif writes the line on.
#[derive(Debug, Clone, Default)]
struct Paper(Arc<Mutex<String>>);

impl TermLike for Paper {
    fn width(&self) -> u16 {
        terminal::width()
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        lock(&self.0).push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
