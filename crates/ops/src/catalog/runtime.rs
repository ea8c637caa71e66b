//! The parts of an entry's file that describe how the container runs: command, endpoint, variables and volumes.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};
use waypost_core::Result;
use waypost_core::catalog::{Transport, environment_name, is_reserved_environment_name};

use super::members::Members;

/// The range of `idle_seconds`: from ten seconds to 30 days.
pub(super) const IDLE_SECONDS: RangeInclusive<u64> = 10..=30 * 24 * 60 * 60;
/// The range of `max_lifetime_seconds`: from a minute to a year.
pub(super) const MAX_LIFETIME_SECONDS: RangeInclusive<u64> = 60..=365 * 24 * 60 * 60;
/// The maximum number of words in `command` and in `args`.
const MAX_WORDS: usize = 100;
/// The maximum length of a word in bytes.
const MAX_WORD_BYTES: usize = 4_096;
/// The maximum length of the path of an endpoint or a volume.
const MAX_PATH: usize = 200;
const MAX_VOLUME_NAME: usize = 32;

/// Folders that the engine or the daemon provides in every container.
const RESERVED_FOLDERS: [&str; 7] = ["/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var/run"];

/// Takes the entry point.
pub(super) fn command(members: &mut Members<'_>) -> Result<Option<Vec<String>>> {
    let command = words(members, "command")?;
    if command.as_ref().is_some_and(|words| words.first().is_none_or(|first| first.trim().is_empty())) {
        return Err(members.reject("command", "is empty. Name a program, or omit it to keep that of the image."));
    }
    Ok(command)
}

/// Takes the arguments. `${config.NAME}` must name a member that the schema allows.
pub(super) fn args(members: &mut Members<'_>, schema: &Map<String, Value>) -> Result<Option<Vec<String>>> {
    let args = words(members, "args")?;
    for (at, word) in args.iter().flatten().enumerate() {
        if let Some(problem) = find_placeholder_problem(word, schema) {
            return Err(members.reject(&format!("args[{at}]"), problem));
        }
    }
    Ok(args)
}

fn words(members: &mut Members<'_>, name: &'static str) -> Result<Option<Vec<String>>> {
    let words = members.texts(name, MAX_WORDS)?;
    for (at, word) in words.iter().flatten().enumerate() {
        let problem = match word.len() {
            size if size > MAX_WORD_BYTES => format!("has {size} bytes; the maximum is {MAX_WORD_BYTES}. Shorten it."),
            _ if word.contains('\0') => "contains a NUL character. Remove it.".to_owned(),
            _ => continue,
        };
        return Err(members.reject(&format!("{name}[{at}]"), problem));
    }
    Ok(words)
}

/// Returns the problem with a `${config.NAME}` in a text, which must name a member that the schema allows.
pub(super) fn find_placeholder_problem(word: &str, schema: &Map<String, Value>) -> Option<String> {
    const START: &str = "${config.";
    let is_closed =
        schema.get("additionalProperties") == Some(&Value::Bool(false)) && !schema.contains_key("patternProperties");
    let properties = schema.get("properties").and_then(Value::as_object);
    for rest in word.split(START).skip(1) {
        let Some((name, _)) = rest.split_once('}').filter(|(name, _)| !name.is_empty()) else {
            return Some("has a placeholder without a name or without `}`. Write `${config.NAME}`.".to_owned());
        };
        if is_closed && !properties.is_some_and(|properties| properties.contains_key(name)) {
            return Some(format!("uses `${{config.{name}}}`, but `config_schema` has no property `{name}`. Add it."));
        }
    }
    None
}

/// Takes the port and the path of a server that is reached over HTTP.
pub(super) fn endpoint(members: &mut Members<'_>, transport: Transport) -> Result<(Option<u16>, Option<String>)> {
    let port = members.number("port", 1..=u64::from(u16::MAX))?.and_then(|port| u16::try_from(port).ok());
    let path = members.text("path")?;
    let default_path = match transport {
        Transport::Stdio => {
            for (name, is_set) in [("port", port.is_some()), ("path", path.is_some())] {
                if is_set {
                    let problem =
                        "is set, but the transport is `stdio`. Remove it, or set `transport: streamable_http`.";
                    return Err(members.reject(name, problem));
                }
            }
            return Ok((None, None));
        }
        Transport::StreamableHttp => "/mcp",
        Transport::Sse => "/sse",
    };
    if port.is_none() {
        let problem = format!("is missing. The transport `{transport}` needs the port on which the server listens.");
        return Err(members.reject("port", problem));
    }
    let path = path.unwrap_or_else(|| default_path.to_owned());
    let is_path = path.starts_with('/')
        && path.len() <= MAX_PATH
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%+:@,;=".contains(&byte));
    if !is_path {
        return Err(members.reject("path", "must begin with `/`, and have no spaces, `?` or `#`, such as `/mcp`."));
    }
    Ok((port, Some(path)))
}

/// Returns the problem with the name of a secret that is delivered as an environment variable.
pub(super) fn find_variable_problem(name: &str, schema: &Map<String, Value>) -> Option<String> {
    let is_variable = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if !is_variable {
        let advice = "An environment variable has letters, digits and `_`, and begins with a letter or `_`.";
        return Some(format!("is `{name}`. {advice}"));
    }
    if is_reserved_environment_name(name) {
        return Some(format!("is `{name}`, a reserved environment variable. Choose another."));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let same = properties.and_then(|properties| properties.keys().find(|member| environment_name(member) == name));
    same.map(|member| format!("is `{name}`, the variable that `config_schema.properties.{member}` sets. Rename one."))
}

/// Whether `text` can be the name of a volume, which is part of the name of the engine's volume.
pub(super) fn is_volume_name(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_VOLUME_NAME).contains(&text.len())
        && text.bytes().all(|byte| is_alphanumeric(byte) || byte == b'_' || byte == b'-')
        && text.bytes().next().is_some_and(is_alphanumeric)
}

/// Returns the problem with the path of a volume.
pub(super) fn find_volume_path_problem(path: &str) -> Option<String> {
    let is_plain =
        path.len() <= MAX_PATH && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._@+".contains(&byte));
    let mut parts = path.split('/');
    let is_absolute = parts.next() == Some("") && parts.all(|part| !matches!(part, "" | "." | ".."));
    if !is_plain || !is_absolute {
        return Some(
            "must be an absolute path without `..`, a final `/` and special characters, such as `/data`.".to_owned(),
        );
    }
    let reserved = RESERVED_FOLDERS.iter().find(|folder| is_nested(folder, path))?;
    Some(format!("is `{path}`, but the engine provides `{reserved}`. Choose another folder, such as `/data`."))
}

/// Whether one of the folders contains the other, or they are the same.
pub(super) fn is_nested(one: &str, two: &str) -> bool {
    let contains = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    contains(one, two) || contains(two, one)
}
