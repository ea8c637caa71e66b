//! What happens on an organisation's servers, in numbers (docs/analytics.md).

use std::collections::HashMap;

use tokio::sync::Semaphore;
use waypost_core::access::{Operation, authorize};
use waypost_core::analytics::{
    self as rules, CallCount, ClientRow, DAY_MS, DayTotals, ErrorRow, Filter, FlowPoint, Funnel, Log, Overview,
    TimeRange, ToolRow,
};
use waypost_core::caller::Ctx;
use waypost_core::clock::Clock;
use waypost_core::id::{OrganizationId, ServerId, StepId, VersionId, WalkthroughId};
use waypost_core::{Error, Result, Timestamp};
use waypost_store::analytics::{self as store, LogQuery, PackedLog};
pub use waypost_store::tool_call::RejectedCalls;
use waypost_store::{Conn, Db, counted_call, server, tool_call, version, walkthrough};

use crate::Ops;

/// The longest range.
pub const MAX_DAYS: i64 = 3_660;
/// Milliseconds by which days may begin before or after those of UTC.
pub const MAX_OFFSET_MS: i64 = 14 * 3_600_000;
/// How many are computed at a time: a large one takes some ten megabytes while it is.
static AT_WORK: Semaphore = Semaphore::const_new(2);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalyticsQuery {
    /// When.
    pub range: TimeRange,
    /// On this server only.
    pub server_id: Option<ServerId>,
    /// Of this walkthrough only.
    pub walkthrough_id: Option<WalkthroughId>,
    /// In this version of the walkthrough only, by number.
    pub version: Option<u32>,
    /// By this client only.
    pub client: Option<String>,
}

/// What an answer needs of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportParts {
    /// Events.
    pub events: bool,
    /// Calls.
    pub calls: bool,
    /// Also those of the range before.
    pub before: bool,
}

/// A version of the walkthrough that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSteps {
    /// The version.
    pub id: VersionId,
    /// Its number.
    pub number: u32,
    /// Its steps in order, with their titles.
    pub steps: Vec<(StepId, String)>,
}

/// The log of what is asked, and all that can be counted in it.
#[derive(Debug)]
pub struct Report {
    log: Log,
    range: TimeRange,
    filter: Filter,
    chosen: Option<u32>,
    versions: Vec<VersionSteps>,
    counted: Vec<CallCount>,
    rejected: Vec<RejectedCalls>,
}

/// One step of a funnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunnelStage {
    /// The step.
    pub step_id: StepId,
    /// Its title in this version.
    pub title: String,
    /// What was counted.
    pub counts: rules::FunnelStep,
}

/// The funnel of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFunnel {
    /// The version's number.
    pub version: u32,
    /// Attempts that began at it in the range.
    pub started: u64,
    /// Those of them that were completed before the end of the range.
    pub completed: u64,
    /// Its steps in order.
    pub stages: Vec<FunnelStage>,
}

/// A place in a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowNode {
    /// Before the first step.
    Start,
    /// A step, with its title.
    Step(StepId, String),
    /// The completion.
    End,
    /// Nothing came after it.
    Left,
}

/// How many went from one place to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowEdge {
    /// From here.
    pub from: FlowNode,
    /// To here.
    pub to: FlowNode,
    /// So many attempts.
    pub count: u64,
}

impl Report {
    /// The range.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// The numbers of the range.
    #[must_use]
    pub fn overview(&self) -> Overview {
        rules::overview(&self.log, self.range, self.filter)
    }

    /// The numbers of the range before, for which [`ReportParts::before`] has to be asked.
    #[must_use]
    pub fn before(&self) -> Overview {
        rules::overview(&self.log, self.range.previous(), self.filter)
    }

    /// Each day; days begin `offset_ms` before those of UTC.
    #[must_use]
    pub fn timeline(&self, offset_ms: i64) -> Vec<DayTotals> {
        rules::timeline(&self.log, self.range, self.filter, offset_ms)
    }

