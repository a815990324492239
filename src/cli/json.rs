//! JSON that is safe to show on a terminal.

use std::fmt::Write as _;

use crate::escape::is_harmless;

/// Equivalent JSON with every harmful character escaped (`\u009b`). JSON requires escapes only for
/// ASCII control characters, but terminals obey others, too.
pub(super) fn escape_json(json: &str) -> String {
    let mut clean = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        match char <= '~' || is_harmless(char) {
            true => clean.push(char),
            false => _ = write!(clean, "\\u{:04x}", u32::from(char)), // none is above U+FFFF
        }
    }
    clean
}
