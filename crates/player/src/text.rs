//! Styled text: wrapping, and rendering with or without escape sequences.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The style of a piece of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TextStyle {
    pub(crate) bold: bool,
    pub(crate) italic: bool,
    pub(crate) strike: bool,
    pub(crate) underline: bool,
    pub(crate) dim: bool,
    /// A colour of the terminal's palette, so that both light and dark themes work.
    pub(crate) colour: Option<u8>,
}

/// Palette colour green.
pub(crate) const GREEN: u8 = 32;
/// Palette colour cyan.
pub(crate) const CYAN: u8 = 36;

impl TextStyle {
    pub(crate) const BOLD: Self = Self { bold: true, ..Self::PLAIN };
    pub(crate) const DIM: Self = Self { dim: true, ..Self::PLAIN };
    pub(crate) const CODE: Self = Self { colour: Some(CYAN), ..Self::PLAIN };
    pub(crate) const PLAIN: Self =
        Self { bold: false, italic: false, strike: false, underline: false, dim: false, colour: None };

    /// Returns the text in this style if `ansi` is true, otherwise unchanged.
    pub(crate) fn paint(self, text: &str, ansi: bool) -> String {
        let codes: Vec<String> =
            [(self.bold, 1), (self.dim, 2), (self.italic, 3), (self.underline, 4), (self.strike, 9)]
                .into_iter()
                .filter_map(|(on, code)| on.then_some(code))
                .chain(self.colour)
                .map(|code: u8| code.to_string())
                .collect();
        if !ansi || codes.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", codes.join(";"))
    }
}

/// A piece of text with one style. A line feed in it is a hard break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) style: TextStyle,
}

/// A line of spans.
pub(crate) type Line = Vec<Span>;

/// Renders a line.
pub(crate) fn paint(line: &[Span], ansi: bool) -> String {
    line.iter().map(|span| span.style.paint(&span.text, ansi)).collect()
}

/// Returns the width of a line in columns.
pub(crate) fn width(line: &[Span]) -> usize {
    line.iter().map(|span| span.text.width()).sum()
}

/// Wraps spans at whitespace. A word that is wider than `width` is kept whole, so that links and commands can be
/// copied, unless `split` is true, as in tables.
pub(crate) fn wrap(spans: &[Span], width: usize, split: bool) -> Vec<Line> {
    let mut wrapper = Wrapper { width: width.max(1), split, ..Wrapper::default() };
    for span in spans {
        for character in span.text.chars() {
            wrapper.push_char(character, span.style);
        }
    }
    wrapper.end_word();
    wrapper.end_line();
    wrapper.lines
}

#[derive(Default)]
struct Wrapper {
    width: usize,
    split: bool,
    lines: Vec<Line>,
    line: Line,
    column: usize,
    word: Line,
    word_width: usize,
    blank: Option<TextStyle>,
}

impl Wrapper {
    fn push_char(&mut self, character: char, style: TextStyle) {
        let columns = character.width().unwrap_or(0);
        match character {
            '\n' => {
                self.end_word();
                self.end_line();
            }
            ' ' | '\t' => {
                self.end_word();
                self.blank = Some(style);
            }
            _ => {
                // Lines may break between wide characters (Chinese, Japanese) without whitespace.
                if columns == 2 || (self.split && self.word_width + columns > self.width) {
                    self.end_word();
                }
                push(&mut self.word, character, style);
                self.word_width += columns;
            }
        }
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let blank = self.blank.take().filter(|_| self.column > 0);
        if self.column > 0 && self.column + usize::from(blank.is_some()) + self.word_width > self.width {
            self.end_line();
        } else if let Some(style) = blank {
            push(&mut self.line, ' ', style);
            self.column += 1;
        }
        for span in std::mem::take(&mut self.word) {
            span.text.chars().for_each(|character| push(&mut self.line, character, span.style));
        }
        self.column += std::mem::take(&mut self.word_width);
    }

    fn end_line(&mut self) {
        self.lines.push(std::mem::take(&mut self.line));
        self.column = 0;
        self.blank = None;
    }
}

fn push(line: &mut Line, character: char, style: TextStyle) {
    match line.last_mut() {
        Some(last) if last.style == style => last.text.push(character),
        _ => line.push(Span { text: character.to_string(), style }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, width: usize, split: bool) -> Vec<String> {
        let spans = [Span { text: text.to_owned(), style: TextStyle::PLAIN }];
        wrap(&spans, width, split).iter().map(|line| paint(line, false)).collect()
    }

    #[test]
    fn wraps_at_whitespace_and_keeps_long_words() {
        assert_eq!(lines("one two  three", 8, false), ["one two", "three"]);
        assert_eq!(lines("a https://example.com/long b", 6, false), ["a", "https://example.com/long", "b"]);
        assert_eq!(lines("abcdefgh", 3, true), ["abc", "def", "gh"]);
        assert_eq!(lines("one\ntwo", 80, false), ["one", "two"]);
        assert_eq!(lines("日本語日本語", 6, false), ["日本語", "日本語"]);
    }

    #[test]
    fn uses_escape_sequences_only_if_enabled() {
        assert_eq!(TextStyle::BOLD.paint("x", true), "\u{1b}[1mx\u{1b}[0m");
        assert_eq!(TextStyle::BOLD.paint("x", false), "x");
        assert_eq!(TextStyle::PLAIN.paint("x", true), "x");
    }
}
