//! CSV that spreadsheets open without carrying out what stands in it.

use std::borrow::Cow;

/// A cell as text: what a spreadsheet would take for a formula gets an apostrophe in front (OWASP, CSV injection).
#[must_use]
pub fn cell(text: &str) -> Cow<'_, str> {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => Cow::Owned(format!("'{text}")),
        _ => Cow::Borrowed(text),
    }
}

/// A row of a CSV file (RFC 4180), each cell as [`cell`] makes it.
#[must_use]
pub fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let cells: Vec<_> = cells.into_iter().map(|text| cell(text).into_owned()).collect();
    // Writing to memory fails only when rows have different lengths, and there is one.
    if writer.write_record(&cells).is_err() {
        return Vec::new();
    }
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_become_text() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        for text in ["", "a=1", "1", "Ä", " =1"] {
            assert_eq!(cell(text), text);
        }
        assert_eq!(row(["a,b", "=\"x\"", "line\nbreak"]), b"\"a,b\",\"'=\"\"x\"\"\",\"line\nbreak\"\r\n");
    }
}
