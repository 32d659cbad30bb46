//! Errors of this crate, and the operating system's error code inside an `io::Error`.
//!
//! I/O errors are `std::io::Error` with the operation and the path or address in the message.
//! Wrapping hides `raw_os_error`, so [`os_code`] finds it again: callers must tell ENOSPC from
//! EIO. Never logs; pure, on any shard.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A future did not finish within its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// A closure given to [`crate::Shard::blocking`] did not produce a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// The closure panicked; the text is its panic message.
    #[error("blocking operation panicked: {0}")]
    Panicked(String),
    /// No thread could be started, or the process is stopping.
    #[error("blocking operation was not run: {0}")]
    NotRun(String),
}

/// The operating system's code (`libc::ENOSPC` and so on) behind an error of this crate.
pub fn os_code(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<Located>()?;
        os_code(&inner.source)
    })
}

/// Puts the operation and the path into an error's message; keeps kind and code.
pub(crate) fn located(operation: &'static str, path: &Path, source: io::Error) -> io::Error {
    if source.get_ref().is_some_and(|e| e.is::<Located>()) {
        return source;
    }
    let kind = source.kind();
    io::Error::new(kind, Located { operation, path: path.to_owned(), source })
}

#[derive(Debug)]
struct Located {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for Located {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_kind_survive_the_wrapping() {
        let plain = io::Error::from_raw_os_error(libc::ENOSPC);
        let wrapped = located("write", Path::new("/a/b"), plain);
        assert_eq!(os_code(&wrapped), Some(libc::ENOSPC));
        assert_eq!(wrapped.kind(), io::ErrorKind::StorageFull);
        assert!(wrapped.to_string().starts_with("write /a/b: "));
        let twice = located("open", Path::new("/c"), wrapped);
        assert!(twice.to_string().starts_with("write /a/b: "), "the innermost place is kept");
    }
}
