//! Converts numbers into SVG shapes for the charts. Text and colours are defined in the templates and the style sheet.

use std::collections::HashMap;
use std::fmt::Write;

use waypost_core::analytics::PeriodTotals;
use waypost_ops::analytics::{FlowEdge, FlowNode};

/// The width of the line chart in user units. The page scales the chart.
pub(super) const WIDTH: f64 = 1_000.0;
/// The height of the line chart in user units.
pub(super) const HEIGHT: f64 = 240.0;
/// The maximum number of steps in a Sankey diagram. The table contains all steps.
const MAX_STEPS: usize = 40;

/// A line of the line chart.
pub(super) struct ChartLine {
    /// The label.
    pub(super) label: &'static str,
    /// The CSS class.
    pub(super) class: &'static str,
    /// The SVG path.
    pub(super) path: String,
    /// The sum, or `None` if the values cannot be added up.
    pub(super) sum: Option<u64>,
}

/// A line chart with one point per hour or day.
pub(super) struct LineChart {
    /// The lines of the chart.
    pub(super) lines: Vec<ChartLine>,
    /// The maximum of the value axis.
    pub(super) top: u64,
}

/// Rounds up to the next value of the series 1, 2, 5, 10, 20, 50 …
fn round_up(most: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for step in [1, 2, 5] {
            if unit.saturating_mul(step) >= most {
                return unit.saturating_mul(step);
            }
        }
        unit = unit.saturating_mul(10);
    }
}

/// Creates the chart of active end users and of started and completed attempts. `days` contains one entry per hour or
/// day.
pub(super) fn lines(days: &[PeriodTotals]) -> LineChart {
    let top = round_up(days.iter().map(|day| day.started.max(day.completed).max(day.active)).max().unwrap_or(0).max(1));
    let line = |label, class, sum, value: fn(&PeriodTotals) -> u64| ChartLine {
        label,
        class,
        path: path(days.iter().map(value), days.len(), top),
        sum,
    };
    let total = |value: fn(&PeriodTotals) -> u64| Some(days.iter().map(value).sum());
    LineChart {
        lines: vec![
            line("Active end users", "line-active", None, |day| day.active),
            line("Started", "line-started", total(|day| day.started), |day| day.started),
            line("Completed", "line-completed", total(|day| day.completed), |day| day.completed),
        ],
        top,
    }
}

fn path(values: impl Iterator<Item = u64>, count: usize, top: u64) -> String {
    let mut path = String::new();
    let step = if count > 1 { WIDTH / (count - 1) as f64 } else { 0.0 };
    for (index, value) in values.enumerate() {
        let (x, y) = (index as f64 * step, HEIGHT - HEIGHT * value as f64 / top as f64);
        let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
    }
    if count == 1 {
        // A single point is drawn as a horizontal line.
        let _ = write!(path, "h{WIDTH}");
    }
    path
}

/// A node of a Sankey diagram.
pub(super) struct SankeyNode {
    /// The horizontal position.
    pub(super) x: f64,
    /// The vertical position.
    pub(super) y: f64,
    /// The height.
    pub(super) height: f64,
    /// The CSS class.
    pub(super) class: &'static str,
    /// The label below the node.
    pub(super) label: String,
    /// The tooltip.
    pub(super) title: String,
    /// The vertical position of the label.
    pub(super) label_y: f64,
}

/// A link of a Sankey diagram.
pub(super) struct SankeyLink {
    /// The SVG path of the centre line.
    pub(super) path: String,
    /// The stroke width.
    pub(super) width: f64,
    /// The tooltip.
    pub(super) title: String,
    /// The CSS class.
    pub(super) class: &'static str,
}

/// A Sankey diagram.
pub(super) struct Sankey {
    /// The width.
    pub(super) width: f64,
    /// The height.
    pub(super) height: f64,
    /// The nodes.
    pub(super) nodes: Vec<SankeyNode>,
    /// The links.
    pub(super) links: Vec<SankeyLink>,
    /// Whether steps are omitted.
    pub(super) is_truncated: bool,
}

