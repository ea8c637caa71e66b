//! Terminal output: the result tables.

use std::fmt::Write as _;

use crate::report::Findings;
use crate::summary::{self, Medians, Target};

/// Renders the results as text.
pub fn render(findings: &Findings) -> String {
    let mut text = String::new();
    let environment = &findings.environment;
    let _ = writeln!(
        text,
        "\n{}, {} cores, Linux {}, {} (a durable write takes {:.0} µs)",
        environment.processor, environment.cores, environment.kernel, environment.file_system, environment.sync_us
    );
    if let Some(postgres) = &environment.postgres {
        let _ = writeln!(text, "{}", postgres.split(" on ").next().unwrap_or(postgres));
    }
    if findings.settings.smoke {
        let _ = writeln!(text, "This is a smoke run: the counts are too small for meaningful numbers.");
    }
    let medians = summary::medians(findings);
    text.push_str(&grid(&measured_rows(&medians)));
    text.push('\n');
    text.push_str(&grid(&target_rows(&summary::targets(findings))));
    for sizes in findings.sizes.iter().filter(|sizes| !sizes.untyped_members.is_empty()) {
        let _ = writeln!(text, "{}: members without a type: {}", sizes.contestant, sizes.untyped_members.join(", "));
    }
    text
}

fn measured_rows(medians: &[Medians]) -> Vec<Vec<String>> {
    let header = ["", "era", "op", "conn", "calls/s", "p50 ms", "p99 ms", "CPU µs", "DB CPU µs", "× floor", "× peer"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let optional = |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
    for row in medians {
        let mut name = row.contestant.to_owned();
        match (row.section, row.seeded_rows) {
            ("steps", _) => name = format!("{name}, {} steps", row.steps),
            ("rows", Some(rows)) => name = format!("{name}, {rows} rows"),
            ("token", _) => name.push_str(if row.signed_in { ", token" } else { ", no token" }),
            ("memory", _) => continue,
            _ => {}
        }
        rows.push(vec![
            name,
            row.era.name().to_owned(),
            row.op.name().to_owned(),
            row.connections.to_string(),
            format!("{:.0}", row.calls_per_second),
            format!("{:.2}", row.p50_us / 1e3),
            format!("{:.2}", row.p99_us / 1e3),
            format!("{:.0}", row.server_cpu_us),
            optional(row.database_cpu_us, 0),
            optional(row.to_floor, 2),
            optional(row.to_peer, 2),
        ]);
    }
    rows
}

/// Returns the rows of the table of targets.
pub fn target_rows(targets: &[Target]) -> Vec<Vec<String>> {
    let mut rows = vec![["target", "measured", "required", ""].map(str::to_owned).to_vec()];
    for target in targets {
        let number = |value: f64| {
            let digits = if value.fract() == 0.0 { 0 } else { 2 };
            format!("{value:.digits$} {}", target.unit).trim_end().to_owned()
        };
        rows.push(vec![
            target.what.clone(),
            target.measured.map_or_else(|| "–".to_owned(), number),
            format!("{} {}", if target.at_least { "≥" } else { "≤" }, number(target.target)),
            match target.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            }
            .to_owned(),
        ]);
    }
    rows
}

/// Formats a table: columns as wide as their widest cell, text left-aligned, numbers right-aligned.
pub fn grid(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| {
                let left = cell.starts_with(|c: char| c.is_alphabetic());
                if left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if index == 0 {
            text.push_str(&"─".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["".to_owned(), "calls".to_owned()], vec!["floor".to_owned(), "12".to_owned()]];
        assert_eq!(grid(&rows), "       calls\n────────────\nfloor     12\n");
    }
}
