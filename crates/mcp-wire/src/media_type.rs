//! The media type of a body with messages, as its `Content-Type` header declares it (RFC 9110, section 8.3).

const SPACE: [char; 2] = [' ', '\t'];

/// The media type of a body with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// A message, or a batch: `application/json`.
    Json,
    /// A stream of events: `text/event-stream`.
    Events,
}

impl MediaType {
    /// Parses the values of the `Content-Type` headers of a body. Returns `None` if the body has another type, or if
    /// programs could read it differently: if there is not exactly one header, if the header is malformed, or if it
    /// declares a charset other than UTF-8.
    #[must_use]
    pub fn of<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Option<Self> {
        let mut values = values.into_iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii())?.trim_matches(SPACE);
        let (name, parameters) = text.split_at(text.find([';', ' ', '\t']).unwrap_or(text.len()));
        let types = [("application/json", Self::Json), ("text/event-stream", Self::Events)];
        let (_, found) = types.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
        are_valid(parameters).then_some(found)
    }
}

/// Whether parameters are well-formed (RFC 9110, section 5.6.6), and every `charset` is UTF-8.
fn are_valid(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start_matches(SPACE);
        let Some(parameter) = rest.strip_prefix(';') else { return rest.is_empty() };
        rest = parameter.trim_start_matches(SPACE);
        // A parameter can be empty.
        if rest.is_empty() || rest.starts_with(';') {
            continue;
        }
        let Some((name, value, after)) = split_parameter(rest) else { return false };
        if name.eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
            return false;
        }
        rest = after;
    }
}

/// Returns the name and the value of the first parameter, and the rest of the text. Returns `None` if the parameter is
/// malformed, or if its quoted value contains an escape, which not every program resolves.
fn split_parameter(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = split_token(text)?;
    let rest = rest.strip_prefix('=')?;
    if let Some(quoted) = rest.strip_prefix('"') {
        let (value, after) = quoted.split_once('"')?;
        return (!value.contains('\\')).then_some((name, value, after));
    }
    split_token(rest).map(|(value, after)| (name, value, after))
}

/// Splits a token from the rest of the text (RFC 9110, section 5.6.2). Returns `None` if the text does not begin with a
/// token.
fn split_token(text: &str) -> Option<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let length = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    (length > 0).then(|| text.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smuggling::content_types;

    #[test]
    fn one_header_with_a_known_type_and_no_charset_but_utf_8_is_accepted() {
        for (media_type, expected) in [
            ("application/json", MediaType::Json),
            ("Application/JSON", MediaType::Json),
            ("text/event-stream", MediaType::Events),
        ] {
            for case in content_types(media_type) {
                let found = MediaType::of(case.values.iter().map(String::as_bytes));
                assert_eq!(found, case.is_accepted.then_some(expected), "{}: {:?}", case.name, case.values);
            }
        }
        for value in ["application/vnd.api+json", "application/*", "*/*", "text/json", "application/json\u{a0}"] {
            assert_eq!(MediaType::of([value.as_bytes()]), None, "{value}");
        }
        assert_eq!(MediaType::of([&b"application/json; x=\"\xff\""[..]]), None);
    }
}
