//! The headers that declare the media type of a body.

/// The `Content-Type` headers of a body with a valid message.
#[derive(Debug, Clone)]
pub struct ContentTypeCase {
    /// The property that is tested.
    pub name: &'static str,
    /// The values of the headers.
    pub values: Vec<String>,
    /// Whether the body is read.
    pub is_accepted: bool,
}

/// A placeholder for the media type.
const TYPE: &str = "TYPE";

/// The name, the values of the headers, and whether the body is read.
type ContentTypeRow = (&'static str, &'static [&'static str], bool);

const CONTENT_TYPES: &[ContentTypeRow] = &[
    ("only the media type", &["TYPE"], true),
    ("white space", &[" TYPE ;\tcharset=utf-8 "], true),
    ("UTF-8", &["TYPE; charset=utf-8"], true),
    ("UTF-8 in upper case", &["TYPE;CHARSET=UTF-8"], true),
    ("UTF-8 in quotation marks", &["TYPE; charset=\"Utf-8\""], true),
    ("another parameter", &["TYPE; x=\"a, b;charset=utf-16\"; charset=utf-8;"], true),
    ("no header", &[], false),
    ("empty header", &[""], false),
    ("another media type", &["text/plain"], false),
    ("longer media type", &["TYPEx"], false),
    ("parameter without a semicolon", &["TYPE charset=utf-8"], false),
    ("two types", &["TYPE", "text/plain"], false),
    ("two types in the other order", &["text/plain", "TYPE"], false),
    ("type that is repeated", &["TYPE", "TYPE"], false),
    ("type that is repeated with another charset", &["TYPE", "TYPE; charset=utf-16"], false),
    ("two types in one header", &["TYPE, text/plain"], false),
    ("two types in one header after a charset", &["TYPE; charset=utf-8, text/plain"], false),
    ("UTF-16", &["TYPE; charset=utf-16"], false),
    ("UTF-16 in quotation marks", &["TYPE;charset=\"UTF-16LE\""], false),
    ("UTF-16 after UTF-8", &["TYPE; charset=utf-8; charset=utf-16"], false),
    ("UTF-16 before UTF-8", &["TYPE; Charset=utf-16; charset=utf-8"], false),
    ("UTF-16 after another parameter", &["TYPE; x=\"a\"; charset=utf-16"], false),
    ("UTF-7", &["TYPE; charset=utf-7"], false),
    ("Latin 1", &["TYPE; charset=iso-8859-1"], false),
    ("charset without a value", &["TYPE; charset"], false),
    ("charset with an empty value", &["TYPE; charset="], false),
    ("charset with white space", &["TYPE; charset = utf-8"], false),
    ("charset with an escape", &["TYPE; charset=\"utf\\-8\""], false),
    ("charset without its end", &["TYPE; charset=\"utf-8"], false),
];

/// Returns cases of `Content-Type` headers that are accepted as this media type, or are rejected.
#[must_use]
pub fn content_types(media_type: &str) -> Vec<ContentTypeCase> {
    let case = |(name, values, is_accepted): &ContentTypeRow| ContentTypeCase {
        name,
        values: values.iter().map(|value| value.replace(TYPE, media_type)).collect(),
        is_accepted: *is_accepted,
    };
    CONTENT_TYPES.iter().map(case).collect()
}
