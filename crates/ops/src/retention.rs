//! Retention: deletes log rows that are older than the configured periods.
//!
//! Rows are deleted in small transactions with a pause after each, so that tool calls get most of the writer's time
//! even while years of a log are deleted. Each log has its own time limit per run, so that a large log does not block
//! the others. The next run continues.

use std::time::Duration;

use tokio::time::Instant;
use waypost_core::id::ServerId;
use waypost_core::{Clock, Result, Timestamp};
use waypost_store::retention::{self as store, CallCounts, ServerLog};
use waypost_store::{Db, Tx, call, space, webhook_delivery};

/// The maximum number of rows that are deleted in a transaction.
const BATCH: i64 = 500;
/// The maximum number of SQLite pages that are released in a transaction: 1 MiB.
const PAGES_PER_BATCH: u32 = 256;
/// The minimum number of free pages that SQLite keeps for new rows: 4 MiB, or a twentieth of the file if that is more.
const SPARE_PAGES: i64 = 1_024;
/// The pause after a transaction, as a multiple of its duration: deletion takes at most a quarter of the writer's time.
const PAUSE_FACTOR: u32 = 3;
/// The shortest and the longest pause.
const PAUSE_LIMITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The time limit for each log, and for the release of free pages, in a run.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The retention period of each log, in milliseconds. `None` keeps the log forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionPeriods {
    /// Tool calls.
    pub tool_calls: Option<i64>,
    /// Walkthrough events and the counts of calls.
    pub events: Option<i64>,
    /// The audit log.
    pub audit: Option<i64>,
    /// Webhook deliveries that are not pending.
    pub deliveries: Option<i64>,
    /// Calls through the gateway.
    pub gateway_calls: Option<i64>,
}

/// The number of rows that a run deleted from each log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeletedRows {
    /// Tool calls.
    pub tool_calls: u64,
    /// Walkthrough events.
    pub events: u64,
    /// Counts of rejected calls.
    pub rejections: u64,
    /// Counts of calls by unidentified users.
    pub counted_calls: u64,
    /// Audit log entries.
    pub audit: u64,
    /// Webhook deliveries.
    pub deliveries: u64,
    /// Calls through the gateway.
    pub gateway_calls: u64,
}

/// Deletes rows that are older than `periods`, and releases free space.
///
/// # Errors
/// `unavailable` if the database cannot be reached. Rows that have already been deleted stay deleted.
pub async fn delete_old(db: &Db, clock: &dyn Clock, periods: &RetentionPeriods) -> Result<DeletedRows> {
    let now = clock.now();
    let before = |period: Option<i64>| period.map(|period| now.plus(-period));
    let mut deleted = DeletedRows::default();
    for (log, period, count) in [
        (ServerLog::Calls, periods.tool_calls, &mut deleted.tool_calls),
        (ServerLog::Events, periods.events, &mut deleted.events),
    ] {
        let Some(before) = before(period) else { continue };
        let servers = db
            .with_timeout(async { store::list_servers_with_old_rows(&mut db.read().await?, log, before).await })
            .await?;
        let run = Run::new(db);
        for server in &rotate(servers, now) {
            *count += run.delete_batches(Portion::Log(log, server), Some(before)).await?;
        }
    }
    for (counts, count) in
        [(CallCounts::Rejected, &mut deleted.rejections), (CallCounts::Unidentified, &mut deleted.counted_calls)]
    {
        let Some(before) = before(periods.events) else { continue };
        let servers = db
            .with_timeout(async { store::list_servers_with_old_counts(&mut db.read().await?, counts, before).await })
            .await?;
        let run = Run::new(db);
        for server in &rotate(servers, now) {
            *count += run.delete_batches(Portion::Counts(counts, server), Some(before)).await?;
        }
    }
    deleted.audit = Run::new(db).delete_batches(Portion::Audit, before(periods.audit)).await?;
    deleted.deliveries = Run::new(db).delete_batches(Portion::Deliveries, before(periods.deliveries)).await?;
    deleted.gateway_calls = Run::new(db).delete_batches(Portion::GatewayCalls, before(periods.gateway_calls)).await?;
    Run::new(db).release_pages().await?;
    report(&deleted);
    Ok(deleted)
}

