//! The tables of the gateway.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::leg::{Leg, Load};
use super::upstream::TOOLS;
use super::{DIRECT, Findings, RELAY, WAYPOST};
use crate::leg::median;
use crate::mcp::Era;
use crate::summary::Target;
use crate::table;

/// Describes a measurement in one line.
pub fn describe(leg: &Leg) -> String {
    format!(
        "{}, {}: {:.0} calls/s, p50 {} µs, p99 {} µs, {:.0} µs CPU, {} errors",
        leg.contestant,
        describe_load(leg.load),
        leg.calls_per_second(),
        leg.report.p50_us,
        leg.report.p99_us,
        leg.cpu_us,
        leg.report.errors
    )
}

fn describe_load(load: Load) -> String {
    let rate = load.rate.map_or(String::new(), |rate| format!(" at {rate:.0}/s"));
    format!("{} {} x{}{rate}", load.era.name(), TOOLS[load.tool].0, load.agents)
}

/// Renders the results as text.
pub fn render(findings: &Findings) -> String {
    let environment = &findings.environment;
    let mut text = format!(
        "\n{}, {} cores, Linux {}, profile {}\n",
        environment.processor, environment.cores, environment.kernel, findings.profile
    );
    if findings.amounts.smoke {
        text.push_str("This is a smoke run: the counts are too small for meaningful numbers.\n");
    }
    let _ = writeln!(text, "{}", table::grid(&measured_rows(findings)));
    let _ = writeln!(text, "{}", table::grid(&table::target_rows(&targets(findings))));
    let (on, off) = findings.resident;
    let _ = write!(
        text,
        "resident memory of `serve`: {:.1} MB, {:.1} MB with the gateway off",
        on as f64 / 1e6,
        off as f64 / 1e6
    );
    text
}

/// Returns the results as JSON.
pub fn json(findings: &Findings) -> Value {
    json!({ "findings": findings, "targets": targets(findings) })
}

impl Findings {
    fn find(&self, contestant: &str, load: Load) -> impl Iterator<Item = &Leg> {
        self.legs.iter().filter(move |leg| leg.contestant == contestant && leg.load == load)
    }

    /// Returns the median of a value over all rounds.
    fn median(&self, contestant: &str, load: Load, value: impl Fn(&Leg) -> f64) -> Option<f64> {
        median(self.find(contestant, load).map(value).collect())
    }

    /// Returns the number of failed calls of all rounds.
    fn errors(&self, contestant: &str, load: Load) -> Option<u64> {
        self.find(contestant, load).map(|leg| leg.report.errors).reduce(|sum, errors| sum + errors)
    }

    /// Returns the loads in the order in which they were measured.
    fn loads(&self) -> Vec<Load> {
        let mut loads: Vec<Load> = Vec::new();
        for leg in &self.legs {
            if !loads.contains(&leg.load) {
                loads.push(leg.load);
            }
        }
        loads
    }

    /// Returns the contestants in the order in which they were measured.
    fn contestants(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for leg in &self.legs {
            if !names.contains(&leg.contestant.as_str()) {
                names.push(&leg.contestant);
            }
        }
        names
    }
}

