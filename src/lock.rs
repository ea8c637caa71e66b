//! Advisory file locks between processes, on a file next to the database. The operating system releases a lock when its
//! process ends for any reason; the file remains.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A lock. Released when dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// The result of trying to acquire a lock without waiting.
#[derive(Debug)]
pub enum LockAttempt {
    /// The lock was acquired.
    Acquired(FileLock),
    /// Another process holds the lock.
    HeldElsewhere,
}

/// Returns the lock file for migrations of the SQLite database `database`.
#[must_use]
pub fn migration_file(database: &Path) -> PathBuf {
    with_suffix(database, ".migrate.lock")
}

/// Returns the lock file of `serve` for the SQLite database `database`.
#[must_use]
pub fn serve_file(database: &Path) -> PathBuf {
    with_suffix(database, ".serve.lock")
}

fn with_suffix(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Acquires the lock, waiting until it is free. Blocks the thread.
///
/// # Errors
/// If the file cannot be created or locked.
pub fn acquire(path: &Path) -> anyhow::Result<FileLock> {
    let file = open(path)?;
    file.lock().with_context(|| lock_error(path))?;
    Ok(FileLock { _file: file })
}

/// Acquires the lock if it is free.
///
/// # Errors
/// If the file cannot be created or locked.
pub fn try_acquire(path: &Path) -> anyhow::Result<LockAttempt> {
    let mut file = open(path)?;
    match file.try_lock() {
        Ok(()) => {
            // Informational only; the lock does not depend on the content.
            let _ =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(LockAttempt::Acquired(FileLock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => Ok(LockAttempt::HeldElsewhere),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| lock_error(path)),
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot write the lock file {}: make the folder writable for the user that runs waypost, or choose another with --data-dir", path.display()))
}

fn lock_error(path: &Path) -> String {
    format!("cannot lock {}: the folder must be on a file system that supports locks", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = serve_file(&folder.path().join("waypost.db"));
        assert!(path.ends_with("waypost.db.serve.lock"));
        let first = try_acquire(&path).unwrap();
        assert!(matches!(first, LockAttempt::Acquired(_)));
        assert!(matches!(try_acquire(&path).unwrap(), LockAttempt::HeldElsewhere));
        drop(first);
        assert!(matches!(try_acquire(&path).unwrap(), LockAttempt::Acquired(_)));
    }
}