/// Rotates the list so that runs start with different servers, and no server is always skipped when the time limit is
/// reached.
fn rotate(mut servers: Vec<ServerId>, now: Timestamp) -> Vec<ServerId> {
    if !servers.is_empty() {
        let first = usize::try_from(now.0).unwrap_or(0) % servers.len();
        servers.rotate_left(first);
    }
    servers
}

fn report(deleted: &DeletedRows) {
    let DeletedRows { tool_calls, events, rejections, counted_calls, audit, deliveries, gateway_calls } = *deleted;
    let counts = [
        ("tool_calls", tool_calls),
        ("events", events),
        ("rejections", rejections),
        ("counted_calls", counted_calls),
        ("audit", audit),
        ("deliveries", deliveries),
        ("gateway_calls", gateway_calls),
    ];
    for (log, rows) in counts {
        metrics::counter!("waypost_retention_deleted_total", "log" => log).increment(rows);
    }
    if *deleted != DeletedRows::default() {
        tracing::info!(
            tool_calls,
            events,
            rejections,
            counted_calls,
            audit,
            deliveries,
            gateway_calls,
            "deleted old rows"
        );
    }
}

/// A set of rows that is deleted in batches.
#[derive(Clone, Copy)]
enum Portion<'a> {
    Log(ServerLog, &'a ServerId),
    Counts(CallCounts, &'a ServerId),
    Audit,
    Deliveries,
    GatewayCalls,
}

impl Portion<'_> {
    async fn delete(self, tx: &mut Tx, before: Timestamp) -> waypost_store::Result<u64> {
        match self {
            Self::Log(log, server) => store::delete_log(tx, log, server, before, BATCH).await,
            Self::Counts(counts, server) => store::delete_counts(tx, counts, server, before, BATCH).await,
            Self::Audit => store::delete_audit(tx, before, BATCH).await,
            Self::Deliveries => webhook_delivery::delete_old(tx, before, BATCH).await,
            Self::GatewayCalls => call::delete_old(tx, before, BATCH).await,
        }
    }
}

struct Run<'a> {
    db: &'a Db,
    deadline: Instant,
}

impl<'a> Run<'a> {
    fn new(db: &'a Db) -> Self {
        Self { db, deadline: Instant::now() + TIME_LIMIT }
    }

    /// Deletes in transactions of at most [`BATCH`] rows until no rows are left or the deadline is reached. Returns the
    /// number of deleted rows; 0 if `before` is `None`.
    async fn delete_batches(&self, portion: Portion<'_>, before: Option<Timestamp>) -> waypost_store::Result<u64> {
        let Some(before) = before else { return Ok(0) };
        let mut deleted = 0;
        while Instant::now() < self.deadline {
            let started = Instant::now();
            let batch = async {
                let mut tx = self.db.begin().await?;
                let rows = portion.delete(&mut tx, before).await?;
                tx.commit().await?;
                Ok(rows)
            };
            let rows = self.db.with_timeout(batch).await?;
            deleted += rows;
            // Pauses after the last batch, too: another server may follow.
            pause(started.elapsed()).await;
            if rows < BATCH.unsigned_abs() {
                break;
            }
        }
        Ok(deleted)
    }

    /// Releases free pages in excess of the spare pages.
    async fn release_pages(&self) -> waypost_store::Result<()> {
        while Instant::now() < self.deadline {
            let Some(pages) = space::count_pages(self.db).await? else { return Ok(()) };
            let excess = pages.free - SPARE_PAGES.max(pages.all / 20);
            if !pages.is_incremental || excess <= 0 {
                return Ok(());
            }
            let started = Instant::now();
            space::release_pages(self.db, u32::try_from(excess).unwrap_or(PAGES_PER_BATCH).min(PAGES_PER_BATCH))
                .await?;
            pause(started.elapsed()).await;
        }
        Ok(())
    }
}

async fn pause(elapsed: Duration) {
    tokio::time::sleep((PAUSE_FACTOR * elapsed).clamp(PAUSE_LIMITS.0, PAUSE_LIMITS.1)).await;
}
