//! A folder: Markdown files `NN-section/NN-step.md` or flat `NN-step.md`, otherwise a Killercoda scenario
//! (`index.json`, see [`super::scenario`]) or CodeTours (`.tour`, see [`super::tour`]).
//!
//! - Files are ordered by the numbers at the start of their names (2 before 10), then those without a number. A README
//!   in a section comes first.
//! - The title of a step is its H1 if that is the first heading, otherwise the `title` of its front matter, otherwise
//!   the readable form of the file name. The content is the text around the H1. Front matter and blocks work as in
//!   [`super::markdown`].
//! - The section is the readable form of the folder name (`01-first-agent` becomes `First agent`), unless the front
//!   matter sets another.
//! - A step is identified by its path without numbers and extension, unless the front matter has a `key`.
//! - The `README.md` at the top level is not a step: its H1 is the title of the walkthrough, its text the description,
//!   and its front matter applies to the walkthrough.
//! - A folder whose name begins with a dot contains steps if its files are numbered, as in `.github/steps/1-create.md`.
//!   Such a folder name, and `steps` below it, do not become sections.
//! - Files that are not Markdown, hidden files and licences are skipped silently. Empty files, repository housekeeping
//!   files and other files in dot folders are skipped with a warning.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::Map;

use super::file::{ImportStep, StepIdentity, WalkthroughFile};
use super::identity::{compose, key_problem, readable, split_number};
use super::markdown::{Chapter, FRONT_MATTER, apply_fields, outline_outside, step};
use super::outline::{Piece, paragraphs, trim_blank};
use super::source::SourceRef;
use super::{front_matter, is_ignored_folder, scenario, tour};
use crate::markdown::normalize_line_endings;
use waypost_core::Result;
use waypost_core::walkthrough::WalkthroughType;

/// Names of files that are never steps.
const LICENCES: [&str; 4] = ["license", "licence", "copying", "notice"];
/// Names of files that are most likely not steps.
const HOUSEKEEPING: [&str; 4] = ["changelog", "contributing", "code_of_conduct", "security"];

/// A file of the folder.
pub(super) struct FolderFile<'a> {
    /// The path in the folder, separated by `/` and in NFC.
    pub(super) path: String,
    /// The content.
    pub(super) text: &'a str,
}

/// A Markdown file of the folder.
struct Page<'a> {
    /// The path, for messages.
    path: String,
    /// The folders, followed by the name without extension; in NFC.
    parts: Vec<String>,
    text: Cow<'a, str>,
}

/// Parses the files of the folder `name`, given as relative paths with their contents, in any order.
///
/// # Errors
/// `invalid_arguments` naming the file, the step and the field.
pub fn parse<'a>(name: &str, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<WalkthroughFile> {
    let mut sources: Vec<_> = files.into_iter().filter_map(|(path, text)| folder_file(path, text)).collect();
    sources.sort_by_cached_key(|source| path_key(&source.path));
    let indices: Vec<_> = sources.iter().filter(|source| scenario::is_index(source)).collect();
    if !indices.is_empty() {
        return scenario::parse_folder(name, &indices, &sources);
    }
    let tours: Vec<_> = sources.iter().filter(|source| tour::is_tour(&source.path)).collect();
    if !tours.is_empty() {
        let mut file = tour::parse_folder(name, &tours, &sources)?;
        let others = pages(&sources).into_iter().filter(|page| !page.is_readme()).count();
        if others > 0 {
            let files = if others == 1 { "1 Markdown file".to_owned() } else { format!("{others} Markdown files") };
            file.warnings.push(format!("{name}: {files} skipped, because the folder contains code tours."));
        }
        return Ok(file);
    }
    parse_markdown(name, &sources)
}

