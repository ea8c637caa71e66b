//! Computes medians of legs, compares them with the targets, and builds the JSON document of the results.

use serde::Serialize;
use serde_json::{Value, json};

use crate::content::{LONG, SHORT};
use crate::contestants::Kind;
use crate::leg::{Leg, median};
use crate::mcp::Era;
use crate::plan::Op;
use crate::report::Findings;
use crate::settings::EditSize;

/// Medians over all rounds of one kind of leg.
#[derive(Debug, Clone, Serialize)]
pub struct Medians {
    /// Section of the run.
    pub section: &'static str,
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Protocol era.
    pub era: Era,
    /// Measured operation.
    pub op: Op,
    /// Number of parallel connections.
    pub connections: usize,
    /// Number of steps of the walkthrough.
    pub steps: u32,
    /// Number of seeded progress rows.
    pub seeded_rows: Option<u32>,
    /// Whether the users sent tokens.
    pub signed_in: bool,
    /// Number of rounds.
    pub rounds: usize,
    /// Calls per second.
    pub calls_per_second: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile of the latency.
    pub p99_us: f64,
    /// CPU time of the server per call.
    pub server_cpu_us: f64,
    /// CPU time of PostgreSQL per call.
    pub database_cpu_us: Option<f64>,
    /// Median ratio of calls per second to those of the floor in the same round.
    pub to_floor: Option<f64>,
    /// Median ratio of calls per second to those of the peer's legacy leg in the same round.
    pub to_peer: Option<f64>,
}

/// A performance target.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// Description.
    pub what: String,
    /// Measured value; `None` if the measurement was skipped.
    pub measured: Option<f64>,
    /// Unit of both values.
    pub unit: &'static str,
    /// Whether the target is a lower bound.
    pub at_least: bool,
    /// Target value.
    pub target: f64,
    /// Whether the target is met.
    pub met: Option<bool>,
}

/// Converts the results to a JSON document.
pub fn json(findings: &Findings) -> Value {
    json!({
        "environment": findings.environment,
        "settings": findings.settings,
        "targets": targets(findings),
        "medians": medians(findings),
        "sizes": findings.sizes,
        "memory": findings.memory,
        "starts": findings.starts,
        "analytics": findings.analytics,
        "listings": findings.listings,
        "editing": findings.editing,
        "legs": findings.legs,
    })
}

/// Returns the medians of the repeated legs, in the order of their first run.
pub fn medians(findings: &Findings) -> Vec<Medians> {
    let mut groups: Vec<Vec<&Leg>> = Vec::new();
    for leg in findings.legs.iter().filter(|leg| leg.section != "warm-up") {
        match groups.iter_mut().find(|group| is_same_kind(group[0], leg)) {
            Some(group) => group.push(leg),
            None => groups.push(vec![leg]),
        }
    }
    groups.into_iter().map(|group| group_medians(findings, &group)).collect()
}

fn is_same_kind(a: &Leg, b: &Leg) -> bool {
    (a.section, a.kind, a.era, a.op, a.connections) == (b.section, b.kind, b.era, b.op, b.connections)
        && (a.steps, a.seeded_rows, a.signed_in) == (b.steps, b.seeded_rows, b.signed_in)
}

fn group_medians(findings: &Findings, group: &[&Leg]) -> Medians {
    let first = group[0];
    let median_of = |value: fn(&Leg) -> f64| median(group.iter().map(|leg| value(leg)).collect()).unwrap_or_default();
    let database = first.database_cpu_us.is_some().then(|| median_of(|leg| leg.database_cpu_us.unwrap_or_default()));
    Medians {
        section: first.section,
        contestant: first.contestant,
        era: first.era,
        op: first.op,
        connections: first.connections,
        steps: first.steps,
        seeded_rows: first.seeded_rows,
        signed_in: first.signed_in,
        rounds: group.len(),
        calls_per_second: median_of(|leg| leg.calls_per_second),
        p50_us: median_of(|leg| leg.p50_us as f64),
        p99_us: median_of(|leg| leg.p99_us as f64),
        server_cpu_us: median_of(|leg| leg.server_cpu_us),
        database_cpu_us: database,
        to_floor: ratio(findings, group, Kind::Floor, first.era, |leg| leg.calls_per_second),
        to_peer: ratio(findings, group, Kind::Peer, Era::Legacy, |leg| leg.calls_per_second),
    }
}

