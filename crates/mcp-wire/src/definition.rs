//! Definitions of tools, prompts and resources as a server lists them: raw text with a digest.
//!
//! A definition is never modelled: its digest covers every member, also those that this version does not know, so that
//! no change of a server goes unnoticed.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use waypost_core::tool_definition::DefinitionKind;

use crate::canonical::Digest;
use crate::strict::{Ambiguity, check_definition, check_result};

/// The maximum size of a definition in bytes.
pub const MAX_BYTES: usize = 256 * 1024;
/// The maximum length of a name or URI in bytes.
pub const MAX_NAME: usize = 512;

/// A definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The name of a tool or prompt, the URI of a resource, or the URI template. Empty for instructions.
    pub name: String,
    /// The text as received.
    pub text: String,
    /// The digest of the canonical JSON, or of the text if it has no canonical form.
    pub digest: Digest,
    /// The reason why the definition cannot be approved.
    pub problem: Option<Problem>,
}

/// The reason why a definition cannot be approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Parsers could read it in different ways.
    NotCanonical(Ambiguity),
    /// The name contains control characters, or is too long.
    InvalidName,
    /// It is larger than [`MAX_BYTES`]. Only the name and the digest are kept.
    TooLarge,
}

impl Problem {
    /// Returns the stable code.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotCanonical(_) => "not_canonical",
            Self::InvalidName => "invalid_name",
            Self::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCanonical(ambiguity) => {
                write!(f, "programs could read the definition in different ways: {ambiguity}")
            }
            Self::InvalidName => write!(f, "the name has control characters or more than {MAX_NAME} bytes"),
            Self::TooLarge => write!(f, "the definition has more than {MAX_BYTES} bytes"),
        }
    }
}

impl Definition {
    /// Reads an item of a list. Returns `None` if it has no name, so that nobody can use it.
    #[must_use]
    pub fn read(kind: DefinitionKind, item: &RawValue) -> Option<Self> {
        let text = item.get();
        let name = member(text, name_member(kind)?)?;
        if text.len() > MAX_BYTES {
            return Some(Self::with_problem(name, String::new(), digest_of(text), Problem::TooLarge));
        }
        let text = text.to_owned();
        if let Err(ambiguity) = check_definition(&text) {
            let digest = digest_of(&text);
            return Some(Self::with_problem(name, text, digest, Problem::NotCanonical(ambiguity)));
        }
        // Everything that has no canonical form was rejected above.
        let value: Value = serde_json::from_str(&text).ok()?;
        let digest = Digest::of(&value).ok()?;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Some(Self::with_problem(name, text, digest, Problem::InvalidName));
        }
        Some(Self { name, text, digest, problem: None })
    }

    /// Reads the `instructions` of a server, which are JSON text of a string.
    #[must_use]
    pub fn read_instructions(text: &RawValue) -> Option<Self> {
        let value: String = serde_json::from_str(text.get()).ok()?;
        let digest = Digest::of(&value).ok()?;
        if text.get().len() > MAX_BYTES {
            return Some(Self::with_problem(String::new(), String::new(), digest, Problem::TooLarge));
        }
        Some(Self { name: String::new(), text: text.get().to_owned(), digest, problem: None })
    }

    fn with_problem(mut name: String, text: String, digest: Digest, problem: Problem) -> Self {
        if name.len() > MAX_NAME {
            name.truncate((0..=MAX_NAME).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0));
        }
        Self { name, text, digest, problem: Some(problem) }
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct ListPage<'a> {
    /// The items as received.
    pub items: Vec<&'a RawValue>,
    /// The cursor of the next page.
    pub next_cursor: Option<String>,
}

/// Reads the result of a list request. Returns `None` if it is not such a result, or could be read in different ways.
#[must_use]
pub fn read_list(kind: DefinitionKind, result: &RawValue) -> Option<ListPage<'_>> {
    let text = result.get();
    check_result(text).ok()?;
    let items = raw_member(text, list_member(kind)?)?;
    let items: Vec<&RawValue> = serde_json::from_str(items.get()).ok()?;
    items
        .iter()
        .all(|item| item.get().starts_with('{'))
        .then(|| ListPage { items, next_cursor: member(text, "nextCursor") })
}

/// Returns the method that lists definitions of this kind; `None` for instructions.
#[must_use]
pub fn list_method(kind: DefinitionKind) -> Option<&'static str> {
    match kind {
        DefinitionKind::Tool => Some("tools/list"),
        DefinitionKind::Prompt => Some("prompts/list"),
        DefinitionKind::Resource => Some("resources/list"),
        DefinitionKind::ResourceTemplate => Some("resources/templates/list"),
        DefinitionKind::Instructions => None,
    }
}

/// Returns the member of the result that contains the list; `None` for instructions.
#[must_use]
pub fn list_member(kind: DefinitionKind) -> Option<&'static str> {
    match kind {
        DefinitionKind::Tool => Some("tools"),
        DefinitionKind::Prompt => Some("prompts"),
        DefinitionKind::Resource => Some("resources"),
        DefinitionKind::ResourceTemplate => Some("resourceTemplates"),
        DefinitionKind::Instructions => None,
    }
}

/// Returns the member that identifies a definition; `None` for instructions.
#[must_use]
pub fn name_member(kind: DefinitionKind) -> Option<&'static str> {
    match kind {
        DefinitionKind::Tool | DefinitionKind::Prompt => Some("name"),
        DefinitionKind::Resource => Some("uri"),
        DefinitionKind::ResourceTemplate => Some("uriTemplate"),
        DefinitionKind::Instructions => None,
    }
}

