//! Verbatim blocks: the content of a step between two comment lines, read exactly as written.
//!
//! ```text
//! <!-- walkthrough-content -->
//! ## A heading that is not a step
//! <!-- /walkthrough-content -->
//! ```
//!
//! Within the marks, headings do not begin steps, leading and trailing blank lines are kept, and unclosed constructs (a
//! fence, a comment) do not extend beyond them. Text that itself contains such lines is enclosed in marks with a unique
//! label: `<!-- walkthrough-content 2 -->`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;

const OPEN: &str = "<!-- walkthrough-content";
const CLOSE: &str = "<!-- /walkthrough-content";
const END: &str = "-->";
/// Maximum length of a label in characters.
const MAX_LABEL: usize = 32;

/// A verbatim block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verbatim {
    /// All lines, including the marks.
    pub(super) whole: Range<usize>,
    /// The text between the marks, without the line break before the closing one.
    pub(super) inner: Range<usize>,
}

/// Returns the label of a line that is a mark beginning with `start`; an empty string if the mark has no label.
fn label<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    let label = line.trim_end().strip_prefix(start)?.strip_suffix(END)?;
    let name = label.trim();
    let is_name = name.len() <= MAX_LABEL && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (label.starts_with(' ') && is_name).then_some(name)
}

/// Returns the verbatim blocks in order, without overlaps. An unclosed opening mark is an ordinary comment.
pub(super) fn find(text: &str) -> Vec<Verbatim> {
    let mut found: Vec<Verbatim> = Vec::new();
    if !text.contains(CLOSE) {
        return found;
    }
    let mut opened = Vec::new();
    let mut closed: HashMap<&str, Vec<Range<usize>>> = HashMap::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let range = at..at + line.len();
        at = range.end;
        if let Some(name) = label(line, OPEN) {
            opened.push((name, range));
        } else if let Some(name) = label(line, CLOSE) {
            closed.entry(name).or_default().push(range);
        }
    }
    let mut done = 0;
    for (name, open) in opened {
        let Some(closes) = closed.get(name).filter(|_| open.start >= done) else { continue };
        let Some(close) = closes.get(closes.partition_point(|close| close.start < open.end)) else { continue };
        let end = if close.start > open.end { close.start - 1 } else { open.end };
        found.push(Verbatim { whole: open.start..close.end, inner: open.end..end });
        done = close.end;
    }
    found
}

/// Replaces the text between marks with blanks, so that a parser ignores it. Positions do not change.
pub(super) fn mask<'a>(text: &'a str, blocks: &[Verbatim]) -> Cow<'a, str> {
    if blocks.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for Verbatim { inner, .. } in blocks {
        masked.push_str(&text[done..inner.start]);
        masked.extend(text[inner.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        done = inner.end;
    }
    masked.push_str(&text[done..]);
    Cow::Owned(masked)
}

/// Whether a line of `text` looks like a mark, so that the text must be enclosed in marks.
pub(super) fn has_mark(text: &str) -> bool {
    text.lines().any(|line| line.starts_with(OPEN) || line.starts_with(CLOSE))
}

/// Writes `content` between marks, each on a line of its own.
pub(super) fn write(text: &mut String, content: &str) {
    let labels = std::iter::once(String::new()).chain((2_u32..).map(|number| format!(" {number}")));
    let taken = |label: &String| {
        let mark = format!("{CLOSE}{label} {END}");
        content.lines().any(|line| line.trim_end() == mark)
    };
    let label = labels.into_iter().find(|label| !taken(label)).unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{OPEN}{label} {END}\n{content}\n{CLOSE}{label} {END}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(text: &str) -> Vec<&str> {
        find(text).into_iter().map(|block| &text[block.inner]).collect()
    }

    #[test]
    fn verbatim_blocks_are_found() {
        let table: &[(&str, &[&str])] = &[
            ("<!-- walkthrough-content -->\n## x\n<!-- /walkthrough-content -->\n", &["## x"]),
            ("<!-- walkthrough-content -->\n<!-- /walkthrough-content -->", &[""]),
            ("<!-- walkthrough-content -->\n\n\n<!-- /walkthrough-content -->", &["\n"]),
            (
                "<!-- walkthrough-content 2 -->\n<!-- /walkthrough-content -->\n<!-- /walkthrough-content 2 -->",
                &["<!-- /walkthrough-content -->"],
            ),
            ("<!-- walkthrough-content -->\nnever closed", &[]),
            ("<!-- /walkthrough-content -->\n<!-- walkthrough-content -->", &[]),
            ("<!-- walkthrough-contents -->\n<!-- /walkthrough-content -->", &[]),
            (" <!-- walkthrough-content -->\n<!-- /walkthrough-content -->", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(inner(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn written_blocks_are_found_again() {
        for content in
            ["", "\n", "a\n", "\n\nx  ", "```", "<!-- /walkthrough-content -->\n<!-- /walkthrough-content 2 -->"]
        {
            let mut text = String::new();
            write(&mut text, content);
            assert_eq!(inner(&text), [content], "{text:?}");
            assert_eq!(mask(&text, &find(&text)).len(), text.len());
        }
    }

    #[test]
    fn many_marks_are_handled_in_linear_time() {
        let open: String = (0..50_000).map(|n| format!("{OPEN} a{n} {END}\n")).collect();
        assert_eq!(find(&(open.clone() + &open + CLOSE + " " + END)), []);
    }
}
