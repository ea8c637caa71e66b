//! Reads walkthroughs from disk, within limits: files, and folders of files that the import supports.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use waypost_content::transfer::file::WalkthroughFile;
use waypost_content::transfer::{self, folder};

/// Maximum size of a file in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Maximum total size of the files of a folder in bytes.
const MAX_FOLDER_BYTES: u64 = 64 * 1024 * 1024;
/// Maximum number of files to import in a folder.
const MAX_FILES: usize = 2_000;
/// Maximum number of entries of any kind in a folder, so that a wrong folder is rejected quickly.
const MAX_ENTRIES: usize = 20_000;
/// Maximum depth of nested folders.
const MAX_DEPTH: usize = 8;

/// A file or folder as read from disk.
pub struct SourceFile {
    /// The path as given by the user, for messages.
    pub name: String,
    /// The content.
    pub content: SourceContent,
}

/// The content of a file or folder.
pub enum SourceContent {
    /// The text of a file.
    File(String),
    /// The relative paths and contents of the files in a folder.
    Folder(Vec<(String, String)>),
}

impl SourceFile {
    /// Parses the content as a walkthrough.
    ///
    /// # Errors
    /// If it is not a walkthrough. The message contains the file name.
    pub fn parse(&self) -> waypost_core::Result<WalkthroughFile> {
        match &self.content {
            SourceContent::File(text) => transfer::parse(&self.name, text),
            SourceContent::Folder(files) => {
                let files = files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
                folder::parse(self.name.trim_end_matches('/'), files)
            }
        }
    }
}

/// Reads and parses a file or folder.
///
/// # Errors
/// If it cannot be read, is too large, or is not a walkthrough. The message contains the file name.
pub fn read(path: &Path) -> anyhow::Result<WalkthroughFile> {
    Ok(read_source(path)?.parse()?)
}

/// Reads a file or folder.
///
/// # Errors
/// If it cannot be read or is too large. The message contains the file name.
pub fn read_source(path: &Path) -> anyhow::Result<SourceFile> {
    let name = path.display().to_string();
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?;
    if metadata.is_file() {
        return Ok(SourceFile { name, content: SourceContent::File(read_text(path, MAX_FILE_BYTES)?) });
    }
    if !metadata.is_dir() {
        bail!("{name} is neither a file nor a folder");
    }
    let root = path.canonicalize().with_context(|| format!("cannot read {name}"))?;
    let mut reader = FolderReader { root, files: Vec::new(), entries: 0, bytes: 0 };
    reader.read_folder(path, "", 1)?;
    // The folder name may become the title, so `.` and `..` are resolved.
    let root_name = reader.root.file_name().map_or_else(|| name.clone(), |name| name.to_string_lossy().into_owned());
    let name = if matches!(path.file_name(), Some(last) if last != "..") { name } else { root_name };
    Ok(SourceFile { name, content: SourceContent::Folder(reader.files) })
}

/// Reads a text file of at most `limit` bytes.
fn read_text(path: &Path, limit: u64) -> anyhow::Result<String> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > limit {
        bail!("{name} is larger than {} MiB: split it", limit / (1024 * 1024));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => bail!("{name} is not valid UTF-8 at byte {}: save it as UTF-8", error.utf8_error().valid_up_to()),
    }
}

struct FolderReader {
    /// The canonical path of the folder.
    root: PathBuf,
    /// Paths relative to the root, and contents.
    files: Vec<(String, String)>,
    entries: usize,
    bytes: u64,
}

