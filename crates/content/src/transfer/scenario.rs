//! Killercoda: a scenario is a folder with an `index.json` that lists the Markdown files of its steps.
//!
//! - `title` and `description` become those of the walkthrough. `details.intro`, `details.steps` and `details.finish`
//!   become the steps, each with a `title` (otherwise the H1 of its text) and a `text`, the path of a Markdown file.
//! - A step is identified by the path of its text without numbers and extension.
//! - Code annotations (`{{exec}}`, `{{copy}}`) are removed, which leaves plain Markdown.
//! - Scripts (`foreground`, `background`, `verify`) are not run. Their names and all other members are kept in the
//!   metadata, under `killercoda`, and a warning lists the scripts.
//! - A folder with several scenarios is one walkthrough: each is a section, in the order of the folder names.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::file::{ImportStep, StepIdentity, WalkthroughFile};
use super::folder::{FolderFile, apply_readme, check_identities, folder_title, heading_and_text};
use super::front_matter;
use super::identity::{fold_title, key_problem, split_number};
use super::markdown::{Chapter, FRONT_MATTER, step};
use super::source::{Members, SourceRef, check_depth, noun};
use crate::markdown::normalize_line_endings;
use waypost_core::Result;
use waypost_core::walkthrough::WalkthroughType;

/// The member of `metadata` that holds the members without an equivalent in Waypost.
const METADATA: &str = "killercoda";
/// Members of a step that name scripts.
const SCRIPTS: [&str; 3] = ["foreground", "background", "verify"];
/// Words that begin a code annotation.
const ANNOTATIONS: [&str; 5] = ["exec", "execute", "copy", "open", "interrupt"];

/// Whether a file is the index of a scenario, based on its name and content.
pub(super) fn is_index(source: &FolderFile<'_>) -> bool {
    is_index_name(&source.path) && source.text.contains("\"details\"")
}

/// Whether a file can be the index of a scenario, based on its name.
pub(super) fn is_index_name(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case("index.json"))
}

