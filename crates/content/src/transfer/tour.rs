//! CodeTour: a `.tour` file is a walkthrough of source code (<https://aka.ms/codetour-schema>).
//!
//! - The title of a step is its `title`, otherwise `markerTitle`, otherwise the heading at the start of its description,
//!   otherwise the name of the file it refers to. The description is the content; `>> command` lines become code.
//! - The location of the step (`file`, `directory`, `uri`, `view`, `line`, `pattern`, `selection`) and its editor
//!   commands are added to the context for the agent, which can open the location.
//! - All members except title and description are kept in the metadata, under `codetour`.
//! - A folder with several tours is one walkthrough: each tour is a section, in the order of the file names.

use serde_json::{Map, Value};

use super::file::{ImportStep, StepIdentity, WalkthroughFile};
use super::folder::{FolderFile, apply_readme, folder_title};
use super::markdown::{Chapter, step};
use super::outline::{Piece, outline, paragraphs, trim_blank};
use super::source::{Members, SourceRef, check_depth, noun, title_problem, whole};
use crate::markdown::normalize_line_endings;
use waypost_core::Result;
use waypost_core::walkthrough::WalkthroughType;

/// The member of `metadata` that holds the members without an equivalent in Waypost.
const METADATA: &str = "codetour";

/// Whether a file is a tour, based on its name.
pub(super) fn is_tour(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("tour"))
}

/// Parses the tour `name`.
///
/// # Errors
/// `invalid_arguments` naming the file, the step and the field.
pub fn parse(name: &str, text: &str) -> Result<WalkthroughFile> {
    let mut file = WalkthroughFile::new(name, WalkthroughType::Quickstart);
    let source = file.source();
    let tour = read_tour(&mut file, &source, text, false)?;
    (file.title, file.description) = (tour.title, tour.description);
    file.metadata = Some(Map::from_iter([(METADATA.to_owned(), Value::Object(tour.rest))]));
    finish(file)
}

/// Parses the tours of the folder `name` in order.
///
/// # Errors
/// See [`parse`].
pub(super) fn parse_folder(name: &str, tours: &[&FolderFile<'_>], all: &[FolderFile<'_>]) -> Result<WalkthroughFile> {
    let mut file = WalkthroughFile::new(name, WalkthroughType::Course);
    let mut kept = Map::new();
    if tours.len() > 1 {
        apply_readme(&mut file, all)?;
    }
    for tour in tours {
        let source = SourceRef::file(&format!("{name}/{}", tour.path));
        let fields = read_tour(&mut file, &source, tour.text, tours.len() > 1)?;
        if tours.len() == 1 {
            (file.title, file.description) = (fields.title, fields.description);
            kept = fields.rest;
        } else {
            kept.insert(tour.path.clone(), fields.rest.into());
        }
    }
    file.title = file.title.or_else(|| folder_title(name));
    file.metadata.get_or_insert_default().insert(METADATA.to_owned(), kept.into());
    finish(file)
}

fn finish(file: WalkthroughFile) -> Result<WalkthroughFile> {
    let source = file.source();
    WalkthroughFile::check_count(&source, file.steps.len())?;
    if file.steps.is_empty() {
        return Err(source.reject("steps", "has no steps. Record at least one step of the tour."));
    }
    Ok(file)
}

struct TourFields {
    title: Option<String>,
    description: Option<String>,
    /// The members without an equivalent in Waypost.
    rest: Map<String, Value>,
}

/// Adds the steps of a tour to `file`. If there are `several` tours, the steps get a section with the tour's title.
fn read_tour(file: &mut WalkthroughFile, source: &SourceRef, text: &str, several: bool) -> Result<TourFields> {
    let value = super::json::document(source, text)?;
    let Value::Object(map) = value else {
        return Err(
            source.reject("document", format!("must be an object with `title` and `steps`, not {}.", noun(&value)))
        );
    };
    let mut tour = Members::new(source.clone(), map);
    let title = tour.text("title")?;
    if let Some(title) = &title {
        source.check_title("title", title)?;
    }
    let description = tour.text("description")?;
    source.check_text("description", description.as_deref().unwrap_or_default())?;
    let steps = match tour.take("steps") {
        Some(Value::Array(steps)) => steps,
        Some(other) => return Err(tour.wrong_type("steps", "a list", &other)),
        None => return Err(source.reject("steps", "is missing. Add a list of steps.")),
    };
    WalkthroughFile::check_count(source, file.steps.len() + steps.len())?;
    let section = title.clone().filter(|_| several);
    for (index, step) in steps.into_iter().enumerate() {
        let number = file.steps.len() + 1;
        let location = format!("steps[{index}]");
        let Value::Object(members) = step else {
            return Err(source.reject(&location, format!("must be an object, not {}.", noun(&step))));
        };
        file.steps.push(read_step(source, number, &location, section.clone(), members)?);
    }
    Ok(TourFields { title, description, rest: tour.rest()? })
}

