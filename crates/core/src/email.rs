//! E-mail addresses of users.

use crate::error::{Error, Result};

/// Characters in an address at most (RFC 5321, 4.5.3.1.3: a path has 256 octets, brackets included).
const MAX_ADDRESS: usize = 254;
/// Characters before the `@` at most (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL: usize = 64;

/// An address as it was typed, and the key by which it is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// As it was typed, without spaces at the ends.
    pub address: String,
    /// The same in lower case. Providers that tell `A@x` from `a@x` exist on paper only; people who forget how they
    /// typed theirs exist.
    pub key: String,
}

/// Reads an address. Only what no mail system would deliver is refused: whether it exists, only a mail can tell.
///
/// # Errors
/// `invalid_arguments` naming `email` when it is none.
pub fn parse(text: &str) -> Result<Email> {
    let address = text.trim();
    if is_address(address) {
        Ok(Email { address: address.to_owned(), key: address.to_lowercase() })
    } else {
        Err(Error::invalid("email", "`email` must be an address such as `anna@example.com`."))
    }
}

/// The key of an address that may not be one: for look-ups, where the answer is then "not found".
#[must_use]
pub fn key(text: &str) -> String {
    text.trim().to_lowercase()
}

fn is_address(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let fine = |c: char| !c.is_whitespace() && !c.is_control() && !"()<>[]:;,\\\"@".contains(c);
    let local_fine = (1..=MAX_LOCAL).contains(&local.len())
        && local.chars().all(fine)
        && local.split('.').all(|part| !part.is_empty());
    let label_fine = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let domain_fine = domain.split('.').all(label_fine) && (domain.contains('.') || domain == "localhost");
    address.len() <= MAX_ADDRESS && local_fine && domain_fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_typed_and_finds_it_in_any_case() {
        let email = parse("  Anna.B+news@Example.COM ").unwrap();
        assert_eq!(
            (email.address.as_str(), email.key.as_str()),
            ("Anna.B+news@Example.COM", "anna.b+news@example.com")
        );
        assert_eq!(key(" ANNA.B+news@example.com"), email.key);
    }

    #[test]
    fn accepts_addresses_and_refuses_the_rest() {
        for fine in ["a@b.de", "o'hara@x-y.co.uk", "jürgen@müller.de", "dev@localhost", "a@xn--mller-kva.de"] {
            assert!(parse(fine).is_ok(), "{fine}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for wrong in [
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
            assert_eq!(parse(wrong).unwrap_err().details["field"], "email", "{wrong}");
        }
    }
}
