//! The history of an instance's resource usage, as charts.

use std::fmt::Write;

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use waypost_core::{Code, Timestamp};
use waypost_ops::instances::stats;
use waypost_toolbox_proto::http::StatsSample;

use super::{InstanceContext, InstanceHeader};
use crate::Console;
use crate::layout::Layout;
use crate::live::bytes;
use crate::view::{self, PageResult};

/// The width of a chart in user units. The page scales the chart.
const WIDTH: f64 = 1_000.0;
/// The height of a chart in user units.
const HEIGHT: f64 = 240.0;
/// The periods that can be selected: hours and label.
const PERIODS: [(u32, &str); 3] = [(1, "Last hour"), (24, "Last 24 hours"), (168, "Last 7 days")];
/// The number of average intervals between two samples above which there is a gap in the lines.
const GAP_INTERVALS: i64 = 4;
/// The maximum number of rows in the table.
const MAX_ROWS: usize = 60;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryQuery {
    hours: String,
}

/// A period to select.
struct Period {
    href: String,
    label: &'static str,
    is_current: bool,
}

/// A line of a chart.
struct Line {
    label: &'static str,
    class: &'static str,
    path: String,
    /// The latest value.
    now: String,
}

/// A chart of one measure.
struct Chart {
    id: &'static str,
    title: &'static str,
    /// The maximum of the value axis.
    top: String,
    lines: Vec<Line>,
}

/// A row of the table.
struct Row {
    at: String,
    cpu: String,
    memory: String,
    received: String,
    sent: String,
    pids: u64,
}

#[derive(Template)]
#[template(path = "instances/history.html")]
struct HistoryPage {
    layout: Layout,
    header: InstanceHeader,
    periods: Vec<Period>,
    charts: Vec<Chart>,
    rows: Vec<Row>,
    /// The times of the first and the last sample.
    ends: Option<(String, String)>,
    /// The reason why there are no samples, if the toolbox returned an error.
    problem: Option<String>,
}

/// A sample with the network traffic per second since the previous one.
#[derive(Clone, Copy)]
struct Point {
    sample: StatsSample,
    received: f64,
    sent: f64,
}

/// Returns the samples with the traffic per second between them. The counters of a new container start at zero again.
fn points(samples: &[StatsSample]) -> Vec<Point> {
    let mut previous: Option<StatsSample> = None;
    let mut points = Vec::with_capacity(samples.len());
    for sample in samples {
        let rate = |value: fn(&StatsSample) -> u64| {
            let before = previous.as_ref()?;
            let seconds = (sample.at - before.at) as f64 / 1_000.0;
            let bytes = value(sample).checked_sub(value(before)).unwrap_or_else(|| value(sample));
            (seconds > 0.0).then(|| bytes as f64 / seconds)
        };
        let received = rate(|sample| sample.network_received_bytes).unwrap_or(0.0);
        let sent = rate(|sample| sample.network_sent_bytes).unwrap_or(0.0);
        points.push(Point { sample: *sample, received, sent });
        previous = Some(*sample);
    }
    points
}

/// Rounds up to the next value of the series 1, 2, 5, 10, 20, 50 … times `unit`.
fn round_up(most: f64, unit: f64) -> f64 {
    let mut scale = unit;
    while scale < f64::MAX / 10.0 {
        for step in [1.0, 2.0, 5.0] {
            if scale * step >= most {
                return scale * step;
            }
        }
        scale *= 10.0;
    }
    most
}

/// Rounds up to a power of two.
fn round_up_bytes(most: f64) -> f64 {
    let mut top = 1_024.0;
    while top < most {
        top *= 2.0;
    }
    top
}

fn path(points: &[Point], top: f64, value: impl Fn(&Point) -> f64) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let span = (last.sample.at - first.sample.at).max(1);
    let interval = span / i64::try_from(points.len()).unwrap_or(i64::MAX).max(1);
    let mut path = String::new();
    let mut previous: Option<i64> = None;
    for point in points {
        let at = point.sample.at;
        let x = (at - first.sample.at) as f64 / span as f64 * WIDTH;
        let y = HEIGHT - HEIGHT * (value(point) / top).clamp(0.0, 1.0);
        let is_connected = previous.is_some_and(|previous| at - previous <= interval * GAP_INTERVALS);
        let _ = write!(path, "{}{x:.1} {y:.1}", if is_connected { "L" } else { "M" });
        previous = Some(at);
    }
    if points.len() == 1 {
        // A single sample is drawn as a horizontal line.
        let _ = write!(path, "h{WIDTH}");
    }
    path
}

fn percent(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}%") } else { format!("{value:.0}%") }
}

fn rate(value: f64) -> String {
    // Rates are not negative, and the cast saturates.
    format!("{}/s", bytes(value.max(0.0) as u64))
}

