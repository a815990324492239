//! Keys: the numbers under which unrelated processes find the same object.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use crate::syscalls;

/// A System V IPC key, `key_t`.
///
/// Displayed as `0x%08x`, like ipcs(1) does. Parsed like ipcrm(1) does: hexadecimal after `0x`,
/// octal after `0`, else decimal.
///
/// ```
/// use sysv_ipc::Key;
///
/// let key: Key = "0x1aaaaaa1".parse()?;
/// assert_eq!(key, Key::new(0x1aaa_aaa1));
/// assert_eq!(key.to_string(), "0x1aaaaaa1");
/// assert_eq!("010".parse(), Ok(Key::new(8)));
/// assert!("0x1234567890".parse::<Key>().is_err());
/// # Ok::<(), sysv_ipc::InvalidKey>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(libc::key_t);

impl Key {
    /// `IPC_PRIVATE`: asks for a new object that no key finds.
    pub const PRIVATE: Key = Key(libc::IPC_PRIVATE);

    /// A key with a fixed value.
    pub const fn new(value: i32) -> Self {
        Self(value)
    }

    /// `ftok(path, project)`: a key made of the file's inode and device numbers and `project`.
    ///
    /// Two files can have the same key, and a file that is replaced gets another key. Fails as
    /// stat(2) does. Source: ftok(3), TLPI section 45.2.
    pub fn from_path(path: &Path, project: u8) -> io::Result<Self> {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        syscalls::ftok(&path, project).map(Self).map_err(io::Error::from_raw_os_error)
    }

    /// Whether this is [`Key::PRIVATE`].
    pub const fn is_private(self) -> bool {
        self.0 == libc::IPC_PRIVATE
    }

    /// The key as a number.
    pub const fn as_raw(self) -> libc::key_t {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The text is not a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidKey;

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a key: a number of at most 32 bits is expected, such as 0x1aaaaaa1")
    }
}

impl std::error::Error for InvalidKey {}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None if text.starts_with('0') => (text, 8),
            None => (text, 10),
        };
        // from_str_radix takes a sign, which no key has.
        if digits.starts_with(['+', '-']) {
            return Err(InvalidKey);
        }
        u32::from_str_radix(digits, radix)
            .map(|value| Self(value.cast_signed()))
            .map_err(|_| InvalidKey)
    }
}
