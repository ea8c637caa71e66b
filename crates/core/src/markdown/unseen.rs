//! What no renderer of Markdown shows, though it stands in the text and an agent reads it: titles of links, what follows the
//! language of a fence, cells that a table has no column for, footnotes and definitions that nothing refers to.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use pulldown_cmark::{Event, Tag};

use super::block;

/// Characters of the name of a language at most.
const MAX_LANGUAGE: usize = 32;

/// Text that is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unseen {
    pub range: Range<usize>,
    /// It stands on lines of its own, not within one.
    pub is_block: bool,
}

impl Unseen {
    fn within_line(range: Range<usize>) -> Self {
        Self { range, is_block: false }
    }
}

/// The title of an inline link or image that has one, with the blanks before it.
pub(super) fn link_title(text: &str, link: &Range<usize>) -> Option<Unseen> {
    let inside = text[link.clone()].strip_suffix(')')?.trim_end();
    let start = title_start(inside)?;
    let blanks = inside[..start].len() - inside[..start].trim_end_matches([' ', '\t']).len();
    Some(Unseen::within_line(link.start + start - blanks..link.start + inside.len()))
}

/// The title of a definition that has one, and what to write in its place: another title could follow in the next line,
/// and would count then.
pub(super) fn definition_title(text: &str, span: &Range<usize>) -> Option<(Unseen, &'static str)> {
    let definition = text[span.clone()].trim_end();
    let start = title_start(definition)?;
    let next = text[span.start + definition.len()..].trim_start_matches([' ', '\t', '\n', '>']);
    let with = if next.starts_with(['"', '\'', '(']) { "\"\"" } else { "" };
    Some((Unseen::within_line(span.start + start..span.start + definition.len()), with))
}

/// Where the title that ends `text` begins.
fn title_start(text: &str) -> Option<usize> {
    let open = match text.chars().next_back()? {
        ')' => '(',
        quote @ ('"' | '\'') => quote,
        _ => return None,
    };
    let is_escaped = |at: usize| text[..at].bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
    text[..text.len() - 1].rmatch_indices(open).map(|(at, _)| at).find(|&at| !is_escaped(at))
}

/// What follows the language in the first line of a fenced block: all of it, unless it begins with the name of a language.
pub(super) fn info(text: &str, code: &Range<usize>) -> Option<Unseen> {
    let first = text[code.clone()].split('\n').next()?;
    let (_, fence) = block::fence(first)?;
    let info = &first[fence..];
    let blanks = info.len() - info.trim_start().len();
    let word = info.split_whitespace().next()?;
    let is_language = word.chars().count() <= MAX_LANGUAGE
        && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '+' | '-' | '_' | '.' | '#'));
    let kept = if is_language { blanks + word.len() } else { 0 };
    let hidden = !info[kept..].trim().is_empty();
    hidden.then(|| Unseen::within_line(code.start + fence + kept..code.start + first.len()))
}

/// The cells of a row beyond the last column, given where the cell of that ends.
pub(super) fn cells(text: &str, row: &Range<usize>, last_cell: usize) -> Option<Unseen> {
    let rest = text[last_cell..row.end].split('\n').next()?;
    let cells = rest.strip_prefix('|')?;
    let hidden = !cells.trim_matches(['|', ' ', '\t']).is_empty();
    hidden.then(|| Unseen::within_line(last_cell + 1..last_cell + rest.len()))
}

/// The footnotes of a text, and which of them are referred to.
#[derive(Default)]
pub(super) struct Footnotes {
    /// The definitions, in order.
    definitions: Vec<Range<usize>>,
    /// The first definition of each label: the one that is shown.
    labels: HashMap<String, usize>,
    /// The definitions that are open.
    open: Vec<usize>,
    /// References by the definition that they stand in, if any.
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

    /// The footnotes that are not shown: no text refers to them, but at most other such footnotes.
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

/// The lines of a text, and which of them show something. The parser passes over a repeated definition without a word, so
/// that one is found by what is left.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    shown: Vec<bool>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(feed, _)| feed + 1)).collect();
        Self { text, shown: vec![false; starts.len()], starts }
    }

    /// Notes what an event shows. A link counts as a whole, since its address can stand on a line of its own.
    pub(super) fn read(&mut self, event: &Event<'_>, range: &Range<usize>, in_link: bool) {
        let shows = match event {
            Event::Start(Tag::Link { .. } | Tag::Image { .. }) => !in_link,
            Event::Start(tag) => {
                matches!(tag, Tag::Paragraph | Tag::Heading { .. } | Tag::CodeBlock(_) | Tag::HtmlBlock | Tag::Table(_))
            }
            Event::End(_) => false,
            _ => true,
        };
        if shows {
            self.show(range);
        }
    }

    /// Notes that the lines of `range` are known.
    pub(super) fn show(&mut self, range: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        let line = |at: usize| self.starts.partition_point(|&start| start <= at) - 1;
        let (first, last) = (line(range.start), line(range.end - 1));
        self.shown[first..=last].fill(true);
    }

    /// What stands on the lines that show nothing, without the marks of quotes, lists and footnotes.
    pub(super) fn unseen(&self) -> Vec<Unseen> {
        let ends = self.starts.iter().skip(1).map(|next| next - 1).chain([self.text.len()]);
        let lines = self.starts.iter().zip(ends).zip(&self.shown).filter(|(_, shown)| !**shown);
        lines
            .filter_map(|((&start, end), _)| {
                let body = without_marks(&self.text[start..end]);
                (!body.is_empty()).then(|| Unseen { range: end - body.len()..end, is_block: true })
            })
            .collect()
    }
}

/// A line without the marks of the containers that begin in it.
fn without_marks(mut line: &str) -> &str {
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
