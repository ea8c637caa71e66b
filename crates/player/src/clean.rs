//! Nothing that a server sent may steer the terminal: text is cleaned once, when it arrives.

use serde_json::Value;

/// Longest text that is kept of one string of a server; a step is far below it.
const LONGEST: usize = 256 * 1024;

/// The text without control characters (line feed and tab excepted) and without characters that reorder a line.
///
/// An escape sequence loses its ESC, so that what is left of it is visible and harmless.
pub(crate) fn text(raw: &str) -> String {
    let mut clean = String::with_capacity(raw.len().min(LONGEST));
    let mut previous = ' ';
    for character in raw.chars() {
        match character {
            '\n' if previous == '\r' => {}
            '\r' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            '\n' | '\t' => clean.push(character),
            _ if character.is_control() || reorders(character) => {}
            _ => clean.push(character),
        }
        previous = character;
        if clean.len() > LONGEST {
            clean.push_str("\n… (the rest is too long to show)");
            break;
        }
    }
    clean
}

/// [`text`] on one line, runs of blanks made one.
pub(crate) fn line(raw: &str) -> String {
    text(raw).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// [`text`] on every string inside a JSON value.
pub(crate) fn value(raw: Value) -> Value {
    match raw {
        Value::String(inner) => Value::String(text(&inner)),
        Value::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, member)| (name, value(member))).collect())
        }
        other => other,
    }
}

/// Bidirectional overrides and isolates (UAX #9) and the byte order mark: they show a command as another one.
fn reorders(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_go_and_words_stay() {
        assert_eq!(text("a\u{1b}[31mred\u{1b}[0m\u{7}\u{9b}2J\u{0}b"), "a[31mred[0m2Jb");
        assert_eq!(text("one\r\ntwo\rthree\n\tfour"), "one\ntwo\nthree\n\tfour");
        assert_eq!(text("rm \u{202e}fr- x\u{2069}"), "rm fr- x");
        assert_eq!(text("👩‍💻 日本語 é"), "👩‍💻 日本語 é");
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(line("  a\n\n b\tc\u{1b}"), "a b c");
    }

    #[test]
    fn every_string_of_a_value_is_cleaned() {
        let raw = serde_json::json!({"a": ["\u{1b}x", {"b": "y\u{8}"}], "n": 1});
        assert_eq!(value(raw), serde_json::json!({"a": ["x", {"b": "y"}], "n": 1}));
    }

    #[test]
    fn a_flood_is_cut() {
        assert!(text(&"x".repeat(LONGEST * 2)).len() < LONGEST + 100);
    }
}
