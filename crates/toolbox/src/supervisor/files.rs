//! The files of an instance: `instances/ID/`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::reconcile::Memory;

const STATE: &str = "state.json";

/// Returns the folder of an instance.
pub(super) fn folder(data_dir: &Path, instance_id: &str) -> PathBuf {
    data_dir.join("instances").join(instance_id)
}

/// Whether a text is an instance ID, and therefore safe as a folder name.
pub(super) fn is_id(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with("ins_")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns the IDs of the instances that have a folder.
pub(super) async fn instances(data_dir: &Path) -> Vec<String> {
    let path = data_dir.join("instances");
    blocking(move || {
        let entries = std::fs::read_dir(path)?.filter_map(Result::ok);
        Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_id(name)).collect())
    })
    .await
    .unwrap_or_default()
}

/// Reads the saved state of an instance. Returns the default state if the file is missing or damaged.
pub(super) async fn load(folder: &Path) -> Memory {
    let path = folder.join(STATE);
    let text = blocking(move || std::fs::read(path)).await;
    match text.map(|text| serde_json::from_slice(&text)) {
        Ok(Ok(memory)) => memory,
        Ok(Err(error)) => {
            tracing::warn!(%error, folder = %folder.display(), "state of an instance is damaged");
            Memory::default()
        }
        Err(_) => Memory::default(),
    }
}

/// Saves the state of an instance atomically, even if the machine loses power.
pub(super) async fn save(folder: &Path, memory: &Memory) -> io::Result<()> {
    let text = serde_json::to_vec(memory)?;
    let folder = folder.to_owned();
    blocking(move || {
        std::fs::create_dir_all(&folder)?;
        let temporary = folder.join("state.json.tmp");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, folder.join(STATE))?;
        std::fs::File::open(&folder)?.sync_all()
    })
    .await
}

/// Deletes the folder of an instance.
pub(super) async fn remove(folder: &Path) -> io::Result<()> {
    let folder = folder.to_owned();
    blocking(move || match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await
}

/// Deletes the saved session of a container.
pub(super) async fn remove_session(folder: &Path, container: &str) {
    let path = folder.join(format!("session-{container}.json"));
    _ = blocking(move || std::fs::remove_file(path)).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_damaged_state_is_treated_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path(), "ins_1");
        assert_eq!(load(&folder).await, Memory::default());
        let memory = Memory { restarts: 7, ..Memory::default() };
        save(&folder, &memory).await.unwrap();
        assert_eq!(load(&folder).await, memory);
        assert_eq!(instances(dir.path()).await, ["ins_1"]);
        std::fs::write(folder.join(STATE), "{\"restarts\":").unwrap();
        assert_eq!(load(&folder).await, Memory::default());
        remove(&folder).await.unwrap();
        remove(&folder).await.unwrap();
        assert!(instances(dir.path()).await.is_empty());
    }

    #[test]
    fn ids_cannot_escape_the_folder() {
        assert!(is_id("ins_01abcXYZ"));
        for text in ["", "ins_/..", "..", "ins_..", "tbx_1", "ins_a/b"] {
            assert!(!is_id(text), "{text}");
        }
    }
}
