//! Edits of JSON text that leave everything else unchanged, byte for byte.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Unchanged parts of at least this size in bytes are shared with the original text instead of copied.
const MIN_SHARED: usize = 16 * 1024;

/// Replaces line breaks with spaces. In JSON, they occur only between tokens.
pub fn make_single_line(text: &mut [u8]) {
    // Every byte is written, so that the compiler can turn this into vector instructions.
    for byte in text {
        *byte = if matches!(*byte, b'\n' | b'\r') { b' ' } else { *byte };
    }
}

/// Edits of a text. Each is located by a slice of the text itself. Edits must not overlap.
pub(crate) struct Edits<'a> {
    text: &'a str,
    edits: Vec<Edit>,
}

struct Edit {
    range: Range<usize>,
    change: Change,
}

enum Change {
    /// Replaces the range with this text.
    Replace(String),
    /// Adds members at the empty range after the opening brace of an object.
    Insert(String),
    /// Removes the member at the range.
    Remove,
}

/// A piece of an edited text.
enum Piece<'p> {
    /// A part of the original text.
    Kept(&'p str),
    /// The text of an edit.
    New(&'p str),
}

impl<'a> Edits<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, edits: Vec::new() }
    }

    /// Returns the range of a part of the text. `part` must be a slice of it.
    fn range(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr() - self.text.as_ptr().addr();
        start..start + part.len()
    }

    /// Replaces a part of the text.
    pub(crate) fn replace(&mut self, part: &str, value: &str) {
        self.edits.push(Edit { range: self.range(part), change: Change::Replace(value.to_owned()) });
    }

    /// Adds members, separated by commas, at the start of an object, which may be surrounded by white space.
    pub(crate) fn insert_members(&mut self, object: &str, members: &str) {
        let Some(brace) = object.find('{') else { return };
        let at = self.range(object).start + brace + 1;
        let previous = self.edits.iter_mut().find(|edit| edit.range == (at..at));
        match previous.map(|edit| &mut edit.change) {
            Some(Change::Insert(inserted)) => {
                inserted.push(',');
                inserted.push_str(members);
            }
            _ => self.edits.push(Edit { range: at..at, change: Change::Insert(members.to_owned()) }),
        }
    }

    /// Removes a member of an object. `key` (with its quotation marks) and `value` must be slices of the text.
    pub(crate) fn remove_member(&mut self, key: &str, value: &str) {
        let range = self.range(key).start..self.range(value).end;
        self.edits.push(Edit { range, change: Change::Remove });
    }

    /// Returns the text with all edits applied, in one line.
    pub(crate) fn apply(self) -> Vec<u8> {
        let text = self.text;
        self.apply_to(text)
    }

    /// Returns the text with all edits applied, in pieces. Long unchanged pieces are shared with `owner` if it contains
    /// the text. Line breaks remain.
    pub(crate) fn apply_shared(mut self, owner: &Bytes) -> Vec<Bytes> {
        let is_owner = owner.as_ptr() == self.text.as_ptr() && owner.len() == self.text.len();
        let (mut pieces, mut copied) = (Vec::new(), BytesMut::new());
        self.prepare(0..self.text.len());
        self.for_each_piece(0..self.text.len(), |piece| match piece {
            Piece::Kept(text) if is_owner && text.len() >= MIN_SHARED => {
                pieces.extend(Some(copied.split().freeze()).filter(|copied| !copied.is_empty()));
                pieces.push(owner.slice_ref(text.as_bytes()));
            }
            Piece::Kept(text) | Piece::New(text) => copied.extend_from_slice(text.as_bytes()),
        });
        pieces.extend(Some(copied.freeze()).filter(|copied| !copied.is_empty()));
        pieces
    }

    /// Appends the text with all edits applied to `output`. Line breaks remain.
    pub(crate) fn append_to(mut self, output: &mut String) {
        let range = 0..self.text.len();
        self.prepare(range.clone());
        self.for_each_piece(range, |piece| {
            let (Piece::Kept(text) | Piece::New(text)) = piece;
            output.push_str(text);
        });
    }

    /// Returns a part of the text with the edits in this part applied, in one line.
    pub(crate) fn apply_to(mut self, part: &str) -> Vec<u8> {
        let range = self.range(part);
        self.prepare(range.clone());
        let added: usize = self.edits.iter().map(|edit| edit.change.text().len() + 1).sum();
        let mut result = Vec::with_capacity(part.len() + added + 1);
        self.for_each_piece(range, |piece| {
            let (Piece::Kept(text) | Piece::New(text)) = piece;
            result.extend_from_slice(text.as_bytes());
        });
        make_single_line(&mut result);
        result
    }

    /// Sorts the edits in a part of the text, and drops all others.
    fn prepare(&mut self, Range { start, end }: Range<usize>) {
        self.edits.retain(|edit| (start..=end).contains(&edit.range.start) && edit.range.end <= end);
        self.edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        self.resolve_removals();
    }

    /// Passes the pieces of an edited part to `visit`, in order.
    fn for_each_piece(&self, Range { start, end }: Range<usize>, mut visit: impl FnMut(Piece<'_>)) {
        let mut position = start;
        for (index, Edit { range, change }) in self.edits.iter().enumerate() {
            visit(Piece::Kept(&self.text[position..range.start]));
            visit(Piece::New(change.text()));
            if matches!(change, Change::Insert(_)) && !self.is_empty_after(range.end, index + 1) {
                visit(Piece::New(","));
            }
            position = range.end;
        }
        visit(Piece::Kept(&self.text[position..end]));
    }

    /// Joins removals of adjacent members, and extends each to the comma that belongs to it.
    fn resolve_removals(&mut self) {
        let mut index = 0;
        while index < self.edits.len() {
            if !matches!(self.edits[index].change, Change::Remove) {
                index += 1;
                continue;
            }
            while let Some(next) = self.edits.get(index + 1)
                && matches!(next.change, Change::Remove)
                && self.after(self.edits[index].range.end, b',').map(|at| self.skip_space(at)) == Some(next.range.start)
            {
                self.edits[index].range.end = next.range.end;
                self.edits.remove(index + 1);
            }
            let Range { start, end } = self.edits[index].range;
            let before = self.text[..start].trim_end_matches(is_space);
            self.edits[index].range = match before.strip_suffix(',') {
                Some(before) => before.len()..end,
                // These are the first members of the object.
                None => start..self.after(end, b',').unwrap_or(end),
            };
            index += 1;
        }
    }

    /// Whether the object with an insertion at `at` has no other members once the edits from index `next` on are
    /// applied.
    fn is_empty_after(&self, at: usize, next: usize) -> bool {
        let mut at = self.skip_space(at);
        if let Some(Edit { range, change: Change::Remove }) = self.edits.get(next)
            && range.start == at
        {
            at = range.end;
        }
        self.after(at, b'}').is_some()
    }

    fn skip_space(&self, at: usize) -> usize {
        self.text.len() - self.text[at..].trim_start_matches(is_space).len()
    }

    /// Returns the position after `byte`, if it follows `at`, optionally after white space.
    fn after(&self, at: usize, byte: u8) -> Option<usize> {
        let at = self.skip_space(at);
        (self.text.as_bytes().get(at) == Some(&byte)).then_some(at + 1)
    }
}

