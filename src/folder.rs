//! The claim on the data folder: one process at a time, by a lock that dies with its process.
//!
//! The lock is `flock` on the file `lock`, whose text names the owner. The file stays when the
//! process ends; only the lock says whether the folder is in use.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::failure::{Exit, Failure};

/// The name of the lock file in the data folder.
const LOCK_FILE: &str = "lock";

/// The folder is this process's until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if need be and claims it, without waiting.
    pub fn claim(path: &Path) -> Result<DataFolder, Failure> {
        let unusable = |what: &str, error: &std::io::Error| {
            Failure::new(
                Exit::DataFolder,
                format!("data folder {}: {what}: {error}", path.display()),
            )
            .hint("--data-dir names the folder; it must be writable by this user")
        };
        fs::create_dir_all(path).map_err(|error| unusable("cannot be made", &error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(|error| unusable("the lock file cannot be opened", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(unusable("cannot be locked", &error)),
        }
        lock.set_len(0)
            .and_then(|()| lock.write_all(owner().as_bytes()))
            .map_err(|error| unusable("the lock file cannot be written", &error))?;
        Ok(DataFolder { _lock: lock })
    }
}

fn owner() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let (process, host) = (std::process::id(), host.trim());
    format!("process {process} on {host}, chronik-server {version}\n")
}

fn in_use(path: &Path, lock: &mut File) -> Failure {
    let mut text = String::new();
    // The owner may be writing its name just now; the lock alone is proof enough.
    let _ = lock.take(1024).read_to_string(&mut text);
    let owner = match text.trim() {
        "" => "another process",
        owner => owner,
    };
    Failure::new(Exit::DataFolder, format!("data folder {} is in use by {owner}", path.display()))
        .hint("stop that process, or name another folder with --data-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_once_and_free_again_when_its_owner_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let claim = DataFolder::claim(&path).unwrap();
        let refused = DataFolder::claim(&path).unwrap_err();
        assert_eq!(refused.exit, Exit::DataFolder);
        let expected = format!("is in use by process {}", std::process::id());
        assert!(refused.message.contains(&expected), "{refused}");
        drop(claim);
        DataFolder::claim(&path).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DataFolder::claim(&file.path().join("data")).unwrap_err();
        assert_eq!(refused.exit, Exit::DataFolder);
        assert!(refused.message.contains("cannot be made"), "{refused}");
    }
}