    /// The clients.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientRow> {
        rules::clients(&self.log, &self.counted, self.range, self.filter)
    }

    /// The tools.
    #[must_use]
    pub fn tools(&self) -> Vec<ToolRow> {
        rules::tools(&self.log, &self.counted, self.range, self.filter)
    }

    /// The errors.
    #[must_use]
    pub fn errors(&self) -> Vec<ErrorRow> {
        rules::errors(&self.log, &self.counted, self.range, self.filter)
    }

    /// Calls that were rejected before they reached a tool, by server and reason; read with [`ReportParts::calls`]. Only the range
    /// and the server narrow them.
    #[must_use]
    pub fn rejected(&self) -> &[RejectedCalls] {
        &self.rejected
    }

    /// The versions of the walkthrough that is asked for, newest first.
    #[must_use]
    pub fn versions(&self) -> &[VersionSteps] {
        &self.versions
    }

    /// The version that is asked for, or else the newest at which attempts began in the range, or else the newest.
    fn version(&self) -> Option<&VersionSteps> {
        if self.chosen.is_some() {
            return self.versions.iter().find(|version| Some(version.number) == self.chosen);
        }
        let begun = rules::versions(&self.log, self.range, self.filter.client);
        let has_data = |version: &&VersionSteps| begun.contains_key(&self.log.names.lookup(version.id.as_str()));
        self.versions.iter().find(has_data).or(self.versions.first())
    }

    fn at(&self, version: &VersionSteps) -> Filter {
        Filter { version: Some(self.log.names.lookup(version.id.as_str())), ..self.filter }
    }

    /// The funnel of the version; none when no walkthrough is asked for, or it has no version.
    #[must_use]
    pub fn funnel(&self) -> Option<VersionFunnel> {
        let version = self.version()?;
        let steps: Vec<u32> = version.steps.iter().map(|(id, _)| self.log.names.lookup(id.as_str())).collect();
        let Funnel { started, completed, steps } = rules::funnel(&self.log, self.range, self.at(version), &steps);
        let stage = |((step_id, title), counts): (&(StepId, String), _)| FunnelStage {
            step_id: step_id.clone(),
            title: title.clone(),
            counts,
        };
        let stages = version.steps.iter().zip(steps).map(stage).collect();
        Some(VersionFunnel { version: version.number, started, completed, stages })
    }

    /// Where the attempts of the funnel go.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowEdge> {
        let Some(version) = self.version() else { return Vec::new() };
        let older = self.versions.iter().flat_map(|version| &version.steps);
        let titles: HashMap<&str, &str> =
            older.rev().chain(&version.steps).map(|(id, title)| (id.as_str(), title.as_str())).collect();
        let place = |node| match node {
            FlowPoint::Start => FlowNode::Start,
            FlowPoint::End => FlowNode::End,
            FlowPoint::Left => FlowNode::Left,
            FlowPoint::Step(number) => {
                let id = self.log.names.text(number).unwrap_or_default();
                let title = titles.get(id).copied().unwrap_or(id);
                FlowNode::Step(StepId::from_store(id.to_owned()), title.to_owned())
            }
        };
        let flows = rules::transitions(&self.log, self.range, self.at(version));
        flows
            .into_iter()
            .map(|flow| FlowEdge { from: place(flow.from), to: place(flow.to), count: flow.count })
            .collect()
    }
}

