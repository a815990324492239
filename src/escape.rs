//! Text from elsewhere, made safe to show on a terminal and in a log.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Shows a path or other text as `ls` does in a UTF-8 locale, but for invalid UTF-8 and characters
/// that are not [harmless](is_harmless): those are escaped. The text stays on one line and cannot
/// command a terminal. Text that is longer than any path has its middle left out.
///
/// ```
/// use mqfs::escape::escape;
///
/// assert_eq!(escape("naïve हिन्दी 👩‍🚒").to_string(), "naïve हिन्दी 👩‍🚒");
/// assert_eq!(escape("a\nb\u{1b}[31m").to_string(), r"a\nb\u{1b}[31m");
/// ```
pub fn escape<T: AsRef<OsStr> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped(text.as_ref().as_bytes())
}

/// Whether a character can be shown as it is. Control characters command a terminal, line and
/// paragraph separators begin a line of a log, and direction marks reorder what stands beside the
/// text. Characters that only take no space are harmless: scripts and emoji need them.
pub fn is_harmless(char: char) -> bool {
    let is_separator = matches!(char, '\u{2028}' | '\u{2029}');
    let is_direction_mark = matches!(char,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}');
    !(char.is_control() || is_separator || is_direction_mark)
}

/// Displays text escaped; made by [`escape`].
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        const END: usize = 2048;
        if self.0.len() > 2 * END {
            // In a very deep tree a path is far longer than PATH_MAX.
            let (begin, end) = (&self.0[..END], &self.0[self.0.len() - END..]);
            return write!(f, "{}…{}", Self(begin), Self(end));
        }
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match is_harmless(char) {
                    true => f.write_char(char)?,
                    false => write!(f, "{}", char.escape_default())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Equivalent JSON with every harmful character escaped (`\u009b`). JSON requires escapes only for
/// ASCII control characters, but terminals obey others, too.
#[cfg(feature = "programs")]
pub(crate) fn escape_json(json: &str) -> String {
    let mut clean = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        match char <= '~' || is_harmless(char) {
            true => clean.push(char),
            false => clean += &format!("\\u{:04x}", u32::from(char)), // none is above U+FFFF
        }
    }
    clean
}