impl FolderReader {
    fn read_folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> anyhow::Result<()> {
        let display = folder.display();
        if depth > MAX_DEPTH {
            // Ignore deep tool folders such as `.venv`.
            if prefix.split('/').any(|part| part.starts_with('.')) {
                return Ok(());
            }
            bail!("{display} exceeds the maximum depth of {MAX_DEPTH} folders");
        }
        let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {display}"))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {display}"))?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                bail!("{} has more than {MAX_ENTRIES} entries: check that it is the right folder", self.root.display());
            }
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                bail!("{} has a name that is not UTF-8", entry.path().display());
            };
            let mut kind = entry.file_type()?;
            if transfer::is_ignored_folder(&name) || (name.starts_with('.') && !kind.is_dir()) {
                continue;
            }
            if kind.is_symlink() {
                if !transfer::is_source(&name) {
                    continue;
                }
                kind = self.link_target(&entry.path())?;
            }
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                self.read_folder(&entry.path(), &format!("{path}/"), depth + 1)?;
            } else if kind.is_file() && transfer::is_source(&name) {
                self.read_file(&entry.path(), path)?;
            }
        }
        Ok(())
    }

    /// Returns the type of a link's target. Only files inside the folder are permitted, because a folder from an untrusted
    /// author must not read other files of the user who imports it.
    fn link_target(&self, link: &Path) -> anyhow::Result<std::fs::FileType> {
        let display = link.display();
        let target = link.canonicalize().with_context(|| format!("{display} is a broken link"))?;
        let kind = std::fs::metadata(&target)?.file_type();
        if !target.starts_with(&self.root) || !kind.is_file() {
            bail!("{display} is a link to a target outside the folder, or not to a file: replace it with a copy");
        }
        Ok(kind)
    }

    fn read_file(&mut self, path: &Path, relative: String) -> anyhow::Result<()> {
        if self.files.len() >= MAX_FILES {
            bail!(
                "{} has more than {MAX_FILES} files to import: check that it is the right folder",
                self.root.display()
            );
        }
        let text = read_text(path, MAX_FILE_BYTES)?;
        self.bytes += text.len() as u64;
        if self.bytes > MAX_FOLDER_BYTES {
            bail!(
                "the files of {} are larger than {} MiB together",
                self.root.display(),
                MAX_FOLDER_BYTES / (1024 * 1024)
            );
        }
        self.files.push((relative, text));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_error(path: &Path) -> String {
        read(path).unwrap_err().to_string().replace(path.to_str().unwrap(), "DIR")
    }

    #[test]
    fn folders_are_read_recursively() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("01-begin/.git")).unwrap();
        std::fs::write(folder.path().join("01-begin/01-first.md"), "# First\n\ntext").unwrap();
        std::fs::write(folder.path().join("01-begin/.git/x.md"), "# Hidden").unwrap();
        std::fs::write(folder.path().join(".x.md"), "# Hidden").unwrap();
        std::fs::create_dir_all(folder.path().join(".venv/2/3/4/5/6/7/8/9")).unwrap();
        std::fs::create_dir_all(folder.path().join(".github/steps")).unwrap();
        std::fs::write(folder.path().join(".github/steps/1-more.md"), "# More\n\ntext").unwrap();
        std::fs::write(folder.path().join("picture.bin"), [0xff, 0xfe]).unwrap();
        let file = read(folder.path()).unwrap();
        assert_eq!(file.steps.len(), 2);
        assert_eq!(file.steps[0].content.title, "First");
        assert_eq!(file.steps[1].content.title, "More");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_targets_outside_the_folder_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(folder.path().join("secret.md"), "# Secret").unwrap();
        std::fs::write(inside.join("a.md"), "# A\n\ntext").unwrap();
        std::os::unix::fs::symlink(inside.join("a.md"), inside.join("b.md")).unwrap();
        assert_eq!(read(&inside).unwrap().steps.len(), 2);
        std::os::unix::fs::symlink("../secret.md", inside.join("c.md")).unwrap();
        insta::assert_snapshot!(read_error(&inside), @"DIR/c.md is a link to a target outside the folder, or not to a file: replace it with a copy");
        std::fs::remove_file(inside.join("c.md")).unwrap();
        std::os::unix::fs::symlink("/", inside.join("root")).unwrap();
        assert_eq!(read(&inside).unwrap().steps.len(), 2);
    }

    #[test]
    fn oversized_invalid_and_deeply_nested_input_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.md"), [b'#', 0xff]).unwrap();
        insta::assert_snapshot!(read_error(folder.path()), @"DIR/a.md is not valid UTF-8 at byte 1: save it as UTF-8");
        File::create(folder.path().join("a.md")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        insta::assert_snapshot!(read_error(folder.path()), @"DIR/a.md is larger than 16 MiB: split it");
        let deep = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(deep.path().join("1/2/3/4/5/6/7/8/9")).unwrap();
        insta::assert_snapshot!(read_error(deep.path()), @"DIR/1/2/3/4/5/6/7/8 exceeds the maximum depth of 8 folders");
        insta::assert_snapshot!(read_error(Path::new("/dev/null")), @"DIR is neither a file nor a folder");
    }
}
