//! Edits for HTML blocks, which a Markdown parser treats as opaque: they turn the text of a block into Markdown.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::fix::{Edit, SPACE_ENTITY, Strategy};
use super::gap::{self, Gap, Separator};
use super::html::{self, Verdict};
use super::link;

/// Columns of indentation that turn a line into code.
const CODE_INDENT: usize = 4;

/// Returns the edits for a block, given by its lines in `text` without the markers of quotes and lists.
pub(super) fn edits(text: &str, lines: &[Range<usize>], strategy: Strategy) -> Vec<Edit> {
    let mut edits = if strategy == Strategy::DropBlocks {
        lines.iter().map(|line| Edit::remove(line.start..content_end(text, line))).collect()
    } else {
        let mut block = Block::new(text, lines, strategy);
        block.read();
        block.edits
    };
    if let (Strategy::RemoveSeparated | Strategy::DropBlocks, Some(first), Some(last)) =
        (strategy, lines.first(), lines.last())
    {
        edits.insert(0, Edit::insert(first.start, separator(text, first.start)));
        // Some blocks end without an empty line; what follows must not continue their text.
        edits.push(Edit::insert(content_end(text, last), "\n"));
    }
    edits
}

/// Returns the position of a line's line feed.
fn content_end(text: &str, line: &Range<usize>) -> usize {
    line.start + text[line.clone()].trim_end_matches('\n').len()
}

/// Returns an invisible paragraph for the line at `at`, with the markers of the enclosing quote or list.
fn separator(text: &str, at: usize) -> String {
    let line_start = text[..at].rfind('\n').map_or(0, |feed| feed + 1);
    let prefix = &text[line_start..at];
    let next: String = prefix.chars().map(|c| if matches!(c, '>' | '\t') { c } else { ' ' }).collect();
    // A list item must not begin with an empty line.
    let before = if next == prefix { format!("\n{next}") } else { String::new() };
    format!("{before}{SPACE_ENTITY}\n{next}\n{next}")
}

struct Block<'a> {
    text: &'a str,
    /// The joined lines.
    html: String,
    /// The joined lines in lowercase, for finding closing tags.
    lower: String,
    lines: &'a [Range<usize>],
    /// The start of each line in `html`.
    starts: Vec<usize>,
    strategy: Strategy,
    /// The ends of potential code spans, by their start.
    spans: HashMap<usize, usize>,
    /// Strings that were not found. They do not occur later either, so that hostile text cannot cause repeated
    /// searches.
    absent: HashSet<String>,
    /// The length of the shortest unclosed fence, of backticks and of tildes.
    unclosed: [usize; 2],
    edits: Vec<Edit>,
    at: usize,
    /// The last character of the current line that is kept.
    last: Option<char>,
    /// The gap required by the tags after that character, and whether one of them was a closing tag.
    gap: (Gap, bool),
    /// Whether the current line is empty so far, after the edits.
    is_line_empty: bool,
    /// Whether the previous line is empty, after the edits.
    is_previous_empty: bool,
}

impl<'a> Block<'a> {
    fn new(text: &'a str, lines: &'a [Range<usize>], strategy: Strategy) -> Self {
        let mut html = String::new();
        let mut starts = Vec::with_capacity(lines.len());
        for line in lines {
            starts.push(html.len());
            html.push_str(&text[line.clone()]);
        }
        Self {
            text,
            last: None,
            gap: (Gap::None, false),
            lower: html.to_ascii_lowercase(),
            spans: spans(&html),
            html,
            lines,
            starts,
            strategy,
            absent: HashSet::new(),
            unclosed: [usize::MAX; 2],
            edits: Vec::new(),
            at: 0,
            is_line_empty: true,
            is_previous_empty: true,
        }
    }

