//! The configuration of an instance as environment variables and arguments of its server.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use waypost_core::catalog::{environment_name, is_reserved_environment_name};
use waypost_core::{Error, Result};

use crate::config_template::{TemplateError, expand, to_text};

/// The maximum size of a configuration as JSON in bytes.
const MAX_CONFIG_BYTES: usize = 16 * 1024;
/// The maximum size of one argument in bytes. Linux accepts at most 128 KiB.
const MAX_ARGUMENT_BYTES: usize = 64 * 1024;
/// The maximum size of all arguments in bytes. They are part of the desired state, whose messages are limited.
const MAX_ARGUMENTS_BYTES: usize = 128 * 1024;

/// Checks the size of a configuration, which bounds the work of its validation.
///
/// # Errors
/// `invalid_arguments` for `config` if it is too large.
pub fn check_size(config: &Map<String, Value>) -> Result<()> {
    if Value::Object(config.clone()).to_string().len() > MAX_CONFIG_BYTES {
        let message = format!("`config` can have at most {MAX_CONFIG_BYTES} bytes as JSON.");
        return Err(Error::invalid("config", message));
    }
    Ok(())
}

/// Returns the environment variables that a configuration sets, one for each of its top-level members.
///
/// # Errors
/// `invalid_arguments` for `config` if it is too large, a variable is reserved, two members have the same variable, or a
/// value contains a NUL character.
pub fn environment(config: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    check_size(config)?;
    let mut environment = BTreeMap::new();
    for (member, value) in config {
        let (name, value) = (environment_name(member), to_text(value));
        if name.is_empty() {
            return Err(Error::invalid("config", "`config` has a member without a name."));
        }
        if is_reserved_environment_name(&name) {
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
/// `invalid_arguments` for `config` if an argument refers to a member that the configuration does not have, a value
/// contains a NUL character, or the arguments are too large.
pub fn arguments(templates: &[String], config: &Map<String, Value>) -> Result<Vec<String>> {
    let mut rest = MAX_ARGUMENTS_BYTES;
    let mut arguments = Vec::with_capacity(templates.len());
    for template in templates {
        let argument = substitute(template, config, rest.min(MAX_ARGUMENT_BYTES))?;
        rest -= argument.len();
        arguments.push(argument);
    }
    Ok(arguments)
}

fn substitute(template: &str, config: &Map<String, Value>, max_bytes: usize) -> Result<String> {
    let argument = expand(template, config, max_bytes).map_err(|error| match error {
        TemplateError::Missing(member) => {
            let message = format!("The arguments of this version refer to `config.{member}`. Add it to `config`.");
            Error::invalid("config", message)
        }
        TemplateError::TooLarge => {
            let message = format!(
                "The arguments of this version have more than {MAX_ARGUMENT_BYTES} bytes each, or {MAX_ARGUMENTS_BYTES} \
                 bytes together, with the values of `config`. Shorten the values."
            );
            Error::invalid("config", message)
        }
    })?;
    if argument.contains('\0') {
        return Err(Error::invalid("config", "A value in `config` contains a NUL character."));
    }
    Ok(argument)
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

    #[test]
    fn the_command_line_is_limited() {
        let config = map(json!({ "a": "x".repeat(16_000), "b": "x" }));
        let check =
            |templates: &[String]| arguments(templates, &config).map_err(|error| error.details["field"].clone());
        assert!(check(&["${config.a}".repeat(4)]).is_ok());
        assert_eq!(check(&["${config.a}".repeat(5)]), Err(json!("config")), "one argument");
        assert_eq!(check(&["${config.a}".repeat(300)]), Err(json!("config")));
        assert!(check(&vec!["${config.a}".to_owned(); 8]).is_ok());
        assert_eq!(check(&vec!["${config.a}".to_owned(); 9]), Err(json!("config")), "all together");
        assert!(check(&vec!["${config.b}".to_owned(); 100]).is_ok());
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
                    prop_assert!(!is_reserved_environment_name(name));
                }
            }
        }
    }
}
