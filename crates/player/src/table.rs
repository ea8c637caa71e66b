//! A table in columns that fit the terminal.

use crate::text::{self, Line, Span, TextStyle};

/// Between two columns.
const GUTTER: usize = 3;
/// A column is not made narrower than this.
const NARROWEST: usize = 6;

/// Cells, row by row; the first row is the head.
pub(crate) struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<Vec<Span>>>,
}

impl Table {
    /// A table whose columns stand to the right where `right` says so.
    pub(crate) fn new(right: Vec<bool>) -> Self {
        Self { right, rows: Vec::new() }
    }

    pub(crate) fn start_row(&mut self) {
        self.rows.push(Vec::new());
    }

    pub(crate) fn cell(&mut self, mut cell: Vec<Span>) {
        if self.rows.len() == 1 {
            cell.iter_mut().for_each(|span| span.look.bold = true);
        }
        if let Some(row) = self.rows.last_mut() {
            row.push(cell);
        }
    }

    /// The lines of the table in `room` columns; cells wrap.
    pub(crate) fn lay_out(&self, room: usize, ansi: bool) -> Vec<String> {
        let widths = self.widths(room);
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
                let pad = " ".repeat(width.saturating_sub(text::width(line)));
                let painted = text::paint(line, ansi);
                if self.right.get(column).copied().unwrap_or(false) { pad + &painted } else { painted + &pad }
            })
            .collect();
        parts.join(&bar)
    }

    /// The natural width of every column, the widest ones narrowed until the table fits.
    fn widths(&self, room: usize) -> Vec<usize> {
        let mut widths = vec![1; self.right.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                let longest = text::wrap(cell, usize::MAX, false).iter().map(|line| text::width(line)).max();
                *width = (*width).max(longest.unwrap_or(0));
            }
        }
        let room = room.saturating_sub(GUTTER * widths.len().saturating_sub(1));
        while widths.iter().sum::<usize>() > room {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > NARROWEST) else { break };
            *widest -= 1;
        }
        widths
    }
}