    fn read(&mut self) {
        self.read_line_start();
        while let Some(&byte) = self.html.as_bytes().get(self.at) {
            match byte {
                b'\n' => {
                    self.insert_separator();
                    self.last = None;
                    self.is_previous_empty = self.is_line_empty;
                    self.is_line_empty = true;
                    self.at += 1;
                    self.read_line_start();
                }
                b'<' => self.read_angle_bracket(),
                b'`' | b'~' => self.read_code_mark(byte),
                b' ' | b'\t' => {
                    let end = self.at + self.html[self.at..].len()
                        - self.html[self.at..].trim_start_matches([' ', '\t']).len();
                    if self.is_line_empty {
                        // After a removed tag, this is now indentation and possibly code.
                        self.remove(end);
                    } else {
                        self.last = Some(' ');
                    }
                    self.at = end;
                }
                _ => {
                    self.insert_separator();
                    self.is_line_empty = false;
                    self.last = self.html[self.at..].chars().next();
                    self.at += self.last.map_or(1, char::len_utf8);
                }
            }
        }
    }

    /// Inserts the separator between the text before and after removed tags.
    fn insert_separator(&mut self) {
        let (gap, _) = std::mem::replace(&mut self.gap, (Gap::None, false));
        if gap == Gap::None || self.is_line_empty {
            return;
        }
        let at = self.source(self.at);
        match gap.separator(self.last, &self.html[self.at..], false) {
            Separator::Nothing => {}
            Separator::Space => self.edits.push(Edit::insert(at, " ")),
            Separator::TrailingSpaces => self.edits.push(Edit::insert(at, "  ")),
            Separator::LineBreak => {
                self.edits.push(Edit::insert(at, format!("  \n{}", gap::line_prefix(self.text, at))));
            }
        }
    }

    /// Skips a fence, which becomes effective once the tags around it are removed. Otherwise skips indentation.
    fn read_line_start(&mut self) {
        let rest = &self.html[self.at..];
        let body = rest.trim_start_matches([' ', '\t']);
        let indent = &rest[..rest.len() - body.len()];
        let columns = if indent.contains('\t') { CODE_INDENT } else { indent.len() };
        let body_at = self.at + indent.len();
        let is_tag = body.starts_with('<');
        if self.strategy.removes()
            && let Some(end) = self.fence_end(body_at)
        {
            self.is_line_empty = false;
            self.at = end;
            return;
        }
        if columns >= CODE_INDENT && (is_tag || self.is_previous_empty || !self.strategy.removes()) {
            self.remove(body_at);
        }
        self.at = body_at;
    }

    /// Returns the end of the fence that opens at `at`, before its line feed. Returns `None` if it does not end in the
    /// block.
    fn fence_end(&mut self, at: usize) -> Option<usize> {
        let (mark, len) = fence(&self.html[at..])?;
        let kind = usize::from(mark == '~');
        let mut end = at;
        let mut lines = self.html[at..].split_inclusive('\n');
        let opening = lines.next()?;
        if len >= self.unclosed[kind] || (mark == '`' && opening[len..].contains('`')) {
            return None;
        }
        end += opening.len();
        for line in lines {
            let body = line.trim();
            if body.len() >= len && body.chars().all(|c| c == mark) {
                return Some(end + line.trim_end_matches('\n').len());
            }
            end += line.len();
        }
        self.unclosed[kind] = len;
        None
    }

    fn read_code_mark(&mut self, mark: u8) {
        self.insert_separator();
        self.is_line_empty = false;
        self.last = Some(char::from(mark));
        let start = self.at;
        self.at += self.html[start..].bytes().take_while(|&b| b == mark).count();
        if self.strategy.removes() {
            self.at = self.spans.get(&start).copied().unwrap_or(self.at);
        } else {
            (start..self.at).for_each(|at| self.escape(at));
        }
    }

