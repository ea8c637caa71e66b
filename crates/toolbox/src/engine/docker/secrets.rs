//! Secret files: one folder for each container, on a tmpfs.
//!
//! The folder of a container is `SECRETS_DIR/TOOLBOX/INSTANCE/CONTAINER`. The folder and its files belong to the user
//! of the container. Its parent folders belong to root, so other users of the machine cannot access the files.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use waypost_toolbox_proto::ErrorCode;

use super::super::EngineError;
use super::errors::{self, invalid};
use super::user::User;

/// The magic numbers of in-memory file systems (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
const MAX_SECRET: usize = 256 * 1024;

/// The secret files of a toolbox.
#[derive(Debug, Clone)]
pub struct SecretFiles {
    root: PathBuf,
}

impl SecretFiles {
    /// Opens the folder for the secret files of a toolbox, and creates it if necessary.
    ///
    /// # Errors
    /// Returns an error if `secrets_dir` is not on a tmpfs, or is not writable.
    pub fn open(secrets_dir: &Path, toolbox_id: &str) -> Result<Self, EngineError> {
        let shown = secrets_dir.display();
        let unusable = |error: io::Error| {
            let cause = format!("The folder for secrets, {shown}, cannot be used: {}", error.kind());
            errors::unavailable(cause, "Run the toolbox as root, or set `--secrets-dir` to a folder on a tmpfs.")
        };
        // An existing folder, such as /run, is not changed.
        DirBuilder::new().recursive(true).mode(0o700).create(secrets_dir).map_err(unusable)?;
        let file_system = rustix::fs::statfs(secrets_dir).map_err(|error| unusable(error.into()))?;
        if ![TMPFS_MAGIC, RAMFS_MAGIC].contains(&(file_system.f_type as i64)) {
            let cause =
                format!("The folder for secrets, {shown}, is not on a tmpfs, so secrets would be written to a disk");
            let next = format!("Mount one with `mount -t tmpfs -o mode=0700 tmpfs {shown}`, or set `--secrets-dir`.");
            return Err(errors::unavailable(cause, next));
        }
        let root = secrets_dir.join(toolbox_id);
        create_folder(&root).map_err(unusable)?;
        Ok(Self { root })
    }

    /// Locks the folder until the returned file is closed or the process ends.
    ///
    /// # Errors
    /// Returns an error if another process holds the lock.
    pub fn lock(&self) -> Result<File, EngineError> {
        let folder = File::open(&self.root).map_err(|error| errors::io("open the folder for secrets", &error))?;
        match folder.try_lock() {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => Err(errors::unavailable(
                "Another daemon of this toolbox runs on this machine",
                "Stop it first. If its data directory was copied, let the copy join as a toolbox of its own.",
            )),
            Err(TryLockError::Error(error)) => Err(errors::io("lock the folder for secrets", &error)),
        }
    }

    /// Writes the secret files of a container and returns their folder. If this fails, no files are left behind.
    pub fn create<'a>(
        &self,
        instance_id: &str,
        container: &str,
        user: User,
        secrets: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<PathBuf, EngineError> {
        let folder = self.root.join(instance_id).join(container);
        let result = self.write(instance_id, &folder, user, secrets);
        if result.is_err() {
            self.remove(instance_id, container);
        }
        result.map(|()| folder)
    }

    fn write<'a>(
        &self,
        instance_id: &str,
        folder: &Path,
        user: User,
        secrets: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), EngineError> {
        let failed = |error: io::Error| errors::io("write the secret files", &error);
        create_folder(&self.root.join(instance_id)).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(folder).map_err(failed)?;
        for (name, value) in secrets {
            check_name(name)?;
            if value.len() > MAX_SECRET {
                return Err(invalid(format!("The secret `{name}` is larger than 256 KiB"), "Use a shorter secret."));
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o400).open(folder.join(name)).map_err(failed)?;
            file.write_all(value.as_bytes()).map_err(failed)?;
            fchown(&file, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        chown(folder, Some(user.uid), Some(user.gid)).map_err(failed)?;
        fs::set_permissions(folder, Permissions::from_mode(0o500)).map_err(failed)
    }

    /// Removes the secret files of a container, and the folder of its instance if it was the last one.
    pub fn remove(&self, instance_id: &str, container: &str) {
        let instance = self.root.join(instance_id);
        log_failure(fs::remove_dir_all(instance.join(container)));
        match fs::remove_dir(&instance) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            result => log_failure(result),
        }
    }

    /// Removes the secret files of all containers of an instance.
    pub fn remove_instance(&self, instance_id: &str) {
        log_failure(fs::remove_dir_all(self.root.join(instance_id)));
    }

    /// Returns the instances and containers that have secret files.
    pub fn list(&self) -> BTreeSet<(String, String)> {
        let names = |folder: &Path| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let pairs = |instance: String| {
            let containers = names(&self.root.join(&instance));
            containers.into_iter().map(move |container| (instance.clone(), container))
        };
        names(&self.root).into_iter().flat_map(pairs).collect()
    }

    /// Returns the instances that have a folder.
    pub fn instances(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// Checks the name of a secret, which is used as a file name.
pub fn check_name(name: &str) -> Result<(), EngineError> {
    let is_name = (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && !name.starts_with('.');
    if is_name {
        return Ok(());
    }
    let cause = format!("`{}` is not a valid secret name", name.escape_debug());
    Err(invalid(cause, "Use letters, digits, `_`, `-` and `.` in the names of secrets."))
}

/// Returns the error of a secret without a value.
pub fn missing(name: &str) -> EngineError {
    let cause = format!("The secret `{}` has no value", name.escape_debug());
    EngineError::new(ErrorCode::SecretMissing, cause, "Set the secret of the instance.")
}

/// Creates a folder that only root can access, if it does not exist.
fn create_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    // It must not be a link or a folder that another user of the machine has created.
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o077 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

fn log_failure(result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "failed to remove secret files");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_valid_file_names() {
        for name in ["TOKEN", "api-key", "a.b_c", "1"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../x", "/etc/passwd", "a\0", "a b", ".hidden", "ä", &"x".repeat(129)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
