//! Output of commands: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

/// Prints text to standard output.
///
/// # Errors
/// If standard output is closed.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints the content of a file unchanged. On a terminal, control characters other than tab and line feed are replaced,
/// because the text may come from an untrusted author.
///
/// # Errors
/// If standard output is closed.
pub fn file(content: &str) -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() {
        return text(content);
    }
    let shown = |letter: char| if letter.is_control() && !matches!(letter, '\n' | '\t') { '\u{fffd}' } else { letter };
    text(&content.chars().map(shown).collect::<String>())
}

/// Prints a JSON value, indented on a terminal, otherwise on one line.
///
/// # Errors
/// If standard output is closed.
pub fn json(value: &Value) -> anyhow::Result<()> {
    let line = if std::io::stdout().is_terminal() { format!("{value:#}\n") } else { format!("{value}\n") };
    text(&line)
}

/// Prints a list: `{"items": […]}`, or a table with the members `columns` of each item.
///
/// # Errors
/// If standard output is closed.
pub fn list(as_json: bool, columns: &[&str], items: Vec<Value>) -> anyhow::Result<()> {
    if as_json {
        return json(&json!({ "items": items }));
    }
    if items.is_empty() {
        return text("No entries.\n");
    }
    let head = columns.iter().map(|column| column.replace('_', " ").to_uppercase()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|column| cell(&item[*column])).collect());
    text(&table(std::iter::once(head).chain(rows).collect()))
}

/// Prints an object as JSON, or one member per line.
///
/// # Errors
/// If standard output is closed.
pub fn object(as_json: bool, value: &Value) -> anyhow::Result<()> {
    if as_json {
        return json(value);
    }
    let members = value.as_object().into_iter().flatten();
    text(&table(members.map(|(name, value)| vec![format!("{}:", name.replace('_', " ")), cell(value)]).collect()))
}

/// Reports a deletion.
///
/// # Errors
/// If standard output is closed.
pub fn deleted(as_json: bool, id: &str, sentence: &str) -> anyhow::Result<()> {
    if as_json { json(&json!({"id": id, "deleted": true})) } else { text(&format!("{sentence}\n")) }
}

/// Formats a value as one line without control characters, so that user-supplied text cannot control the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    clean(&text)
}

/// Replaces every control character in `text`.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// Formats a table whose columns are as wide as their widest cell and separated by two spaces.
fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |index: usize| rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|index| width(index).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Asks for confirmation before something is destroyed. Without a terminal, `--yes` is required.
///
/// # Errors
/// If the user declines, or there is no terminal.
pub fn confirm(yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            super::UsageError(format!("{question} Pass --yes to confirm; there is no terminal for a prompt.")).into()
        );
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    anyhow::bail!("cancelled, nothing was changed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_contain_no_control_characters() {
        let rows = [json!({"slug": "a", "name": "Ä\u{1b}[2J"}), json!({"slug": "long-one", "name": null})];
        let cells = rows.iter().map(|row| vec![cell(&row["slug"]), cell(&row["name"])]).collect();
        assert_eq!(table(cells), "a         Ä\u{fffd}[2J\nlong-one  -\n");
    }
}
