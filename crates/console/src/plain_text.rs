//! Rewrites the messages of operations for pages. Operations name fields as the API does, in backticks; pages show the
//! label of the field instead, and quote other values.

/// Labels of fields that differ from the words of their API name.
const LABELS: [(&str, &str); 8] = [
    ("body", "Text"),
    ("problem", "Problem"),
    ("assignee_id", "Assignee"),
    ("scope", "Role"),
    ("q", "Search"),
    ("ids", "Selection"),
    ("expires_at", "Expiry date"),
    ("token_auth_method", "Client authentication method"),
];

/// Words that are written in capitals in labels.
const CAPITALS: [&str; 8] = ["id", "url", "uri", "ip", "mcp", "api", "pkce", "html"];

/// Returns the label of a field of the API: `client_id` is `Client ID`.
pub(crate) fn label(field: &str) -> String {
    if let Some((_, label)) = LABELS.iter().find(|(name, _)| *name == field) {
        return (*label).to_owned();
    }
    let words = field.split('_').enumerate().map(|(index, word)| match word {
        word if CAPITALS.contains(&word) => word.to_uppercase(),
        "oauth" => "OAuth".to_owned(),
        word if index == 0 => {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        }
        word => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ").replace(" for agent", " for the agent")
}

/// Fields whose API name is a plain word. Messages about a whole walkthrough contain them.
const FIELDS: [&str; 4] = ["content", "description", "tags", "title"];

/// Rewrites a message for a page. `field` is the field that the message is about, or empty. A name in backticks becomes
/// the label of the field if it is `field`, contains an underscore, is one of [`FIELDS`] or is followed by a colon; any
/// other text is quoted.
pub(crate) fn message(text: &str, field: &str) -> String {
    let mut rewritten = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (inner, after))) =
        rest.split_once('`').and_then(|(before, opened)| Some((before, opened.split_once('`')?)))
    {
        rewritten.push_str(before);
        let is_name = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let is_certain = inner == field || inner.contains('_') || FIELDS.contains(&inner) || after.starts_with(": ");
        if is_name && is_certain {
            rewritten.push_str(&label(inner));
        } else {
            rewritten.extend(["“", inner, "”"]);
        }
        rest = after;
    }
    rewritten + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_contain_labels_instead_of_names() {
        for (text, field, expected) in [
            ("`body` must not be empty.", "body", "Text must not be empty."),
            ("`client_id` is missing.", "client_id", "Client ID is missing."),
            (
                "The range is empty: `from` must be before `to`.",
                "from",
                "The range is empty: From must be before “to”.",
            ),
            ("`version` requires `walkthrough_id`.", "version", "Version requires Walkthrough ID."),
            ("The slug `docs` is reserved. Choose another.", "slug", "The slug “docs” is reserved. Choose another."),
            ("`localhost` has no IP address.", "url", "“localhost” has no IP address."),
            ("`content` is empty. Write the text.", "", "Content is empty. Write the text."),
            (
                "step 2 \"Run\": `context_for_agent` has 9 bytes.",
                "",
                "step 2 \"Run\": Context for the agent has 9 bytes.",
            ),
            ("step 2, `format`: unknown.", "", "step 2, Format: unknown."),
            ("`Not a name`: is quoted.", "", "“Not a name”: is quoted."),
            ("One ` is kept.", "", "One ` is kept."),
            ("Empty `` too.", "", "Empty “” too."),
        ] {
            assert_eq!(message(text, field), expected, "{text}");
        }
    }
}
