//! Replaces IDs in text, so that snapshots are the same in every run.

use std::collections::HashMap;

/// The prefixes of IDs.
const PREFIXES: &[&str] = &[
    "org", "srv", "eu", "ses", "wt", "ws", "wv", "wp", "tc", "ev", "wph", "req", "msw", "tbx", "ctv", "ins", "dep",
    "iev",
];
const BASE32: &str = "0123456789abcdefghjkmnpqrstvwxyz";

/// Maps IDs to numbered placeholders, in the order in which they are first seen.
#[derive(Default)]
pub struct IdRedactor {
    known: HashMap<String, String>,
    next: HashMap<&'static str, u32>,
}

impl IdRedactor {
    /// Replaces each ID in `text`: `wt_0123…` becomes `wt:1`.
    pub fn redact(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let begins_word = !out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            match find_identifier(rest).filter(|_| begins_word) {
                Some((prefix, length)) => {
                    let id = &rest[..length];
                    if !self.known.contains_key(id) {
                        let number = self.next.entry(prefix).or_insert(0);
                        *number += 1;
                        self.known.insert(id.to_owned(), format!("{prefix}:{number}"));
                    }
                    out.push_str(&self.known[id]);
                    rest = &rest[length..];
                }
                None => {
                    out.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        out
    }
}

fn find_identifier(text: &str) -> Option<(&'static str, usize)> {
    PREFIXES.iter().find_map(|prefix| {
        let tail = text.strip_prefix(prefix)?.strip_prefix('_')?;
        let length = tail.find(|c| !BASE32.contains(c)).unwrap_or(tail.len());
        (length >= 12).then_some((*prefix, prefix.len() + 1 + length))
    })
}