fn charts(points: &[Point]) -> Vec<Chart> {
    let max = |value: fn(&Point) -> f64| points.iter().map(value).fold(0.0, f64::max);
    let last = points.last();
    let cpu: fn(&Point) -> f64 = |point| point.sample.cpu_percent;
    let memory: fn(&Point) -> f64 = |point| point.sample.memory_bytes as f64;
    let received: fn(&Point) -> f64 = |point| point.received;
    let sent: fn(&Point) -> f64 = |point| point.sent;
    let pids: fn(&Point) -> f64 = |point| point.sample.pids as f64;
    let line = |label, class, top: f64, value: fn(&Point) -> f64, format: fn(f64) -> String| Line {
        label,
        class,
        path: path(points, top, value),
        now: last.map(|point| format(value(point))).unwrap_or_default(),
    };
    let cpu_top = round_up(max(cpu), 1.0);
    let memory_top = round_up_bytes(max(memory));
    let network_top = round_up_bytes(max(received).max(max(sent)));
    let pids_top = round_up(max(pids), 1.0);
    let size: fn(f64) -> String = |value| bytes(value as u64);
    let count: fn(f64) -> String = |value| format!("{value:.0}");
    vec![
        Chart {
            id: "cpu",
            title: "CPU, in percent of one CPU",
            top: percent(cpu_top),
            lines: vec![line("CPU", "line-started", cpu_top, cpu, percent)],
        },
        Chart {
            id: "memory",
            title: "Memory",
            top: size(memory_top),
            lines: vec![line("Memory", "line-started", memory_top, memory, size)],
        },
        Chart {
            id: "network",
            title: "Network",
            top: rate(network_top),
            lines: vec![
                line("Received", "line-started", network_top, received, rate),
                line("Sent", "line-completed", network_top, sent, rate),
            ],
        },
        Chart {
            id: "processes",
            title: "Processes",
            top: count(pids_top),
            lines: vec![line("Processes", "line-started", pids_top, pids, count)],
        },
    ]
}

fn rows(points: &[Point]) -> Vec<Row> {
    let step = points.len().div_ceil(MAX_ROWS).max(1);
    // The latest sample is always shown.
    let shown = points.iter().rev().step_by(step);
    let row = |point: &Point| Row {
        at: Timestamp(point.sample.at).rfc3339(),
        cpu: percent(point.sample.cpu_percent),
        memory: bytes(point.sample.memory_bytes),
        received: rate(point.received),
        sent: rate(point.sent),
        pids: point.sample.pids,
    };
    shown.map(row).collect()
}

pub(super) async fn show(
    State(console): State<Console>,
    at: InstanceContext,
    Query(query): Query<HistoryQuery>,
) -> PageResult {
    let hours = query.hours.parse().ok().filter(|hours| PERIODS.iter().any(|(known, _)| known == hours)).unwrap_or(24);
    let (samples, problem) = match stats::list(&at.cx, console.ops(), &at.organization_id, at.id()).await {
        Ok(samples) => (samples, None),
        // The toolbox is offline or does not know the instance yet. The page shows the reason.
        Err(error) if matches!(error.code, Code::Unavailable | Code::Conflict) => (Vec::new(), Some(error.message)),
        Err(error) => return Err(at.page_error(error)),
    };
    let since = at.cx.now().plus(-i64::from(hours) * 60 * 60 * 1_000);
    let mut points = points(&samples);
    points.retain(|point| point.sample.at >= since.0);
    let time = |point: &Point| Timestamp(point.sample.at).rfc3339();
    let period = |(own, label): (u32, &'static str)| Period {
        href: at.path(&format!("history?hours={own}")),
        label,
        is_current: own == hours,
    };
    Ok(view::page(&HistoryPage {
        header: at.header("history"),
        periods: PERIODS.into_iter().map(period).collect(),
        charts: if points.is_empty() { Vec::new() } else { charts(&points) },
        rows: rows(&points),
        ends: points.first().zip(points.last()).map(|(first, last)| (time(first), time(last))),
        problem,
        layout: at.layout,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: i64, received: u64) -> StatsSample {
        StatsSample {
            at,
            cpu_percent: at as f64 / 1_000.0,
            memory_bytes: 1 << 20,
            network_received_bytes: received,
            network_sent_bytes: 0,
            pids: 3,
        }
    }

    #[test]
    fn traffic_is_shown_per_second() {
        let points = points(&[sample(0, 500), sample(2_000, 2_500), sample(4_000, 100)]);
        let received: Vec<_> = points.iter().map(|point| point.received).collect();
        assert_eq!(received, [0.0, 1_000.0, 50.0], "a new container starts at zero");
    }

    #[test]
    fn lines_stay_within_the_chart_and_end_at_gaps() {
        let all = points(&[sample(0, 0), sample(1_000, 0), sample(2_000, 0), sample(90_000, 0)]);
        let cpu = |point: &Point| point.sample.cpu_percent;
        assert_eq!(path(&all[..3], 2.0, cpu), "M0.0 240.0L500.0 120.0L1000.0 0.0");
        assert_eq!(path(&all, 90.0, cpu).matches('M').count(), 1);
        let with_gap = points(&(0..20).map(|n| sample(if n < 10 { n } else { n + 10_000 }, 0)).collect::<Vec<_>>());
        assert_eq!(path(&with_gap, 90.0, cpu).matches('M').count(), 2);
        assert_eq!(path(&all[..1], 1.0, cpu), "M0.0 240.0h1000");
        assert_eq!(path(&[], 1.0, cpu), "");
    }

    #[test]
    fn axes_end_at_round_values() {
        assert_eq!([0.0, 1.0, 3.0, 11.0, 101.0].map(|most| round_up(most, 1.0)), [1.0, 1.0, 5.0, 20.0, 200.0]);
        assert_eq!([0.0, 1_025.0].map(round_up_bytes), [1_024.0, 2_048.0]);
        assert!(
            charts(&points(&[sample(0, 0)]))
                .iter()
                .all(|chart| chart.lines.iter().all(|line| line.path.starts_with('M')))
        );
    }

    #[test]
    fn the_table_is_limited() {
        let samples: Vec<_> = (0..1_000).map(|n| sample(n * 1_000, 0)).collect();
        let rows = rows(&points(&samples));
        assert!(rows.len() <= MAX_ROWS);
        assert_eq!(rows[0].at, Timestamp(999_000).rfc3339());
    }
}
