//! Replacements for removed tags that keep the words before and after them separate: nothing for `<b>`, a space for
//! `<kbd>`, a line break for `<br>`.

use std::borrow::Cow;
use std::ops::Range;

use super::block;
use super::fix::Edit;
use super::html::{self, Tag};

/// Maximum number of consecutive tags to skip when looking for the text after them. Limits the time for hostile text.
const LOOK_AHEAD: usize = 8;

/// The separation that an element requires between the words before and after its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    /// None: the element can be part of a word.
    None,
    /// Separate words.
    Word,
    /// Separate table cells.
    Cell,
    /// Separate lines.
    Line,
}

/// The text that replaces tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    Nothing,
    Space,
    /// Two trailing spaces, which turn the existing line break into a hard one.
    TrailingSpaces,
    LineBreak,
}

/// Elements that can style part of a word.
const IN_WORDS: [&str; 32] = [
    "a", "abbr", "acronym", "b", "basefont", "bdi", "bdo", "big", "blink", "cite", "data", "del", "dfn", "em", "font",
    "i", "ins", "mark", "nobr", "ruby", "s", "small", "span", "strike", "strong", "time", "tt", "u", "var", "wbr",
    "rb", "slot",
];
/// Elements that are rendered on separate lines.
const ON_LINES: [&str; 48] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "br",
    "caption",
    "center",
    "details",
    "dialog",
    "dd",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hgroup",
    "hr",
    "legend",
    "li",
    "listing",
    "main",
    "menu",
    "nav",
    "ol",
    "optgroup",
    "option",
    "p",
    "plaintext",
    "pre",
    "search",
    "section",
    "summary",
    "table",
    "tbody",
    "tfoot",
    "thead",
    "tr",
    "ul",
];

impl Gap {
    /// Returns the gap required by a tag's element.
    pub(super) fn of(tag: &Tag<'_>) -> Self {
        let is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(tag.name));
        if is(&ON_LINES) {
            Self::Line
        } else if is(&["td", "th"]) {
            Self::Cell
        } else if is(&IN_WORDS) {
            Self::None
        } else {
            Self::Word
        }
    }

    /// Returns the separator between `before`, the last character in the line, and `after`, the text following the
    /// tags. Lines are separated like cells if `one_line` is set (in a heading or a table), or if the text would have
    /// another meaning at the beginning of a line.
    pub(super) fn separator(self, before: Option<char>, after: &str, one_line: bool) -> Separator {
        let Some(before) = before.filter(|before| *before != '\n') else { return Separator::Nothing };
        let body = text_after_tags(after);
        if body.is_empty() || body.starts_with('\n') {
            let next = body.strip_prefix('\n').and_then(|next| next.split('\n').next()).unwrap_or_default();
            let continues = self == Self::Line && !one_line && !next.trim().is_empty();
            return if continues { Separator::TrailingSpaces } else { Separator::Nothing };
        }
        let is_separated = before.is_whitespace() || after.starts_with([' ', '\t']);
        match self {
            Self::Line if !one_line && !is_block_start(body) => Separator::LineBreak,
            Self::Line | Self::Cell if !is_separated => Separator::Space,
            Self::Word if !is_separated && is_word_end(before) && after.starts_with(char::is_alphanumeric) => {
                Separator::Space
            }
            _ => Separator::Nothing,
        }
    }
}

fn is_word_end(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | ')' | '%')
}

/// Skips blanks and up to [`LOOK_AHEAD`] tags.
fn text_after_tags(after: &str) -> &str {
    let mut rest = after.trim_start_matches([' ', '\t']);
    for _ in 0..LOOK_AHEAD {
        let Some(tag) = html::scan(rest).filter(Tag::is_known) else { break };
        rest = rest[tag.len..].trim_start_matches([' ', '\t']);
    }
    rest
}