fn parse_markdown(name: &str, sources: &[FolderFile<'_>]) -> Result<WalkthroughFile> {
    let mut file = WalkthroughFile::new(name, WalkthroughType::Course);
    let mut pages = pages(sources);
    pages.sort_by_cached_key(|page| (path_key(&page.parts.join("/")), page.path.clone()));
    let numbered: HashSet<_> =
        pages.iter().filter(|page| page.is_numbered()).map(|page| page.folders().to_vec()).collect();
    for page in &pages {
        if page.is_readme() {
            read_readme(&mut file, page)?;
        } else if page.is_housekeeping() || (page.is_hidden() && !numbered.contains(page.folders())) {
            file.warnings.push(format!("{name}/{}: skipped, because it does not look like a step.", page.path));
        } else if let Some(step) = read_step(&mut file, page)? {
            file.steps.push(step);
        }
    }
    let source = file.source();
    WalkthroughFile::check_count(&source, file.steps.len())?;
    if file.steps.is_empty() {
        return Err(source
            .reject("steps", "has no steps. Add one Markdown file per step to the folder, such as `01-install.md`."));
    }
    check_identities(&file)?;
    if file.title.is_none() {
        file.title = folder_title(name);
    }
    Ok(file)
}

/// Fills the walkthrough's fields in `file` from the README of the folder, if there is one.
pub(super) fn apply_readme(file: &mut WalkthroughFile, sources: &[FolderFile<'_>]) -> Result<()> {
    pages(sources).iter().find(|page| page.is_readme()).map_or(Ok(()), |page| read_readme(file, page))
}

pub(super) fn folder_title(name: &str) -> Option<String> {
    let last = name.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next()?;
    let title = split_number(last).readable();
    title.chars().any(char::is_alphanumeric).then_some(title)
}

/// Returns the file with this path. Returns `None` for hidden files and files in ignored folders.
fn folder_file<'a>(path: &str, text: &'a str) -> Option<FolderFile<'a>> {
    let parts: Vec<_> = path.split(['/', '\\']).filter(|part| !matches!(*part, "" | ".")).map(compose).collect();
    let (last, folders) = parts.split_last()?;
    let is_foreign = last.starts_with('.') || folders.iter().any(|folder| is_ignored_folder(folder));
    (!is_foreign).then(|| FolderFile { path: parts.join("/"), text })
}

/// Whether a file is Markdown, based on its name.
pub(super) fn is_markdown(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    ["md", "markdown"].iter().any(|known| extension.is_some_and(|extension| extension.eq_ignore_ascii_case(known)))
}

fn pages<'a>(sources: &[FolderFile<'a>]) -> Vec<Page<'a>> {
    sources.iter().filter_map(|source| page(&source.path, source.text)).collect()
}

fn page<'a>(path: &str, text: &'a str) -> Option<Page<'a>> {
    let mut parts: Vec<_> = path.split('/').map(str::to_owned).collect();
    let last = parts.pop().filter(|last| is_markdown(last))?;
    let (stem, _) = last.rsplit_once('.')?;
    if LICENCES.iter().any(|licence| stem.eq_ignore_ascii_case(licence)) {
        return None;
    }
    parts.push(stem.to_owned());
    Some(Page { path: path.to_owned(), parts, text: normalize_line_endings(text) })
}

/// Returns the sort key of a path: numbers sort by value, and a README sorts first in its folder.
fn path_key(path: &str) -> Vec<impl Ord + use<>> {
    let path = path.strip_suffix(".md").unwrap_or(path);
    path.split('/').map(|part| (!part.eq_ignore_ascii_case("readme"), split_number(part).sort_key())).collect()
}

