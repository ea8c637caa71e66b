//! Analytics: totals, timelines, funnels and tables computed from an organisation's logs (docs/analytics.md).

pub mod export;
pub mod rejected;
pub mod report;
pub mod usage;

use std::collections::HashMap;

use tokio::sync::Semaphore;
use waypost_core::access::{Operation, authorize};
use waypost_core::analytics::{
    self as rules, CallCount, ClientRow, DAY_MS, ErrorRow, Filter, FlowPoint, Funnel, HOUR_MS, Log, Overview,
    PeriodTotals, STILL_ACTIVE_MS, TimeRange, ToolRow,
};
use waypost_core::caller::Ctx;
use waypost_core::clock::Clock;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, StepId, VersionId, WalkthroughId};
use waypost_core::{Error, Result, Timestamp};
use waypost_store::analytics::{self as store, LogQuery, PackedLog};
pub use waypost_store::tool_call::RejectedCalls;
use waypost_store::{Conn, Db, counted_call, server, tool_call, version, walkthrough};

use crate::Ops;

/// The maximum length of a range in days.
pub const MAX_DAYS: i64 = 3_660;
/// The maximum offset of the start of a day from UTC, in milliseconds.
pub const MAX_OFFSET_MS: i64 = 14 * 3_600_000;
/// Limits the number of reports that are computed at the same time: a report takes about 100 bytes of memory per event.
static REPORT_SLOTS: Semaphore = Semaphore::const_new(2);

/// The range and the filters of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalyticsQuery {
    /// The range of time.
    pub range: TimeRange,
    /// Includes only this server.
    pub server_id: Option<ServerId>,
    /// Includes only this walkthrough.
    pub walkthrough_id: Option<WalkthroughId>,
    /// Includes only this version of the walkthrough, by number.
    pub version: Option<u32>,
    /// Includes only this client.
    pub client: Option<String>,
}

/// The parts of the log that a report reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportParts {
    /// Walkthrough events.
    pub events: bool,
    /// Tool calls.
    pub calls: bool,
    /// Whether the previous range of the same length is also read.
    pub previous: bool,
}

impl ReportParts {
    /// Only walkthrough events.
    pub const EVENTS: Self = Self { events: true, calls: false, previous: false };
    /// Only tool calls.
    pub const CALLS: Self = Self { events: false, calls: true, previous: false };
}

/// A version of the selected walkthrough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSteps {
    /// The version's ID.
    pub id: VersionId,
    /// Its number.
    pub number: u32,
    /// Its steps in order, with their titles.
    pub steps: Vec<(StepId, String)>,
}

/// The log that a query selects, with everything that can be computed from it.
#[derive(Debug)]
pub struct Report {
    log: Log,
    range: TimeRange,
    filter: Filter,
    version_number: Option<u32>,
    versions: Vec<VersionSteps>,
    call_counts: Vec<CallCount>,
    rejected: Vec<RejectedCalls>,
}

/// One step of a funnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunnelStage {
    /// The step.
    pub step_id: StepId,
    /// Its title in this version.
    pub title: String,
    /// The counts of the step.
    pub counts: rules::FunnelStep,
}

/// The funnel of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFunnel {
    /// The version's number.
    pub version: u32,
    /// The number of attempts that started on this version in the range.
    pub started: u64,
    /// The number of those attempts that were completed before the end of the range.
    pub completed: u64,
    /// Its steps in order.
    pub stages: Vec<FunnelStage>,
}

/// A node in the flow between steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowNode {
    /// Before the first step.
    Start,
    /// A step, with its title.
    Step(StepId, String),
    /// The completion of the walkthrough.
    End,
    /// No further step was completed before the end of the range. The attempt may still be active.
    DropOff,
}

/// The number of attempts that went from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowEdge {
    /// The source.
    pub from: FlowNode,
    /// The target.
    pub to: FlowNode,
    /// The number of attempts.
    pub count: u64,
}

impl Report {
    /// Returns the range.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// Returns the totals of the range.
    #[must_use]
    pub fn overview(&self) -> Overview {
        rules::overview(&self.log, self.range, self.filter)
    }

    /// Returns the totals of the previous range. Requires [`ReportParts::previous`].
    #[must_use]
    pub fn previous_overview(&self) -> Overview {
        rules::overview(&self.log, self.range.previous(), self.filter)
    }

    /// Returns the totals of each day. Days begin `offset_ms` milliseconds before those of UTC.
    #[must_use]
    pub fn timeline(&self, offset_ms: i64) -> Vec<PeriodTotals> {
        rules::timeline(&self.log, self.range, self.filter, DAY_MS, offset_ms)
    }

    /// Returns the totals of each hour.
    #[must_use]
    pub fn hourly_timeline(&self) -> Vec<PeriodTotals> {
        rules::timeline(&self.log, self.range, self.filter, HOUR_MS, 0)
    }