/// Whether a text would start a block other than a paragraph. Errs on the side of returning true.
fn is_block_start(text: &str) -> bool {
    let line = text.split('\n').next().unwrap_or_default().trim_end();
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t']);
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with(['>', '<', '|', '\t'])
        || ["```", "~~~", "[^"].iter().any(|mark| line.starts_with(mark))
        || (line.starts_with('#') && ends(line.trim_start_matches('#')))
        || line.strip_prefix(['-', '+', '*']).is_some_and(ends)
        || (digits.len() < line.len() && digits.strip_prefix(['.', ')']).is_some_and(ends))
        // Thematic breaks, heading underlines and the delimiter row of a table.
        || line.chars().all(|c| matches!(c, '-' | '*' | '_' | '=' | '|' | ':' | ' ' | '\t'))
}

/// Returns the prefix for another line of the paragraph at `at`: the markers of quotes, and blanks in place of list
/// markers.
pub(super) fn line_prefix(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |feed| feed + 1);
    let mut rest = &text[start..at];
    let mut prefix = String::new();
    loop {
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '>']).len();
        prefix.push_str(&rest[..blank]);
        rest = &rest[blank..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let mark = match rest[digits..].chars().next() {
            Some('-' | '+' | '*') if digits == 0 => 1,
            Some('.' | ')') if (1..10).contains(&digits) => digits + 1,
            _ => return prefix,
        };
        if !rest[mark..].starts_with([' ', '\t']) {
            return prefix;
        }
        prefix.push_str(&" ".repeat(mark));
        rest = &rest[mark..];
    }
}

/// A tag or comment within a paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inline {
    pub(super) range: Range<usize>,
    /// Whether everything before it in its line is removed.
    pub(super) first: bool,
    /// Whether it is in a heading or a table.
    pub(super) one_line: bool,
}

/// Adds the edits that remove tags; adjacent tags leave a single gap. Returns the tags that must be escaped instead
/// because their removal would open a fence.
pub(super) fn edits<'a>(text: &str, mut tags: Vec<&'a Inline>, edits: &mut Vec<Edit>) -> Vec<&'a Inline> {
    let mut escaped = Vec::new();
    tags.sort_by_key(|tag| tag.range.start);
    let mut at = 0;
    while let Some(first) = tags.get(at) {
        let mut end = at + 1;
        while tags.get(end).is_some_and(|tag| tag.range.start == tags[end - 1].range.end) {
            end += 1;
        }
        let run = &tags[at..end];
        at = end;
        let last = run[run.len() - 1].range.end;
        let body = text[last..].trim_start_matches([' ', '\t']);
        if first.first && block::fence(body).is_some() {
            escaped.extend(run);
            continue;
        }
        let before = if first.first { None } else { text[..first.range.start].chars().next_back() };
        let separator = gap_of(text, run).separator(before, &text[last..], first.one_line);
        // At the beginning of a line, white space would become indentation.
        let blank = if first.first || separator == Separator::LineBreak { text.len() - last - body.len() } else { 0 };
        let with = match separator {
            Separator::Nothing => Cow::Borrowed(""),
            Separator::Space => Cow::Borrowed(" "),
            Separator::TrailingSpaces => Cow::Borrowed("  "),
            Separator::LineBreak => Cow::Owned(format!("  \n{}", line_prefix(text, first.range.start))),
        };
        edits.push(Edit::replace(first.range.start..last + blank, with));
    }
    escaped
}

/// Returns the replacement for an element that is removed with its content, or for a line that contains only tags.
pub(super) fn replacement(text: &str, range: &Range<usize>) -> &'static str {
    let is_line = text[range.clone()].starts_with(['\n', ' ', '\\']);
    let before = text[..range.start].chars().next_back();
    let apart = !is_line && Gap::Word.separator(before, &text[range.end..], true) == Separator::Space;
    if apart { " " } else { "" }
}

/// Returns the widest gap of adjacent tags. Adjacent elements are at least separated like words.
fn gap_of(text: &str, run: &[&Inline]) -> Gap {
    let mut widest = Gap::None;
    let mut closed = false;
    for tag in run.iter().filter_map(|tag| html::scan(&text[tag.range.clone()])) {
        let beside = if closed && !tag.closing { Gap::Word } else { Gap::None };
        widest = widest.max(Gap::of(&tag)).max(beside);
        closed |= tag.closing;
    }
    widest
}