fn measured_rows(findings: &Findings) -> Vec<Vec<String>> {
    let header = [
        "",
        "era",
        "result",
        "agents",
        "rate",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "CPU µs",
        "errors",
        "× relay",
        "× relay CPU",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for load in findings.loads() {
        for name in findings.contestants() {
            let of = |name: &str, value: fn(&Leg) -> f64| findings.median(name, load, value);
            let Some(speed) = of(name, Leg::calls_per_second) else { continue };
            let number = |value: Option<f64>, digits| value.map_or(String::new(), |value| format!("{value:.digits$}"));
            let to_relay = |value: fn(&Leg) -> f64| Some(of(name, value)? / of(RELAY, value)?);
            rows.push(vec![
                name.to_owned(),
                load.era.name().to_owned(),
                TOOLS[load.tool].1.to_string(),
                load.agents.to_string(),
                load.rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")),
                format!("{speed:.0}"),
                number(of(name, |leg| leg.report.p50_us as f64 / 1e3), 2),
                number(of(name, |leg| leg.report.p99_us as f64 / 1e3), 2),
                number(of(name, |leg| leg.cpu_us), 0),
                findings.errors(name, load).unwrap_or_default().to_string(),
                number(to_relay(Leg::calls_per_second), 2),
                number(to_relay(|leg| leg.cpu_us), 2),
            ]);
        }
    }
    rows
}

/// Returns the targets with the measured values.
fn targets(findings: &Findings) -> Vec<Target> {
    let mut targets = Vec::new();
    for era in Era::ALL {
        targets.extend(targets_of_calls(findings, era));
    }
    targets.extend(target_of_peers(findings));
    let slowest = findings.announcements.iter().copied().reduce(f64::max);
    targets.push(Target::at_most(
        "from an approval until a connected agent is told: maximum".to_owned(),
        slowest,
        "s",
        2.0,
    ));
    let mut lists = findings.lists.clone();
    lists.sort_by(f64::total_cmp);
    let p95 = lists.get(lists.len() * 95 / 100).map(|seconds| seconds * 1e3);
    targets.push(Target::at_most("tools/list of 500 tools of 20 servers, 2 dead: p95".to_owned(), p95, "ms", 20.0));
    let (on, off) = findings.resident;
    let difference = Some((on as f64 - off as f64) / 1e6);
    targets.push(Target::at_most("resident memory above that with the gateway off".to_owned(), difference, "MB", 10.0));
    let per_agent = Some(findings.resident_per_agent / 1e3);
    targets.push(Target::at_most("resident memory per idle agent with a stream".to_owned(), per_agent, "kB", 40.0));
    targets
}

/// Returns the comparison with the best of the other gateways, if any were measured.
fn target_of_peers(findings: &Findings) -> Option<Target> {
    let load = Load { era: Era::Legacy, tool: 0, agents: findings.amounts.agents[1], rate: None };
    let speed = |name: &str| findings.median(name, load, Leg::calls_per_second);
    let is_peer = |name: &&str| ![DIRECT, RELAY, WAYPOST].contains(name);
    let best = findings.contestants().into_iter().filter(is_peer).filter_map(speed).max_by(f64::total_cmp)?;
    let ratio = Some(speed(WAYPOST)? / best);
    let text = format!("legacy: calls/s of {} agents relative to the best other gateway", load.agents);
    Some(Target::at_least(text, ratio, "×", 2.0))
}

fn targets_of_calls(findings: &Findings, era: Era) -> Vec<Target> {
    let [one, some, many] = findings.amounts.agents;
    let load = |agents, rate| Load { era, tool: 0, agents, rate };
    let of = |name: &str, load, value: fn(&Leg) -> f64| findings.median(name, load, value);
    let of_relay =
        |value: fn(&Leg) -> f64| Some(of(WAYPOST, load(some, None), value)? / of(RELAY, load(some, None), value)?);
    let added = |value: fn(&Leg) -> f64| {
        Some((of(WAYPOST, load(one, None), value)? - of(DIRECT, load(one, None), value)?) / 1e3)
    };
    let rate = Some(super::RATE);
    let p99 = |agents| of(WAYPOST, load(agents, rate), |leg| leg.report.p99_us as f64);
    let p99_ratio = || Some(p99(many)? / p99(some)?);
    let errors = || Some(findings.errors(WAYPOST, load(many, None))? + findings.errors(WAYPOST, load(many, rate))?);
    let era = era.name();
    let speed = of_relay(Leg::calls_per_second);
    vec![
        Target::at_least(format!("{era}: calls/s of {some} agents relative to the bare relay"), speed, "×", 0.6),
        Target::at_most(
            format!("{era}: CPU per call of {some} agents relative to the bare relay"),
            of_relay(|leg| leg.cpu_us),
            "×",
            1.7,
        ),
        Target::at_most(
            format!("{era}: p50 of one agent above that of direct calls"),
            added(|leg| leg.report.p50_us as f64),
            "ms",
            0.15,
        ),
        Target::at_most(
            format!("{era}: p99 of one agent above that of direct calls"),
            added(|leg| leg.report.p99_us as f64),
            "ms",
            1.0,
        ),
        Target::at_most(format!("{era}: errors with {many} agents"), errors().map(|errors| errors as f64), "", 0.0),
        Target::at_most(
            format!("{era}: p99 of {many} agents relative to {some}, at {:.0} calls/s", super::RATE),
            p99_ratio(),
            "×",
            3.0,
        ),
    ]
}
