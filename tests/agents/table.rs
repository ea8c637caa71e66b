//! The table in `docs/clients.md`: one row per agent, one column per measurement.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::agent::Agent;

const BEGIN: &str = "<!-- Written by tests/agents; do not edit by hand. -->";
const END: &str = "<!-- End of the text written by tests/agents. -->";

const COLUMNS: [&str; 11] = [
    "Client",
    "Version",
    "Revision",
    "Model receives",
    "Shows `instructions`",
    "Told to wait by",
    "Signs in with",
    "Asked to sign in",
    "Continues with personal URL",
    "Continues with handle",
    "Continues signed in",
];

/// Guards the file, because tests run in parallel.
static FILE: Mutex<()> = Mutex::new(());

/// The text around the table, and its rows.
struct Document {
    before: String,
    rows: Vec<Vec<String>>,
    after: String,
}

/// Compares a measurement with the committed table, or writes it with `WAYPOST_TEST_WRITE=1`.
pub fn record(agent: &Agent, column: &str, measured: &str) {
    let index = COLUMNS.iter().position(|name| *name == column).expect("the table has the column");
    let _guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut document = Document::read();
    if is_update_enabled() {
        let row = document.row(agent.name);
        measured.clone_into(&mut row[index]);
        document.write();
        return;
    }
    let row = document.row(agent.name);
    assert_eq!(
        row[index], measured,
        "{}, {column}: docs/clients.md differs from the measured values; set WAYPOST_TEST_WRITE=1 to update it",
        agent.name
    );
}

/// Checks that each agent has a row with its installed version, and that there are no other rows.
pub fn check_rows(agents: &[&Agent]) {
    let _guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut document = Document::read();
    if is_update_enabled() {
        let rows = agents.iter().map(|agent| {
            let mut row = document.row(agent.name).clone();
            row[1] = agent.version();
            row
        });
        document.rows = rows.collect();
        document.write();
        return;
    }
    let rows: Vec<_> = document.rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let expected: Vec<_> = agents.iter().map(|agent| (agent.name.to_owned(), agent.version())).collect();
    assert_eq!(rows, expected, "docs/clients.md is outdated; set WAYPOST_TEST_WRITE=1 to update it");
}

fn is_update_enabled() -> bool {
    std::env::var_os("WAYPOST_TEST_WRITE").is_some_and(|value| value == "1")
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md")
}

impl Document {
    fn read() -> Self {
        let text = std::fs::read_to_string(file()).expect("docs/clients.md is readable");
        let (before, rest) = text.split_once(BEGIN).expect("docs/clients.md has the marker at the start of the table");
        let (table, after) = rest.split_once(END).expect("docs/clients.md has the marker at the end of the table");
        // Skips the header row and the separator.
        let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
        let rows = rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
        Self { before: before.to_owned(), rows: rows.collect(), after: after.to_owned() }
    }

    /// Returns the row of an agent. Adds one if it is missing.
    fn row(&mut self, agent: &str) -> &mut Vec<String> {
        let index = self.rows.iter().position(|row| row[0] == agent).unwrap_or_else(|| {
            self.rows.push(vec![agent.to_owned()]);
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        row.resize(COLUMNS.len(), "?".to_owned());
        row
    }

    fn write(&self) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head = line(&COLUMNS.map(str::to_owned)) + &"|---".repeat(COLUMNS.len()) + "|\n";
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        let text = format!("{}{BEGIN}\n\n{head}{rows}\n{END}{}", self.before, self.after);
        std::fs::write(file(), text).expect("docs/clients.md is writable");
    }
}
