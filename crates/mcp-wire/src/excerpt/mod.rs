//! Excerpts of arguments and results for the call log, in which secrets are masked.
//!
//! Invariants (the property tests are in `tests.rs`):
//! 1. No known secret is part of an excerpt, whether verbatim, JSON-escaped, percent-encoded or Base64-encoded.
//! 2. The text may end anywhere. If it ends within a secret, the part of the secret that it contains does not appear in
//!    the excerpt either. An excerpt is truncated only after secrets have been masked.
//! 3. An excerpt has at most [`MAX_EXCERPT`] bytes, and at most [`MAX_READ`] bytes of the text are read.
//! 4. Any text is accepted, even if it is not JSON.

mod needle;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Cow;

use self::needle::Needle;

/// The maximum size of an excerpt in bytes.
pub const MAX_EXCERPT: usize = 8 * 1_024;
/// The maximum number of bytes of a text that are read.
pub const MAX_READ: usize = 64 * 1_024;
/// The text that replaces a secret in an excerpt.
pub const MASK: &str = "[secret]";
/// The minimum size of a secret that is masked. Shorter values would mask parts of ordinary words.
pub const MIN_SECRET: usize = 4;
/// The maximum number of levels of JSON texts nested in JSON strings.
const MAX_LEVELS: usize = 4;

/// Returns the part of `text` that is read for an excerpt, and whether the text is longer.
#[must_use]
pub fn readable(text: &str) -> (&str, bool) {
    (&text[..text.floor_char_boundary(MAX_READ)], text.len() > MAX_READ)
}

/// An excerpt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The text, of at most [`MAX_EXCERPT`] bytes.
    pub text: String,
    /// Whether the end of the original text is missing.
    pub is_truncated: bool,
}

/// The secrets that excerpts must not contain. The type does not implement `Debug`, so that secrets are never logged.
pub struct SecretMask {
    needles: Vec<Needle>,
}

impl SecretMask {
    /// Creates a mask of `secrets`. Every line of a multi-line secret, and every longer string in a secret that is a
    /// JSON document, counts as a secret. Values of fewer than [`MIN_SECRET`] bytes are ignored.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        Self { needles: needle::all(secrets) }
    }

    /// Returns an excerpt of JSON text. `is_cut` states whether `text` is only the beginning of the original text.
    ///
    /// Known secrets, and the values of members whose names suggest credentials, are replaced with [`MASK`], and Base64
    /// with its size. The same applies to JSON in strings.
    #[must_use]
    pub fn excerpt(&self, text: &str, is_cut: bool) -> Excerpt {
        let (text, is_long) = readable(text);
        let masked = self.mask(text, is_cut || is_long, 0);
        let end = masked.text.floor_char_boundary(MAX_EXCERPT);
        let is_truncated = masked.is_cut || end < masked.text.len();
        let mut text = masked.text.into_owned();
        text.truncate(end);
        Excerpt { text, is_truncated }
    }

    /// Masks a text, which need not be JSON. `level` is the number of JSON strings in which it is nested.
    fn mask<'a>(&self, text: &'a str, is_cut: bool, level: usize) -> Masked<'a> {
        if level >= MAX_LEVELS || !text.trim_start().starts_with(['{', '[']) {
            return Masked { text: self.replace(text, is_cut, |_| true), is_cut };
        }
        // A secret with quotation marks may span several tokens, or may not be recognised once its quotation marks are
        // escaped differently.
        let before = self.replace(text, is_cut, |needle| needle.has_quote);
        let walked = walk::walk(self, &before, is_cut, level);
        // Masks secrets outside of strings.
        let after = self.replace(&walked.text, walked.is_cut, |_| true).into_owned();
        Masked { text: after.into(), is_cut: walked.is_cut }
    }

    /// Replaces all bytes that belong to a secret for which `is_used` is true. If the text is cut, and ends with a
    /// secret or the beginning of one, these bytes are left out instead. The remaining text can then be searched again,
    /// for example after its escapes have been resolved.
    fn replace<'a>(&self, text: &'a str, is_cut: bool, is_used: impl Fn(&Needle) -> bool) -> Cow<'a, str> {
        let mut found = Vec::new();
        for needle in self.needles.iter().filter(|needle| is_used(needle)) {
            needle.find_all(text.as_bytes(), is_cut, &mut found);
        }
        if found.is_empty() {
            return text.into();
        }
        let (mut masked, mut at) = (String::with_capacity(text.len()), 0);
        for (start, end) in merged(found) {
            masked.push_str(&text[at..start]);
            if !is_cut || end < text.len() {
                masked.push_str(MASK);
            }
            at = end;
        }
        masked.push_str(&text[at..]);
        masked.into()
    }
}

/// Merges overlapping and adjacent ranges.
fn merged(mut ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    ranges.sort_unstable();
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// A masked text.
struct Masked<'a> {
    text: Cow<'a, str>,
    /// Whether the end of the original text is missing.
    is_cut: bool,
}