/// Parses the scenarios of the folder `name`, given their `index.json` files in order, and all files.
///
/// # Errors
/// `invalid_arguments` naming the file, the step and the field.
pub(super) fn parse_folder(
    name: &str,
    indices: &[&FolderFile<'_>],
    files: &[FolderFile<'_>],
) -> Result<WalkthroughFile> {
    let mut reader = Reader {
        file: WalkthroughFile::new(name, WalkthroughType::Course),
        texts: files.iter().map(|source| (source.path.as_str(), source.text)).collect(),
        folder: "",
        section: None,
        scripts: BTreeSet::new(),
    };
    let mut kept = Map::new();
    if indices.len() > 1 {
        apply_readme(&mut reader.file, files)?;
    }
    for index in indices {
        let folder = index.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        reader.folder = folder;
        let rest = reader.scenario(index, indices.len() > 1)?;
        if indices.len() == 1 { kept = rest } else { drop(kept.insert(folder.to_owned(), rest.into())) }
    }
    let Reader { mut file, scripts, .. } = reader;
    let source = file.source();
    if file.steps.is_empty() {
        return Err(
            source.reject("details.steps", "has no step with a text. Put the Markdown files next to `index.json`.")
        );
    }
    check_identities(&file)?;
    if !scripts.is_empty() {
        let scripts = scripts.into_iter().collect::<Vec<_>>().join(", ");
        file.warnings.push(format!(
            "{name}: the scripts of the scenario are not run; their names are kept in the metadata. Describe in the steps \
             what they do: {scripts}."
        ));
    }
    if file.steps.iter().any(|step| step.content.content.contains("{{TRAFFIC_")) {
        file.warnings.push(format!(
            "{name}: `{{{{TRAFFIC_…}}}}` is a placeholder for a Killercoda URL. Replace it with the actual URL."
        ));
    }
    file.title = file.title.or_else(|| folder_title(name));
    file.metadata.get_or_insert_default().insert(METADATA.to_owned(), kept.into());
    Ok(file)
}

struct Reader<'a> {
    file: WalkthroughFile,
    texts: HashMap<&'a str, &'a str>,
    /// The folder of the current scenario.
    folder: &'a str,
    section: Option<String>,
    scripts: BTreeSet<String>,
}

impl Reader<'_> {
    /// Parses a scenario. Returns the members without an equivalent in Waypost.
    fn scenario(&mut self, index: &FolderFile<'_>, several: bool) -> Result<Map<String, Value>> {
        let source = SourceRef::file(&format!("{}/{}", self.file.name, index.path));
        let value = super::json::document(&source, index.text)?;
        let Value::Object(map) = value else {
            return Err(source.reject("document", format!("must be an object with `details`, not {}.", noun(&value))));
        };
        let mut index = Members::new(source.clone(), map);
        let (title, description) = (index.text("title")?, index.text("description")?);
        if let Some(title) = &title {
            source.check_title("title", title)?;
        }
        source.check_text("description", description.as_deref().unwrap_or_default())?;
        let mut details = Members::new(source.within("details."), index.object("details")?.unwrap_or_default());
        self.section = title.clone().filter(|_| several);
        if !several {
            (self.file.title, self.file.description) = (title, description);
        }
        if let Some(intro) = details.object("intro")? {
            self.step(&source, "details.intro", "Introduction", intro)?;
        }
        match details.take("steps") {
            None => {}
            Some(Value::Array(steps)) => {
                WalkthroughFile::check_count(&source, self.file.steps.len() + steps.len())?;
                for (index, step) in steps.into_iter().enumerate() {
                    let location = format!("details.steps[{index}]");
                    let Value::Object(step) = step else {
                        return Err(source.reject(&location, format!("must be an object, not {}.", noun(&step))));
                    };
                    self.step(&source, &location, &format!("Step {}", index + 1), step)?;
                }
            }
            Some(other) => return Err(details.wrong_type("steps", "a list", &other)),
        }
        if let Some(finish) = details.object("finish")? {
            self.step(&source, "details.finish", "Finish", finish)?;
        }
        let details = details.rest()?;
        let mut rest = index.rest()?;
        if !details.is_empty() {
            rest.insert("details".to_owned(), details.into());
        }
        Ok(rest)
    }

    fn step(&mut self, index: &SourceRef, location: &str, unnamed: &str, members: Map<String, Value>) -> Result<()> {
        let number = self.file.steps.len() + 1;
        let given_title = members.get("title").and_then(Value::as_str);
        let mut members = Members::new(index.step(number, given_title, location), members);
        let given_title = members.text("title")?.filter(|title| !title.trim().is_empty());
        let Some(path) = members.text("text")? else {
            self.file.warnings.push(format!("{}: {location}: skipped, because it has no `text`.", index.file_name()));
            return Ok(());
        };
        let rest = members.rest()?;
        for script in SCRIPTS.iter().filter_map(|name| rest.get(*name)).filter_map(Value::as_str) {
            self.scripts.insert(script.to_owned());
        }
        let path = inside(self.folder, &path);
        let Some(text) = path.as_deref().and_then(|path| self.texts.get(path)).filter(|text| !text.trim().is_empty())
        else {
            let shown = path.unwrap_or_default();
            self.file.warnings.push(format!(
                "{}: {location}: skipped, because its text {shown:?} is not in the folder, or is empty.",
                index.file_name()
            ));
            return Ok(());
        };
        let path = path.unwrap_or_default();
        let text = normalize_line_endings(text);
        let whole = SourceRef::file(&format!("{}/{path}", self.file.name));
        let split = front_matter::split(&text);
        let yaml = split.yaml.map(|yaml| front_matter::read(&whole, FRONT_MATTER, yaml, 2)).transpose()?;
        let (heading, around) = heading_and_text(split.body);
        let same = heading.as_deref().is_some_and(|heading| {
            given_title.as_deref().is_none_or(|given_title| fold_title(given_title) == fold_title(heading))
        });
        let title = given_title.or(heading).unwrap_or_else(|| unnamed.to_owned());
        // A heading that only repeats the title is removed, unless there is no other text.
        let body = if same && !around.is_empty() { around } else { split.body.to_owned() };
        let source = whole.step(number, Some(&title), &path);
        let chapter =
            Chapter { title, section: self.section.clone(), line: split.first_line, body: without_annotations(&body) };
        let step = step(source, yaml.unwrap_or_default(), chapter)?;
        self.file.steps.push(identified(step, &path, rest)?);
        Ok(())
    }
}

fn identified(mut step: ImportStep, path: &str, rest: Map<String, Value>) -> Result<ImportStep> {
    if !rest.is_empty() {
        step.content.metadata.insert(METADATA.to_owned(), rest.into());
    }
    check_depth(&step.source, &step.content.metadata)?;
    if step.identity == StepIdentity::Title {
        let path = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
        let identity = path.split('/').map(|part| split_number(part).name).collect::<Vec<_>>().join("/");
        if let Some(problem) = key_problem(&identity) {
            return Err(step.source.reject("path", format!("is {identity:?}, which {problem}")));
        }
        step.identity = StepIdentity::Path(identity);
    }
    Ok(step)
}

/// Returns the path of a text in the imported folder. Returns `None` if it is outside the folder.
fn inside(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Removes annotations directly after code, as in `` `ls`{{exec}} ``, and after a closing fence.
fn without_annotations(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("`{{") {
        let (before, annotation) = rest.split_at(at + 1);
        result.push_str(before);
        rest = annotation;
        let line = rest.split('\n').next().unwrap_or_default();
        let Some(end) = line.find("}}") else { continue };
        let word = line[2..end].split(|c: char| c == ':' || c.is_whitespace()).find(|word| !word.is_empty());
        if word.is_some_and(|word| ANNOTATIONS.contains(&word.to_ascii_lowercase().as_str())) {
            rest = &rest[end + 2..];
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
#[path = "scenario_tests.rs"]
mod tests;
