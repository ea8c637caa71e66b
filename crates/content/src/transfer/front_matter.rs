//! Front matter: YAML between `---` lines at the very beginning of a Markdown file, and its known members.

use serde_json::{Map, Value};

use super::json::minutes;
use super::source::{Members, SourceRef, check_depth, noun};
use waypost_core::step::StepContent;
use waypost_core::walkthrough::WalkthroughType;
use waypost_core::{Error, Result};

/// A Markdown text split into front matter and body.
pub(super) struct Split<'a> {
    /// The YAML text; `None` if there is no front matter.
    pub(super) yaml: Option<&'a str>,
    /// The Markdown after the front matter.
    pub(super) body: &'a str,
    /// The number of the first line of `body`, from 1.
    pub(super) first_line: usize,
}

/// Splits off the front matter. An unclosed `---` in the first line is a thematic break, not front matter.
pub(super) fn split(text: &str) -> Split<'_> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let nothing = Split { yaml: None, body: text, first_line: 1 };
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else { return nothing };
    let mut end = first.len();
    for (number, line) in (2..).zip(lines) {
        if matches!(line.trim_end(), "---" | "...") {
            let body = &text[end + line.len()..];
            return Split { yaml: Some(&text[first.len()..end]), body, first_line: number + 1 };
        }
        end += line.len();
    }
    nothing
}

/// Parses YAML that must be a mapping or empty. `line` is the number of its first line in the file.
pub(super) fn read(source: &SourceRef, field: &str, yaml: &str, line: usize) -> Result<Map<String, Value>> {
    if yaml.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_saphyr::from_str::<Value>(yaml) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(other) => Err(source.reject(field, format!("must be lines of `name: value`, not {}.", noun(&other)))),
        Err(cause) => Err(syntax_error(source, field, line, &cause)),
    }
}

fn syntax_error(source: &SourceRef, field: &str, line: usize, cause: &serde_saphyr::Error) -> Error {
    let at = cause.location().map_or(line, |at| line + usize::try_from(at.line()).unwrap_or(1).saturating_sub(1));
    let reason = cause.without_snippet().to_string();
    // Remove the line number from the cause, which is relative to the YAML text. Ours is relative to the file.
    let reason = reason.lines().next().unwrap_or_default();
    let reason = reason.split(" at line ").next().unwrap_or(reason).trim_end_matches('.');
    source.reject(field, format!("is not valid YAML at line {at}: {reason}.")).with("line", at)
}

/// The fields of a walkthrough in front matter.
#[derive(Debug, Default)]
pub(super) struct FrontMatterFields {
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) kind: Option<WalkthroughType>,
    pub(super) estimated_duration_minutes: Option<u32>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) metadata: Map<String, Value>,
}

/// Parses the front matter of a walkthrough.
pub(super) fn parse_fields(source: &SourceRef, map: Map<String, Value>) -> Result<FrontMatterFields> {
    let mut members = Members::new(source.clone(), map);
    let title = text(&mut members, &["title"])?;
    let description = text(&mut members, &["description"])?;
    source.check_line("title", title.as_deref().unwrap_or_default())?;
    source.check_text("description", description.as_deref().unwrap_or_default())?;
    let kind = match text(&mut members, &["type"])? {
        Some(kind) => {
            Some(kind.parse().map_err(|expected| source.reject("type", format!("is {kind:?}: {expected}.")))?)
        }
        None => None,
    };
    let mut estimated_duration_minutes = None;
    for name in ["estimated_duration_minutes", "estimatedDurationMinutes"] {
        if let Some(value) = members.take(name) {
            estimated_duration_minutes = Some(minutes(&members, name, &value)?);
        }
    }
    let tags = match members.take("tags") {
        None => None,
        Some(Value::String(text)) => Some(text.split(',').map(|tag| tag.trim().to_owned()).collect()),
        Some(Value::Array(items)) => Some(items.into_iter().map(|item| tag(source, item)).collect::<Result<_>>()?),
        Some(other) => return Err(members.wrong_type("tags", "a list of strings", &other)),
    };
    Ok(FrontMatterFields { title, description, kind, estimated_duration_minutes, tags, metadata: metadata(members)? })
}

