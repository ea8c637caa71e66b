//! The forms of a secret that are searched for.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use memchr::memmem::Finder;
use serde_json::Value;

use super::MIN_SECRET;

/// The minimum size in bytes of a string that counts as a secret in a JSON document.
const MIN_LEAF: usize = 8;

/// A form of a secret.
pub(super) struct Needle {
    finder: Finder<'static>,
    /// Whether this form contains quotation marks.
    pub(super) has_quote: bool,
}

/// Returns all forms of all secrets.
pub(super) fn all<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Vec<Needle> {
    let mut texts = BTreeSet::new();
    for secret in secrets {
        // A file often ends with a line break that a program does not output.
        for part in [secret, secret.trim()].into_iter().chain(secret.lines().map(str::trim)) {
            insert(part, &mut texts);
        }
        if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(secret) {
            insert_leaves(&document, &mut texts);
        }
    }
    texts.iter().map(|text| Needle::new(text)).collect()
}

fn insert_leaves(document: &Value, texts: &mut BTreeSet<String>) {
    match document {
        Value::String(text) if text.len() >= MIN_LEAF => {
            insert(text, texts);
            text.lines().for_each(|line| insert(line.trim(), texts));
        }
        Value::Array(items) => items.iter().for_each(|item| insert_leaves(item, texts)),
        Value::Object(members) => members.values().for_each(|item| insert_leaves(item, texts)),
        _ => {}
    }
}

fn insert(text: &str, texts: &mut BTreeSet<String>) {
    if text.trim().len() < MIN_SECRET {
        return;
    }
    let escaped = Value::from(text).to_string();
    texts.insert(escaped[1..escaped.len() - 1].to_owned());
    texts.insert(percent_encoded(text));
    texts.insert(BASE64_NOPAD.encode(text.as_bytes()));
    texts.insert(BASE64URL_NOPAD.encode(text.as_bytes()));
    texts.insert(text.to_owned());
}

/// Encodes everything except the unreserved characters of RFC 3986.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

impl Needle {
    fn new(text: &str) -> Self {
        Self { finder: Finder::new(text).into_owned(), has_quote: text.contains('"') }
    }

    /// Appends the start and the end of every occurrence to `found`, including overlapping occurrences. If the text is
    /// cut, also appends the longest prefix of the needle with which the text ends. Takes linear time for every text
    /// and every secret.
    pub(super) fn find_all(&self, text: &[u8], is_cut: bool, found: &mut Vec<(usize, usize)>) {
        let needle = self.finder.needle();
        let from = match self.finder.find(text) {
            Some(first) => first,
            None if is_cut => text.len().saturating_sub(needle.len() - 1),
            None => return,
        };
        // The Knuth–Morris–Pratt algorithm.
        let borders = borders(needle);
        let mut matched = 0;
        for (index, byte) in text.iter().enumerate().skip(from) {
            while matched > 0 && (matched == needle.len() || needle[matched] != *byte) {
                matched = borders[matched - 1];
            }
            if needle[matched] == *byte {
                matched += 1;
            }
            if matched == needle.len() {
                found.push((index + 1 - matched, index + 1));
            }
        }
        // A prefix that ends within a character does not count: the text consists of whole characters.
        if is_cut && matched > 0 && std::str::from_utf8(&needle[..matched]).is_ok() {
            found.push((text.len() - matched, text.len()));
        }
    }
}

/// Returns, for each prefix of the needle, the length of its longest proper prefix that is also its suffix.
fn borders(needle: &[u8]) -> Vec<usize> {
    let (mut borders, mut length) = (vec![0; needle.len()], 0);
    for index in 1..needle.len() {
        while length > 0 && needle[length] != needle[index] {
            length = borders[length - 1];
        }
        if needle[length] == needle[index] {
            length += 1;
        }
        borders[index] = length;
    }
    borders
}
