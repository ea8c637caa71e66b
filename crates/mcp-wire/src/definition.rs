//! Definitions of tools, prompts, resources, resource templates and instructions, with the digests by which they are
//! approved (contract, section 8).

use std::fmt;

use serde_json::{Map, Number, Value};
pub use waypost_core::tool_definition::DefinitionKind;
use waypost_core::tool_definition::MAX_DEFINITIONS;

use crate::canonical::Digest;
use crate::scan::{Ambiguity, Flaw, Names, Numbers, Scanner, unquote};
use crate::strict::split_array;

/// The maximum size of a definition in bytes: 256 KiB.
pub const MAX_DEFINITION_BYTES: usize = 256 * 1024;
/// The maximum length of the name of a tool or prompt, in characters.
const MAX_NAME: usize = 256;
/// The maximum length of a URI or URI template, in characters.
const MAX_URI: usize = 2_048;
/// The name of instructions, which have no name of their own.
const INSTRUCTIONS: &str = "instructions";

const MEMBERS: Names<4> = Names::new(
    ["name", "uri", "uriTemplate", "description"],
    &[
        "_meta",
        "title",
        "inputSchema",
        "outputSchema",
        "annotations",
        "icons",
        "execution",
        "arguments",
        "mimeType",
        "size",
    ],
);
const ANNOTATIONS: Names<0> = Names::new(
    [],
    &[
        "title",
        "readOnlyHint",
        "destructiveHint",
        "idempotentHint",
        "openWorldHint",
        "audience",
        "priority",
        "lastModified",
    ],
);
const META: Names<0> = Names { read: [], other: &["ui"], prefix: Some("io.modelcontextprotocol/") };

/// Returns the member that contains the name of a definition of this kind.
fn name_member(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Tool | DefinitionKind::Prompt | DefinitionKind::Instructions => "name",
        DefinitionKind::Resource => "uri",
        DefinitionKind::ResourceTemplate => "uriTemplate",
    }
}

/// A definition that every parser reads alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition<'a> {
    /// The kind.
    pub kind: DefinitionKind,
    /// The name of a tool or prompt, the URI of a resource or template, or `instructions`.
    pub name: String,
    /// The SHA-256 digest of the canonical JSON of the definition with all its members.
    pub digest: Digest,
    /// The definition as received.
    pub raw: &'a str,
}

/// The reason why a definition cannot be approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefinitionProblem {
    /// Parsers could read the definition differently, so no digest identifies what they read.
    NotCanonical(Ambiguity),
    /// It is not an object (or, for instructions, a string), has no name, or its name is empty, longer than 256
    /// characters (2,048 for a URI) or contains control characters.
    InvalidName,
    /// It is larger than [`MAX_DEFINITION_BYTES`].
    TooLarge,
}

impl DefinitionProblem {
    /// Returns the name of the problem in the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotCanonical(_) => "not_canonical",
            Self::InvalidName => "invalid_name",
            Self::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for DefinitionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCanonical(ambiguity) => ambiguity.fmt(f),
            Self::InvalidName => f.write_str("the name is missing, too long or contains control characters"),
            Self::TooLarge => write!(f, "the definition is larger than {} KiB", MAX_DEFINITION_BYTES / 1024),
        }
    }
}

/// A definition that cannot be approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct RejectedDefinition {
    /// The name, if it can be read unambiguously and is valid.
    pub name: Option<String>,
    /// The problem.
    pub problem: DefinitionProblem,
}

