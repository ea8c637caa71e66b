//! The origins of web pages that can call a server from a browser.

use std::collections::BTreeSet;

use url::Url;
use waypost_content::name;
use waypost_core::{Error, Result};

/// The maximum number of allowed origins of a server.
const MAX_ORIGINS: usize = 50;

/// Parses origins. Returns them as browsers serialise them (RFC 6454, section 6.2), sorted and without duplicates.
///
/// # Errors
/// `invalid_arguments`, naming `allowed_origins`, if there are too many or one is not an origin.
pub(crate) fn parse(texts: &[String]) -> Result<Vec<String>> {
    if texts.len() > MAX_ORIGINS {
        let message = format!("`allowed_origins` has {} entries, but can have at most {MAX_ORIGINS}.", texts.len());
        return Err(Error::invalid("allowed_origins", message));
    }
    let origins: BTreeSet<_> = texts.iter().map(|text| parse_origin(text)).collect::<Result<_>>()?;
    Ok(origins.into_iter().collect())
}

fn parse_origin(text: &str) -> Result<String> {
    let text = text.trim();
    let invalid = || {
        let shown: String = name::clean(text).chars().take(100).collect();
        let message = format!(
            "`allowed_origins`: `{shown}` is not an origin. Use scheme, host and port, such as `https://example.com`."
        );
        Error::invalid("allowed_origins", message)
    };
    let url = Url::parse(text).map_err(|error| invalid().caused_by(error))?;
    let is_origin = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        // The parser accepts backslashes, missing or additional slashes, tabs, line breaks and `*`. Such input
        // is rejected instead of being corrected.
        && text.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '\\', '\t', '\n', '\r', '*']));
    if is_origin { Ok(url.origin().ascii_serialization()) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_normalised_as_browsers_serialise_them() {
        let input = ["https://Example.com:443", " http://localhost:5173 ", "https://example.com", "https://müller.de"];
        let origins = parse(&input.map(str::to_owned)).unwrap();
        assert_eq!(origins, ["http://localhost:5173", "https://example.com", "https://xn--mller-kva.de"]);
    }

    #[test]
    fn invalid_origins_are_rejected() {
        for text in [
            "",
            "example.com",
            "https://example.com/",
            "https://example.com/a",
            "https://example.com?q",
            "ftp://a.de",
            "https://a@b.de",
            "https://*.example.com",
            "*",
            "null",
            "https:example.com",
            "https://exa\nmple.com",
            "file:///tmp",
            "https://example.com#x",
            "https://",
        ] {
            let error = parse(&[text.to_owned()]).unwrap_err();
            assert_eq!(error.details["field"], "allowed_origins", "{text}");
        }
    }
}
