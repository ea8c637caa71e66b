//! Tables that fit the width of the terminal.

use crate::text::{self, Line, Span, TextStyle};

/// Width of the separator between two columns.
const GUTTER: usize = 3;
/// Minimum width of a column.
const MIN_WIDTH: usize = 6;

/// The cells, row by row. The first row is the header.
pub(crate) struct Table {
    right_aligned: Vec<bool>,
    rows: Vec<Vec<Vec<Span>>>,
}

impl Table {
    /// Creates a table. `right_aligned` has one entry per column.
    pub(crate) fn new(right_aligned: Vec<bool>) -> Self {
        Self { right_aligned, rows: Vec::new() }
    }

    pub(crate) fn start_row(&mut self) {
        self.rows.push(Vec::new());
    }

    pub(crate) fn add_cell(&mut self, mut cell: Vec<Span>) {
        if self.rows.len() == 1 {
            cell.iter_mut().for_each(|span| span.style.bold = true);
        }
        if let Some(row) = self.rows.last_mut() {
            row.push(cell);
        }
    }

    /// Renders the table in `max_width` columns. Cells wrap.
    pub(crate) fn render(&self, max_width: usize, ansi: bool) -> Vec<String> {
        let widths = self.column_widths(max_width);
        let mut lines = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<Vec<Line>> =
                widths.iter().zip(row).map(|(width, cell)| text::wrap(cell, *width, true)).collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            for number in 0..height {
                lines.push(self.line(&cells, number, &widths, ansi));
            }
            if index == 0 {
                let (dash, cross) = if ansi { ("─", "─┼─") } else { ("-", "-+-") };
                let rule: Vec<String> = widths.iter().map(|width| dash.repeat(*width)).collect();
                lines.push(TextStyle::DIM.paint(&rule.join(cross), ansi));
            }
        }
        lines
    }

    fn line(&self, cells: &[Vec<Line>], number: usize, widths: &[usize], ansi: bool) -> String {
        let bar = if ansi { TextStyle::DIM.paint(" │ ", true) } else { " | ".to_owned() };
        let parts: Vec<String> = (cells.iter().zip(widths).enumerate())
            .map(|(column, (lines, width))| {
                let line = lines.get(number).map(Vec::as_slice).unwrap_or_default();
                let padding = " ".repeat(width.saturating_sub(text::width(line)));
                let painted = text::paint(line, ansi);
                if self.right_aligned.get(column).copied().unwrap_or(false) {
                    padding + &painted
                } else {
                    painted + &padding
                }
            })
            .collect();
        parts.join(&bar)
    }

    /// Returns the width of every column: the natural width, with the widest columns narrowed until the table fits.
    fn column_widths(&self, max_width: usize) -> Vec<usize> {
        let mut widths = vec![1; self.right_aligned.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                let longest = text::wrap(cell, usize::MAX, false).iter().map(|line| text::width(line)).max();
                *width = (*width).max(longest.unwrap_or(0));
            }
        }
        let available = max_width.saturating_sub(GUTTER * widths.len().saturating_sub(1));
        while widths.iter().sum::<usize>() > available {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > MIN_WIDTH) else { break };
            *widest -= 1;
        }
        widths
    }
}