impl<'a> Definition<'a> {
    /// Parses the JSON text of a definition, which may be surrounded by white space. Schemas are not validated.
    ///
    /// # Errors
    /// A [`RejectedDefinition`] if the definition cannot be approved.
    pub fn read(kind: DefinitionKind, text: &'a str) -> Result<Self, RejectedDefinition> {
        let raw = text.trim_matches([' ', '\t', '\n', '\r']);
        let rejected = |problem| {
            // The name of a definition that is too large is not read.
            let name = if problem == DefinitionProblem::TooLarge { None } else { find_name(kind, raw) };
            RejectedDefinition { name, problem }
        };
        if raw.len() > MAX_DEFINITION_BYTES {
            return Err(rejected(DefinitionProblem::TooLarge));
        }
        let value = read_value(kind, raw).map_err(|flaw| match flaw {
            Flaw::Ambiguous(ambiguity) => rejected(DefinitionProblem::NotCanonical(ambiguity)),
            Flaw::Syntax(_) | Flaw::Invalid(..) => rejected(DefinitionProblem::InvalidName),
        })?;
        let name = match (kind, &value) {
            (DefinitionKind::Instructions, Value::String(_)) => Some(INSTRUCTIONS.to_owned()),
            (DefinitionKind::Instructions, _) => None,
            _ => value.get(name_member(kind)).and_then(Value::as_str).map(str::to_owned),
        };
        let name = name.filter(|name| is_valid_name(kind, name));
        let name = name.ok_or_else(|| rejected(DefinitionProblem::InvalidName))?;
        // Does not fail: the value contains no inexact integer, and a value can always be serialised.
        let digest =
            Digest::of(&value).map_err(|_| rejected(DefinitionProblem::NotCanonical(Ambiguity::InexactNumber)))?;
        Ok(Self { kind, name, digest, raw })
    }
}

/// The reason why a list cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It is not a JSON array.
    #[error("the list is not a JSON array")]
    NotAnArray,
    /// It has more than [`MAX_DEFINITIONS`] items.
    #[error("the list has more than {MAX_DEFINITIONS} definitions")]
    TooLong,
}

/// Splits the JSON text of a list of definitions, such as `tools` of a result, into the texts of its items.
///
/// # Errors
/// A [`ListError`] if the text is not an array or has too many items.
pub fn split_list(text: &str) -> Result<Vec<&str>, ListError> {
    split_array(text, MAX_DEFINITIONS).map_err(|_| ListError::NotAnArray)?.ok_or(ListError::TooLong)
}

/// Parses a definition, and checks that every parser reads it alike.
fn read_value(kind: DefinitionKind, raw: &str) -> Result<Value, Flaw> {
    let mut scanner = Scanner::new(raw);
    let value = if kind == DefinitionKind::Instructions {
        tree(&mut scanner, 0)?
    } else {
        let mut members = Map::new();
        scanner.members(0, &MEMBERS, |scanner, key| {
            let value = match (key, scanner.peek()) {
                ("annotations", Some(b'{')) => protocol_object(scanner, &ANNOTATIONS)?,
                ("_meta", Some(b'{')) => protocol_object(scanner, &META)?,
                _ => tree(scanner, 1)?,
            };
            members.insert(key.to_owned(), value);
            Ok("")
        })?;
        Value::Object(members)
    };
    scanner.end()?;
    Ok(value)
}

/// Parses an object at the second level, and rejects variants of its names.
fn protocol_object(scanner: &mut Scanner<'_>, names: &Names<0>) -> Result<Value, Flaw> {
    let mut members = Map::new();
    scanner.members(1, names, |scanner, key| {
        members.insert(key.to_owned(), tree(scanner, 2)?);
        Ok("")
    })?;
    Ok(Value::Object(members))
}

/// Parses a value. Unlike `serde_json` without `float_roundtrip`, it rounds numbers as IEEE 754 requires, so that their
/// canonical form matches that of other implementations.
fn tree(scanner: &mut Scanner<'_>, level: usize) -> Result<Value, Flaw> {
    match scanner.peek() {
        Some(b'{') => {
            let mut members = Map::new();
            scanner.object(level, |scanner, key| {
                members.insert(key.to_owned(), tree(scanner, level + 1)?);
                Ok("")
            })?;
            Ok(Value::Object(members))
        }
        Some(b'[') => {
            let mut items = Vec::new();
            scanner.array(level, |scanner| {
                items.push(tree(scanner, level + 1)?);
                Ok("")
            })?;
            Ok(Value::Array(items))
        }
        _ => {
            let raw = scanner.value(level, Numbers::Exact)?;
            let is_float = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && raw.contains(['.', 'e', 'E']);
            let float = if is_float { raw.parse().ok().and_then(Number::from_f64) } else { None };
            match float {
                Some(number) => Ok(Value::Number(number)),
                None => serde_json::from_str(raw).map_err(|_| scanner.syntax()),
            }
        }
    }
}