/// Returns the median over all rounds of the ratio of `value` to the `value` of `other` in the same round.
fn ratio(findings: &Findings, group: &[&Leg], other: Kind, era: Era, value: fn(&Leg) -> f64) -> Option<f64> {
    let ratios = group.iter().filter(|leg| leg.kind != other).filter_map(|leg| {
        let reference = findings.legs.iter().find(|reference| {
            (reference.kind, reference.era, reference.section, reference.round) == (other, era, leg.section, leg.round)
                && (reference.op, reference.connections, reference.steps) == (leg.op, leg.connections, leg.steps)
        })?;
        Some(value(leg) / value(reference))
    });
    median(ratios.collect())
}

impl Target {
    /// Returns a target that is met if at least `target` was measured.
    pub fn at_least(what: String, measured: Option<f64>, unit: &'static str, target: f64) -> Self {
        Self { what, measured, unit, at_least: true, target, met: measured.map(|value| value >= target) }
    }

    /// Returns a target that is met if at most `target` was measured.
    pub fn at_most(what: String, measured: Option<f64>, unit: &'static str, target: f64) -> Self {
        Self { what, measured, unit, at_least: false, target, met: measured.map(|value| value <= target) }
    }
}

/// Returns all targets with their measured values.
pub fn targets(findings: &Findings) -> Vec<Target> {
    let mut targets = Vec::new();
    throughput_targets(findings, &mut targets);
    single_connection_targets(findings, &mut targets);
    statement_targets(findings, &mut targets);
    token_targets(findings, &mut targets);
    growth_targets(findings, &mut targets);
    editing_targets(findings, &mut targets);
    other_targets(findings, &mut targets);
    targets
}

/// Returns the legs of the sections `throughput` and `single` with this contestant, era, operation and number of
/// connections.
fn find_legs(findings: &Findings, kind: Kind, era: Era, op: Op, connections: usize) -> Vec<&Leg> {
    let is_match = |leg: &&Leg| {
        ["throughput", "single"].contains(&leg.section)
            && (leg.kind, leg.era, leg.op, leg.connections) == (kind, era, op, connections)
    };
    findings.legs.iter().filter(is_match).collect()
}

fn throughput_targets(findings: &Findings, targets: &mut Vec<Target>) {
    for era in Era::ALL {
        let legs = find_legs(findings, Kind::Sqlite, era, Op::Next, 64);
        let name = format!("next, SQLite, 64 connections, {}", era.name());
        let to_floor = ratio(findings, &legs, Kind::Floor, era, |leg| leg.calls_per_second);
        targets.push(Target::at_least(format!("{name}: calls/s relative to the floor"), to_floor, "×", 0.33));
        let p99 = median(legs.iter().map(|leg| leg.p99_us as f64 / 1e3).collect());
        targets.push(Target::at_most(format!("{name}: p99"), p99, "ms", 50.0));
    }
    let legs = find_legs(findings, Kind::Postgres, Era::Legacy, Op::Next, 64);
    let name = "next, PostgreSQL, 64 connections, legacy";
    let to_peer = ratio(findings, &legs, Kind::Peer, Era::Legacy, |leg| leg.calls_per_second);
    targets.push(Target::at_least(format!("{name}: calls/s relative to the peer"), to_peer, "×", 4.0));
    let p99 = ratio(findings, &legs, Kind::Peer, Era::Legacy, |leg| leg.p99_us as f64);
    targets.push(Target::at_most(format!("{name}: p99 relative to the peer"), p99, "×", 1.0));
}

