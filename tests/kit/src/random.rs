//! Random numbers and bytes that can be repeated.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Numbers that follow from a seed: splitmix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }
}

/// Bytes that do not repeat, and that the same seed makes again.
pub fn seeded_noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed ^ (length as u64) << 20);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that do not repeat, and that the same length makes again.
pub fn noise(length: usize) -> Vec<u8> {
    seeded_noise(0, length)
}

pub fn write_noise(path: &Path, size: u64) -> io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut file = File::create(path)?;
    for number in 0..size.div_ceil(PIECE) {
        let length = PIECE.min(size - number * PIECE) as usize;
        file.write_all(&seeded_noise(number, length))?;
    }
    Ok(())
}
