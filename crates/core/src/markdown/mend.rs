//! Changes a text where it offends, and nowhere else.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use super::block;
use super::gap;
use super::html;
use super::survey::{Offence, Survey};
use super::unseen::Unseen;

/// How thoroughly offences are dealt with. Where the nicer manner would turn text into code, or code into text, the
/// next one is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Remove.
    Nice,
    /// As nice, with a paragraph of one coded space before each block of HTML: in `- item`, `<!-- -->`, indented code
    /// the comment is all that keeps the code out of the list.
    Apart,
    /// Put something in its place that joins nothing and opens nothing: an escaped tag, a coded space.
    Strict,
    /// As strict, and blocks of HTML go with their text.
    Drop,
}

/// A space that opens and joins nothing, whatever stands around it.
pub(super) const CODED_SPACE: &str = "&#32;";

impl Manner {
    /// Whether offences are removed, not replaced.
    pub(super) fn removes(self) -> bool {
        matches!(self, Self::Nice | Self::Apart)
    }
}

/// Replaces a range of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    range: Range<usize>,
    with: Cow<'static, str>,
}

impl Edit {
    pub(super) fn remove(range: Range<usize>) -> Self {
        Self { range, with: Cow::Borrowed("") }
    }

    pub(super) fn replace(range: Range<usize>, with: impl Into<Cow<'static, str>>) -> Self {
        Self { range, with: with.into() }
    }

    pub(super) fn insert(at: usize, with: impl Into<Cow<'static, str>>) -> Self {
        Self { range: at..at, with: with.into() }
    }

    pub(super) fn escape(at: usize) -> Self {
        Self::insert(at, "\\")
    }
}

/// Deals with what `survey` found in `text`; answers the new text and what is found in it. `careful` watches over code.
pub(super) fn mend(text: &str, survey: &Survey, careful: bool) -> (String, Survey) {
    let attempt = |manner| {
        let patched = Patched::new(text, edits(text, survey, manner));
        let after = Survey::of(&patched.text);
        (patched, after)
    };
    let manners: &[Manner] = if careful { &[Manner::Nice, Manner::Apart, Manner::Strict, Manner::Drop] } else { &[] };
    for &manner in manners {
        let (patched, after) = attempt(manner);
        if patched.keeps_code(text, survey, &after) {
            return (patched.text, after);
        }
    }
    let (patched, after) = attempt(Manner::Strict);
    (patched.text, after)
}

/// The edits for all offences. Invisible characters go first and alone: tags may come to light. What is not shown goes last:
/// references may come to light.
fn edits(text: &str, survey: &Survey, manner: Manner) -> Vec<Edit> {
    let mut edits = Vec::new();
    if !manner.removes() {
        edits.extend(survey.joints.iter().copied().map(Edit::escape));
    }
    if !survey.hidden.is_empty() {
        edits.extend(survey.hidden.iter().cloned().map(|range| {
            // In code a coded space is read as it is written. It is only needed where a line, and maybe a block, would begin.
            let line = text[..range.start].rsplit('\n').next().unwrap_or_default();
            let is_inside = survey.is_code(range.start) && !line.trim_matches([' ', '\t', '>']).is_empty();
            let may_go = manner.removes() || is_inside;
            Edit { range, with: if may_go { "" } else { CODED_SPACE }.into() }
        }));
    } else if survey.offences.is_empty() {
        edits.extend(survey.unseen.iter().map(|(Unseen { range, is_block }, with)| {
            let with = if *is_block && !manner.removes() { CODED_SPACE } else { *with };
            Edit { range: range.clone(), with: with.into() }
        }));
    } else {
        for offence in &survey.offences {
            edits_for(text, offence, manner, &mut edits);
        }
        let tags = survey.offences.iter().filter_map(|offence| match offence {
            Offence::Tag(tag) => Some(tag),
            _ => None,
        });
        let tags: Vec<_> = tags.collect();
        let escaped = if manner.removes() { gap::edits(text, tags, &mut edits) } else { tags };
        escaped.into_iter().for_each(|tag| escape(text, &tag.range, &mut edits));
    }
    // What stands inside a removed stretch comes after it and is skipped; but what goes before a block comes first.
    edits.sort_by_key(|edit| (edit.range.start, !edit.with.contains('\n'), Reverse(edit.range.end)));
    edits
}

