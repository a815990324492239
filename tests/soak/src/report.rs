//! What a soak test found: figures for people, and reasons why it failed.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// A table of figures, and the reasons why the test failed.
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

    /// A line whose number must be 0.
    pub fn none(&mut self, name: &str, count: usize) {
        self.row(name, count);
        self.check(count == 0, || format!("{name}: {count}, not 0"));
    }

    pub fn check(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.wrong(wrong());
        }
    }

    /// Adds a reason why the test failed.
    pub fn wrong(&mut self, reason: impl Into<String>) {
        self.wrong.push(reason.into());
    }

    /// Prints everything. Exit status 0 only if everything held.
    pub fn finish(self) -> ExitCode {
        /// Longer names do not widen the column.
        const WIDTH: usize = 48;
        let mut text = String::new();
        for (name, value) in &self.rows {
            text += &format!("{name:<WIDTH$}  {value}\n");
        }
        for wrong in &self.wrong {
            text += &format!("WRONG: {wrong}\n");
        }
        let held = self.wrong.is_empty();
        if held {
            text += "everything held\n";
        }
        // If standard output is closed, the exit status still tells.
        let _ = io::stdout().write_all(text.as_bytes());
        if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