fn read_step(
    file: &SourceRef,
    number: usize,
    location: &str,
    section: Option<String>,
    members: Map<String, Value>,
) -> Result<ImportStep> {
    let given_title =
        ["title", "markerTitle"].into_iter().find_map(|name| members.get(name)?.as_str().map(str::to_owned));
    let source = file.step(number, given_title.as_deref(), location);
    let mut members = Members::new(source.clone(), members);
    let given_title = members.text("title")?.or(given_title);
    let description = members.text("description")?.unwrap_or_default();
    let description = commands_as_code(&normalize_line_endings(&description));
    let rest = members.rest()?;
    let target = Target::read(&source, &rest)?;
    let (heading, without) = leading_heading(&description);
    let is_from_heading = given_title.is_none() && heading.is_some();
    let title = given_title.or(heading).or_else(|| target.name()).unwrap_or_else(|| format!("Step {number}"));
    let mut body = if is_from_heading && !without.is_empty() { without } else { description };
    if body.trim().is_empty() {
        body = target.location.as_ref().map_or_else(String::new, |location| format!("Look at {location}."));
    }
    let source = file.step(number, Some(&title), location);
    let mut step = step(source, Map::new(), Chapter { title, section, line: 1, body })?;
    step.identity = StepIdentity::Title;
    let own_context = step.content.context_for_agent.take();
    step.content.context_for_agent =
        Some(paragraphs(&target.context(), own_context.as_deref().unwrap_or_default())).filter(|text| !text.is_empty());
    if !rest.is_empty() {
        step.content.metadata.insert(METADATA.to_owned(), rest.into());
    }
    check_depth(&step.source, &step.content.metadata)?;
    Ok(step)
}

/// Splits off the heading at the start of a text, if it is a valid title.
fn leading_heading(text: &str) -> (Option<String>, String) {
    match outline(text).into_iter().next() {
        Some(Piece::Heading { title, range, .. })
            if text[..range.start].trim().is_empty() && title_problem(&title).is_none() =>
        {
            (Some(title), trim_blank(&text[range.end..]).to_owned())
        }
        _ => (None, String::new()),
    }
}

/// Converts CodeTour's `>> npm install`, a command that runs on click, to a code block. Other renderers would show it
/// as a quotation.
fn commands_as_code(text: &str) -> String {
    let mut fence: Option<&str> = None;
    let mut result = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let body = line.trim();
        match fence {
            Some(mark) if body.starts_with(mark) => fence = None,
            None if body.starts_with("```") => fence = Some("```"),
            None if body.starts_with("~~~") => fence = Some("~~~"),
            _ => {}
        }
        match line.strip_prefix(">>").map(str::trim).filter(|command| fence.is_none() && !command.is_empty()) {
            Some(command) if !command.contains("```") => {
                if !result.is_empty() && !result.ends_with("\n\n") {
                    result.push('\n');
                }
                result.push_str(&format!("```sh\n{command}\n```\n"));
            }
            _ => result.push_str(line),
        }
    }
    result
}

/// The location that a step refers to.
struct Target {
    /// The file, folder, URL or view, in words.
    location: Option<String>,
    /// The last part of its name.
    last: Option<String>,
    /// The line or selection.
    position: Option<String>,
    commands: Vec<String>,
}

impl Target {
    fn read(source: &SourceRef, members: &Map<String, Value>) -> Result<Self> {
        let text = |name: &str| match members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" "))),
            Some(other) => Err(source.reject(name, format!("must be text, not {}.", noun(other)))),
        };
        let mut about = None;
        for (name, words) in
            [("file", "the file"), ("directory", "the folder"), ("uri", "the URL"), ("view", "the view")]
        {
            let value = text(name)?.filter(|value| !value.is_empty());
            about = about.or(value.map(|value| (format!("{words} `{}`", value.replace('`', "'")), value)));
        }
        let number = |value: &Value, name: &str| whole(value).map(|number| format!("{name} {number}"));
        let at = |end: &Value| Some((whole(end.get("line")?)?, whole(end.get("character")?)?));
        let selection = members.get("selection").and_then(|selection| {
            let ((from, column), (to, end)) = (at(selection.get("start")?)?, at(selection.get("end")?)?);
            Some(format!("from line {from}, column {column} to line {to}, column {end}"))
        });
        let line = members.get("line").and_then(|line| number(line, "line"));
        let pattern =
            text("pattern")?.map(|pattern| format!("the line that matches the regular expression {pattern:?}"));
        let commands = match members.get("commands") {
            Some(Value::Array(commands)) => commands.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let (location, last) = about.map_or((None, None), |(words, name)| {
            let last = name.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
            (Some(words), last.filter(|last| title_problem(last).is_none()))
        });
        Ok(Self { location, last, position: selection.or(line).or(pattern), commands })
    }

    fn name(&self) -> Option<String> {
        self.last.clone()
    }

    /// Returns the context for the agent.
    fn context(&self) -> String {
        let mut lines = Vec::new();
        if let Some(location) = &self.location {
            let position = self.position.as_ref().map_or_else(String::new, |position| format!(", {position}"));
            lines.push(format!(
                "This step refers to {location}{position}, in the user's workspace. Open it there, or show that part of it, \
                 together with the step."
            ));
        }
        if !self.commands.is_empty() {
            let commands = self.commands.iter().map(|command| format!("\n- {command}")).collect::<String>();
            lines.push(format!(
                "The author's editor ran these commands here. They do not run automatically; ask the user before you do the same:{commands}"
            ));
        }
        lines.join("\n\n")
    }
}

#[cfg(test)]
#[path = "tour_tests.rs"]
mod tests;
