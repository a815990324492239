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

#[cfg(test)]
mod tests {
    use super::escape_json;

    #[test]
    fn json_commands_no_terminal_and_says_the_same() {
        let hostile = "a\u{9b}2J\u{7f}\u{202e}\u{2028}\u{1b}\n\"é日ी";
        let json = serde_json::to_string(hostile).unwrap();
        let clean = escape_json(&json);
        let expected = "\"a\\u009b2J\\u007f\\u202e\\u2028\\u001b\\n\\\"é日ी\"";
        assert_eq!(clean, expected);
        assert_eq!(serde_json::from_str::<String>(&clean).unwrap(), hostile);
    }
}
