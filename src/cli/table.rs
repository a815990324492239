//! Tables, and users, times and ages in words.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use console::{Alignment, measure_text_width, pad_str, truncate_str};
use nix::unistd::{Group, User};
use sysv_ipc::{Gid, Uid};

use crate::escape::escape;

/// Lines of cells as a table, each column as wide as its widest cell, with `gap` between columns.
///
/// If they do not fit into `width`, the columns in `shorten` give way, the first one first: each
/// down to the width that stands beside it, and one with 0 is left out.
pub(super) fn columns<const N: usize>(
    lines: &[[String; N]],
    gap: &str,
    is_numeric: impl Fn(usize) -> bool,
    width: usize,
    shorten: &[(usize, usize)],
) -> String {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = measure_text_width(cell).max(*width);
        }
    }
    for &(column, least) in shorten {
        let shown = widths.iter().filter(|width| **width > 0);
        let all: usize = shown.map(|width| width + gap.len()).sum();
        let excess = all.saturating_sub(gap.len()).saturating_sub(width);
        let spare = widths[column].saturating_sub(least);
        widths[column] -= if least == 0 && excess > 0 { spare } else { excess.min(spare) };
    }
    let mut text = String::new();
    for line in lines {
        let mut shown = String::new();
        let cells = line.iter().zip(widths).enumerate().filter(|(_, (_, width))| *width > 0);
        for (column, (cell, width)) in cells {
            shown += if column > 0 { gap } else { "" };
            let cell = truncate_str(cell, width, "…");
            match is_numeric(column) {
                true => shown += &pad_str(&cell, width, Alignment::Right, None),
                false if column == N - 1 => shown += &cell,
                false => shown += &pad_str(&cell, width, Alignment::Left, None),
            }
        }
        if line.last().is_some_and(String::is_empty) {
            shown.truncate(shown.trim_end_matches(' ').len());
        }
        text += &truncate_str(&shown, width, "…");
        text.push('\n');
    }
    text
}

/// Each name is looked up once.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<Uid, String>,
    groups: HashMap<Gid, String>,
}

impl Names {
    pub(super) fn of(&mut self, uid: Uid) -> &str {
        self.users.entry(uid).or_insert_with(|| match User::from_uid(uid.as_raw().into()) {
            Ok(Some(user)) => escape(&user.name).to_string(),
            _ => uid.to_string(),
        })
    }

    pub(super) fn of_group(&mut self, gid: Gid) -> &str {
        self.groups.entry(gid).or_insert_with(|| match Group::from_gid(gid.as_raw().into()) {
            Ok(Some(group)) => escape(&group.name).to_string(),
            _ => gid.to_string(),
        })
    }
}

pub(super) fn utc(time: SystemTime) -> String {
    let mut text = String::new();
    // The form ends with the year 9999.
    match write!(text, "{}", humantime::format_rfc3339_seconds(time)) {
        Ok(()) => text,
        Err(_) => "unknown".to_owned(),
    }
}

/// 0 if the clock was set back.
pub(super) fn seconds_since(time: SystemTime) -> u64 {
    SystemTime::now().duration_since(time).unwrap_or_default().as_secs()
}

/// The age in the largest unit of which there are at least two: `90s`, `15m`, `47h`.
pub(super) fn age_text(time: SystemTime) -> String {
    match seconds_since(time) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
