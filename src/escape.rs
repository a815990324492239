//! Text from elsewhere, made fit for a terminal and a log.

#[cfg(feature = "cli")]
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path for a log line: whatever is no UTF-8 replaced, and cut off where it gets very long, so that
/// a line fits into a pipe (`PIPE_BUF`, 4096). Escaping is for the log's format to do.
pub(crate) fn loggable(path: &Path) -> String {
    const LONGEST: usize = 3000;
    let mut escaped = 0;
    let mut loggable = String::new();
    for char in String::from_utf8_lossy(path.as_os_str().as_bytes()).chars() {
        // JSON writes four digits where Rust may write one.
        escaped +=
            if char.is_control() { 6 } else { char.escape_debug().map(char::len_utf8).sum() };
        if escaped > LONGEST {
            loggable.push('…');
            break;
        }
        loggable.push(char);
    }
    loggable
}

/// A path, or any text, cleaned of control characters and of bytes that are no UTF-8, so that it
/// stays on its line and commands no terminal.
///
/// ```
/// use mqfs::escape::escape;
///
/// assert_eq!(escape("naïve file").to_string(), "naïve file");
/// assert_eq!(escape("a\nb\u{1b}[31m").to_string(), r"a\nb\u{1b}[31m");
/// ```
pub fn escape<T: AsRef<OsStr> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped(text.as_ref().as_bytes())
}

/// What [`escape`] makes.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '"' | '\'' | '\\' => f.write_char(char)?,
                    // Escapes what is not escape, direction marks included.
                    _ => write!(f, "{}", char.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// JSON that says the same, with what is no escape character escaped: `\u009b`. JSON itself escapes
/// ASCII's control characters and no others, and terminals heed more.
#[cfg(feature = "cli")]
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    let is_printable = |char: char| char <= '~' || char.escape_debug().len() == 1;
    if json.chars().all(is_printable) {
        return Cow::Borrowed(json);
    }
    let mut clean = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        match is_printable(char) {
            true => clean.push(char),
            // Outside the basic plane, JSON writes a pair.
            false => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    clean.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "cli")]
    #[test]
    fn json_commands_no_terminal_and_says_the_same() {
        let hostile = "a\u{9b}2J\u{7f}\u{202e}\u{2028}\u{e0001}\u{1b}\n\"é日";
        let json = serde_json::to_string(hostile).unwrap();
        let clean = escape_json(&json);
        let expected = "\"a\\u009b2J\\u007f\\u202e\\u2028\\udb40\\udc01\\u001b\\n\\\"é日\"";
        assert_eq!(clean, expected);
        assert_eq!(serde_json::from_str::<String>(&clean).unwrap(), hostile);
    }

    #[test]
    fn a_logged_path_is_short_also_when_it_is_escaped() {
        for char in ["a", "\u{1}", "\u{7f}", "\u{202e}", "\u{10ffff}", "\"", "\\", "é"] {
            let long = char.repeat(4095);
            let cut = loggable(Path::new(&long));
            let json = serde_json::to_string(&cut).unwrap();
            assert!(format!("{cut:?}").len() < 3100, "{char:?} in text");
            assert!(json.len() < 3100, "{char:?} in JSON: {}", json.len());
            assert!(cut.ends_with('…'));
        }
        assert_eq!(loggable(Path::new("/etc/hostname")), "/etc/hostname");
    }
}