const COLUMN_WIDTH: f64 = 96.0;
const NODE_WIDTH: f64 = 14.0;
const TOP_Y: f64 = 16.0;
const FLOW_HEIGHT: f64 = 180.0;
/// The vertical position at which links to [`FlowNode::DropOff`] end.
const EXIT_Y: f64 = 268.0;

/// Returns the full name of a node.
pub(super) fn name(place: &FlowNode) -> &str {
    match place {
        FlowNode::Start => "Start",
        FlowNode::Step(_, title) => title,
        FlowNode::End => "Completed",
        FlowNode::DropOff => "Left or still active",
    }
}

/// Lays out the diagram. `order` contains the IDs of the version's steps in order; steps of other versions are
/// appended. Returns `None` if no attempt was started.
pub(super) fn sankey(flows: &[FlowEdge], order: &[String]) -> Option<Sankey> {
    let started: u64 = flows.iter().filter(|flow| flow.from == FlowNode::Start).map(|flow| flow.count).sum();
    if started == 0 {
        return None;
    }
    let mut columns: Vec<String> = order.to_vec();
    for flow in flows {
        for place in [&flow.from, &flow.to] {
            if let FlowNode::Step(id, _) = place
                && !columns.iter().any(|known| known == id.as_str())
            {
                columns.push(id.to_string());
            }
        }
    }
    let is_truncated = columns.len() > MAX_STEPS;
    columns.truncate(MAX_STEPS);
    let mut layout = SankeyLayout {
        columns: &columns,
        scale: FLOW_HEIGHT / started as f64,
        out: HashMap::new(),
        into: HashMap::new(),
    };
    let mut links = Vec::new();
    let mut flows: Vec<&FlowEdge> = flows.iter().collect();
    // Links to other steps are placed above links to `DropOff`, and short links above long ones.
    flows.sort_by_key(|flow| (flow.to == FlowNode::DropOff, layout.column(&flow.to), layout.column(&flow.from)));
    for flow in &flows {
        links.extend(layout.link(flow));
    }
    let nodes = layout.nodes(&flows);
    let width = (columns.len() + 2) as f64 * COLUMN_WIDTH;
    Some(Sankey { width, height: EXIT_Y + 40.0, nodes, links, is_truncated })
}

struct SankeyLayout<'a> {
    columns: &'a [String],
    scale: f64,
    /// The height used by links on the right side of each column.
    out: HashMap<usize, f64>,
    /// The height used by links on the left side of each column.
    into: HashMap<usize, f64>,
}

