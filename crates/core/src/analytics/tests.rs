//! Compares every metric with a naive implementation of its definition.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::event::EventKind;

/// An event as stored in a table.
#[derive(Debug, Clone, PartialEq)]
struct PlainEvent {
    at: i64,
    kind: EventKind,
    attempt: String,
    user: String,
    version: String,
    step: Option<String>,
    client: Option<String>,
    elapsed: Option<i64>,
    took: Option<i64>,
}

/// The user, version, start time, and actions (pause, action, client) of an attempt.
type AttemptPlan = (u8, u8, i64, Vec<(i64, u8, u8)>);

/// Generates the plan of an attempt.
fn attempt() -> impl Strategy<Value = AttemptPlan> {
    (0..6_u8, 0..3_u8, 0..40_i64, prop::collection::vec((0..30_i64, 0..8_u8, 0..3_u8), 0..12))
}

fn play(attempts: Vec<AttemptPlan>) -> Vec<PlainEvent> {
    let mut events = Vec::new();
    for (number, (user, version, start, actions)) in attempts.into_iter().enumerate() {
        let mut done = BTreeSet::new();
        let mut at = start;
        let mut version = format!("v{version}");
        let mut push = |at, kind, version: &str, step, client: u8, elapsed, took| {
            events.push(PlainEvent {
                at,
                kind,
                attempt: format!("a{number}"),
                user: format!("u{user}"),
                version: version.to_owned(),
                step,
                client: (client > 0).then(|| format!("c{client}")),
                elapsed,
                took,
            });
        };
        let first = if user == 5 { EventKind::Restarted } else { EventKind::Started };
        push(at, first, &version, None, user % 3, None, None);
        for (pause, action, client) in actions {
            at += pause;
            match action {
                6 => push(at, EventKind::Resumed, &version, None, client, Some(pause), None),
                7 => {
                    version = "v9".to_owned();
                    push(at, EventKind::Moved, &version, None, client, Some(pause), None);
                }
                step => {
                    if done.insert(step) {
                        let text = Some(format!("s{step}"));
                        push(at, EventKind::StepCompleted, &version, text, client, Some(pause), None);
                    }
                }
            }
            if done.len() == 4 {
                push(at, EventKind::Completed, &version, None, client, Some(0), Some(at - start));
                break;
            }
        }
    }
    events
}

fn log(plain: &[PlainEvent]) -> Log {
    let mut log = Log::default();
    for event in plain {
        let names = &mut log.names;
        let event = EventRecord {
            at: Timestamp(event.at),
            kind: event.kind,
            attempt: names.intern(&event.attempt),
            user: names.intern(&event.user),
            walkthrough: names.intern("w"),
            version: names.intern(&event.version),
            step: names.intern_optional(event.step.as_deref()),
            client: names.intern_optional(event.client.as_deref()),
            elapsed_ms: event.elapsed.unwrap_or(-1),
            took_ms: event.took.unwrap_or(-1),
        };
        log.events.push(event);
    }
    log
}

fn plain(log: &Log) -> Vec<PlainEvent> {
    let text = |number| log.names.text(number).map(str::to_owned);
    let plain = |event: &EventRecord| PlainEvent {
        at: event.at.0,
        kind: event.kind,
        attempt: text(event.attempt).unwrap(),
        user: text(event.user).unwrap(),
        version: text(event.version).unwrap(),
        step: text(event.step),
        client: text(event.client),
        elapsed: (event.elapsed_ms >= 0).then_some(event.elapsed_ms),
        took: (event.took_ms >= 0).then_some(event.took_ms),
    };
    log.events.iter().map(plain).collect()
}

/// Returns the value at rank ceil(n · percent / 100), counted from 1.
fn nearest_rank(mut values: Vec<i64>, percent: f64) -> Option<i64> {
    values.sort_unstable();
    let rank = (values.len() as f64 * percent / 100.0).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

fn is_start(event: &&PlainEvent) -> bool {
    matches!(event.kind, EventKind::Started | EventKind::Restarted)
}

struct Naive<'a> {
    /// The events in the range.
    events: Vec<&'a PlainEvent>,
    /// The events in the range that match the filter.
    counted: Vec<&'a PlainEvent>,
}

