//! Matches imported walkthroughs and steps with existing ones by their titles, keys, and paths without numbers.

use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};

use crate::markdown::clean_line;

/// Maximum length of a step's key in characters.
pub const MAX_KEY_CHARS: usize = 256;

/// Returns a title in the form used for comparison: NFC, trimmed, case-folded.
///
/// The text is decomposed before folding and composed afterwards, as required for canonical caseless matching (Unicode,
/// section 3.13, D145), because the result of folding alone may not be normalised.
#[must_use]
pub fn fold_title(title: &str) -> String {
    let decomposed = DecomposingNormalizer::new_nfd().normalize(title.trim()).into_owned();
    let folded = CaseMapper::new().fold_string(&decomposed).into_owned();
    ComposingNormalizer::new_nfc().normalize(&folded).into_owned()
}

/// Returns the lookup key of a title. Titles that are the same after cleaning have the same key.
#[must_use]
pub fn title_key(title: &str) -> String {
    fold_title(&clean_line(title))
}

/// Normalises `text` to NFC. Some file systems return decomposed names, others composed ones.
pub(super) fn compose(text: &str) -> String {
    ComposingNormalizer::new_nfc().normalize(text).into_owned()
}

/// Returns the problem with a key, or `None` if it is valid. A key is an opaque single line of 1 to 256 characters
/// without leading or trailing spaces.
#[must_use]
pub fn key_problem(key: &str) -> Option<String> {
    if key.is_empty() {
        return Some("is empty. Omit it, or give the step a unique name.".to_owned());
    }
    if key.trim() != key || key.chars().any(char::is_control) {
        return Some("begins or ends with a space or contains a control character. Use a plain name.".to_owned());
    }
    let count = key.chars().count();
    (count > MAX_KEY_CHARS).then(|| format!("has {count} characters; the maximum is {MAX_KEY_CHARS}. Shorten it."))
}

/// A file or folder name split into its parts: `02-install` has the number 2 and the name `install`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NumberedName<'a> {
    /// The leading numbers (`1.10-x` has two), without leading zeros.
    pub(super) numbers: Vec<&'a str>,
    /// The name without the numbers; the whole name if nothing else would remain.
    pub(super) name: &'a str,
}

/// Splits off the numeric prefix: digits (in groups separated by dots), a separator, and a remainder. `3d-print` and
/// `2024` have no prefix.
pub(super) fn split_number(text: &str) -> NumberedName<'_> {
    let mut numbers = Vec::new();
    let mut rest = text;
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            break;
        }
        let after = &rest[digits..];
        let Some(separator) = after.chars().next().filter(|c| "-_. )".contains(*c)) else { break };
        numbers.push(rest[..digits].trim_start_matches('0'));
        rest = &after[separator.len_utf8()..];
        if separator != '.' {
            break;
        }
    }
    let name = rest.trim_start_matches(['-', '_', '.', ' ', ')']);
    if numbers.is_empty() || name.is_empty() {
        NumberedName { numbers: Vec::new(), name: text }
    } else {
        NumberedName { numbers, name }
    }
}

impl NumberedName<'_> {
    /// Returns the sort key: names with a number come first, 2 before 10; then by name, with the numbers in it
    /// compared by value.
    pub(super) fn sort_key(&self) -> impl Ord + use<> {
        let numbers: Vec<_> = self.numbers.iter().map(|digits| (digits.len(), (*digits).to_owned())).collect();
        (numbers.is_empty(), numbers, natural(self.name), self.name.to_owned())
    }

    /// Returns the readable form of the name: `first-agent` becomes `First agent`.
    pub(super) fn readable(&self) -> String {
        readable(self.name)
    }
}

/// Splits a name into text and numbers for natural sorting (`step2` before `step10`). Each piece is preceded by the
/// length of the number, or 0 for text.
fn natural(name: &str) -> Vec<(usize, String)> {
    let mut pieces: Vec<(usize, String)> = Vec::new();
    let mut digits = None;
    for c in name.chars() {
        match pieces.last_mut().filter(|_| digits == Some(c.is_ascii_digit())) {
            Some((_, piece)) => piece.push(c),
            None => pieces.push((0, c.to_string())),
        }
        digits = Some(c.is_ascii_digit());
    }
    for (length, piece) in &mut pieces {
        if piece.starts_with(|c: char| c.is_ascii_digit()) {
            *piece = piece.trim_start_matches('0').to_owned();
            *length = piece.len() + 1;
        }
    }
    pieces
}

/// Returns the readable form of a file name: spaces instead of dashes and underscores, and a capital first letter.
pub(super) fn readable(name: &str) -> String {
    let words: Vec<_> =
        name.split(|c: char| c == '-' || c == '_' || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    let text = words.join(" ");
    let mut chars = text.chars();
    chars.next().map_or_else(|| name.to_owned(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn titles_are_folded() {
        let table = [
            (" Install ", "install", true),
            ("STRASSE", "straße", true),
            ("Caf\u{e9}", "cafe\u{301}", true),
            ("ΟΔΟΣ", "οδος", true),
            ("\u{212b}", "å", true),
            ("Install", "Instal", false),
            ("a b", "a  b", false),
        ];
        for (left, right, same) in table {
            assert_eq!(fold_title(left) == fold_title(right), same, "{left:?} {right:?}");
        }
    }

    #[test]
    fn names_are_split() {
        let table: &[(&str, &[&str], &str)] = &[
            ("01-first-agent", &["1"], "first-agent"),
            ("10_b", &["10"], "b"),
            ("1.10-deep", &["1", "10"], "deep"),
            ("1. Intro", &["1"], "Intro"),
            ("01-2-factor", &["1"], "2-factor"),
            ("3d-print", &[], "3d-print"),
            ("2024", &[], "2024"),
            ("7-", &[], "7-"),
            ("00-zero", &[""], "zero"),
            ("x-review", &[], "x-review"),
        ];
        for (text, numbers, name) in table {
            assert_eq!(split_number(text), NumberedName { numbers: numbers.to_vec(), name }, "{text}");
        }
    }

    #[test]
    fn names_are_sorted_by_number() {
        let mut names = ["x-review", "step10", "step2", "10-b", "2-a", "1.10-d", "1.9-e", "appendix", "02-b", "00-z"];
        names.sort_by_key(|name| split_number(name).sort_key());
        assert_eq!(
            names,
            ["00-z", "1.9-e", "1.10-d", "2-a", "02-b", "10-b", "appendix", "step2", "step10", "x-review"]
        );
    }

    #[test]
    fn names_become_readable() {
        let table = [("first-agent", "First agent"), ("what_is__it", "What is it"), ("été", "Été"), ("--", "--")];
        for (name, expected) in table {
            assert_eq!(readable(name), expected);
        }
    }

    #[test]
    fn keys_are_validated() {
        assert_eq!(key_problem("first-agent/intro"), None);
        assert!(key_problem("").is_some() && key_problem(" a").is_some() && key_problem("a\nb").is_some());
        assert!(key_problem(&"x".repeat(256)).is_none() && key_problem(&"x".repeat(257)).is_some());
    }

    proptest! {
        #[test]
        fn folding_is_idempotent(title in any::<String>()) {
            let once = fold_title(&title);
            prop_assert_eq!(fold_title(&once), once);
        }

        #[test]
        fn splitting_never_panics(name in "[0-9.\\-_ )a-zé]{0,12}") {
            let parts = split_number(&name);
            prop_assert!(name.ends_with(parts.name));
            let _ = (parts.sort_key(), parts.readable());
        }
    }
}
