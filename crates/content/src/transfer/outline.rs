//! Finds the headings, fences and HTML blocks of a Markdown text at the top level. A heading in a fence, a quote or a
//! list is part of the surrounding text.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A top-level block that is relevant for an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A heading, `# Title` or underlined.
    Heading {
        /// 1 to 6.
        level: u8,
        /// The text without markup.
        title: String,
        /// The range in whole lines.
        range: Range<usize>,
    },
    /// A fenced block.
    Fence {
        /// The first word after the fence.
        info: String,
        /// The text between the fences, without the last line break.
        text: String,
        /// The range in whole lines.
        range: Range<usize>,
    },
    /// A block of HTML, such as a comment.
    Html {
        /// The range in whole lines.
        range: Range<usize>,
    },
}

/// Returns the options of the Markdown dialect of walkthroughs.
pub(super) fn dialect() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS
}

/// Returns the top-level blocks of `text` in order.
pub(super) fn outline(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut depth = 0_usize;
    // The open top-level block and its text so far.
    let mut open: Option<(Piece, String)> = None;
    for (event, range) in Parser::new_ext(text, dialect()).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                if depth == 0 {
                    open = begin(&tag, whole_lines(text, range)).map(|piece| (piece, String::new()));
                }
                depth += 1;
            }
            Event::End(tag) => {
                depth = depth.saturating_sub(1);
                if depth == 0 && matches!(tag, TagEnd::Heading(_) | TagEnd::CodeBlock | TagEnd::HtmlBlock) {
                    pieces.extend(open.take().map(|(piece, inner)| finish(piece, &inner)));
                }
            }
            Event::Text(inner) => {
                if let Some((_, collected)) = &mut open {
                    collected.push_str(&inner);
                }
            }
            Event::Code(inner) | Event::InlineHtml(inner) => {
                // A title is a single line.
                if let Some((_, collected)) = &mut open {
                    collected.push_str(&inner.replace(BREAKS, " "));
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some((_, collected)) = &mut open {
                    collected.push(' ');
                }
            }
            _ => {}
        }
    }
    pieces
}

fn begin(tag: &Tag<'_>, range: Range<usize>) -> Option<Piece> {
    match tag {
        Tag::Heading { level, .. } => Some(Piece::Heading { level: *level as u8, title: String::new(), range }),
        Tag::CodeBlock(CodeBlockKind::Fenced(info)) => {
            let info = info.split_whitespace().next().unwrap_or_default().to_owned();
            Some(Piece::Fence { info, text: String::new(), range })
        }
        Tag::HtmlBlock => Some(Piece::Html { range }),
        _ => None,
    }
}

fn finish(piece: Piece, inner: &str) -> Piece {
    match piece {
        Piece::Heading { level, range, .. } => Piece::Heading { level, title: inner.trim().to_owned(), range },
        Piece::Html { range } => Piece::Html { range },
        Piece::Fence { info, range, .. } => {
            let text = inner.strip_suffix('\n').unwrap_or(inner);
            Piece::Fence { info, text: text.strip_suffix('\r').unwrap_or(text).to_owned(), range }
        }
    }
}

/// Line breaks in CommonMark, which include a lone carriage return.
const BREAKS: [char; 2] = ['\n', '\r'];

/// Extends `range` to whole lines, including the last line break.
fn whole_lines(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text[..range.start].rfind(BREAKS).map_or(0, |at| at + 1);
    let end = match range.end {
        end if end > start && text[..end].ends_with(BREAKS) => end,
        end => text[end..].find(BREAKS).map_or(text.len(), |at| end + at + 1),
    };
    let pair = text[..end].ends_with('\r') && text[end..].starts_with('\n');
    start..end + usize::from(pair)
}

/// Trims leading blank lines and trailing white space. Keeps the indentation of the first line, which may be code.
pub(super) fn trim_blank(text: &str) -> &str {
    let text = text.trim_end();
    let indent = text.len() - text.trim_start().len();
    let line = text[..indent].rfind(BREAKS).map_or(0, |at| at + 1);
    &text[line..]
}

/// Joins two strings, with a blank line between them if both are non-empty.
pub(super) fn paragraphs(first: &str, second: &str) -> String {
    match (trim_blank(first), trim_blank(second)) {
        ("", text) | (text, "") => text.to_owned(),
        (first, second) => format!("{first}\n\n{second}"),
    }
}

/// Returns the number of the line that contains `at`, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let pairs = text[..at].matches("\r\n").count();
    text[..at].matches(BREAKS).count() - pairs + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(text: &str) -> Vec<(u8, String)> {
        let heading = |piece| match piece {
            Piece::Heading { level, title, .. } => Some((level, title)),
            Piece::Fence { .. } | Piece::Html { .. } => None,
        };
        outline(text).into_iter().filter_map(heading).collect()
    }

    #[test]
    fn top_level_headings_are_found() {
        let table: &[(&str, &[(u8, &str)])] = &[
            ("# A\n## B ##\n", &[(1, "A"), (2, "B")]),
            ("A\n===\nB\n---\n", &[(1, "A"), (2, "B")]),
            ("```\n# no\n```\n~~~md\n## no\n~~~\n    # no\n", &[]),
            ("> ## no\n\n- # no\n", &[]),
            ("## Use `cargo` *now* & [here](x) Vec<T>\n", &[(2, "Use cargo now & here Vec<T>")]),
            ("#no\n\\# no\n", &[]),
            ("<!--\n# no\n-->\n# A\r\n", &[(1, "A")]),
            ("two\nlines\n===\n", &[(1, "two lines")]),
            ("# old\r## Mac\r", &[(1, "old"), (2, "Mac")]),
            ("#\n", &[(1, "")]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(level, title)| (*level, (*title).to_owned())).collect();
            assert_eq!(headings(text), expected, "{text:?}");
        }
    }

    #[test]
    fn ranges_are_whole_lines() {
        let text = "x\n\n  ## A\n\n````agent-context more\n```\na\n\nb\n```\n````\n\nrest";
        let pieces = outline(text);
        let [Piece::Heading { range: heading, .. }, Piece::Fence { info, text: inner, range }] = &pieces[..] else {
            panic!("{pieces:?}")
        };
        assert_eq!(&text[heading.clone()], "  ## A\n");
        assert_eq!((info.as_str(), inner.as_str()), ("agent-context", "```\na\n\nb\n```"));
        assert_eq!(text[range.clone()].lines().count(), 7);
        assert_eq!(&text[range.end..], "\nrest");
    }

    #[test]
    fn only_blank_lines_are_trimmed() {
        assert_eq!(trim_blank("\n \n    code\n\n x \n \n"), "    code\n\n x");
        assert_eq!(trim_blank(" \n "), "");
        assert_eq!(paragraphs("a\n", "\n\n b"), "a\n\n b");
        assert_eq!(paragraphs("", "b"), "b");
        assert_eq!((line_of("a\r\nb\rc\nd", 7), line_of("a", 0)), (4, 1));
    }
}
