//! URI templates (RFC 6570). Checks whether a URI can be an expansion of a template.
//!
//! The values of the variables are unknown, so an expression matches every text to which it could expand. URIs are
//! compared as they are and never normalised: `..` and `%2e%2e` consist of characters that are allowed in a value, so
//! `file:///data/{name}` matches `file:///data/..`. A server that offers a template must check the values itself.

use std::fmt;

/// The maximum number of expressions in a template.
pub const MAX_EXPRESSIONS: usize = 20;
/// The maximum size in bytes of a URI that can match an expression.
pub const MAX_URI: usize = 8 * 1024;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Expression(Operator),
}

/// The operator of an expression (RFC 6570, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operator {
    /// The character with which a non-empty expansion begins. `None` if it begins with a value.
    first: Option<u8>,
    /// Whether values can contain reserved characters.
    reserved: bool,
    /// The characters that separate values and names.
    separators: &'static [u8],
    /// Whether all variables can be undefined. An expression that begins with a value is never empty: otherwise
    /// `notes://{id}` would match `notes://`, which is another resource.
    is_optional: bool,
}

/// The text is not a URI template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a URI template (RFC 6570): {0}")]
pub struct InvalidTemplate(String);

impl UriTemplate {
    /// Parses a template. A text without `{` and `}` is a template that matches only itself.
    ///
    /// # Errors
    /// [`InvalidTemplate`] for an expression that is not closed, empty or malformed, and for more than
    /// [`MAX_EXPRESSIONS`] expressions.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, expression) = rest.split_at(at);
            let Some(expression) = expression.strip_prefix('{') else {
                return Err(InvalidTemplate("`}` without `{`".to_owned()));
            };
            let Some((expression, after)) = expression.split_once('}') else {
                return Err(InvalidTemplate("`{` without `}`".to_owned()));
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(Part::Expression(parse_expression(expression)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        if parts.iter().filter(|part| matches!(part, Part::Expression(_))).count() > MAX_EXPRESSIONS {
            return Err(InvalidTemplate(format!("it has more than {MAX_EXPRESSIONS} expressions")));
        }
        Ok(Self { parts })
    }

    /// Whether `uri` can be an expansion of this template. Takes time proportional to the length of the URI and the
    /// number of parts.
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        let uri = uri.as_bytes();
        let mut parts = self.parts.as_slice();
        let mut start = 0;
        // Literals at the beginning need no table.
        while let [Part::Literal(literal), rest @ ..] = parts {
            if !uri[start..].starts_with(literal.as_bytes()) {
                return false;
            }
            (start, parts) = (start + literal.len(), rest);
        }
        if parts.is_empty() || uri.len() > MAX_URI {
            return parts.is_empty() && start == uri.len();
        }
        // Whether the parts so far can end before each byte.
        let mut ends = vec![false; uri.len() + 1];
        ends[start] = true;
        for part in parts {
            ends = part.advance(uri, &ends);
        }
        ends[uri.len()]
    }
}

impl Part {
    /// Returns the positions at which this part can end if it begins at one of `starts`.
    fn advance(&self, uri: &[u8], starts: &[bool]) -> Vec<bool> {
        let mut ends = vec![false; starts.len()];
        match self {
            Self::Literal(literal) => {
                let literal = literal.as_bytes();
                for (at, _) in starts.iter().enumerate().filter(|(_, is_start)| **is_start) {
                    if uri[at..].starts_with(literal) {
                        ends[at + literal.len()] = true;
                    }
                }
            }
            Self::Expression(operator) => {
                // Whether an expansion that began earlier reaches the current byte.
                let mut is_open = false;
                for (at, byte) in uri.iter().enumerate() {
                    ends[at] |= operator.is_optional && starts[at];
                    let begins = starts[at] && operator.first.map_or(operator.allows(*byte), |first| first == *byte);
                    is_open = begins || (is_open && operator.allows(*byte));
                    ends[at + 1] |= is_open;
                }
                ends[uri.len()] |= operator.is_optional && starts[uri.len()];
            }
        }
        ends
    }
}

impl Operator {
    /// Whether an expansion can contain `byte` after its first character. Characters outside ASCII are allowed, because
    /// some servers do not encode them.
    fn allows(self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric()
            || b"-._~%".contains(&byte)
            || !byte.is_ascii()
            || self.separators.contains(&byte)
            || (self.reserved && b":/?#[]@!$&'()*+,;=".contains(&byte))
    }
}

fn parse_expression(text: &str) -> Result<Operator, InvalidTemplate> {
    let operator = |first, separators| Operator { first, reserved: false, separators, is_optional: first.is_some() };
    let (operator, variables) = match text.as_bytes().first() {
        Some(b'+') => (Operator { reserved: true, ..operator(None, b"") }, &text[1..]),
        Some(b'#') => (Operator { reserved: true, ..operator(Some(b'#'), b"") }, &text[1..]),
        Some(b'.') => (operator(Some(b'.'), b",="), &text[1..]),
        Some(b'/') => (operator(Some(b'/'), b"/,="), &text[1..]),
        Some(b';') => (operator(Some(b';'), b";,="), &text[1..]),
        Some(b'?') => (operator(Some(b'?'), b"&,="), &text[1..]),
        Some(b'&') => (operator(Some(b'&'), b"&,="), &text[1..]),
        _ => (operator(None, b",="), text),
    };
    if variables.split(',').all(is_variable) {
        Ok(operator)
    } else {
        Err(InvalidTemplate(format!("`{{{}}}` is not an expression", Shown(text))))
    }
}

/// Whether `text` is a variable with an optional modifier (RFC 6570, sections 2.3 and 2.4).
fn is_variable(text: &str) -> bool {
    let name = match text.split_once(':') {
        Some((name, length)) if matches!(length.len(), 1..=4) && length.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) => return false,
        None => text.strip_suffix('*').unwrap_or(text),
    };
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.%".contains(&byte))
}

