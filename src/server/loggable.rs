//! Paths in log lines.

use std::path::Path;

use crate::escape::is_harmless;

/// The most bytes of a path in a log line.
pub(super) const LONGEST: usize = 3000;

/// A path for a log line: invalid UTF-8 is replaced, and a very long path is cut, so that the line
/// fits into a pipe's atomic write (`PIPE_BUF`, 4096). The log's format escapes the rest.
pub(super) fn loggable(path: &Path) -> String {
    let path = path.to_string_lossy();
    let mut escaped = 0;
    let cut = path.char_indices().find(|(_, char)| {
        escaped += match *char {
            '"' | '\\' => 2,
            _ if is_harmless(*char) => char.len_utf8(),
            _ => r"\u{202e}".len(),
        };
        escaped > LONGEST
    });
    match cut {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::escape;

    #[test]
    fn a_logged_path_is_short_also_when_it_is_escaped() {
        for char in ["a", "\u{1}", "\u{7f}", "\u{202e}", "\u{10ffff}", "\"", "\\", "é"] {
            let long = char.repeat(4095);
            let cut = loggable(Path::new(&long));
            let json = serde_json::to_string(&cut).unwrap();
            assert!(escape(&cut).to_string().len() < 3100, "{char:?} in text");
            assert!(json.len() < 3100, "{char:?} in JSON: {}", json.len());
            assert!(cut.ends_with('…'));
        }
        assert_eq!(loggable(Path::new("/etc/hostname")), "/etc/hostname");
    }
}
