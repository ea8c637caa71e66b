//! Line-by-line text comparison.

use std::time::{Duration, Instant};

use serde::Serialize;
use similar::{ChangeTag, TextDiff};

/// The number of unchanged lines shown around a difference.
const CONTEXT: usize = 3;
/// The time limit for a whole comparison. After that, fields are shown as completely replaced, which is also
/// correct.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The kind of a line in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DiffTag {
    /// The line is in both texts.
    Same,
    /// The line is only in the new text.
    Added,
    /// The line is only in the old text.
    Removed,
    /// Unchanged lines are omitted here.
    Skipped,
}

/// A line of a text comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiffLine {
    /// `same` (in both texts), `added`, `removed`, or `skipped` (unchanged lines are omitted here).
    pub tag: DiffTag,
    /// The line without its line break. Empty if `tag` is `skipped`.
    pub text: String,
}

/// Compares texts within a time limit.
pub struct Differ {
    deadline: Instant,
}

impl Default for Differ {
    #[expect(clippy::disallowed_methods, reason = "only limits the work on large texts")]
    fn default() -> Self {
        Self { deadline: Instant::now() + TIMEOUT }
    }
}

impl Differ {
    /// Returns the lines that differ, with a few unchanged lines around them.
    #[must_use]
    pub fn lines(&self, before: &str, after: &str) -> Vec<DiffLine> {
        // Line breaks are stripped, so that the last line compares equal with and without one.
        let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
        let diff = TextDiff::configure().deadline(self.deadline).diff_slices(&before, &after);
        let mut lines = Vec::new();
        let (mut seen, total) = (0, before.len());
        for group in diff.grouped_ops(CONTEXT) {
            let begins = group.first().map_or(0, |op| op.old_range().start);
            if begins > seen {
                lines.push(DiffLine { tag: DiffTag::Skipped, text: String::new() });
            }
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let tag = match change.tag() {
                    ChangeTag::Equal => DiffTag::Same,
                    ChangeTag::Insert => DiffTag::Added,
                    ChangeTag::Delete => DiffTag::Removed,
                };
                lines.push(DiffLine { tag, text: change.value().to_owned() });
            }
            seen = group.last().map_or(seen, |op| op.old_range().end);
        }
        if !lines.is_empty() && seen < total {
            lines.push(DiffLine { tag: DiffTag::Skipped, text: String::new() });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(before: &str, after: &str) -> String {
        let mark = |line: &DiffLine| match line.tag {
            DiffTag::Same => format!(" {}", line.text),
            DiffTag::Added => format!("+{}", line.text),
            DiffTag::Removed => format!("-{}", line.text),
            DiffTag::Skipped => "@".to_owned(),
        };
        Differ::default().lines(before, after).iter().map(mark).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn shows_differences_with_their_context() {
        assert_eq!(diff("a\nb\nc", "a\nx\nc"), " a\n-b\n+x\n c");
        assert_eq!(diff("", "a\nb"), "+a\n+b");
        assert_eq!(diff("same", "same"), "");
        assert_eq!(diff("a\nlast", "a\nlast\nmore\n"), " a\n last\n+more", "an unchanged last line is not marked");
        assert_eq!(diff("x\nlast\n", "y\nlast"), "-x\n+y\n last");
        let many: String = (0..20).map(|n| format!("{n}\n")).collect();
        let other = many.replace("10\n", "ten\n");
        assert_eq!(diff(&many, &other), "@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n@");
    }
}
