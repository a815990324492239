//! Medians with minimum and maximum.

use std::fmt;

/// The median of some numbers, the least and the greatest of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// # Panics
    /// If there are none.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let half = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            0 => f64::midpoint(numbers[half - 1], numbers[half]),
            _ => numbers[half],
        };
        Self { median, least: numbers[0], most: numbers[numbers.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.least, self.most)
    }
}

/// The median of some numbers.
///
/// # Panics
/// If there are none.
pub(crate) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    Spread::of(numbers).median
}
