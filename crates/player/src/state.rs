//! Storage of progress handles: one small file per server URL, readable only by its owner.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Returns the folder for the handles of this user: `walk` in `$XDG_STATE_HOME/waypost`, `~/.local/state/waypost`, or
/// the equivalent of the operating system. `None` if the user has no home folder.
pub fn default_folder() -> Option<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "waypost")?;
    Some(folders.state_dir().unwrap_or_else(|| folders.data_local_dir()).join("walk"))
}

/// The file with the progress handle for one server URL.
#[derive(Debug)]
pub(crate) struct HandleFile {
    path: Option<PathBuf>,
    url: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    url: String,
    progress_handle: String,
}

impl HandleFile {
    /// Returns the file for `url` in `folder`. Without a folder, nothing can be stored.
    pub(crate) fn new(folder: Option<&Path>, url: &str) -> Self {
        let digest = Sha256::digest(url.as_bytes());
        let name = format!("{}.json", data_encoding::HEXLOWER.encode(&digest[..16]));
        Self { path: folder.map(|folder| folder.join(name)), url: url.to_owned() }
    }

    /// Returns the stored handle. `None` if there is no file, or if it is damaged or belongs to another URL.
    pub(crate) fn load(&self) -> Option<String> {
        let bytes = fs::read(self.path.as_ref()?).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        (record.url == self.url && !record.progress_handle.is_empty()).then_some(record.progress_handle)
    }

    /// Stores the handle. Writes a temporary file and renames it, so that a crash leaves either the old or the new
    /// handle.
    pub(crate) fn save(&self, handle: &str) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no home folder found"));
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        create_private(folder)?;
        let record = Record { url: self.url.clone(), progress_handle: handle.to_owned() };
        // `tempfile` creates files with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, &record)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Deletes the stored handle, if there is one.
    pub(crate) fn delete(&self) -> io::Result<()> {
        match self.path.as_ref().map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(unix)]
fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn create_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_stored_and_deleted_per_url() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let inner = folder.path().join("state");
        let (one, two) = (HandleFile::new(Some(&inner), "http://a/mcp"), HandleFile::new(Some(&inner), "http://b/mcp"));
        assert_eq!(one.load(), None);
        one.save("first")?;
        one.save("second")?;
        assert_eq!((one.load().as_deref(), two.load()), (Some("second"), None));
        one.delete()?;
        one.delete()?;
        assert_eq!(one.load(), None);
        assert_eq!(fs::read_dir(&inner)?.count(), 0, "no temporary file is left");
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_file() -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir()?;
        let inner = folder.path().join("state");
        let file = HandleFile::new(Some(&inner), "http://a/mcp");
        file.save("secret")?;
        let mode = |path: &Path| fs::metadata(path).map(|data| data.permissions().mode() & 0o777);
        assert_eq!(mode(&inner)?, 0o700);
        assert_eq!(mode(file.path.as_deref().unwrap_or(Path::new("")))?, 0o600);
        Ok(())
    }

    #[test]
    fn a_damaged_file_is_ignored() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = HandleFile::new(Some(folder.path()), "http://a/mcp");
        fs::write(file.path.as_deref().unwrap_or(Path::new("")), b"{\"url\": ")?;
        assert_eq!(file.load(), None);
        Ok(())
    }
}
