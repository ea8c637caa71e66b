//! Email addresses of users.

use crate::error::{Error, Result};

/// Maximum length of an address (RFC 5321, section 4.5.3.1.3: a path has 256 octets, including the brackets).
const MAX_ADDRESS: usize = 254;
/// Maximum length of the part before the `@` (RFC 5321, section 4.5.3.1.1).
const MAX_LOCAL: usize = 64;

/// An email address and its lookup key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// The address as entered, trimmed.
    pub address: String,
    /// The address in lowercase. In practice no provider distinguishes `A@x` from `a@x`, but users forget which case
    /// they entered.
    pub key: String,
}

/// Parses an email address. Rejects malformed addresses, and rare valid forms: quoted local parts, IP address literals
/// and host names without a dot other than `localhost`. Only sending an email can verify that an address exists.
///
/// # Errors
/// `invalid_arguments` for the field `email` if `text` is not an accepted email address.
pub fn parse(text: &str) -> Result<Email> {
    let address = text.trim();
    if is_address(address) {
        Ok(Email { address: address.to_owned(), key: address.to_lowercase() })
    } else {
        Err(Error::invalid("email", "`email` must be an email address such as `anna@example.com`."))
    }
}

/// Returns the lookup key of a text without validating it. A lookup with the key of an invalid address finds nothing.
#[must_use]
pub fn key(text: &str) -> String {
    text.trim().to_lowercase()
}

fn is_address(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_allowed = |c: char| !c.is_whitespace() && !c.is_control() && !"()<>[]:;,\\\"@".contains(c);
    let is_local_valid = (1..=MAX_LOCAL).contains(&local.len())
        && local.chars().all(is_allowed)
        && local.split('.').all(|part| !part.is_empty());
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let is_domain_valid = domain.split('.').all(is_label) && (domain.contains('.') || domain == "localhost");
    address.len() <= MAX_ADDRESS && is_local_valid && is_domain_valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_kept_as_entered_and_the_key_ignores_case() {
        let email = parse("  Anna.B+news@Example.COM ").unwrap();
        assert_eq!(
            (email.address.as_str(), email.key.as_str()),
            ("Anna.B+news@Example.COM", "anna.b+news@example.com")
        );
        assert_eq!(key(" ANNA.B+news@example.com"), email.key);
    }

    #[test]
    fn only_valid_addresses_are_accepted() {
        for valid in ["a@b.de", "o'hara@x-y.co.uk", "jürgen@müller.de", "dev@localhost", "a@xn--mller-kva.de"] {
            assert!(parse(valid).is_ok(), "{valid}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for invalid in [
            "",
            "anna",
            "@example.com",
            "anna@",
            "anna@example",
            "a b@example.com",
            "a@b@c.de",
            "a..b@c.de",
            ".a@c.de",
            "a@-c.de",
            "a@c..de",
            "a@c.de\n.x",
            "<a@c.de>",
            "a@c.de,b@c.de",
            &long,
        ] {
            assert_eq!(parse(invalid).unwrap_err().details["field"], "email", "{invalid}");
        }
    }
}
