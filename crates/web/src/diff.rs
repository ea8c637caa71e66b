//! Differences between texts, line by line.

use std::time::{Duration, Instant};

use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use utoipa::ToSchema;

/// Lines around a difference that are shown.
const CONTEXT: usize = 3;
/// How long all texts of a comparison may take: after that a text is shown as replaced, which is true as well.
const PATIENCE: Duration = Duration::from_millis(500);

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tag {
    /// It stayed.
    Same,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Lines that stayed are left out here.
    Skipped,
}

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Line {
    /// What became of it.
    pub tag: Tag,
    /// The line without its end.
    pub text: String,
}

/// Compares texts until its time is over.
pub struct Differ {
    until: Instant,
}

impl Default for Differ {
    fn default() -> Self {
        Self { until: Instant::now() + PATIENCE }
    }
}

impl Differ {
    /// The lines that are different, with a few around them.
    #[must_use]
    pub fn lines(&self, before: &str, after: &str) -> Vec<Line> {
        // Without their ends: the last line is the same line whether or not a line break follows it.
        let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
        let diff = TextDiff::configure().deadline(self.until).diff_slices(&before, &after);
        let mut lines = Vec::new();
        let (mut seen, total) = (0, before.len());
        for group in diff.grouped_ops(CONTEXT) {
            let begins = group.first().map_or(0, |op| op.old_range().start);
            if begins > seen {
                lines.push(Line { tag: Tag::Skipped, text: String::new() });
            }
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let tag = match change.tag() {
                    ChangeTag::Equal => Tag::Same,
                    ChangeTag::Insert => Tag::Added,
                    ChangeTag::Delete => Tag::Removed,
                };
                lines.push(Line { tag, text: change.value().to_owned() });
            }
            seen = group.last().map_or(seen, |op| op.old_range().end);
        }
        if !lines.is_empty() && seen < total {
            lines.push(Line { tag: Tag::Skipped, text: String::new() });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: &str, after: &str) -> String {
        let mark = |line: &Line| match line.tag {
            Tag::Same => format!(" {}", line.text),
            Tag::Added => format!("+{}", line.text),
            Tag::Removed => format!("-{}", line.text),
            Tag::Skipped => "@".to_owned(),
        };
        Differ::default().lines(before, after).iter().map(mark).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn shows_what_is_different_and_a_little_around_it() {
        assert_eq!(told("a\nb\nc", "a\nx\nc"), " a\n-b\n+x\n c");
        assert_eq!(told("", "a\nb"), "+a\n+b");
        assert_eq!(told("same", "same"), "");
        assert_eq!(told("a\nlast", "a\nlast\nmore\n"), " a\n last\n+more", "an unchanged last line is not marked");
        assert_eq!(told("x\nlast\n", "y\nlast"), "-x\n+y\n last");
        let many: String = (0..20).map(|n| format!("{n}\n")).collect();
        let other = many.replace("10\n", "ten\n");
        assert_eq!(told(&many, &other), "@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n@");
    }
}