fn edits_for(text: &str, offence: &Offence, manner: Manner, edits: &mut Vec<Edit>) {
    match offence {
        // All of them together, see `gap::edits`.
        Offence::Tag(_) => {}
        Offence::Stretch(range) if manner.removes() => {
            edits.push(Edit::replace(range.clone(), gap::instead(text, range)))
        }
        Offence::Stretch(_) => {}
        Offence::Foreign(range) => escape(text, range, edits),
        Offence::Placeholder(at) => edits.push(Edit::escape(*at)),
        Offence::Link { whole, text } => {
            let (open, close) = if manner.removes() { ("", "") } else { ("\\[", "\\]") };
            edits.push(Edit { range: whole.start..text.start, with: open.into() });
            edits.push(Edit { range: text.end..whole.end, with: close.into() });
        }
        Offence::Autolink(range) if !manner.removes() => escape(text, range, edits),
        Offence::Autolink(range) => {
            edits.push(Edit::remove(range.start..range.start + 1));
            escape(text, &(range.start + 1..range.end - 1), edits);
            edits.push(Edit::remove(range.end - 1..range.end));
        }
        Offence::Definition(range) if manner.removes() => edits.push(Edit::remove(range.clone())),
        Offence::Definition(range) => {
            // A definition must stay to keep a later one of the same name from counting.
            let label = label_len(&text[range.clone()]);
            edits.push(Edit { range: range.start + label..range.end, with: ": #".into() });
        }
        Offence::Block(lines) => edits.extend(block::edits(text, lines, manner)),
    }
}

fn escape(text: &str, range: &Range<usize>, edits: &mut Vec<Edit>) {
    edits.extend(html::marks(&text[range.clone()]).map(|mark| Edit::escape(range.start + mark)));
}

/// Bytes of the label with its brackets.
fn label_len(definition: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in definition.bytes().enumerate() {
        match byte {
            b']' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    definition.len()
}

/// A changed text, and where what is left of the old one stands in it.
struct Patched {
    text: String,
    /// Ranges of the old text, each with its place in the new one.
    kept: Vec<(Range<usize>, usize)>,
}

impl Patched {
    /// `edits` are sorted; of those that overlap the first counts.
    fn new(old: &str, edits: Vec<Edit>) -> Self {
        let mut patched = Self { text: String::with_capacity(old.len() + edits.len()), kept: Vec::new() };
        let mut from = 0;
        for Edit { range, with } in edits {
            if range.start < from {
                continue;
            }
            patched.keep(old, from..range.start);
            patched.text.push_str(&with);
            from = range.end;
        }
        patched.keep(old, from..old.len());
        patched
    }

    fn keep(&mut self, old: &str, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        if !self.kept.is_empty() && self.text.ends_with('`') && old[range.clone()].starts_with('`') {
            // Two runs of backticks would become one, and open or close other code than before.
            self.text.push(' ');
        }
        let at = self.text.len();
        self.text.push_str(&old[range.clone()]);
        self.kept.push((range, at));
    }

    /// Whether all code is still code, unchanged, and all text still text. What stood in a block of HTML was neither.
    fn keeps_code(&self, old: &str, before: &Survey, after: &Survey) -> bool {
        let mut lines = after.code_lines.iter();
        if !before.code_lines.iter().all(|line| lines.any(|other| other == line)) {
            return false;
        }
        let was_code = flags(old.len(), &before.code);
        let was_html = flags(old.len(), &before.html);
        let is_code = flags(self.text.len(), &after.code);
        let bytes = old.as_bytes();
        self.kept.iter().all(|(range, at)| {
            range.clone().zip(*at..).all(|(old, new)| {
                // The marks of a quote within a block of code count to its range or not, depending on its place.
                was_html[old] || matches!(bytes[old], b' ' | b'\t' | b'\n' | b'>') || was_code[old] == is_code[new]
            })
        })
    }
}

fn flags(len: usize, ranges: &[Range<usize>]) -> Vec<bool> {
    let mut flags = vec![false; len];
    for range in ranges {
        flags[range.clone()].fill(true);
    }
    flags
}
