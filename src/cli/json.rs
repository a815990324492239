//! JSON that is safe to show on a terminal.

use std::borrow::Cow;

/// Equivalent JSON with every unprintable character escaped (`\u009b`). JSON requires escapes only
/// for ASCII control characters, but terminals obey others, too.
pub(super) fn escape_json(json: &str) -> Cow<'_, str> {
    let is_printable = |char: char| char <= '~' || char.escape_debug().len() == 1;
    if json.chars().all(is_printable) {
        return Cow::Borrowed(json);
    }
    let mut clean = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if is_printable(char) {
            clean.push(char);
        } else {
            // JSON escapes UTF-16: a surrogate pair outside the basic plane.
            for unit in char.encode_utf16(&mut [0; 2]) {
                clean.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::escape_json;

    #[test]
    fn json_commands_no_terminal_and_says_the_same() {
        let hostile = "a\u{9b}2J\u{7f}\u{202e}\u{2028}\u{e0001}\u{1b}\n\"é日";
        let json = serde_json::to_string(hostile).unwrap();
        let clean = escape_json(&json);
        let expected = "\"a\\u009b2J\\u007f\\u202e\\u2028\\udb40\\udc01\\u001b\\n\\\"é日\"";
        assert_eq!(clean, expected);
        assert_eq!(serde_json::from_str::<String>(&clean).unwrap(), hostile);
    }
}