    /// Returns the table of clients.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientRow> {
        rules::clients(&self.log, &self.call_counts, self.range, self.filter)
    }

    /// Returns the table of tools.
    #[must_use]
    pub fn tools(&self) -> Vec<ToolRow> {
        rules::tools(&self.log, &self.call_counts, self.range, self.filter)
    }

    /// Returns the table of errors.
    #[must_use]
    pub fn errors(&self) -> Vec<ErrorRow> {
        rules::errors(&self.log, &self.call_counts, self.range, self.filter)
    }

    /// Returns the number of calls that were rejected before they reached a tool, by server and reason. Requires
    /// [`ReportParts::calls`]. Only the range and the server filter apply.
    #[must_use]
    pub fn rejected(&self) -> &[RejectedCalls] {
        &self.rejected
    }

    /// Returns the versions of the selected walkthrough, newest first.
    #[must_use]
    pub fn versions(&self) -> &[VersionSteps] {
        &self.versions
    }

    /// Returns the selected version. If none is selected, returns the newest version on which attempts started in the
    /// range, or else the newest version. Returns `None` if there is no such version.
    fn selected_version(&self) -> Option<&VersionSteps> {
        if self.version_number.is_some() {
            return self.versions.iter().find(|version| Some(version.number) == self.version_number);
        }
        let started = rules::versions(&self.log, self.range, self.filter.client);
        let has_data = |version: &&VersionSteps| started.contains_key(&self.log.names.lookup(version.id.as_str()));
        self.versions.iter().find(has_data).or(self.versions.first())
    }

    fn filter_for(&self, version: &VersionSteps) -> Filter {
        Filter { version: Some(self.log.names.lookup(version.id.as_str())), ..self.filter }
    }

    /// Returns the funnel of the selected version. Returns `None` if no walkthrough is selected or it has no versions.
    #[must_use]
    pub fn funnel(&self) -> Option<VersionFunnel> {
        let version = self.selected_version()?;
        let steps = self.step_numbers(version);
        let Funnel { started, completed, steps } =
            rules::funnel(&self.log, self.range, self.filter_for(version), &steps, self.active_since());
        let stage = |((step_id, title), counts): (&(StepId, String), _)| FunnelStage {
            step_id: step_id.clone(),
            title: title.clone(),
            counts,
        };
        let stages = version.steps.iter().zip(steps).map(stage).collect();
        Some(VersionFunnel { version: version.number, started, completed, stages })
    }

    fn step_numbers(&self, version: &VersionSteps) -> Vec<u32> {
        version.steps.iter().map(|(id, _)| self.log.names.lookup(id.as_str())).collect()
    }

    /// Returns the time since which an attempt with an event counts as active.
    fn active_since(&self) -> Timestamp {
        self.range.to.plus(-STILL_ACTIVE_MS)
    }

    /// Returns the title of a step and the end users who stopped there, most recently active first. Returns `None` if
    /// there is no funnel or its version does not have the step.
    #[must_use]
    pub fn stopped_users(&self, step: &StepId) -> Option<(String, Vec<EndUserId>)> {
        let version = self.selected_version()?;
        let position = version.steps.iter().position(|(id, _)| id == step)?;
        let (steps, filter) = (self.step_numbers(version), self.filter_for(version));
        let users = rules::list_stopped_users(&self.log, self.range, filter, &steps, position, self.active_since());
        let id = |user: u32| self.log.names.text(user).map(|id| EndUserId::from_store(id.to_owned()));
        Some((version.steps[position].1.clone(), users.into_iter().filter_map(id).collect()))
    }

    /// Returns the flow of attempts between the steps of the funnel's version. Empty if there is no funnel.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowEdge> {
        let Some(version) = self.selected_version() else { return Vec::new() };
        let all_steps = self.versions.iter().flat_map(|version| &version.steps);
        let titles: HashMap<&str, &str> =
            all_steps.rev().chain(&version.steps).map(|(id, title)| (id.as_str(), title.as_str())).collect();
        let node = |point| match point {
            FlowPoint::Start => FlowNode::Start,
            FlowPoint::End => FlowNode::End,
            FlowPoint::DropOff => FlowNode::DropOff,
            FlowPoint::Step(number) => {
                let id = self.log.names.text(number).unwrap_or_default();
                let title = titles.get(id).copied().unwrap_or(id);
                FlowNode::Step(StepId::from_store(id.to_owned()), title.to_owned())
            }
        };
        let flows = rules::transitions(&self.log, self.range, self.filter_for(version));
        flows.into_iter().map(|flow| FlowEdge { from: node(flow.from), to: node(flow.to), count: flow.count }).collect()
    }
}

