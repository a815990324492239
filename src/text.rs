//! Text from elsewhere, made fit for a terminal and a log.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path for a log line: whatever is no UTF-8 replaced, and cut off where it gets very long, so that
/// a line fits into a pipe. Escaping is for the log's format to do.
pub(crate) fn loggable(path: &Path) -> String {
    const LONGEST: usize = 1000;
    let bytes = path.as_os_str().as_bytes();
    let cut = &bytes[..bytes.len().min(LONGEST)];
    let ellipsis = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{}{ellipsis}", String::from_utf8_lossy(cut))
}

/// A path, or any text, cleaned of control characters and of bytes that are no UTF-8, so that it
/// stays on its line and commands no terminal.
///
/// ```
/// use mqfs::text::printable;
///
/// assert_eq!(printable("naïve file").to_string(), "naïve file");
/// assert_eq!(printable("a\nb\u{1b}[31m").to_string(), r"a\nb\u{1b}[31m");
/// ```
pub fn printable<T: AsRef<OsStr> + ?Sized>(text: &T) -> Printable<'_> {
    Printable(text.as_ref().as_bytes())
}

/// What [`printable`] makes.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '"' | '\'' | '\\' => f.write_char(char)?,
                    // Escapes what is not printable, direction marks included.
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
