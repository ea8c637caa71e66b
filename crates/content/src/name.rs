//! Validation and cleaning of display names.

use crate::invisible;
use waypost_core::error::{Error, Result};

/// Maximum length of a name in characters.
pub const MAX_NAME_CHARS: usize = 200;

/// Cleans a name: replaces control characters with spaces, removes other invisible characters (they could carry a
/// hidden message to an agent, or make a name look like a different one; see [`crate::invisible`]), and trims it.
#[must_use]
pub fn clean(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    invisible::remove(spaced.trim()).trim().to_owned()
}

/// Cleans and validates the name in `field`, which must have 1 to 200 characters.
///
/// # Errors
/// `invalid_arguments` for `field` if the cleaned name is empty or too long.
pub fn check(field: &str, text: &str) -> Result<String> {
    let name = clean(text);
    match name.chars().count() {
        0 => Err(Error::invalid(field, format!("`{field}` must not be empty."))),
        1..=MAX_NAME_CHARS => Ok(name),
        count => {
            let message = format!("`{field}` has {count} characters; the maximum is {MAX_NAME_CHARS}.");
            Err(Error::invalid(field, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_limited_in_length() {
        assert_eq!(check("name", "  Acme\u{202e}\tGmbH\n").unwrap(), "Acme GmbH");
        assert_eq!(check("name", &"ü".repeat(200)).unwrap().chars().count(), 200);
        assert_eq!(check("name", &"ü".repeat(201)).unwrap_err().details["field"], "name");
        assert!(check("name", " \u{0}\n").is_err());
        assert_eq!(check("name", "Ac\u{AD}me\u{E0061}\u{E0101} \u{3164}").unwrap(), "Acme");
        assert!(check("name", "\u{3164} \u{200B}").is_err());
    }
}