impl SankeyLayout<'_> {
    /// Returns the column of a node, or `None` for omitted steps and for [`FlowNode::DropOff`].
    fn column(&self, place: &FlowNode) -> Option<usize> {
        match place {
            FlowNode::Start => Some(0),
            FlowNode::Step(id, _) => Some(1 + self.columns.iter().position(|known| known == id.as_str())?),
            FlowNode::End => Some(self.columns.len() + 1),
            FlowNode::DropOff => None,
        }
    }

    fn link(&mut self, flow: &FlowEdge) -> Option<SankeyLink> {
        let from = self.column(&flow.from)?;
        let width = flow.count as f64 * self.scale;
        let title = format!("{} → {}: {}", name(&flow.from), name(&flow.to), flow.count);
        let x1 = from as f64 * COLUMN_WIDTH + COLUMN_WIDTH / 2.0 + NODE_WIDTH / 2.0;
        let used = self.out.entry(from).or_default();
        let y1 = TOP_Y + *used + width / 2.0;
        *used += width;
        if flow.to == FlowNode::DropOff {
            let x2 = x1 + COLUMN_WIDTH / 2.0;
            let path = format!("M{x1:.1} {y1:.1}C{x2:.1} {y1:.1} {x2:.1} {y1:.1} {x2:.1} {EXIT_Y:.1}");
            return Some(SankeyLink {
                path,
                width: width.clamp(1.0, COLUMN_WIDTH / 2.5),
                title,
                class: "sankey-link-left",
            });
        }
        let to = self.column(&flow.to)?;
        let x2 = to as f64 * COLUMN_WIDTH + COLUMN_WIDTH / 2.0 - NODE_WIDTH / 2.0;
        let used = self.into.entry(to).or_default();
        let y2 = TOP_Y + *used + width / 2.0;
        *used += width;
        let bend = if to == from + 1 { 0.0 } else { FLOW_HEIGHT * 0.55 };
        let middle = f64::midpoint(x1, x2);
        let path = if bend == 0.0 {
            format!("M{x1:.1} {y1:.1}C{middle:.1} {y1:.1} {middle:.1} {y2:.1} {x2:.1} {y2:.1}")
        } else {
            let (low1, low2) = (y1 + bend, y2 + bend);
            format!(
                "M{x1:.1} {y1:.1}C{:.1} {low1:.1} {:.1} {low2:.1} {x2:.1} {y2:.1}",
                x1 + COLUMN_WIDTH / 2.0,
                x2 - COLUMN_WIDTH / 2.0
            )
        };
        Some(SankeyLink { path, width: width.max(1.0), title, class: "sankey-link" })
    }

    fn nodes(&self, flows: &[&FlowEdge]) -> Vec<SankeyNode> {
        let mut places: Vec<(usize, &FlowNode)> = Vec::new();
        for flow in flows {
            for place in [&flow.from, &flow.to] {
                if let Some(column) = self.column(place)
                    && !places.iter().any(|(known, _)| *known == column)
                {
                    places.push((column, place));
                }
            }
        }
        places.sort_by_key(|(column, _)| *column);
        let node = |(column, place): (usize, &FlowNode)| {
            let through = |side: &HashMap<usize, f64>| side.get(&column).copied().unwrap_or(0.0);
            let height = through(&self.out).max(through(&self.into)).max(2.0);
            let (class, label) = match place {
                FlowNode::Start => ("node-start", "Start".to_owned()),
                FlowNode::End => ("node-end", "Completed".to_owned()),
                FlowNode::Step(..) | FlowNode::DropOff => ("node-step", format!("Step {column}")),
            };
            let count = (height / self.scale).round();
            let title = format!("{}: {count}", name(place));
            let x = column as f64 * COLUMN_WIDTH + COLUMN_WIDTH / 2.0 - NODE_WIDTH / 2.0;
            SankeyNode { x, y: TOP_Y, height, class, label, title, label_y: EXIT_Y + 26.0 }
        };
        places.into_iter().map(node).collect()
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::Timestamp;
    use waypost_core::id::StepId;

    use super::*;

    #[test]
    fn axis_maxima_are_rounded_up() {
        assert_eq!([1, 2, 3, 5, 6, 11, 99, 501].map(round_up), [1, 2, 5, 5, 10, 20, 100, 1_000]);
    }

    #[test]
    fn lines_stay_within_the_chart() {
        let day = |at, active| PeriodTotals { at: Timestamp(at), started: 1, completed: 0, active };
        let chart = lines(&[day(0, 3), day(1, 5)]);
        assert_eq!((chart.top, chart.lines[0].path.as_str()), (5, "M0.0 96.0L1000.0 0.0"));
        assert_eq!(lines(&[day(0, 1)]).lines[0].path, "M0.0 0.0h1000");
        assert_eq!(lines(&[]).top, 1);
    }

    #[test]
    fn every_flow_becomes_a_link() {
        let step = |n: u8| FlowNode::Step(StepId::from_store(format!("ws_{n}")), format!("Step <{n}>"));
        let flow = |from: FlowNode, to: FlowNode, count| FlowEdge { from, to, count };
        let flows = [
            flow(FlowNode::Start, step(1), 3),
            flow(step(1), step(2), 2),
            flow(step(1), FlowNode::DropOff, 1),
            flow(step(2), FlowNode::End, 2),
        ];
        let chart = sankey(&flows, &["ws_1".to_owned(), "ws_2".to_owned()]).unwrap();
        assert_eq!((chart.links.len(), chart.nodes.len(), chart.is_truncated), (4, 4, false));
        assert_eq!(chart.nodes[1].title, "Step <1>: 3");
        assert!(sankey(&[], &[]).is_none());
    }
}
