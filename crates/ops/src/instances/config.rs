//! The configuration of an instance as environment variables and arguments of its server.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use waypost_core::{Error, Result};

/// The maximum size of a configuration as JSON in bytes.
const MAX_CONFIG_BYTES: usize = 16 * 1024;

/// Environment variables that the daemon or the system sets. Variables that begin with `LD_` are reserved as well.
const RESERVED: &[&str] = &["ALL_PROXY", "HOME", "HOSTNAME", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "PATH"];

/// Returns the environment variable of a member of the configuration: in upper case, with `_` in place of every
/// character except letters, digits and `_`.
fn variable(member: &str) -> String {
    let to_variable = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' };
    member.chars().map(to_variable).collect()
}

/// Whether an environment variable is reserved.
pub(super) fn is_reserved(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    RESERVED.contains(&upper.as_str()) || upper.starts_with("LD_")
}

/// Returns a member's value as text: a string as it is, any other value as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the environment variables that a configuration sets, one for each of its top-level members.
///
/// # Errors
/// `invalid_arguments` for `config` if it is too large, a variable is reserved, two members have the same variable, or
/// a value contains a NUL character.
pub fn environment(config: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    if Value::Object(config.clone()).to_string().len() > MAX_CONFIG_BYTES {
        let message = format!("`config` can have at most {MAX_CONFIG_BYTES} bytes as JSON.");
        return Err(Error::invalid("config", message));
    }
    let mut environment = BTreeMap::new();
    for (member, value) in config {
        let (name, value) = (variable(member), text(value));
        if name.is_empty() {
            return Err(Error::invalid("config", "`config` has a member without a name."));
        }
        if is_reserved(&name) {
            let message = format!("`config` has the member `{member}`, but the variable `{name}` is reserved.");
            return Err(Error::invalid("config", message));
        }
        if value.contains('\0') {
            return Err(Error::invalid("config", format!("`config.{member}` contains a NUL character.")));
        }
        if environment.insert(name.clone(), value).is_some() {
            let message = format!("Two members of `config` set the same environment variable `{name}`. Rename one.");
            return Err(Error::invalid("config", message));
        }
    }
    Ok(environment)
}

/// Returns arguments with `${config.NAME}` replaced by the values of the configuration. A value is never searched for
/// further references.
///
/// # Errors
/// `invalid_arguments` for `config` if an argument refers to a member that the configuration does not have, or a value
/// contains a NUL character.
pub fn arguments(templates: &[String], config: &Map<String, Value>) -> Result<Vec<String>> {
    templates.iter().map(|template| substitute(template, config)).collect()
}

fn substitute(template: &str, config: &Map<String, Value>) -> Result<String> {
    const START: &str = "${config.";
    let mut result = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once(START) {
        result.push_str(before);
        let Some((member, after)) = after.split_once('}') else {
            // Not a reference.
            result.push_str(START);
            rest = after;
            continue;
        };
        let value = config.get(member).ok_or_else(|| {
            let message = format!("The arguments of this version refer to `config.{member}`. Add it to `config`.");
            Error::invalid("config", message)
        })?;
        result.push_str(&text(value));
        rest = after;
    }
    result.push_str(rest);
    if result.contains('\0') {
        return Err(Error::invalid("config", "A value in `config` contains a NUL character."));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn members_become_environment_variables() {
        let config = map(json!({
            "base-url": "https://x.example",
            "maxRetries": 3,
            "verbose": true,
            "nothing": null,
            "list": ["a", 1],
            "größe": "ü",
        }));
        let expected = [
            ("BASE_URL", "https://x.example"),
            ("GR__E", "ü"),
            ("LIST", "[\"a\",1]"),
            ("MAXRETRIES", "3"),
            ("NOTHING", "null"),
            ("VERBOSE", "true"),
        ];
        let environment = environment(&config).unwrap();
        let found: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn unusable_configurations_are_rejected() {
        for config in [
            json!({ "path": "/tmp" }),
            json!({ "Home": "/root" }),
            json!({ "ld-preload": "evil.so" }),
            json!({ "http_proxy": "http://evil.example" }),
            json!({ "No-Proxy": "*" }),
            json!({ "all.proxy": "x" }),
            json!({ "hostname": "x" }),
            json!({ "": "x" }),
            json!({ "a-b": 1, "a_b": 2 }),
            json!({ "a": "b\0c" }),
            json!({ "a": "x".repeat(MAX_CONFIG_BYTES) }),
        ] {
            let error = environment(&map(config.clone())).unwrap_err();
            assert_eq!(error.details["field"], "config", "{config}");
        }
        environment(&map(json!({ "paths": "x", "home_dir": "x", "ldap": "x", "proxy": "x" }))).unwrap();
    }

    #[test]
    fn references_in_arguments_are_replaced() {
        let config = map(json!({ "root": "/data", "depth": 2, "nested": "${config.root}" }));
        let arguments = |template: &str| arguments(&[template.to_owned()], &config).map(|mut all| all.remove(0));
        for (template, expected) in [
            ("--root=${config.root}", "--root=/data"),
            ("${config.depth}${config.depth}", "22"),
            ("${config.nested}", "${config.root}"),
            ("${config.root", "${config.root"),
            ("$HOME ${other} $${config.root}", "$HOME ${other} $/data"),
            ("plain", "plain"),
        ] {
            assert_eq!(arguments(template).unwrap(), expected, "{template}");
        }
        let error = arguments("${config.missing}").unwrap_err();
        assert!(error.message.contains("`config.missing`"), "{error}");
    }

    proptest! {
        /// Every accepted variable has a portable name, is not reserved, and belongs to one member.
        #[test]
        fn variables_are_portable(members in proptest::collection::btree_map(".{0,12}", ".{0,8}", 0..8)) {
            let config: Map<String, Value> = members.into_iter().map(|(name, value)| (name, value.into())).collect();
            if let Ok(environment) = environment(&config) {
                prop_assert_eq!(environment.len(), config.len());
                for name in environment.keys() {
                    prop_assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'));
                    prop_assert!(!is_reserved(name));
                }
            }
        }
    }
}
