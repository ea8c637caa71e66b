//! Reading walkthroughs from the disk: files, and folders with the files that an import knows, within limits.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use waypost_core::transfer::file::WalkthroughFile;
use waypost_core::transfer::{self, folder};

/// Bytes of a file at most.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Bytes of a folder's files together at most.
const MAX_FOLDER: u64 = 64 * 1024 * 1024;
/// Files to import in a folder at most.
const MAX_FILES: usize = 2_000;
/// Entries of any kind in a folder at most: a folder that is no walkthrough should be refused soon.
const MAX_ENTRIES: usize = 20_000;
/// Folders within folders at most.
const MAX_DEPTH: usize = 8;

/// What stands on the disk, as it stands there.
pub struct SourceFile {
    /// The file or folder as it was named, for messages.
    pub name: String,
    /// Its text or texts.
    pub content: SourceContent,
}

/// Of a file, or of a folder with the paths below it.
pub enum SourceContent {
    /// The text.
    File(String),
    /// Paths and texts.
    Folder(Vec<(String, String)>),
}

impl SourceFile {
    /// As a walkthrough.
    ///
    /// # Errors
    /// When it is none; the message names the file.
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

/// Reads a file or a folder as a walkthrough.
///
/// # Errors
/// When it cannot be read, is too large, or is no walkthrough; the message names the file.
pub fn read(path: &Path) -> anyhow::Result<WalkthroughFile> {
    Ok(raw(path)?.parse()?)
}

/// Reads a file or a folder.
///
/// # Errors
/// When it cannot be read, or is too large; the message names the file.
pub fn raw(path: &Path) -> anyhow::Result<SourceFile> {
    let name = path.display().to_string();
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?;
    if metadata.is_file() {
        return Ok(SourceFile { name, content: SourceContent::File(text(path, MAX_FILE)?) });
    }
    if !metadata.is_dir() {
        bail!("{name} is neither a file nor a folder");
    }
    let root = path.canonicalize().with_context(|| format!("cannot read {name}"))?;
    let mut walk = FolderReader { root, files: Vec::new(), entries: 0, bytes: 0 };
    walk.folder(path, "", 1)?;
    // The name of the folder may become the title: `.` has none.
    let own = walk.root.file_name().map_or_else(|| name.clone(), |own| own.to_string_lossy().into_owned());
    let name = if matches!(path.file_name(), Some(own) if own != "..") { name } else { own };
    Ok(SourceFile { name, content: SourceContent::Folder(walk.files) })
}

/// The text of a file, not more than `limit` bytes.
fn text(path: &Path, limit: u64) -> anyhow::Result<String> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > limit {
        bail!("{name} is larger than {} MiB: split it", limit / (1024 * 1024));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => bail!("{name} is not UTF-8, from byte {} on: save it as UTF-8", error.utf8_error().valid_up_to()),
    }
}

struct FolderReader {
    /// Without links, to tell what is inside.
    root: PathBuf,
    /// Paths below the root, and texts.
    files: Vec<(String, String)>,
    entries: usize,
    bytes: u64,
}

impl FolderReader {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> anyhow::Result<()> {
        let shown = folder.display();
        if depth > MAX_DEPTH {
            // A tool's own folder, such as `.venv`, is no reason to refuse the one that it is in.
            if prefix.split('/').any(|part| part.starts_with('.')) {
                return Ok(());
            }
            bail!("{shown} is more than {MAX_DEPTH} folders deep");
        }
        let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {shown}"))?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                bail!("{} has more than {MAX_ENTRIES} entries: is it the right folder?", self.root.display());
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
                kind = self.target(&entry.path())?;
            }
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                self.folder(&entry.path(), &format!("{path}/"), depth + 1)?;
            } else if kind.is_file() && transfer::is_source(&name) {
                self.file(&entry.path(), path)?;
            }
        }
        Ok(())
    }

    /// What a link leads to. Only a file in the folder itself is let through: a folder from somebody else must not read
    /// other files of whoever imports it.
    fn target(&self, link: &Path) -> anyhow::Result<std::fs::FileType> {
        let shown = link.display();
        let target = link.canonicalize().with_context(|| format!("{shown} is a link that leads nowhere"))?;
        let kind = std::fs::metadata(&target)?.file_type();
        if !target.starts_with(&self.root) || !kind.is_file() {
            bail!("{shown} is a link to something outside of the folder, or to no file: put a copy in its place");
        }
        Ok(kind)
    }

    fn file(&mut self, path: &Path, below: String) -> anyhow::Result<()> {
        if self.files.len() >= MAX_FILES {
            bail!("{} has more than {MAX_FILES} files to import: is it the right folder?", self.root.display());
        }
        let text = text(path, MAX_FILE)?;
        self.bytes += text.len() as u64;
        if self.bytes > MAX_FOLDER {
            bail!("the files of {} are larger than {} MiB together", self.root.display(), MAX_FOLDER / (1024 * 1024));
        }
        self.files.push((below, text));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        read(path).unwrap_err().to_string().replace(path.to_str().unwrap(), "DIR")
    }

    #[test]
    fn a_folder_is_read_in_depth() {
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
    fn links_do_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(folder.path().join("secret.md"), "# Secret").unwrap();
        std::fs::write(inside.join("a.md"), "# A\n\ntext").unwrap();
        std::os::unix::fs::symlink(inside.join("a.md"), inside.join("b.md")).unwrap();
        assert_eq!(read(&inside).unwrap().steps.len(), 2);
        std::os::unix::fs::symlink("../secret.md", inside.join("c.md")).unwrap();
        insta::assert_snapshot!(refused(&inside), @"DIR/c.md is a link to something outside of the folder, or to no file: put a copy in its place");
        std::fs::remove_file(inside.join("c.md")).unwrap();
        std::os::unix::fs::symlink("/", inside.join("root")).unwrap();
        assert_eq!(read(&inside).unwrap().steps.len(), 2);
    }

    #[test]
    fn what_is_too_deep_too_large_or_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.md"), [b'#', 0xff]).unwrap();
        insta::assert_snapshot!(refused(folder.path()), @"DIR/a.md is not UTF-8, from byte 1 on: save it as UTF-8");
        File::create(folder.path().join("a.md")).unwrap().set_len(MAX_FILE + 1).unwrap();
        insta::assert_snapshot!(refused(folder.path()), @"DIR/a.md is larger than 16 MiB: split it");
        let deep = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(deep.path().join("1/2/3/4/5/6/7/8/9")).unwrap();
        insta::assert_snapshot!(refused(deep.path()), @"DIR/1/2/3/4/5/6/7/8 is more than 8 folders deep");
        insta::assert_snapshot!(refused(Path::new("/dev/null")), @"DIR is neither a file nor a folder");
    }
}