fn digest_of(text: &str) -> Digest {
    Digest::from_bytes(Sha256::digest(text.as_bytes()).into())
}

/// Returns a member that is a string. The last one if it is repeated.
fn member(text: &str, name: &str) -> Option<String> {
    serde_json::from_str(raw_member(text, name)?.get()).ok()
}

/// Returns the text of a member of an object. The last one if it is repeated.
pub(crate) fn raw_member<'a>(text: &'a str, name: &str) -> Option<&'a RawValue> {
    struct Members<'n, 'a>(&'n str, Option<&'a RawValue>);
    impl<'a> serde::de::DeserializeSeed<'a> for Members<'_, 'a> {
        type Value = Option<&'a RawValue>;
        fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }
    }
    impl<'a> serde::de::Visitor<'a> for Members<'_, 'a> {
        type Value = Option<&'a RawValue>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'a>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
            while let Some(name) = map.next_key::<Name<'a>>()? {
                let value: &'a RawValue = map.next_value()?;
                if name.0 == self.0 {
                    self.1 = Some(value);
                }
            }
            Ok(self.1)
        }
    }
    #[derive(Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde::de::DeserializeSeed::deserialize(Members(name, None), &mut deserializer).ok()?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn read(text: &str) -> Definition {
        Definition::read(DefinitionKind::Tool, &raw(text)).unwrap()
    }

    #[test]
    fn every_member_counts_and_their_order_does_not() {
        let tool = read(r#"{"name":"a","inputSchema":{"type":"object"},"x":{"y":[1,2]}}"#);
        assert_eq!(read(r#"{ "x":{"y":[1.0,2]}, "inputSchema":{"type":"object"},"name":"a" }"#).digest, tool.digest);
        assert_ne!(read(r#"{"name":"a","inputSchema":{"type":"object"},"x":{"y":[1,3]}}"#).digest, tool.digest);
        assert_ne!(read(r#"{"name":"a","inputSchema":{"type":"object"}}"#).digest, tool.digest);
        assert_eq!((tool.name.as_str(), tool.problem), ("a", None));
    }

    #[test]
    fn definitions_with_a_problem_keep_their_name() {
        let problem = |text: &str| read(text).problem.map(|problem| problem.as_str());
        assert_eq!(problem(r#"{"name":"a","name":"b"}"#), Some("not_canonical"));
        assert_eq!(problem(r#"{"name":"a","inputSchema":{"maximum":99999999999999999999}}"#), Some("not_canonical"));
        assert_eq!(problem(r#"{"name":""}"#), Some("invalid_name"));
        assert_eq!(problem(r#"{"name":"a\n"}"#), Some("invalid_name"));
        let long = read(&json!({ "name": "é".repeat(MAX_NAME) }).to_string());
        assert_eq!((long.name.len(), long.problem), (MAX_NAME, Some(Problem::InvalidName)));
        let large = read(&json!({ "name": "a", "description": "x".repeat(MAX_BYTES) }).to_string());
        assert_eq!((large.text.as_str(), large.problem), ("", Some(Problem::TooLarge)));
        for text in [r#"{"title":"a"}"#, r#"{"name":7}"#, "[]", "7"] {
            assert_eq!(Definition::read(DefinitionKind::Tool, &raw(text)), None, "{text}");
        }
    }

    #[test]
    fn lists_are_split_without_reading_their_items() {
        let result = raw(r#"{"tools":[{"name":"a","x":1.0},{"name":"b"}],"nextCursor":"c","ttlMs":5}"#);
        let page = read_list(DefinitionKind::Tool, &result).unwrap();
        assert_eq!(
            page.items.iter().map(|item| item.get()).collect::<Vec<_>>(),
            [r#"{"name":"a","x":1.0}"#, r#"{"name":"b"}"#]
        );
        assert_eq!(page.next_cursor.as_deref(), Some("c"));
        for text in [r#"{"prompts":[]}"#, r#"{"tools":{}}"#, r#"{"tools":[7]}"#, r#"{"tools":[],"Tools":[]}"#, "[]"] {
            assert!(read_list(DefinitionKind::Tool, &raw(text)).is_none(), "{text}");
        }
        let instructions = Definition::read_instructions(&raw("\"Be careful.\"")).unwrap();
        assert_eq!((instructions.name.as_str(), instructions.text.as_str()), ("", "\"Be careful.\""));
        assert_eq!(Definition::read_instructions(&raw("7")), None);
    }

    proptest! {
        #[test]
        fn a_changed_member_changes_the_digest(at in 0_usize..5, value in 0_i64..50) {
            let definition = |values: [i64; 5]| {
                let [a, b, c, d, e] = values;
                read(&json!({ "name": "t", "inputSchema": { "properties": { "p": { "maximum": a, "x": [b, { "y": c }] } } },
                    "annotations": { "priority": d }, "_meta": { "k": e } }).to_string())
            };
            let mut changed = [100; 5];
            changed[at] = value;
            prop_assert_ne!(definition(changed).digest, definition([100; 5]).digest);
            prop_assert_eq!(definition(changed).digest, definition(changed).digest);
        }

        #[test]
        fn any_item_with_a_name_is_kept_as_it_is(text in r#"\{"name":"[a-c]{0,3}"(,"[a-d]{1,4}":[1-9][0-9]{0,19}){0,3}\}"#) {
            prop_assert_eq!(Definition::read(DefinitionKind::Tool, &raw(&text)).unwrap().text, text);
        }
    }
}
