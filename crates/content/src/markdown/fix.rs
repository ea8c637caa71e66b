//! Fixes the offending parts of a text and leaves the rest unchanged.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use super::block;
use super::gap;
use super::html;
use super::survey::{Offence, Survey};
use super::unrendered::UnrenderedText;

/// A strategy for fixing offences. If a strategy would turn text into code, or code into text, the next one is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Removes offences.
    Remove,
    /// Removes offences, with a paragraph of one space entity before each HTML block: between `- item` and indented
    /// code, a comment may be the only thing that separates the code from the list.
    RemoveSeparated,
    /// Replaces offences with text that neither joins nor opens anything: an escaped tag or a space entity.
    Replace,
    /// Replaces offences, and removes HTML blocks with their text.
    DropBlocks,
}

/// A space that neither opens nor joins anything, regardless of the surrounding text.
pub(super) const SPACE_ENTITY: &str = "&#32;";

impl Strategy {
    /// Whether offences are removed rather than replaced.
    pub(super) fn removes(self) -> bool {
        matches!(self, Self::Remove | Self::RemoveSeparated)
    }
}

/// A replacement of a range of the text.
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

/// Fixes the offences that `survey` found in `text`. Returns the new text and its survey. With `careful`, code is
/// protected.
pub(super) fn fix(text: &str, survey: &Survey, careful: bool) -> (String, Survey) {
    let attempt = |strategy| {
        let patched = PatchedText::new(text, edits(text, survey, strategy));
        let after = Survey::of(&patched.text);
        (patched, after)
    };
    let strategies: &[Strategy] = if careful {
        &[Strategy::Remove, Strategy::RemoveSeparated, Strategy::Replace, Strategy::DropBlocks]
    } else {
        &[]
    };
    for &strategy in strategies {
        let (patched, after) = attempt(strategy);
        if patched.keeps_code(text, survey, &after) {
            return (patched.text, after);
        }
    }
    let (patched, after) = attempt(Strategy::Replace);
    (patched.text, after)
}

/// Returns the edits for all offences. Invisible characters are removed first and separately, because this can reveal
/// tags. Text that is not rendered is removed last, because other removals can reveal references.
fn edits(text: &str, survey: &Survey, strategy: Strategy) -> Vec<Edit> {
    let mut edits = Vec::new();
    if !strategy.removes() {
        edits.extend(survey.joints.iter().copied().map(Edit::escape));
    }
    if !survey.hidden.is_empty() {
        edits.extend(survey.hidden.iter().cloned().map(|range| {
            // In code, an entity would be shown literally. It is only needed where a line, and possibly a block, would
            // begin.
            let line = text[..range.start].rsplit('\n').next().unwrap_or_default();
            let is_inside = survey.is_code(range.start) && !line.trim_matches([' ', '\t', '>']).is_empty();
            let can_remove = strategy.removes() || is_inside;
            Edit { range, with: if can_remove { "" } else { SPACE_ENTITY }.into() }
        }));
    } else if survey.offences.is_empty() {
        edits.extend(survey.unrendered.iter().map(|(UnrenderedText { range, is_block }, with)| {
            let with = if *is_block && !strategy.removes() { SPACE_ENTITY } else { *with };
            Edit { range: range.clone(), with: with.into() }
        }));
    } else {
        for offence in &survey.offences {
            edits_for(text, offence, strategy, &mut edits);
        }
        let tags = survey.offences.iter().filter_map(|offence| match offence {
            Offence::Tag(tag) => Some(tag),
            _ => None,
        });
        let tags: Vec<_> = tags.collect();
        let escaped = if strategy.removes() { gap::edits(text, tags, &mut edits) } else { tags };
        escaped.into_iter().for_each(|tag| escape(text, &tag.range, &mut edits));
    }
    // Edits inside a removed stretch sort after it and are skipped; an insertion before a block sorts first.
    edits.sort_by_key(|edit| (edit.range.start, !edit.with.contains('\n'), Reverse(edit.range.end)));
    edits
}

fn edits_for(text: &str, offence: &Offence, strategy: Strategy, edits: &mut Vec<Edit>) {
    match offence {
        // Handled together by `gap::edits`.
        Offence::Tag(_) => {}
        Offence::Stretch(range) if strategy.removes() => {
            edits.push(Edit::replace(range.clone(), gap::replacement(text, range)))
        }
        Offence::Stretch(_) => {}
        Offence::Foreign(range) => escape(text, range, edits),
        Offence::Placeholder(at) => edits.push(Edit::escape(*at)),
        Offence::Link { whole, text } => {
            let (open, close) = if strategy.removes() { ("", "") } else { ("\\[", "\\]") };
            edits.push(Edit { range: whole.start..text.start, with: open.into() });
            edits.push(Edit { range: text.end..whole.end, with: close.into() });
        }
        Offence::Autolink(range) if !strategy.removes() => escape(text, range, edits),
        Offence::Autolink(range) => {
            edits.push(Edit::remove(range.start..range.start + 1));
            escape(text, &(range.start + 1..range.end - 1), edits);
            edits.push(Edit::remove(range.end - 1..range.end));
        }
        Offence::Definition(range) if strategy.removes() => edits.push(Edit::remove(range.clone())),
        Offence::Definition(range) => {
            // The definition must be kept so that a later one with the same label does not take effect.
            let label = label_len(&text[range.clone()]);
            edits.push(Edit { range: range.start + label..range.end, with: ": #".into() });
        }
        Offence::Block(lines) => edits.extend(block::edits(text, lines, strategy)),
    }
}

fn escape(text: &str, range: &Range<usize>, edits: &mut Vec<Edit>) {
    edits.extend(html::marks(&text[range.clone()]).map(|mark| Edit::escape(range.start + mark)));
}

/// Returns the length in bytes of the label, including its brackets.
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

/// A changed text, with the positions of the parts kept from the old text.
struct PatchedText {
    text: String,
    /// Kept ranges of the old text, each with its position in the new one.
    kept: Vec<(Range<usize>, usize)>,
}

impl PatchedText {
    /// Applies `edits`, which must be sorted. Of overlapping edits, the first one applies.
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
            // Two runs of backticks would merge into one and open or close different code.
            self.text.push(' ');
        }
        let at = self.text.len();
        self.text.push_str(&old[range.clone()]);
        self.kept.push((range, at));
    }

    /// Whether all code is still code and unchanged, and all text is still text. The content of HTML blocks is neither.
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
                // Quote markers inside a code block can be part of its range or not, depending on their position.
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
