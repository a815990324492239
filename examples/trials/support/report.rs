//! What a trial found: figures for people, and reasons why it failed.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// A table of figures, and what did not hold.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(String, String)>,
    wrong: Vec<String>,
}

impl Report {
    /// A line of the table.
    pub fn row(&mut self, name: impl Into<String>, value: impl Display) {
        self.rows.push((name.into(), value.to_string()));
    }

    /// A line that must say 0.
    pub fn none(&mut self, name: &str, count: usize) {
        self.row(name, count);
        self.check(count == 0, || format!("{name}: {count}, not 0"));
    }

    pub fn check(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.wrong(wrong());
        }
    }

    /// Why the trial failed.
    pub fn wrong(&mut self, reason: impl Into<String>) {
        self.wrong.push(reason.into());
    }

    /// Prints everything; 0 only if everything held.
    pub fn finish(self) -> ExitCode {
        /// So many reasons are enough to look for the rest in a shorter run.
        const MOST: usize = 40;
        /// What is longer stands out of its column.
        const WIDEST: usize = 52;
        let widths = self.rows.iter().map(|(name, _)| name.len()).filter(|&width| width <= WIDEST);
        let width = widths.max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &self.rows {
            text += &format!("{name:<width$}  {value}\n");
        }
        for wrong in self.wrong.iter().take(MOST) {
            text += &format!("WRONG: {wrong}\n");
        }
        if self.wrong.len() > MOST {
            text += &format!("WRONG: and {} more\n", self.wrong.len() - MOST);
        }
        let held = self.wrong.is_empty();
        if held {
            text += "everything held\n";
        }
        // Nobody may be there to read it; the exit status tells all the same.
        let _ = io::stdout().write_all(text.as_bytes());
        if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
