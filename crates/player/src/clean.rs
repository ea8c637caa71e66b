//! Sanitises text from servers, once, on receipt, so that it cannot control the terminal.

use serde_json::Value;

/// Maximum length of a string from a server in bytes. Far longer than any step.
const MAX_LENGTH: usize = 256 * 1024;

/// Removes control characters (except line feed and tab) and characters that reorder text.
///
/// An escape sequence loses its ESC; the rest stays visible and is harmless.
pub(crate) fn clean_text(raw: &str) -> String {
    let mut clean = String::with_capacity(raw.len().min(MAX_LENGTH));
    let mut previous = ' ';
    for character in raw.chars() {
        match character {
            '\n' if previous == '\r' => {}
            '\r' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            '\n' | '\t' => clean.push(character),
            _ if character.is_control() || is_reordering(character) => {}
            _ => clean.push(character),
        }
        previous = character;
        if clean.len() > MAX_LENGTH {
            clean.push_str("\n… (truncated)");
            break;
        }
    }
    clean
}

/// Cleans `raw` like [`clean_text`] and collapses all whitespace to single spaces.
pub(crate) fn clean_line(raw: &str) -> String {
    clean_text(raw).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Applies [`clean_text`] to every string in a JSON value.
pub(crate) fn clean_value(raw: Value) -> Value {
    match raw {
        Value::String(inner) => Value::String(clean_text(&inner)),
        Value::Array(items) => Value::Array(items.into_iter().map(clean_value).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, member)| (name, clean_value(member))).collect())
        }
        other => other,
    }
}

/// Whether `character` is a bidirectional control (UAX #9) or the byte order mark. These can disguise one command as
/// another.
fn is_reordering(character: char) -> bool {
    matches!(
        character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_removed_and_other_text_is_kept() {
        assert_eq!(clean_text("a\u{1b}[31mred\u{1b}[0m\u{7}\u{9b}2J\u{0}b"), "a[31mred[0m2Jb");
        assert_eq!(clean_text("one\r\ntwo\rthree\n\tfour"), "one\ntwo\nthree\n\tfour");
        assert_eq!(clean_text("rm \u{202e}fr-\u{61c} x\u{2069}"), "rm fr- x");
        assert_eq!(clean_text("👩‍💻 日本語 é"), "👩‍💻 日本語 é");
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(clean_line("  a\n\n b\tc\u{1b}"), "a b c");
    }

    #[test]
    fn every_string_in_a_value_is_cleaned() {
        let raw = serde_json::json!({"a": ["\u{1b}x", {"b": "y\u{8}"}], "n": 1});
        assert_eq!(clean_value(raw), serde_json::json!({"a": ["x", {"b": "y"}], "n": 1}));
    }

    #[test]
    fn long_text_is_truncated() {
        assert!(clean_text(&"x".repeat(MAX_LENGTH * 2)).len() < MAX_LENGTH + 100);
    }
}