impl Page<'_> {
    fn stem(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }

    fn is_readme(&self) -> bool {
        self.parts.len() == 1 && self.stem().eq_ignore_ascii_case("readme")
    }

    fn is_housekeeping(&self) -> bool {
        self.parts.len() == 1 && HOUSEKEEPING.iter().any(|name| self.stem().eq_ignore_ascii_case(name))
    }

    /// Returns the names of the folders that contain the file.
    fn folders(&self) -> &[String] {
        &self.parts[..self.parts.len() - 1]
    }

    /// Whether the file is in a hidden folder, whose name begins with a dot.
    fn is_hidden(&self) -> bool {
        self.folders().iter().any(|folder| folder.starts_with('.'))
    }

    fn is_numbered(&self) -> bool {
        !split_number(self.stem()).numbers.is_empty()
    }

    fn identity(&self) -> String {
        self.parts.iter().map(|part| split_number(part).name).collect::<Vec<_>>().join("/")
    }

    /// Returns the readable form of the folder names. Returns `None` at the top level.
    fn section(&self) -> Option<String> {
        let is_hidden = self.is_hidden();
        let is_excluded = |part: &str| part.starts_with('.') || (is_hidden && part.eq_ignore_ascii_case("steps"));
        let sections = self.folders().iter().filter(|part| !is_excluded(part));
        let names: Vec<_> = sections.map(|part| split_number(part).readable()).collect();
        (!names.is_empty()).then(|| names.join(" / "))
    }
}

/// Splits a text into its H1, if that is the first heading, and the remaining text.
pub(super) fn heading_and_text(body: &str) -> (Option<String>, String) {
    let first = outline_outside(body).into_iter().find_map(|piece| match piece {
        Piece::Heading { level, title, range } => Some((level, title, range)),
        Piece::Fence { .. } | Piece::Html { .. } => None,
    });
    match first {
        Some((1, title, range)) => (Some(title), paragraphs(&body[..range.start], &body[range.end..])),
        _ => (None, trim_blank(body).to_owned()),
    }
}

fn read_readme(file: &mut WalkthroughFile, page: &Page<'_>) -> Result<()> {
    let source = SourceRef::file(&format!("{}/{}", file.name, page.path));
    let split = front_matter::split(&page.text);
    let yaml = split.yaml.map(|yaml| front_matter::read(&source, FRONT_MATTER, yaml, 2)).transpose()?;
    let (title, text) = heading_and_text(split.body);
    file.description = Some(text);
    apply_fields(file, &source, title, yaml)
}

fn read_step(file: &mut WalkthroughFile, page: &Page<'_>) -> Result<Option<ImportStep>> {
    let whole = SourceRef::file(&format!("{}/{}", file.name, page.path));
    let split = front_matter::split(&page.text);
    if split.body.trim().is_empty() {
        file.warnings.push(format!("{}: skipped, because it is empty.", whole.file_name()));
        return Ok(None);
    }
    let number = file.steps.len() + 1;
    let (heading, body) = heading_and_text(split.body);
    let unnamed = whole.step(number, heading.as_deref(), &page.path);
    let yaml = split.yaml.map(|yaml| front_matter::read(&unnamed, FRONT_MATTER, yaml, 2)).transpose()?;
    let yaml = yaml.unwrap_or_else(Map::new);
    let yaml_title = yaml.get("title").and_then(serde_json::Value::as_str).map(|title| title.trim().to_owned());
    let title = heading.or(yaml_title).unwrap_or_else(|| readable(split_number(page.stem()).name));
    let source = whole.step(number, Some(&title), &page.path);
    let chapter = Chapter { title, section: page.section(), line: split.first_line, body };
    let mut step = step(source, yaml, chapter)?;
    if step.identity == StepIdentity::Title {
        let identity = page.identity();
        if let Some(problem) = key_problem(&identity) {
            return Err(step.source.reject("path", format!("is {identity:?}, which {problem}")));
        }
        step.identity = StepIdentity::Path(identity);
    }
    Ok(Some(step))
}

/// Rejects steps with the same identity, which the next import could not distinguish.
pub(super) fn check_identities(file: &WalkthroughFile) -> Result<()> {
    let mut seen: HashMap<&str, &ImportStep> = HashMap::new();
    for step in &file.steps {
        let Some(key) = step.identity.key() else { continue };
        if let Some(other) = seen.insert(key, step) {
            let field = if matches!(step.identity, StepIdentity::Key(_)) { "key" } else { "path" };
            let message = format!(
                "becomes {key:?} without its numbers, and so does {}. Rename one of them.",
                other.source.file_name()
            );
            return Err(step.source.reject(field, message));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