/// Reads the log that `query` selects and runs `compute` on it in a blocking thread.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation, or if the server, walkthrough or version does not exist;
/// `invalid_arguments` if the range is empty or longer than [`MAX_DAYS`], or if a version is given without a
/// walkthrough.
pub async fn run<T: Send + 'static>(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    query: &AnalyticsQuery,
    parts: ReportParts,
    compute: impl FnOnce(&Report) -> T + Send + 'static,
) -> Result<T> {
    authorize(&cx.caller, Operation::AnalyticsRead, organization)?;
    check_query(query)?;
    let _permit = REPORT_SLOTS.acquire().await.map_err(Error::internal)?;
    let mut tx = ops.store.snapshot().await?;
    let versions = list_versions(&mut tx, organization, query).await?;
    let previous = query.range.previous();
    let full_range =
        TimeRange { from: if parts.previous { previous.from } else { query.range.from }, to: query.range.to };
    let log_query = LogQuery {
        organization,
        server: query.server_id.as_ref(),
        walkthrough: query.walkthrough_id.as_ref(),
        range: full_range,
    };
    let mut packed = PackedLog::default();
    let (mut call_counts, mut rejected) = (Vec::new(), Vec::new());
    if parts.events {
        store::read_events(&mut tx, log_query, &mut packed).await?;
    }
    if parts.calls {
        store::read_calls(&mut tx, log_query, &mut packed).await?;
        call_counts = counted_call::sum(&mut tx, organization, query.server_id.as_ref(), query.range).await?;
        rejected = tool_call::sum_rejected(&mut tx, organization, query.server_id.as_ref(), query.range).await?;
    }
    drop(tx);
    let (query, range) = (query.clone(), query.range);
    let work = move || {
        let log = packed.unpack(full_range)?;
        let selected = versions.iter().find(|version| Some(version.number) == query.version);
        let filter = Filter {
            version: selected.map(|version| log.names.lookup(version.id.as_str())),
            client: query.client.as_deref().map(|client| log.names.lookup(client)),
        };
        Ok(compute(&Report { log, range, filter, version_number: query.version, versions, call_counts, rejected }))
    };
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

fn check_query(query: &AnalyticsQuery) -> Result<()> {
    let TimeRange { from, to } = query.range;
    if from >= to {
        return Err(Error::invalid("from", "The range is empty: `from` must be before `to`."));
    }
    if to.since(from) > MAX_DAYS * DAY_MS {
        return Err(Error::invalid("from", format!("The range is too long. It can have at most {MAX_DAYS} days.")));
    }
    if query.version.is_some() && query.walkthrough_id.is_none() {
        let message = "`version` requires `walkthrough_id`.";
        return Err(Error::invalid("version", message));
    }
    Ok(())
}

/// Returns the versions of the selected walkthrough. Fails if the server, the walkthrough or the version does not
/// exist.
async fn list_versions(
    conn: &mut Conn,
    organization: &OrganizationId,
    query: &AnalyticsQuery,
) -> Result<Vec<VersionSteps>> {
    if let Some(id) = &query.server_id
        && server::find(conn, organization, id).await?.is_none()
    {
        return Err(Error::not_found("server"));
    }
    let Some(walkthrough_id) = &query.walkthrough_id else { return Ok(Vec::new()) };
    if walkthrough::find(conn, organization, walkthrough_id).await?.is_none() {
        return Err(Error::not_found("walkthrough"));
    }
    let heads = version::list(conn, organization, walkthrough_id).await?;
    let mut steps: HashMap<VersionId, Vec<(StepId, String)>> = HashMap::new();
    for (version, step, title) in version::list_step_titles(conn, organization, walkthrough_id).await? {
        steps.entry(version).or_default().push((step, title));
    }
    let versions: Vec<VersionSteps> = heads
        .into_iter()
        .map(|head| VersionSteps {
            number: head.number,
            steps: steps.remove(&head.id).unwrap_or_default(),
            id: head.id,
        })
        .collect();
    if query.version.is_some() && !versions.iter().any(|version| Some(version.number) == query.version) {
        return Err(Error::not_found("version"));
    }
    Ok(versions)
}

/// Packs the part of every server's log that no longer changes. Called periodically by every process.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn pack_settled(db: &Db, clock: &dyn Clock) -> Result<()> {
    let now = clock.now();
    let due_servers = db.with_timeout(async { store::list_due(&mut db.read().await?, now).await }).await?;
    for due in due_servers {
        loop {
            let roll_up = async {
                let mut tx = db.begin().await?;
                let more = store::roll_up(&mut tx, &due, now).await?;
                tx.commit().await?;
                Ok(more)
            };
            match db.with_timeout(roll_up).await {
                Ok(true) => {}
                Ok(false) => break,
                // The server has been deleted, or another process packs the same rows.
                Err(error) if error.is_foreign_key_violation() || error.is_conflict_between_transactions() => break,
                Err(error) => return Err(error.into()),
            }
            // Lets calls that wait for SQLite's single writer go first.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Returns the range of the last `days` days before `now`.
#[must_use]
pub fn last_days(now: Timestamp, days: i64) -> TimeRange {
    TimeRange { from: now.plus(-days * DAY_MS), to: now }
}
