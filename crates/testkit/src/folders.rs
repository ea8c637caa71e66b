//! The location of temporary folders: in memory if possible, because tests that use a disk spend most of their time
//! waiting for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The shared-memory file system of Linux.
const MEMORY: &str = "/dev/shm";

/// The free space that the tests of one program may need, in KiB. Containers often have only 64 MiB.
const REQUIRED: u64 = 4 * 1024 * 1024;

/// Returns the parent of temporary folders: `/dev/shm` if it has enough free space and `TMPDIR` is not set, otherwise
/// the system's folder for temporary files.
pub(crate) fn parent() -> &'static Path {
    static PARENT: OnceLock<PathBuf> = OnceLock::new();
    PARENT.get_or_init(|| {
        let use_memory =
            std::env::var_os("TMPDIR").is_none() && free_space(MEMORY).is_some_and(|free| free >= REQUIRED);
        if use_memory { PathBuf::from(MEMORY) } else { std::env::temp_dir() }
    })
}

/// Returns the free space of the file system of `folder` in KiB, or `None` if it is unknown, for example because the
/// folder does not exist.
fn free_space(folder: &str) -> Option<u64> {
    let output = Command::new("df").args(["-Pk", folder]).output().ok()?;
    let table = String::from_utf8(output.stdout).ok()?;
    table.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}
