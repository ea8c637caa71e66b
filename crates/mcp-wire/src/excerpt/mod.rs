//! Excerpts of arguments and results for the call log, in which secrets are masked.
//!
//! Invariants (the property tests are in `tests.rs`):
//! 1. No known secret is part of an excerpt: neither as it is, nor with the escapes of JSON, nor percent-encoded, nor as
//!    Base64.
//! 2. The text may end anywhere. If it ends within a secret, the part that it contains is masked as well. An excerpt is cut
//!    only after secrets were masked.
//! 3. An excerpt has at most [`MAX_EXCERPT`] bytes, and at most [`MAX_READ`] bytes of the text are read.
//! 4. Any text is accepted, also one that is not JSON.

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
/// What an excerpt contains instead of a secret.
pub const MASK: &str = "[secret]";
/// The minimum size of a secret that is masked. Shorter values would mask parts of ordinary words.
pub const MIN_SECRET: usize = 4;
/// The maximum number of levels of JSON in strings of JSON.
const MAX_LEVELS: usize = 4;

/// Returns the beginning of `text` that an excerpt needs, and whether it is cut.
#[must_use]
pub fn readable(text: &str) -> (&str, bool) {
    (&text[..text.floor_char_boundary(MAX_READ)], text.len() > MAX_READ)
}

/// An excerpt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The text, of at most [`MAX_EXCERPT`] bytes.
    pub text: String,
    /// Whether the end is missing.
    pub is_truncated: bool,
}

/// The secrets that excerpts must not contain. Has no `Debug`, so that it is never logged.
pub struct SecretMask {
    needles: Vec<Needle>,
}

impl SecretMask {
    /// Creates a mask of `secrets`. Every line of a secret with several lines, and every longer text in a secret that is a JSON
    /// document, counts as a secret. Values of less than [`MIN_SECRET`] bytes are ignored.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        Self { needles: needle::all(secrets) }
    }

    /// Returns an excerpt of JSON text. `is_cut` means that `text` is only the beginning of it.
    ///
    /// Known secrets, and values of members whose names suggest credentials, are replaced by [`MASK`], and Base64 by its size.
    /// The same applies to JSON in strings.
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

    /// Masks a text that is JSON or anything else. `level` is the number of strings that contain it.
    fn mask<'a>(&self, text: &'a str, is_cut: bool, level: usize) -> Masked<'a> {
        if level >= MAX_LEVELS || !text.trim_start().starts_with(['{', '[']) {
            return Masked { text: self.replace(text, is_cut, |_| true), is_cut };
        }
        // A secret with quotes may be more than one token, or not be recognised once its quotes are escaped in another way.
        let before = self.replace(text, is_cut, |needle| needle.has_quote);
        let walked = walk::walk(self, &before, is_cut, level);
        // What is outside of strings.
        let after = self.replace(&walked.text, walked.is_cut, |_| true).into_owned();
        Masked { text: after.into(), is_cut: walked.is_cut }
    }

    /// Replaces all bytes that belong to a secret for which `is_used` is true. If the text is cut, what belongs to a secret or to
    /// the beginning of one at its end is left out instead: whatever precedes it is then the end, which can be examined again,
    /// such as after escapes were resolved.
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

/// Joins ranges that overlap or adjoin.
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
    /// Whether the end is missing.
    is_cut: bool,
}
