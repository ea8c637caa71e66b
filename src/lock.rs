//! Advisory locks between processes, held on a file beside the database. The operating system lets go of them when
//! the process ends, however it ends; the file itself stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// What came of asking for a lock without waiting.
#[derive(Debug)]
pub enum LockAttempt {
    /// It is ours.
    Acquired(FileLock),
    /// Another process has it.
    HeldElsewhere,
}

/// The file of the lock that is held while migrations run on the SQLite database `database`.
#[must_use]
pub fn migration_file(database: &Path) -> PathBuf {
    beside(database, ".migrate.lock")
}

/// The file of the lock that `serve` holds on the SQLite database `database`.
#[must_use]
pub fn serve_file(database: &Path) -> PathBuf {
    beside(database, ".serve.lock")
}

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Waits for the lock. Blocks the thread.
///
/// # Errors
/// When the file cannot be made or locked.
pub fn acquire(path: &Path) -> anyhow::Result<FileLock> {
    let file = open(path)?;
    file.lock().with_context(|| no_lock(path))?;
    Ok(FileLock { _file: file })
}

/// Takes the lock when nobody has it.
///
/// # Errors
/// When the file cannot be made or locked.
pub fn try_acquire(path: &Path) -> anyhow::Result<LockAttempt> {
    let mut file = open(path)?;
    match file.try_lock() {
        Ok(()) => {
            // Only a help for people who look into the file; the lock does not depend on it.
            let _ =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(LockAttempt::Acquired(FileLock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => Ok(LockAttempt::HeldElsewhere),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| no_lock(path)),
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot write the lock file {}: give the folder to the user that runs waypost, or choose another with --data-dir", path.display()))
}

fn no_lock(path: &Path) -> String {
    format!("cannot lock {}: the folder must be on a file system that has locks", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
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