fn tag(source: &SourceRef, item: Value) -> Result<String> {
    match item {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(source.reject("tags", format!("must be a list of strings; one is {}.", noun(&other)))),
    }
}

/// The settings of a step.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) title: Option<String>,
    pub(super) key: Option<String>,
    /// The section and agent fields; the other fields are empty.
    pub(super) content: StepContent,
}

/// Parses the settings of a step from the front matter of its file or its `walkthrough-step` block.
pub(super) fn settings(source: &SourceRef, map: Map<String, Value>) -> Result<Settings> {
    let mut members = Members::new(source.clone(), map);
    let title = text(&mut members, &["title"])?;
    let key = text(&mut members, &["key"])?;
    if let Some(problem) = key.as_deref().and_then(super::identity::key_problem) {
        return Err(source.reject("key", problem));
    }
    let content = StepContent {
        section_title: text(&mut members, &["section_title", "sectionTitle", "section"])?,
        introduction_for_agent: text(&mut members, &["introduction_for_agent", "introductionForAgent"])?,
        context_for_agent: text(&mut members, &["context_for_agent", "contextForAgent"])?,
        operations_for_agent: text(&mut members, &["operations_for_agent", "operationsForAgent"])?,
        metadata: metadata(members)?,
        ..StepContent::default()
    };
    Ok(Settings { title, key, content })
}

/// Takes a text member that can have several names.
fn text(members: &mut Members, names: &[&str]) -> Result<Option<String>> {
    for name in names {
        match members.take(name) {
            None => {}
            Some(Value::String(text)) => return Ok(Some(text)),
            Some(other) => {
                let message = format!("must be text, not {}. Put it in quotation marks.", noun(&other));
                return Err(members.source.reject(name, message));
            }
        }
    }
    Ok(None)
}

/// Returns the remaining members, merged with those of a member `metadata`.
fn metadata(mut members: Members) -> Result<Map<String, Value>> {
    let source = members.source.clone();
    let own = match members.take("metadata") {
        Some(Value::Object(own)) => own,
        Some(other) => Map::from_iter([("metadata".to_owned(), other)]),
        None => Map::new(),
    };
    check_depth(&source.within("metadata."), &own)?;
    let mut metadata = members.rest()?;
    for (name, value) in own {
        if metadata.contains_key(&name) {
            return Err(source.reject(&name, "is set in the front matter and again in its `metadata`. Remove one."));
        }
        metadata.insert(name, value);
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_is_split_off() {
        let table = [
            ("---\na: 1\n---\nb", Some("a: 1\n"), "b", 4),
            ("\u{feff}---\r\na: 1\r\n---\r\nb", Some("a: 1\r\n"), "b", 4),
            ("---\n---\n", Some(""), "", 3),
            ("---\na: 1\n...\nb", Some("a: 1\n"), "b", 4),
            ("---\nno end", None, "---\nno end", 1),
            ("\n---\na: 1\n---\n", None, "\n---\na: 1\n---\n", 1),
            ("----\na\n---\n", None, "----\na\n---\n", 1),
            ("", None, "", 1),
        ];
        for (text, yaml, body, first_line) in table {
            let split = split(text);
            assert_eq!((split.yaml, split.body, split.first_line), (yaml, body, first_line), "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_line_of_invalid_yaml() {
        for yaml in ["a: 1\nb: [", "a: 1\na: 2", "a: 1\n b\n: - c", "- a", "text", "\"", "a: .inf", "&a [*a]"] {
            let error = read(&SourceRef::file("a.md"), "front matter", yaml, 2).expect_err(yaml);
            assert_eq!(error.details["field"], "front matter");
            assert!(error.message.lines().count() == 1, "{error}");
        }
        assert!(read(&SourceRef::file("a.md"), "front matter", "# only a comment\n", 2).expect("empty").is_empty());
    }

    #[test]
    fn exponential_alias_expansion_is_rejected() {
        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            yaml.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(read(&SourceRef::file("a.md"), "front matter", &yaml, 2).is_err());
    }
}