/// Returns the name of a rejected definition, if it has exactly one member for the name, and no variant of this member.
fn find_name(kind: DefinitionKind, raw: &str) -> Option<String> {
    if kind == DefinitionKind::Instructions {
        return Some(INSTRUCTIONS.to_owned());
    }
    let names = Names::new([name_member(kind)], &[]);
    let mut scanner = Scanner::new(raw);
    let (mut found, mut has_variant) = (Vec::new(), false);
    let members = scanner.raw_members(0, |key, value| match unquote(key).map_or(Ok(None), |key| names.find(&key)) {
        Ok(None) => {}
        Ok(Some(_)) => found.push(value),
        Err(_) => has_variant = true,
    });
    members.ok().filter(|()| !has_variant)?;
    let [name] = found[..] else { return None };
    unquote(name).filter(|name| is_valid_name(kind, name)).map(std::borrow::Cow::into_owned)
}

fn is_valid_name(kind: DefinitionKind, name: &str) -> bool {
    let limit = match kind {
        DefinitionKind::Tool | DefinitionKind::Prompt | DefinitionKind::Instructions => MAX_NAME,
        DefinitionKind::Resource | DefinitionKind::ResourceTemplate => MAX_URI,
    };
    !name.is_empty() && name.chars().take(limit + 1).count() <= limit && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Definition<'_>, RejectedDefinition> {
        Definition::read(DefinitionKind::Tool, text)
    }

    fn problem(text: &str) -> (&'static str, Option<String>) {
        let rejected = read(text).unwrap_err();
        (rejected.problem.code(), rejected.name)
    }

    #[test]
    fn each_kind_has_its_name() {
        for (kind, text, name) in [
            (DefinitionKind::Tool, r#" {"name":"a\u0062","uri":"u"} "#, "ab"),
            (DefinitionKind::Prompt, r#"{"name":"p","arguments":[{"name":"x"}]}"#, "p"),
            (DefinitionKind::Resource, r#"{"name":"n","uri":"file:///a"}"#, "file:///a"),
            (DefinitionKind::ResourceTemplate, r#"{"uriTemplate":"x:{id}","name":"n"}"#, "x:{id}"),
            (DefinitionKind::Instructions, r#""Use it.""#, "instructions"),
        ] {
            let definition = Definition::read(kind, text).unwrap();
            assert_eq!((definition.name.as_str(), definition.raw), (name, text.trim()));
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(definition.digest, Digest::of(&value).unwrap());
        }
        let resource = Definition::read(DefinitionKind::Resource, r#"{"name":"n"}"#).unwrap_err();
        assert_eq!(resource, RejectedDefinition { name: None, problem: DefinitionProblem::InvalidName });
        assert!(Definition::read(DefinitionKind::Instructions, "7").is_err());
    }

    #[test]
    fn ambiguous_definitions_are_not_canonical() {
        let deep = format!(r#"{{"name":"t","inputSchema":{}{}}}"#, "[".repeat(64), "]".repeat(64));
        for text in [
            r#"{"name":"t","inputSchema":{"a":{"b":1,"b":2}}}"#,
            r#"{"name":"t","inputSchema":[{"type":"x","t\u0079pe":"y"}]}"#,
            r#"{"name":"t","x":1,"x":1}"#,
            r#"{"name":"t","Description":"d"}"#,
            "{\"name\":\"t\",\"de\u{17f}cription\":\"d\"}",
            r#"{"name":"t","annotations":{"readonlyhint":true}}"#,
            r#"{"name":"t","_meta":{"IO.modelcontextprotocol/x":true}}"#,
            r#"{"name":"t","inputSchema":{"maximum":9007199254740993}}"#,
            r#"{"name":"t","inputSchema":{"maximum":1e400}}"#,
            r#"{"name":"t","description":"\ud800"}"#,
            &deep,
        ] {
            assert_eq!(problem(text), ("not_canonical", Some("t".to_owned())), "{text}");
        }
        for text in [r#"{"name":"t","name":"u"}"#, r#"{"name":"t","NAME":"u"}"#] {
            assert_eq!(problem(text), ("not_canonical", None), "{text}");
        }
        let deepest = format!(r#"{{"name":"t","inputSchema":{}{}}}"#, "[".repeat(63), "]".repeat(63));
        assert!(read(&deepest).is_ok());
        assert!(read(r#"{"name":"t","inputSchema":{"properties":{"Name":{},"name":{},"NAME":{}}},"_meta":{"a":1,"A":2},"x":1.0}"#).is_ok());
    }

    #[test]
    fn names_and_sizes_are_limited() {
        let named = |name: &str| json!({ "name": name }).to_string();
        assert!(read(&named(&"é".repeat(256))).is_ok());
        for text in [
            named(&"é".repeat(257)),
            named(""),
            named("a\nb"),
            "{}".into(),
            "{\"name\":7}".into(),
            "[]".into(),
            "x".into(),
        ] {
            assert_eq!(problem(&text), ("invalid_name", None), "{text}");
        }
        let sized = |bytes: usize| format!(r#"{{"name":"t","x":"{}"}}"#, "y".repeat(bytes - 19));
        assert!(read(&sized(MAX_DEFINITION_BYTES)).is_ok());
        assert_eq!(problem(&sized(MAX_DEFINITION_BYTES + 1)), ("too_large", None));
    }

    #[test]
    fn numbers_are_rounded_correctly() {
        for (text, canonical) in [("1.0", "1"), ("0.0043896767614889455", "0.004389676761488945"), ("1E30", "1e+30")] {
            let text = format!(r#"{{"name":"t","x":{text}}}"#);
            let expected = <sha2::Sha256 as sha2::Digest>::digest(format!(r#"{{"name":"t","x":{canonical}}}"#));
            assert_eq!(read(&text).unwrap().digest.into_bytes(), <[u8; 32]>::from(expected), "{text}");
        }
    }

    #[test]
    fn lists_are_split_without_reading_their_items() {
        assert_eq!(split_list(r#" [ {"a":[1,2]} , "x,y" ,[ ] ] "#), Ok(vec![r#"{"a":[1,2]}"#, "\"x,y\"", "[ ]"]));
        assert_eq!(split_list("[]"), Ok(vec![]));
        let list = |items: usize| format!("[{}]", vec!["{}"; items].join(","));
        assert_eq!(split_list(&list(MAX_DEFINITIONS)).map(|items| items.len()), Ok(MAX_DEFINITIONS));
        assert_eq!(split_list(&list(MAX_DEFINITIONS + 1)), Err(ListError::TooLong));
        for text in ["{}", "7", "", "[1", "[1]]", "[1,]", "[,]"] {
            assert_eq!(split_list(text), Err(ListError::NotAnArray), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_digest_depends_on_all_values_and_not_on_their_notation(
            members in prop::collection::btree_map("[a-z]{3,8}", any::<f64>(), 0..6), other in any::<f64>(),
        ) {
            let mut value = json!({ "name": "t", "schema": members });
            let text = serde_json::to_string_pretty(&value).unwrap();
            let definition = read(&text).unwrap();
            let object = value.as_object().unwrap();
            let reversed: Map<String, Value> = object.iter().rev().map(|(k, v)| (k.clone(), v.clone())).collect();
            let reversed = Value::from(reversed).to_string();
            prop_assert_eq!(read(&reversed).unwrap().digest, definition.digest);
            value["schema"]["q"] = other.into();
            let changed = value.to_string();
            prop_assert!(read(&changed).unwrap().digest != definition.digest);
        }

        #[test]
        fn split_lists_are_complete(items in prop::collection::vec("[a-z\\\\\"{}\\[\\],:]{0,9}", 0..9)) {
            let texts: Vec<String> = items.iter().map(|item| json!({ "x": [item, 1] }).to_string()).collect();
            let list = format!("[{}]", texts.join(" , "));
            prop_assert_eq!(split_list(&list).unwrap(), texts);
        }

        #[test]
        fn any_text_is_accepted_or_rejected(text in "\\PC{0,60}") {
            let _ = split_list(&text);
            for kind in DefinitionKind::ALL.iter().copied() {
                let _ = Definition::read(kind, &text);
            }
        }
    }
}
