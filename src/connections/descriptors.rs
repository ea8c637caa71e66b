//! File descriptors: how many there are, how many of them connections may have, and a few that are kept for emergencies.

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are enough for every use; raising a limit beyond it gains nothing.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit on open files to the hard limit, and returns how many files may be open.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::debug!(%error, "the limit on open files cannot be raised");
            current
        }
    }
}

/// Connections that `files` open files allow: a quarter of them, at least 64 and at most 512, is kept for the
/// database, outgoing requests, mail and the diagnostics port.
pub fn connections(files: u64) -> usize {
    let kept = (files / 4).clamp(64, 512);
    usize::try_from(files.saturating_sub(kept).max(16)).unwrap_or(usize::MAX)
}

/// Open files that are closed when no descriptor is left for a connection that has to be accepted.
pub struct Reserve {
    size: usize,
    files: Mutex<Vec<File>>,
}

impl Reserve {
    /// Keeps `size` descriptors.
    pub fn new(size: usize) -> Self {
        let reserve = Self { size, files: Mutex::default() };
        reserve.refill();
        reserve
    }

    /// Gives up one descriptor; returns whether there was one.
    pub fn release(&self) -> bool {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).pop().is_some()
    }

    /// Takes descriptors back as far as there are any.
    pub fn refill(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        while files.len() < self.size {
            let Ok(file) = File::open("/dev/null") else { return };
            files.push(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_others() {
        assert_eq!([256, 1_024, 4_096, 65_536].map(connections), [192, 768, 3_584, 65_024]);
        assert_eq!(connections(40), 16);
    }

    #[test]
    fn the_reserve_is_given_up_once_and_taken_back() {
        let reserve = Reserve::new(2);
        assert!(reserve.release() && reserve.release() && !reserve.release());
        reserve.refill();
        assert!(reserve.release());
    }
}
