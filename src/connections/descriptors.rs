//! File descriptors: the limit of the process, the share for connections, and a reserve.

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Number of descriptors that is sufficient for every use, so the limit is not raised beyond it.
const MAX_DESCRIPTORS: u64 = 65_536;

/// Raises the soft limit on open files to the hard limit, and returns how many files may be open.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let target = limit.maximum.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= target {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum }) {
        Ok(()) => target,
        Err(error) => {
            tracing::debug!(%error, "failed to raise the limit on open files");
            current
        }
    }
}

/// Returns the number of connections for a limit of `files` open files. A quarter, at least 64 and at most 512, is kept
/// for the database, outgoing requests, mail and the diagnostics port.
pub fn max_connections(files: u64) -> usize {
    let reserved = (files / 4).clamp(64, 512);
    usize::try_from(files.saturating_sub(reserved).max(16)).unwrap_or(usize::MAX)
}

/// Open files that are closed when no descriptor is available for a connection that must be accepted.
pub struct Reserve {
    size: usize,
    files: Mutex<Vec<File>>,
}

impl Reserve {
    /// Creates a reserve of `size` descriptors.
    pub fn new(size: usize) -> Self {
        let reserve = Self { size, files: Mutex::default() };
        reserve.refill();
        reserve
    }

    /// Releases one descriptor. Returns `false` if the reserve is empty.
    pub fn release(&self) -> bool {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).pop().is_some()
    }

    /// Refills the reserve as far as descriptors are available.
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
    fn connections_leave_descriptors_for_other_uses() {
        assert_eq!([256, 1_024, 4_096, 65_536].map(max_connections), [192, 768, 3_584, 65_024]);
        assert_eq!(max_connections(40), 16);
    }

    #[test]
    fn the_reserve_can_be_released_and_refilled() {
        let reserve = Reserve::new(2);
        assert!(reserve.release() && reserve.release() && !reserve.release());
        reserve.refill();
        assert!(reserve.release());
    }
}