impl<'a> Naive<'a> {
    fn new(all: &'a [PlainEvent], (from, to): (i64, i64), version: Option<&str>, client: Option<&str>) -> Self {
        let events: Vec<&PlainEvent> = all.iter().filter(|event| (from..to).contains(&event.at)).collect();
        let counted = events
            .iter()
            .copied()
            .filter(|event| version.is_none_or(|version| event.version == version))
            .filter(|event| client.is_none_or(|client| event.client.as_deref() == Some(client)))
            .collect();
        Self { events, counted }
    }

    fn cohort(&self) -> BTreeSet<&str> {
        self.counted.iter().copied().filter(is_start).map(|event| event.attempt.as_str()).collect()
    }

    fn overview(&self) -> Overview {
        let cohort = self.cohort();
        let count_with = |kind| {
            let has =
                |attempt: &&&str| self.events.iter().any(|event| event.attempt == **attempt && event.kind == kind);
            cohort.iter().filter(has).count() as u64
        };
        let done: Vec<_> = self.counted.iter().filter(|event| event.kind == EventKind::Completed).collect();
        let times: Vec<i64> = done.iter().map(|event| event.took.unwrap()).collect();
        Overview {
            started: cohort.len() as u64,
            active: self.counted.iter().map(|event| &event.user).collect::<BTreeSet<_>>().len() as u64,
            completed: done.len() as u64,
            started_and_completed: count_with(EventKind::Completed),
            started_and_resumed: count_with(EventKind::Resumed),
            median_ms: nearest_rank(times.clone(), 50.0),
            p90_ms: nearest_rank(times, 90.0),
        }
    }

    fn steps_of(&self, attempt: &str) -> Vec<&PlainEvent> {
        let of = |event: &&PlainEvent| event.attempt == attempt && event.kind == EventKind::StepCompleted;
        self.events.iter().copied().filter(of).collect()
    }

    fn is_completed(&self, attempt: &str) -> bool {
        self.events.iter().any(|event| event.attempt == attempt && event.kind == EventKind::Completed)
    }

    fn is_active(&self, attempt: &str, active_since: i64) -> bool {
        let mut own = self.events.iter().filter(|event| event.attempt == attempt);
        own.clone().any(|event| event.at >= active_since) && own.all(|event| event.kind != EventKind::Reset)
    }

    /// Returns the users who stopped at the step at position `index`.
    fn stopped(&self, steps: &[&str], index: usize, active_since: i64) -> BTreeSet<String> {
        let has =
            |attempt: &str, step: &str| self.steps_of(attempt).iter().any(|event| event.step.as_deref() == Some(step));
        let is_stopped = |attempt: &&str| {
            steps[..index].iter().all(|step| has(attempt, step))
                && !steps[index..].iter().any(|step| has(attempt, step))
                && !self.is_completed(attempt)
                && !self.is_active(attempt, active_since)
        };
        let attempts: Vec<&str> = self.cohort().into_iter().filter(is_stopped).collect();
        self.events
            .iter()
            .filter(|event| attempts.contains(&event.attempt.as_str()))
            .map(|event| event.user.clone())
            .collect()
    }

    fn funnel(&self, steps: &[&str], active_since: i64) -> Funnel {
        let cohort = self.cohort();
        let row = |(index, step): (usize, &&str)| {
            let mut row = FunnelStep::default();
            let mut times = Vec::new();
            for attempt in &cohort {
                let done: Vec<_> = self.steps_of(attempt);
                let has = |step: &str| done.iter().any(|event| event.step.as_deref() == Some(step));
                let before = steps[..index].iter().all(|step| has(step));
                row.completed += u64::from(has(step));
                row.reached += u64::from(has(step) || before);
                let after = steps[index + 1..].iter().any(|step| has(step));
                let stands = before && !has(step) && !after && !self.is_completed(attempt);
                let is_active = self.is_active(attempt, active_since);
                row.dropped += u64::from(stands && !is_active);
                row.active += u64::from(stands && is_active);
                times.extend(
                    done.iter().filter(|event| event.step.as_deref() == Some(*step)).filter_map(|event| event.elapsed),
                );
            }
            row.median_ms = nearest_rank(times.clone(), 50.0);
            row.p90_ms = nearest_rank(times, 90.0);
            row
        };
        Funnel {
            started: cohort.len() as u64,
            completed: cohort.iter().filter(|attempt| self.is_completed(attempt)).count() as u64,
            steps: steps.iter().enumerate().map(row).collect(),
        }
    }