/// The beginning of a text of unknown length.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().filter(|c| !c.is_control()).take(40).try_for_each(|c| write!(f, "{c}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(template: &str, uri: &str) -> bool {
        UriTemplate::parse(template).unwrap().matches(uri)
    }

    /// The examples of RFC 6570, sections 1.2 and 3.2, and similar cases.
    #[test]
    fn a_template_matches_its_expansions() {
        for (template, uri) in [
            ("notes://all", "notes://all"),
            ("http://example.com/~{username}/", "http://example.com/~fred/"),
            ("http://example.com/dictionary/{term:1}/{term}", "http://example.com/dictionary/c/cat"),
            ("map?{x,y}", "map?1024,768"),
            ("{+path}/here", "/foo/bar/here"),
            ("X{#path:6}", "X#/foo/b"),
            ("X{#path:6}", "X"),
            ("X{.list*}", "X.red.green.blue"),
            ("X{.list*}", "X"),
            ("{/var,x}/here", "/value/1024/here"),
            ("{;keys*}", ";semi=%3B;dot=.;comma=%2C"),
            ("search{?q,lang}", "search?q=cat&lang=en"),
            ("search{?q,lang}", "search"),
            ("?fixed=yes{&x}", "?fixed=yes&x=1024"),
            ("file:///{a}/{b}", "file:///x/y"),
            ("file:///data/{name}", "file:///data/.."),
            ("notes://{id}", "notes://über"),
            ("", ""),
        ] {
            assert!(matches(template, uri), "{template} {uri}");
        }
        for (template, uri) in [
            ("notes://all", "notes://all/1"),
            ("notes://all", "notes://al"),
            ("notes://{id}", "notes://"),
            ("notes://{id}", "notes://a/b"),
            ("notes://{id}", "notes://a?b"),
            ("notes://{id}", "Notes://a"),
            ("notes://{id}/x", "notes://a/y"),
            ("file:///{a}/{b}", "file:///x"),
            ("file:///{a}/{b}", "file:///x/y/z"),
            ("search{?q}", "search&q=a"),
            ("search{?q}", "search?q=a/b"),
            ("X{.list*}", "Xred"),
            ("{+path}", ""),
            ("{+path}", "a b"),
        ] {
            assert!(!matches(template, uri), "{template} {uri}");
        }
    }

    #[test]
    fn malformed_templates_are_rejected() {
        for text in ["{", "a{b", "}", "a}b{c}", "{}", "{+}", "{a b}", "{a,}", "{a:}", "{a:12345}", "{=a}", "{a{b}}"] {
            assert!(UriTemplate::parse(text).is_err(), "{text}");
        }
        assert!(UriTemplate::parse(&"{a}".repeat(MAX_EXPRESSIONS)).is_ok());
        assert!(UriTemplate::parse(&"{a}".repeat(MAX_EXPRESSIONS + 1)).is_err());
    }

    #[test]
    fn an_error_shows_the_beginning_of_the_expression_without_control_characters() {
        let text = format!("{{\n{}}}", "ä".repeat(1_000));
        let error = UriTemplate::parse(&text).unwrap_err().to_string();
        let shown = "ä".repeat(40);
        assert_eq!(error, format!("it is not a URI template (RFC 6570): `{{{shown}}}` is not an expression"));
    }

    #[test]
    fn uris_above_8_kib_match_only_literals() {
        let long = "a".repeat(8_192);
        assert!(matches("{a}", &long) && !matches("{a}", &format!("{long}a")));
        let longer = format!("{long}aa");
        assert!(matches(&longer, &longer));
    }

    proptest! {
        #[test]
        fn parsing_and_matching_never_panic(template in any::<String>(), uri in any::<String>()) {
            if let Ok(template) = UriTemplate::parse(&template) {
                let _ = template.matches(&uri);
            }
        }

        #[test]
        fn a_text_without_expressions_matches_only_itself(text in "[^{}]{0,20}", other in "[^{}]{0,20}") {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
        }

        /// Compares the matcher with a naive search.
        #[test]
        fn simple_expressions_match_nonempty_segments(
            parts in prop::collection::vec(prop_oneof![Just(None), "[ab/]{1,2}".prop_map(Some)], 0..5),
            uri in "[ab/]{0,7}",
        ) {
            fn search(parts: &[Option<String>], uri: &str) -> bool {
                match parts {
                    [] => uri.is_empty(),
                    [Some(literal), rest @ ..] => {
                        uri.strip_prefix(literal.as_str()).is_some_and(|uri| search(rest, uri))
                    }
                    [None, rest @ ..] => (1..=uri.len())
                        .take_while(|at| !uri[..*at].contains('/'))
                        .any(|at| search(rest, &uri[at..])),
                }
            }
            let template: String = parts.iter().map(|part| part.as_deref().unwrap_or("{x}")).collect();
            prop_assert_eq!(matches(&template, &uri), search(&parts, &uri), "{}", template);
        }
    }
}
