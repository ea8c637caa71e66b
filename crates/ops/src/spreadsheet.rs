//! CSV that is safe to open in a spreadsheet.

use std::borrow::Cow;

/// Returns the text of a cell. Text that a spreadsheet would read as a formula is prefixed with an apostrophe (OWASP,
/// CSV injection).
#[must_use]
pub fn cell(text: &str) -> Cow<'_, str> {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => Cow::Owned(format!("'{text}")),
        _ => Cow::Borrowed(text),
    }
}

/// Formats a row of a CSV file (RFC 4180). Each cell is escaped by [`cell`].
#[must_use]
pub fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let cells: Vec<_> = cells.into_iter().map(|text| cell(text).into_owned()).collect();
    // Writing to memory fails only if rows have different lengths, and there is only one row.
    if writer.write_record(&cells).is_err() {
        return Vec::new();
    }
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_escaped() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        for text in ["", "a=1", "1", "Ä", " =1"] {
            assert_eq!(cell(text), text);
        }
        assert_eq!(row(["a,b", "=\"x\"", "line\nbreak"]), b"\"a,b\",\"'=\"\"x\"\"\",\"line\nbreak\"\r\n");
    }
}