fn single_connection_targets(findings: &Findings, targets: &mut Vec<Target>) {
    for era in Era::ALL {
        let legs = find_legs(findings, Kind::Sqlite, era, Op::Next, 1);
        let p50 = median(legs.iter().map(|leg| leg.p50_us as f64 / 1e3).collect());
        targets.push(Target::at_most(format!("next, SQLite, one connection, {}: p50", era.name()), p50, "ms", 0.35));
    }
    for (op, target) in [(Op::Next, 1.3), (Op::Select, 1.0), (Op::List, 1.0)] {
        let legs = find_legs(findings, Kind::Postgres, Era::Legacy, op, 1);
        let to_peer = ratio(findings, &legs, Kind::Peer, Era::Legacy, |leg| leg.calls_per_second);
        let what = format!("{}, PostgreSQL, one connection, legacy: calls/s relative to the peer", op.name());
        targets.push(Target::at_least(what, to_peer, "×", target));
    }
    for op in [Op::Next, Op::List, Op::Select, Op::Status] {
        let p99 = |era| {
            let legs = find_legs(findings, Kind::Sqlite, era, op, 1);
            median(legs.iter().map(|leg| leg.p99_us as f64 / 1e3).collect())
        };
        let worst = Era::ALL.into_iter().filter_map(p99).reduce(f64::max);
        let what = format!("{}, SQLite, one connection, both eras: p99", op.name());
        targets.push(Target::at_most(what, worst, "ms", 10.0));
    }
}

fn statement_targets(findings: &Findings, targets: &mut Vec<Target>) {
    let median_of = |kind: Kind, value: &dyn Fn(&Leg) -> Option<f64>| {
        let legs = findings.legs.iter().filter(|leg| leg.kind == kind && leg.op == Op::Next && leg.connections == 64);
        median(legs.filter(|leg| leg.section == "throughput").filter_map(value).collect())
    };
    let rows = |leg: &Leg| leg.writer.map(|writer| (writer.statements - 2.0 * writer.groups) / writer.calls);
    targets.push(Target::at_most(
        "statements per advance, SQLite, without BEGIN and COMMIT".to_owned(),
        median_of(Kind::Sqlite, &rows),
        "",
        5.0,
    ));
    // Counted by PostgreSQL if possible. Includes polls for changed settings: a few hundredths of a statement per
    // advance.
    let advances = |leg: &Leg| {
        let counted = leg.statements.map(|counts| counts.statements as f64 / leg.advances as f64);
        counted.or(leg.writer.map(|writer| writer.statements / writer.calls))
    };
    let what = "statements per advance, PostgreSQL, without BEGIN and COMMIT";
    targets.push(Target::at_most(what.to_owned(), median_of(Kind::Postgres, &advances), "", 5.05));
    let commits = |leg: &Leg| leg.statements.map(|counts| counts.commits as f64 / leg.advances as f64);
    targets.push(Target::at_most(
        "commits per advance, PostgreSQL".to_owned(),
        median_of(Kind::Postgres, &commits),
        "",
        1.05,
    ));
}

fn token_targets(findings: &Findings, targets: &mut Vec<Target>) {
    for (kind, name) in [(Kind::Sqlite, "SQLite"), (Kind::Postgres, "PostgreSQL")] {
        let legs: Vec<&Leg> = findings.legs.iter().filter(|leg| leg.section == "token" && leg.kind == kind).collect();
        let ratios = legs.iter().filter(|leg| leg.signed_in).filter_map(|with| {
            let without = legs.iter().find(|leg| !leg.signed_in && leg.round == with.round)?;
            Some(with.calls_per_second / without.calls_per_second)
        });
        targets.push(Target::at_least(
            format!("next, {name}, 64 connections, modern: calls/s with a token relative to without"),
            median(ratios.collect()),
            "×",
            0.9,
        ));
    }
}

