//! What stands in the place of a removed tag, so that the words before and after it stay apart: nothing for `<b>`, a space
//! for `<kbd>`, a line break for `<br>`.

use std::borrow::Cow;
use std::ops::Range;

use super::block;
use super::html::{self, Tag};
use super::mend::Edit;

/// Tags in a row that are looked over for the text behind them: hostile text has no end of them.
const LOOK_AHEAD: usize = 8;

/// How far apart an element keeps the words before and after its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    /// Not at all: it may stand within a word.
    None,
    /// As words.
    Word,
    /// As the cells of a table.
    Cell,
    /// As lines.
    Line,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    Nothing,
    Space,
    /// Two spaces before the line break that is there: it counts then.
    Blanks,
    LineBreak,
}

/// Elements that change how a part of a word looks.
const IN_WORDS: [&str; 32] = [
    "a", "abbr", "acronym", "b", "basefont", "bdi", "bdo", "big", "blink", "cite", "data", "del", "dfn", "em", "font",
    "i", "ins", "mark", "nobr", "ruby", "s", "small", "span", "strike", "strong", "time", "tt", "u", "var", "wbr",
    "rb", "slot",
];
/// Elements that stand on lines of their own.
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
    /// The gap of a tag by the name of its element.
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

    /// What to write between what stands `before` in the line and `after`, the text behind the tags. Where there can be
    /// only `one_line` (a heading, a table) or where the text would mean something else at the beginning of a line, lines
    /// are kept apart as cells.
    pub(super) fn separator(self, before: Option<char>, after: &str, one_line: bool) -> Separator {
        let Some(before) = before.filter(|before| *before != '\n') else { return Separator::Nothing };
        let body = text_behind(after);
        if body.is_empty() || body.starts_with('\n') {
            let next = body.strip_prefix('\n').and_then(|next| next.split('\n').next()).unwrap_or_default();
            let goes_on = self == Self::Line && !one_line && !next.trim().is_empty();
            return if goes_on { Separator::Blanks } else { Separator::Nothing };
        }
        let apart = before.is_whitespace() || after.starts_with([' ', '\t']);
        match self {
            Self::Line if !one_line && !begins_a_block(body) => Separator::LineBreak,
            Self::Line | Self::Cell if !apart => Separator::Space,
            Self::Word if !apart && ends_a_word(before) && after.starts_with(char::is_alphanumeric) => Separator::Space,
            _ => Separator::Nothing,
        }
    }
}

fn ends_a_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | ')' | '%')
}

/// The text behind blanks and further tags; with too many of them, whatever is there.
fn text_behind(after: &str) -> &str {
    let mut rest = after.trim_start_matches([' ', '\t']);
    for _ in 0..LOOK_AHEAD {
        let Some(tag) = html::scan(rest).filter(Tag::is_known) else { break };
        rest = rest[tag.len..].trim_start_matches([' ', '\t']);
    }
    rest
}

/// Whether a text would begin something else than a line of a paragraph; rather once too often.
fn begins_a_block(text: &str) -> bool {
    let line = text.split('\n').next().unwrap_or_default().trim_end();
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t']);
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with(['>', '<', '|', '\t'])
        || ["```", "~~~", "[^"].iter().any(|mark| line.starts_with(mark))
        || (line.starts_with('#') && ends(line.trim_start_matches('#')))
        || line.strip_prefix(['-', '+', '*']).is_some_and(ends)
        || (digits.len() < line.len() && digits.strip_prefix(['.', ')']).is_some_and(ends))
        // Rules, underlines of headings and the second line of a table.
        || line.chars().all(|c| matches!(c, '-' | '*' | '_' | '=' | '|' | ':' | ' ' | '\t'))
}

/// What begins a further line of the paragraph in which `at` is: the marks of the quotation, and blanks for those of a list.
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
    /// Nothing that stays stands before it in its line.
    pub(super) first: bool,
    /// It stands in a heading or a table.
    pub(super) one_line: bool,
}

/// The edits that remove tags; what stands directly beside each other leaves one gap. Where a removal would open a fence,
/// the tag is left to be escaped: those come back.
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
        // White space would be indentation at the beginning of a line.
        let blank = if first.first || separator == Separator::LineBreak { text.len() - last - body.len() } else { 0 };
        let with = match separator {
            Separator::Nothing => Cow::Borrowed(""),
            Separator::Space => Cow::Borrowed(" "),
            Separator::Blanks => Cow::Borrowed("  "),
            Separator::LineBreak => Cow::Owned(format!("  \n{}", line_prefix(text, first.range.start))),
        };
        edits.push(Edit::replace(first.range.start..last + blank, with));
    }
    escaped
}

/// What to write instead of an element that goes with its content, or of a line of nothing but tags.
pub(super) fn instead(text: &str, range: &Range<usize>) -> &'static str {
    let is_line = text[range.clone()].starts_with(['\n', ' ', '\\']);
    let before = text[..range.start].chars().next_back();
    let apart = !is_line && Gap::Word.separator(before, &text[range.end..], true) == Separator::Space;
    if apart { " " } else { "" }
}

/// The widest gap of tags in a row. Two elements one after the other are at least two words.
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
