//! The place a player keeps the progress handle of a server in: one small file per address, readable by its owner only.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The folder of this user: `$XDG_STATE_HOME/waypost`, `~/.local/state/waypost`, or what the system has instead.
/// `None` where the user has no home.
pub fn default_folder() -> Option<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "waypost")?;
    Some(folders.state_dir().unwrap_or_else(|| folders.data_local_dir()).join("walk"))
}

/// The stored handle of one server address.
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
    /// Without a folder nothing is kept.
    pub(crate) fn new(folder: Option<&Path>, url: &str) -> Self {
        let digest = Sha256::digest(url.as_bytes());
        let name = format!("{}.json", data_encoding::HEXLOWER.encode(&digest[..16]));
        Self { path: folder.map(|folder| folder.join(name)), url: url.to_owned() }
    }

    /// The handle, if there is one; a file that is damaged or of another address counts as none.
    pub(crate) fn load(&self) -> Option<String> {
        let bytes = fs::read(self.path.as_ref()?).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        (record.url == self.url && !record.progress_handle.is_empty()).then_some(record.progress_handle)
    }

    /// Writes beside the file and renames, so that a crash leaves the old handle or the new one.
    pub(crate) fn save(&self, handle: &str) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no home folder to keep it in"));
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        create_private(folder)?;
        let record = Record { url: self.url.clone(), progress_handle: handle.to_owned() };
        // A temporary file of this crate has mode 0600 from the start.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, &record)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes the handle; that there is none is fine.
    pub(crate) fn forget(&self) -> io::Result<()> {
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
    fn a_handle_is_kept_per_address_and_forgotten() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let inner = folder.path().join("state");
        let (one, two) = (HandleFile::new(Some(&inner), "http://a/mcp"), HandleFile::new(Some(&inner), "http://b/mcp"));
        assert_eq!(one.load(), None);
        one.save("first")?;
        one.save("second")?;
        assert_eq!((one.load().as_deref(), two.load()), (Some("second"), None));
        one.forget()?;
        one.forget()?;
        assert_eq!(one.load(), None);
        assert_eq!(fs::read_dir(&inner)?.count(), 0, "no temporary file stays behind");
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_it() -> io::Result<()> {
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
    fn a_damaged_file_counts_as_none() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = HandleFile::new(Some(folder.path()), "http://a/mcp");
        fs::write(file.path.as_deref().unwrap_or(Path::new("")), b"{\"url\": ")?;
        assert_eq!(file.load(), None);
        Ok(())
    }
}
