//! Secrets of tool servers: values that can be written but never read back.

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{InstanceId, OrganizationId, ToolSecretId};

/// The maximum length of a name.
pub const MAX_NAME: usize = 64;
/// The maximum size of a value in bytes.
pub const MAX_VALUE: usize = 64 * 1024;
/// The maximum number of secrets of an organisation.
pub const MAX_SECRETS: usize = 1_000;

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSecret {
    /// The ID.
    pub id: ToolSecretId,
    /// The organisation that owns the secret.
    pub organization_id: OrganizationId,
    /// The name, unique in the organisation.
    pub name: String,
    /// The number of the value, which starts at 1 and increases with every rotation.
    pub version: u64,
    /// When the secret was created.
    pub created_at: Timestamp,
    /// When the value was last replaced.
    pub rotated_at: Option<Timestamp>,
    /// The instances that use the secret, ordered by slug.
    pub used_by: Vec<SecretUser>,
}

/// An instance that uses a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUser {
    /// The ID of the instance.
    pub instance_id: InstanceId,
    /// Its slug.
    pub slug: String,
}

/// Whether `text` can be the name of a secret: 1 to 64 characters from `[A-Za-z0-9_-]`. Such a name can also be the
/// name of a file.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Checks the name of a secret of an organisation. A name that could be an ID is rejected, because commands accept
/// both.
///
/// # Errors
/// `invalid_arguments` for the field `name`.
pub fn check_name(text: &str) -> Result<()> {
    if !is_name(text) {
        let message = format!(
            "`name` must have 1 to {MAX_NAME} characters from A to Z, a to z, 0 to 9, `_` and `-`, such as `GITHUB_TOKEN`."
        );
        return Err(Error::invalid("name", message));
    }
    if text.parse::<ToolSecretId>().is_ok() {
        return Err(Error::invalid(
            "name",
            format!("`name` cannot have the form of an ID, such as `{text}`. Choose another."),
        ));
    }
    Ok(())
}

/// Checks the value of a secret: 1 byte to 64 KiB without NUL characters, which environment variables cannot contain.
///
/// # Errors
/// `invalid_arguments` for the field `value`. The message does not contain the value.
pub fn check_value(text: &str) -> Result<()> {
    let problem = match text.len() {
        0 => "is empty. Enter the secret.".to_owned(),
        size if size > MAX_VALUE => format!("has {size} bytes; the maximum is {MAX_VALUE}."),
        _ if text.contains('\0') => "contains a NUL character. Encode binary data, for example in base 64.".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::invalid("value", format!("`value` {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_also_valid_file_names() {
        for name in ["A", "GITHUB_TOKEN", "github-token", "9", "-x", &"a".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "a.b", "a/b", "..", "a b", "ä", "a\n", &"a".repeat(65), "sec_0123456789abcdef"] {
            assert_eq!(check_name(name).expect_err(name).details["field"], "name");
        }
    }

    #[test]
    fn values_are_limited_and_never_part_of_a_message() {
        assert!(check_value("x").is_ok() && check_value(&"x".repeat(MAX_VALUE)).is_ok());
        for value in ["", "hunter2\0", &"hunter2".repeat(MAX_VALUE)] {
            let error = check_value(value).expect_err("invalid");
            assert!(error.details["field"] == "value" && !error.message.contains("hunter2"), "{error}");
        }
    }
}