impl Change {
    fn text(&self) -> &str {
        match self {
            Self::Replace(text) | Self::Insert(text) => text,
            Self::Remove => "",
        }
    }
}

/// Returns the name of a member, with its quotation marks, before its value. The name must not contain quotation marks.
pub(crate) fn key_of<'a>(text: &'a str, value: &str) -> &'a str {
    let start = value.as_ptr().addr() - text.as_ptr().addr();
    let end = text[..start].rfind('"').unwrap_or_default();
    let start = text[..end].rfind('"').unwrap_or_default();
    &text[start..=end]
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn members_are_removed_with_their_comma() {
        for (object, removed, expected) in [
            (r#"{"a":1}"#, "a", "{}"),
            (r#"{ "a" : 1 }"#, "a", "{  }"),
            (r#"{"a":1,"b":2}"#, "a", r#"{"b":2}"#),
            (r#"{"a":1,"b":2}"#, "b", r#"{"a":1}"#),
            (r#"{"a":1,"b":2}"#, "ab", "{}"),
            (r#"{"x":0,"a":1,"b":2}"#, "ab", r#"{"x":0}"#),
            (r#"{"a":1, "b":2 , "x":0}"#, "ab", r#"{ "x":0}"#),
            (r#"{"a":1,"x":0,"b":2}"#, "ab", r#"{"x":0}"#),
        ] {
            assert_eq!(edit(object, removed, &[]), expected, "{object} without {removed}");
        }
        assert_eq!(edit(r#"{"a":1}"#, "a", &["n"]), r#"{"n":0}"#);
        assert_eq!(edit(r#"{ "a":1, "b":2}"#, "a", &["n", "m"]), r#"{"n":0,"m":0,  "b":2}"#);
        assert_eq!(edit("{ }", "", &["n"]), r#"{"n":0 }"#);
    }

    /// Removes members with one-letter names from an object, and inserts others.
    fn edit(object: &str, removed: &str, inserted: &[&str]) -> String {
        let mut edits = Edits::new(object);
        for name in removed.chars() {
            let at = object.find(&format!("\"{name}\"")).unwrap();
            let end = object[at..].find([',', '}']).unwrap() + at;
            edits.remove_member(&object[at..at + 3], object[at..end].trim_end());
        }
        inserted.iter().for_each(|name| edits.insert_members(object, &format!("\"{name}\":0")));
        String::from_utf8(edits.apply()).unwrap()
    }

    #[test]
    fn long_unchanged_parts_are_shared() {
        let long = format!("{:1$}", "", MIN_SHARED);
        let text = Bytes::from(format!("{{\"id\":1,\"a\":\"{long}\",\"b\":2,\"c\":\"{long}\"\n}}"));
        let edited = |owner: &Bytes| {
            let text = std::str::from_utf8(&text).unwrap();
            let mut edits = Edits::new(text);
            edits.replace(&text[6..7], "\"seven\"");
            let at = text.find("\"b\"").unwrap();
            edits.remove_member(&text[at..at + 3], &text[at + 4..at + 5]);
            edits.insert_members(text, "\"n\":0");
            edits.apply_shared(owner)
        };
        let expected = format!("{{\"n\":0,\"id\":\"seven\",\"a\":\"{long}\",\"c\":\"{long}\"\n}}");
        let shared = edited(&text);
        assert_eq!(shared.concat(), expected.as_bytes());
        let is_part = |piece: &&Bytes| text.as_ptr_range().contains(&piece.as_ptr());
        assert_eq!((shared.len(), shared.iter().filter(is_part).count()), (3, 2));
        let copied = edited(&Bytes::copy_from_slice(&text));
        assert_eq!(copied.concat(), expected.as_bytes(), "another text owns nothing of it");
        assert_eq!(copied.len(), 1);
        let unchanged = Edits::new(std::str::from_utf8(&text).unwrap()).apply_shared(&text);
        assert_eq!((unchanged.len(), &unchanged[0]), (1, &text));
    }

    proptest! {
        #[test]
        fn other_members_and_their_order_are_kept(
            names in prop::collection::btree_set("[a-h]", 0..8), removed in "[a-h]{0,8}", inserted in prop::bool::ANY,
            space in "[ \t\n]{0,2}",
        ) {
            let members: Vec<String> = names.iter().map(|name| format!("{space}\"{name}\"{space}:{space}1{space}")).collect();
            let object = format!("{{{}{space}}}", members.join(","));
            let removed: std::collections::BTreeSet<String> = removed.chars().map(String::from).filter(|name| names.contains(name)).collect();
            let edited = edit(&object, &removed.iter().map(String::as_str).collect::<String>(), if inserted { &["n"] } else { &[] });
            let edited: Map<String, Value> = serde_json::from_str(&edited).map_err(|error| TestCaseError::fail(format!("{error}: {edited}")))?;
            let kept = names.iter().filter(|name| !removed.contains(*name)).map(String::as_str);
            let expected: Vec<&str> = inserted.then_some("n").into_iter().chain(kept).collect();
            prop_assert_eq!(edited.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        }
    }
}