/// Reads what is asked, and computes `answer` from it where nobody waits for the thread.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of, and for a server, walkthrough or version that is not
/// there; `invalid_arguments` for a range that is none or longer than ten years, and for a version without a walkthrough.
pub async fn run<T: Send + 'static>(
    cx: &Ctx,
    ops: &Ops,
    (organization, ask): (&OrganizationId, &AnalyticsQuery),
    parts: ReportParts,
    answer: impl FnOnce(&Report) -> T + Send + 'static,
) -> Result<T> {
    authorize(&cx.caller, Operation::AnalyticsRead, organization)?;
    check(ask)?;
    let _permit = AT_WORK.acquire().await.map_err(Error::internal)?;
    let mut tx = ops.db.snapshot().await?;
    let versions = versions(&mut tx, organization, ask).await?;
    let before = ask.range.previous();
    let whole = TimeRange { from: if parts.before { before.from } else { ask.range.from }, to: ask.range.to };
    let wanted = LogQuery {
        organization,
        server: ask.server_id.as_ref(),
        walkthrough: ask.walkthrough_id.as_ref(),
        range: whole,
    };
    let mut packed = PackedLog::default();
    let (mut counted, mut rejected) = (Vec::new(), Vec::new());
    if parts.events {
        store::read_events(&mut tx, wanted, &mut packed).await?;
    }
    if parts.calls {
        store::read_calls(&mut tx, wanted, &mut packed).await?;
        counted = counted_call::sum(&mut tx, organization, ask.server_id.as_ref(), ask.range).await?;
        rejected = tool_call::sum_rejected(&mut tx, organization, ask.server_id.as_ref(), ask.range).await?;
    }
    drop(tx);
    let (ask, range) = (ask.clone(), ask.range);
    let work = move || {
        let log = packed.unpack(whole)?;
        let chosen = versions.iter().find(|version| Some(version.number) == ask.version);
        let filter = Filter {
            version: chosen.map(|version| log.names.lookup(version.id.as_str())),
            client: ask.client.as_deref().map(|client| log.names.lookup(client)),
        };
        Ok(answer(&Report { log, range, filter, chosen: ask.version, versions, counted, rejected }))
    };
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

fn check(ask: &AnalyticsQuery) -> Result<()> {
    let TimeRange { from, to } = ask.range;
    if from >= to {
        return Err(Error::invalid("from", "The range ends before it begins: `from` has to be before `to`."));
    }
    if to.since(from) > MAX_DAYS * DAY_MS {
        return Err(Error::invalid("from", format!("The range is too long: {MAX_DAYS} days at most.")));
    }
    if ask.version.is_some() && ask.walkthrough_id.is_none() {
        let message = "A version is one of a walkthrough: name that as well (`walkthrough_id`).";
        return Err(Error::invalid("version", message));
    }
    Ok(())
}

/// The versions of the walkthrough that is asked for. What is named is there, or it is an error.
async fn versions(conn: &mut Conn, organization: &OrganizationId, ask: &AnalyticsQuery) -> Result<Vec<VersionSteps>> {
    if let Some(id) = &ask.server_id
        && server::find(conn, organization, id).await?.is_none()
    {
        return Err(Error::not_found("server"));
    }
    let Some(walkthrough_id) = &ask.walkthrough_id else { return Ok(Vec::new()) };
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
    if ask.version.is_some() && !versions.iter().any(|version| Some(version.number) == ask.version) {
        return Err(Error::not_found("version"));
    }
    Ok(versions)
}

/// Packs what has settled of every server's log. Called now and then by every process.
///
/// # Errors
/// `unavailable` when the database is away.
pub async fn pack_settled(db: &Db, clock: &dyn Clock) -> Result<()> {
    let now = clock.now();
    let due = db.with_timeout(async { store::list_due(&mut db.read().await?, now).await }).await?;
    for due in due {
        loop {
            let once = async {
                let mut tx = db.begin().await?;
                let more = store::roll_up(&mut tx, &due, now).await?;
                tx.commit().await?;
                Ok(more)
            };
            match db.with_timeout(once).await {
                Ok(true) => {}
                Ok(false) => break,
                // The server was deleted meanwhile, or another process packs the same rows.
                Err(error) if error.is_foreign_key_violation() || error.is_conflict_between_transactions() => break,
                Err(error) => return Err(error.into()),
            }
            // Calls that wait for the one writer of SQLite come first.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// The last `days` days before `now`.
#[must_use]
pub fn last_days(now: Timestamp, days: i64) -> TimeRange {
    TimeRange { from: now.plus(-days * DAY_MS), to: now }
}