fn growth_targets(findings: &Findings, targets: &mut Vec<Target>) {
    let medians = medians(findings);
    let cost = |row: &Medians| row.server_cpu_us + row.database_cpu_us.unwrap_or_default();
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let find = |section: &str, steps: u32, rows: Option<u32>| {
            medians.iter().find(|row| {
                (row.contestant, row.section, row.steps, row.seeded_rows) == (kind.name(), section, steps, rows)
            })
        };
        let [few, many] = findings.settings.growth_rows;
        let pairs = [
            (
                format!("{} to {} steps", SHORT.steps, LONG.steps),
                find("steps", SHORT.steps, None),
                find("steps", LONG.steps, None),
            ),
            (
                format!("{few} to {many} progress rows"),
                find("rows", LONG.steps, Some(few)),
                find("rows", LONG.steps, Some(many)),
            ),
        ];
        for (what, small, large) in pairs {
            let pair = small.zip(large);
            let cpu = pair.map(|(small, large)| cost(large) / cost(small));
            targets.push(Target::at_most(format!("{}, {what}: CPU per call", kind.name()), cpu, "×", 1.3));
            let p50 = pair.map(|(small, large)| large.p50_us / small.p50_us);
            targets.push(Target::at_most(format!("{}, {what}: p50", kind.name()), p50, "×", 1.3));
        }
    }
}

fn editing_targets(findings: &Findings, targets: &mut Vec<Target>) {
    let EditSize { steps, step_bytes, chain, .. } = findings.settings.editing;
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let name = kind.name();
        let editing = findings.editing.iter().find(|editing| editing.contestant == name);
        let large = format!("{steps} steps of {} KB", step_bytes / 1_000);
        let rows = [
            (format!("change one field, {large}"), editing.map(|editing| editing.patch_ms), 2.0),
            (format!("poll with nothing new, {large}"), editing.map(|editing| editing.poll_ms), 1.0),
            (format!("insert a step among {chain}"), editing.map(|editing| editing.insert_ms), 2.0),
            (format!("move a step among {chain}"), editing.map(|editing| editing.move_ms), 2.0),
        ];
        for (what, p50, target) in rows {
            targets.push(Target::at_most(format!("{name}: {what}: p50"), p50, "ms", target));
        }
    }
}

fn other_targets(findings: &Findings, targets: &mut Vec<Target>) {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let name = kind.name();
        let start =
            findings.starts.iter().find(|start| start.contestant == name).map(|start| start.median_seconds * 1e3);
        targets.push(Target::at_most(format!("{name}: start to listening, existing database"), start, "ms", 100.0));
        let page = findings.analytics.iter().find(|page| page.contestant == name);
        let events = page.map_or(findings.settings.analytics_events, |page| page.events);
        let seconds = page.map(|page| page.median_seconds);
        targets.push(Target::at_most(format!("{name}: the analytics page over {events} events"), seconds, "s", 1.0));
        let listing = findings.listings.iter().find(|listing| listing.contestant == name);
        let size = findings.settings.listing;
        let what = format!("{name}: list of {} walkthroughs with {} steps", size.walkthroughs, size.steps);
        targets.push(Target::at_most(format!("{what}: p50"), listing.map(|listing| listing.list_ms), "ms", 5.0));
        let grown = listing.map(|listing| listing.grown_bytes as f64 / 1e6);
        targets.push(Target::at_most(format!("{what}: growth of resident memory"), grown, "MB", 10.0));
        let memory = findings.memory.iter().find(|memory| memory.contestant == name);
        let calls = memory.map_or(findings.settings.memory_calls, |memory| memory.calls);
        let resident = memory.map(|memory| memory.resident_bytes as f64 / 1e6);
        targets.push(Target::at_most(format!("{name}: resident memory after {calls} calls"), resident, "MB", 60.0));
    }
    let sizes = findings.sizes.first();
    let list = sizes.map(|sizes| sizes.tools_list_bytes as f64);
    targets.push(Target::at_most("tools/list of the guided toolset".to_owned(), list, "bytes", 8192.0));
    let untyped = sizes.map(|sizes| sizes.untyped_members.len() as f64);
    targets.push(Target::at_most("tools/list: members without a type".to_owned(), untyped, "", 0.0));
    let fixed = sizes.map(|sizes| sizes.fixed_text_bytes as f64);
    targets.push(Target::at_most("fixed text around a step".to_owned(), fixed, "bytes", 450.0));
}
