//! Text that no Markdown renderer shows although agents read it: link titles, text after the language of a fence, cells
//! beyond the columns of a table, and unreferenced footnotes and definitions.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use pulldown_cmark::{Event, Tag};

use super::block;

/// Maximum length of the name of a language in characters.
const MAX_LANGUAGE: usize = 32;

/// Text that is not rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnrenderedText {
    pub range: Range<usize>,
    /// Whether it occupies whole lines.
    pub is_block: bool,
}

impl UnrenderedText {
    fn within_line(range: Range<usize>) -> Self {
        Self { range, is_block: false }
    }
}

/// Returns the title of an inline link or image, with the preceding blanks.
pub(super) fn link_title(text: &str, link: &Range<usize>) -> Option<UnrenderedText> {
    let inside = text[link.clone()].strip_suffix(')')?.trim_end();
    let start = title_start(inside)?;
    let blanks = inside[..start].len() - inside[..start].trim_end_matches([' ', '\t']).len();
    Some(UnrenderedText::within_line(link.start + start - blanks..link.start + inside.len()))
}

/// Returns the title of a definition, and its replacement, without which a title on the next line would take effect.
pub(super) fn definition_title(text: &str, span: &Range<usize>) -> Option<(UnrenderedText, &'static str)> {
    let definition = text[span.clone()].trim_end();
    let start = title_start(definition)?;
    let next = text[span.start + definition.len()..].trim_start_matches([' ', '\t', '\n', '>']);
    let with = if next.starts_with(['"', '\'', '(']) { "\"\"" } else { "" };
    Some((UnrenderedText::within_line(span.start + start..span.start + definition.len()), with))
}

/// Returns the start of the title at the end of `text`.
fn title_start(text: &str) -> Option<usize> {
    let open = match text.chars().next_back()? {
        ')' => '(',
        quote @ ('"' | '\'') => quote,
        _ => return None,
    };
    let is_escaped = |at: usize| text[..at].bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
    text[..text.len() - 1].rmatch_indices(open).map(|(at, _)| at).find(|&at| !is_escaped(at))
}

/// Returns the text after the language in the first line of a fenced block; all of it if it does not begin with a
/// language.
pub(super) fn info(text: &str, code: &Range<usize>) -> Option<UnrenderedText> {
    let first = text[code.clone()].split('\n').next()?;
    let (_, fence) = block::fence(first)?;
    let info = &first[fence..];
    let blanks = info.len() - info.trim_start().len();
    let word = info.split_whitespace().next()?;
    let is_language = word.chars().count() <= MAX_LANGUAGE
        && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '+' | '-' | '_' | '.' | '#'));
    let kept = if is_language { blanks + word.len() } else { 0 };
    let hidden = !info[kept..].trim().is_empty();
    hidden.then(|| UnrenderedText::within_line(code.start + fence + kept..code.start + first.len()))
}

/// Returns the cells of a row beyond the last column. `last_cell` is the end of the cell in the last column.
pub(super) fn cells(text: &str, row: &Range<usize>, last_cell: usize) -> Option<UnrenderedText> {
    let rest = text[last_cell..row.end].split('\n').next()?;
    let cells = rest.strip_prefix('|')?;
    let hidden = !cells.trim_matches(['|', ' ', '\t']).is_empty();
    hidden.then(|| UnrenderedText::within_line(last_cell + 1..last_cell + rest.len()))
}

/// The footnotes of a text and the references to them.
#[derive(Default)]
pub(super) struct Footnotes {
    /// The definitions, in order.
    definitions: Vec<Range<usize>>,
    /// The first definition of each label, which is the one that is rendered.
    labels: HashMap<String, usize>,
    /// The open definitions.
    open: Vec<usize>,
    /// References, with the definition that contains them, if any.
    references: Vec<(Option<usize>, String)>,
}

impl Footnotes {
    pub(super) fn start(&mut self, label: &str, range: Range<usize>) {
        let number = self.definitions.len();
        self.definitions.push(range);
        self.labels.entry(label.to_lowercase()).or_insert(number);
        self.open.push(number);
    }

    pub(super) fn end(&mut self) {
        self.open.pop();
    }

    pub(super) fn reference(&mut self, label: &str) {
        self.references.push((self.open.last().copied(), label.to_lowercase()));
    }

    /// Returns the footnotes that are not rendered, because they are not referenced or only by other such footnotes.
    pub(super) fn unused(&self) -> Vec<Range<usize>> {
        let mut by_place: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
        for (place, label) in &self.references {
            by_place.entry(*place).or_default().extend(self.labels.get(label));
        }
        let mut used = HashSet::new();
        let mut to_visit = by_place.remove(&None).unwrap_or_default();
        while let Some(number) = to_visit.pop() {
            if used.insert(number) {
                to_visit.extend(by_place.remove(&Some(number)).unwrap_or_default());
            }
        }
        let unused = self.definitions.iter().enumerate().filter(|(number, _)| !used.contains(number));
        unused.map(|(_, range)| range.clone()).collect()
    }
}

/// The lines of a text, and whether each is rendered. The parser silently skips repeated definitions, so they are found
/// as the lines that remain.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    is_rendered: Vec<bool>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(feed, _)| feed + 1)).collect();
        Self { text, is_rendered: vec![false; starts.len()], starts }
    }

    /// Marks the lines that an event renders. A link counts as a whole, because its URL can be on a separate line.
    pub(super) fn read(&mut self, event: &Event<'_>, range: &Range<usize>, in_link: bool) {
        let is_rendered = match event {
            Event::Start(Tag::Link { .. } | Tag::Image { .. }) => !in_link,
            Event::Start(tag) => {
                matches!(tag, Tag::Paragraph | Tag::Heading { .. } | Tag::CodeBlock(_) | Tag::HtmlBlock | Tag::Table(_))
            }
            Event::End(_) => false,
            _ => true,
        };
        if is_rendered {
            self.mark(range);
        }
    }

    /// Marks the lines of `range` as handled.
    pub(super) fn mark(&mut self, range: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        let line = |at: usize| self.starts.partition_point(|&start| start <= at) - 1;
        let (first, last) = (line(range.start), line(range.end - 1));
        self.is_rendered[first..=last].fill(true);
    }

    /// Returns the text of the lines that are not rendered, without the markers of quotes, lists and footnotes.
    pub(super) fn unrendered(&self) -> Vec<UnrenderedText> {
        let ends = self.starts.iter().skip(1).map(|next| next - 1).chain([self.text.len()]);
        let lines = self.starts.iter().zip(ends).zip(&self.is_rendered).filter(|(_, shown)| !**shown);
        lines
            .filter_map(|((&start, end), _)| {
                let body = without_markers(&self.text[start..end]);
                (!body.is_empty()).then(|| UnrenderedText { range: end - body.len()..end, is_block: true })
            })
            .collect()
    }
}

/// Returns a line without the markers of the containers that begin in it.
fn without_markers(mut line: &str) -> &str {
    loop {
        let body = line.trim_start_matches([' ', '\t', '>']);
        let digits = body.len() - body.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let mark = match body[digits..].chars().next() {
            Some('-' | '+' | '*') if digits == 0 => 1,
            Some('.' | ')') if (1..10).contains(&digits) => digits + 1,
            Some('[') if body.starts_with("[^") => body.find("]:").map_or(0, |end| end + 2),
            _ => 0,
        };
        if mark == 0 {
            return body;
        }
        line = &body[mark..];
    }
}