    fn flows(&self) -> BTreeMap<(String, String), u64> {
        let mut links = BTreeMap::new();
        for attempt in self.cohort() {
            let mut places = vec!["start".to_owned()];
            places.extend(self.steps_of(attempt).into_iter().map(|event| event.step.clone().unwrap()));
            places.push(if self.is_completed(attempt) { "end" } else { "left" }.to_owned());
            for pair in places.windows(2) {
                *links.entry((pair[0].clone(), pair[1].clone())).or_default() += 1;
            }
        }
        links
    }
}

fn name(log: &Log, node: FlowPoint) -> String {
    match node {
        FlowPoint::Start => "start".to_owned(),
        FlowPoint::End => "end".to_owned(),
        FlowPoint::DropOff => "left".to_owned(),
        FlowPoint::Step(step) => log.names.text(step).unwrap().to_owned(),
    }
}

proptest! {
    #[test]
    fn metrics_match_the_naive_implementation(
        attempts in prop::collection::vec(attempt(), 0..25),
        (from, length) in (0..60_i64, 1..120_i64),
        active_since in 0..180_i64,
        version in prop::option::of(0..4_u8),
        client in prop::option::of(1..3_u8),
    ) {
        let all = play(attempts);
        let (version, client) = (version.map(|number| format!("v{number}")), client.map(|number| format!("c{number}")));
        let naive = Naive::new(&all, (from, from + length), version.as_deref(), client.as_deref());
        let log = log(&all);
        let range = TimeRange { from: Timestamp(from), to: Timestamp(from + length) };
        let find = |name: &Option<String>| name.as_ref().map(|name| log.names.lookup(name));
        let filter = Filter { version: find(&version), client: find(&client) };
        prop_assert_eq!(overview(&log, range, filter), naive.overview());
        let names = ["s0", "s1", "s2", "s3", "s4", "s5"];
        let steps = names.map(|step| log.names.lookup(step));
        prop_assert_eq!(
            funnel(&log, range, filter, &steps, Timestamp(active_since)),
            naive.funnel(&names, active_since)
        );
        for index in 0..steps.len() {
            let users = list_stopped_users(&log, range, filter, &steps, index, Timestamp(active_since));
            let listed: BTreeSet<_> = users.iter().map(|user| log.names.text(*user).unwrap().to_owned()).collect();
            prop_assert_eq!(listed.len(), users.len(), "no user is listed twice");
            prop_assert_eq!(listed, naive.stopped(&names, index, active_since));
        }
        let counts: BTreeMap<_, _> = transitions(&log, range, filter)
            .into_iter()
            .map(|flow| ((name(&log, flow.from), name(&log, flow.to)), flow.count))
            .collect();
        prop_assert_eq!(counts, naive.flows());
        for row in clients(&log, &[], range, filter) {
            let own: Vec<_> = naive.counted.iter().copied().filter(|event| event.client == row.name).collect();
            prop_assert_eq!(row.started, own.iter().copied().filter(is_start).count() as u64);
            prop_assert_eq!(row.active, own.iter().map(|event| &event.user).collect::<BTreeSet<_>>().len() as u64);
        }
        for number in versions(&log, range, filter.client) {
            let of = |event: &&&PlainEvent| Some(event.version.as_str()) == log.names.text(number.0) && is_start(event);
            let all_versions = Naive::new(&all, (from, from + length), None, client.as_deref());
            prop_assert_eq!(number.1, all_versions.counted.iter().filter(|event| of(event)).count() as u64);
        }
    }

    /// Each day or hour equals the overview of its part of the range, for any boundary.
    #[test]
    fn the_timeline_matches_the_overview_of_each_period(
        attempts in prop::collection::vec(attempt(), 0..25),
        (from, length) in (-3 * DAY_MS..DAY_MS, 1..9 * DAY_MS),
        offset in -14..=14_i64,
        period_ms in prop::sample::select(vec![DAY_MS, HOUR_MS]),
    ) {
        let mut all = play(attempts);
        for event in &mut all {
            event.at = event.at * 3_700_000 - DAY_MS;
        }
        let log = log(&all);
        let range = TimeRange { from: Timestamp(from), to: Timestamp(from + length) };
        let offset = offset * 3_600_000;
        let periods = timeline(&log, range, Filter::default(), period_ms, offset);
        prop_assert!(periods.windows(2).all(|pair| pair[1].at.since(pair[0].at) == period_ms));
        prop_assert!(periods[0].at <= range.from && periods[periods.len() - 1].at < range.to);
        for period in &periods {
            prop_assert_eq!((period.at.0 + offset).rem_euclid(period_ms), 0);
            let (begin, end) = (period.at.0.max(from), (period.at.0 + period_ms).min(from + length));
            let naive = Naive::new(&all, (begin, end), None, None).overview();
            prop_assert_eq!((period.started, period.completed, period.active), (naive.started, naive.completed, naive.active));
        }
    }

    /// Packed events are read back from two segments into a log that already contains another name.
    #[test]
    fn segments_round_trip(attempts in prop::collection::vec(attempt(), 0..25), at in 0..200_usize) {
        let all = play(attempts);
        let whole = log(&all);
        let (one, two) = whole.events.split_at(at.min(all.len()));
        let mut read = Log::default();
        read.names.intern("another");
        for part in [one, two] {
            segment::unpack_events(&segment::pack_events(&whole.names, part), &mut read, |_| true).unwrap();
        }
        prop_assert_eq!(plain(&read), all);
    }

    /// Unpacking terminates without a panic for any bytes.
    #[test]
    fn unpacking_damaged_segments_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = data_encoding::BASE64_NOPAD.encode(&bytes);
        let _ = segment::unpack_events(&text, &mut Log::default(), |_| true);
        let _ = segment::unpack_calls(&text, &mut Log::default(), |_| true);
    }

    #[test]
    fn percentiles_use_the_nearest_rank(mut values in prop::collection::vec(any::<i64>(), 0..40)) {
        for percent in [50, 90] {
            prop_assert_eq!(percentile(&mut values, percent), nearest_rank(values.clone(), percent as f64));
        }
    }
}

