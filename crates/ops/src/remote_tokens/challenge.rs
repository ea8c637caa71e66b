//! Challenges of servers that require OAuth (RFC 6750, section 3; RFC 9728, section 5.1).

/// The parameters of a challenge.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The URL of the metadata of the resource.
    pub metadata_url: Option<String>,
    /// The scope that the request requires.
    pub scope: Option<String>,
    /// The error code.
    pub error: Option<String>,
}

impl Challenge {
    /// Reads the parameters of a challenge (RFC 9110, section 11.6.1). If a value lists several challenges, they are read as
    /// one.
    pub(crate) fn parse(value: &str) -> Self {
        let mut challenge = Self::default();
        let mut rest = value;
        while let Some(at) = rest.find('=') {
            let name = rest[..at].trim_end().rsplit([' ', ',', '\t']).next().unwrap_or_default().to_ascii_lowercase();
            let (text, after) = parse_value(rest[at + 1..].trim_start());
            let text = Some(text).filter(|text| !text.is_empty());
            match name.as_str() {
                "resource_metadata" if challenge.metadata_url.is_none() => challenge.metadata_url = text,
                "scope" if challenge.scope.is_none() => challenge.scope = text,
                "error" if challenge.error.is_none() => challenge.error = text,
                _ => {}
            }
            rest = after;
        }
        challenge
    }
}

/// Returns the token or quoted string at the start of `text`, and the rest of the text.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            _ if is_escaped => {
                value.push(character);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(character),
        }
    }
    // An unterminated string has no value.
    (String::new(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let challenge = |url: Option<&str>, scope: Option<&str>| Challenge {
            metadata_url: url.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        };
        let insufficient = Challenge { error: Some("insufficient_scope".to_owned()), ..challenge(None, Some("x")) };
        for (value, expected) in [
            (
                r#"Bearer resource_metadata="https://a/b?c=d", scope="x y""#,
                challenge(Some("https://a/b?c=d"), Some("x y")),
            ),
            (r#"Basic realm="a, \"resource_metadata=b\"", Bearer Resource_Metadata = "u""#, challenge(Some("u"), None)),
            ("Bearer scope=x,resource_metadata=u", challenge(Some("u"), Some("x"))),
            (r#"Bearer resource_metadata="u"#, challenge(None, None)),
            (r#"Bearer resource_metadata="""#, challenge(None, None)),
            (r#"Bearer resource_metadata="u", resource_metadata="v""#, challenge(Some("u"), None)),
            (r#"Bearer error_description="a", scope="x", error="insufficient_scope""#, insufficient),
            ("Bearer", challenge(None, None)),
            ("=", challenge(None, None)),
            ("", challenge(None, None)),
        ] {
            assert_eq!(Challenge::parse(value), expected, "{value}");
        }
    }
}