    fn read_angle_bracket(&mut self) {
        let start = self.at;
        let before = self.html[..start].chars().next_back();
        if self.html[start..].starts_with("<!--") {
            // `<!-->` is also a comment.
            return self.remove_to("-->", start + 2);
        }
        if html::is_doctype(&self.html[start..]) {
            return self.remove_to(">", start);
        }
        if let Some(tag) = html::scan(&self.html[start..]) {
            let end = start + tag.len;
            let removed = html::judge(&self.html[start..end], before) == Verdict::Remove;
            if !removed || !self.strategy.removes() {
                self.insert_separator();
                self.is_line_empty = false;
                self.last = Some('>');
                let marks: Vec<usize> = html::marks(&self.html[start..end]).map(|mark| start + mark).collect();
                marks.into_iter().for_each(|at| self.escape(at));
                self.at = end;
                return;
            }
            let beside = if self.gap.1 && !tag.closing { Gap::Word } else { Gap::None };
            self.gap = (self.gap.0.max(Gap::of(&tag)).max(beside), self.gap.1 || tag.closing);
            let close = (tag.is_opaque() && !self.html[..end].ends_with("/>"))
                .then(|| format!("</{}", tag.name.to_ascii_lowercase()));
            let closed = close.and_then(|close| self.find(&close, end)).and_then(|at| self.find(">", at));
            self.remove(closed.map_or(end, |at| at + 1));
            return;
        }
        let rest = &self.html[start + 1..];
        let is_autolink = rest.find([' ', '\t', '\n', '<', '>']).is_some_and(|end| {
            rest[end..].starts_with('>') && rest[..end].contains([':', '@']) && link::is_autolink(&rest[..end])
        });
        let opens =
            rest.starts_with(|c: char| c.is_ascii_alphabetic() && !is_autolink) || rest.starts_with(['/', '!', '?']);
        self.insert_separator();
        if opens {
            self.escape(start);
        }
        self.is_line_empty = false;
        self.last = Some('<');
        self.at = start + 1;
    }

    fn remove_to(&mut self, close: &str, from: usize) {
        match self.find(close, from) {
            Some(at) if self.strategy.removes() => self.remove(at + close.len()),
            _ => {
                // Either removal is not allowed, or the comment is never closed and the rest is text.
                self.insert_separator();
                self.escape(self.at);
                self.is_line_empty = false;
                self.last = Some('<');
                self.at += 1;
            }
        }
    }

    fn find(&mut self, what: &str, from: usize) -> Option<usize> {
        if self.absent.contains(what) {
            return None;
        }
        let found = self.lower[from..].find(what).map(|offset| from + offset);
        if found.is_none() {
            self.absent.insert(what.to_owned());
        }
        found
    }

    /// Removes the text from the current position to `end`.
    fn remove(&mut self, end: usize) {
        if end > self.at {
            let range = self.source(self.at)..self.source(end - 1) + 1;
            self.edits.push(Edit::remove(range));
        }
        self.at = end;
    }

    fn escape(&mut self, at: usize) {
        self.edits.push(Edit::escape(self.source(at)));
    }

    /// Returns the position in the text of a byte of the block.
    fn source(&self, at: usize) -> usize {
        let line = self.starts.partition_point(|&start| start <= at) - 1;
        self.lines[line].start + at - self.starts[line]
    }
}

/// Returns the mark and length of a fence at the start of a line.
pub(super) fn fence(line: &str) -> Option<(char, usize)> {
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let len = line.chars().take_while(|&c| c == mark).count();
    (len >= 3).then_some((mark, len))
}

/// Returns the code spans that `text` would contain as Markdown, by their start: from each run of backticks to the next
/// one of the same length.
fn spans(text: &str) -> HashMap<usize, usize> {
    let mut spans = HashMap::new();
    let mut next: HashMap<usize, usize> = HashMap::new();
    let mut end = text.len();
    while let Some(last) = text[..end].rfind('`') {
        let start = text[..last].trim_end_matches('`').len();
        if let Some(close) = next.insert(last + 1 - start, last + 1) {
            spans.insert(start, close);
        }
        end = start;
    }
    spans
}