#[test]
fn calls_are_read_back_and_counted() {
    let mut log = Log::default();
    for (at, tool, outcome, client, us) in [
        (1, "next", "ok", Some("c"), 10),
        (2, "next", "step_mismatch", None, 30),
        (3, "list", "ok", Some("c"), i64::MAX),
        (4, "next", "ok", Some("c"), 20),
        (9, "next", "ok", Some("c"), 20),
    ] {
        let names = &mut log.names;
        let call = CallRecord {
            at: Timestamp(at),
            tool: names.intern(tool),
            outcome: names.intern(outcome),
            client: names.intern_optional(client),
            user: NONE,
            duration_us: us,
        };
        log.calls.push(call);
    }
    let mut read = Log::default();
    segment::unpack_calls(&segment::pack_calls(&log.names, &log.calls), &mut read, |_| true).unwrap();
    assert_eq!(read.calls, log.calls);
    let range = TimeRange { from: Timestamp(1), to: Timestamp(9) };
    let rows = tools(&read, &[], range, Filter::default());
    let next = ToolRow { tool: "next".into(), calls: 3, errors: 1, median_us: Some(20), p90_us: Some(30) };
    assert_eq!(rows[0], next);
    assert_eq!(rows[1].calls, 1);
    let expected = ErrorRow { code: "step_mismatch".into(), tool: "next".into(), count: 1 };
    assert_eq!(errors(&read, &[], range, Filter::default()), [expected]);
    let only = Filter { client: Some(read.names.lookup("c")), version: None };
    assert_eq!(errors(&read, &[], range, only), []);
    assert_eq!(clients(&read, &[], range, only)[0].calls, 3);

    // Counted calls are added, without a duration or a client.
    let counted = [("next", "ok", 5), ("next", "step_mismatch", 7), ("get_support", "rate_limited", 9)]
        .map(|(tool, outcome, count)| CallCount { tool: tool.into(), outcome: outcome.into(), count });
    let rows = tools(&read, &counted, range, Filter::default());
    assert_eq!(rows[0], ToolRow { calls: 15, errors: 8, ..next });
    let support = ToolRow { tool: "get_support".into(), calls: 9, errors: 9, median_us: None, p90_us: None };
    assert_eq!(rows[1], support);
    let codes = errors(&read, &counted, range, Filter::default());
    let codes: Vec<_> = codes.iter().map(|code| (code.code.as_str(), code.tool.as_str(), code.count)).collect();
    assert_eq!(codes, [("rate_limited", "get_support", 9), ("step_mismatch", "next", 8)]);
    let calls: Vec<_> =
        clients(&read, &counted, range, Filter::default()).into_iter().map(|client| client.calls).collect();
    assert_eq!(calls, [22, 3], "one call has no client");
    assert_eq!(tools(&read, &counted, range, only), tools(&read, &[], range, only));
    assert_eq!(errors(&read, &counted, range, only), []);
    assert_eq!(clients(&read, &counted, range, only), clients(&read, &[], range, only));
}
