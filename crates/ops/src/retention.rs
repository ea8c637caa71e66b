//! Retention: logs are deleted when they are older than the operator wants to keep them.
//!
//! Rows are deleted in small transactions with a pause after each, so that calls get most of the writer's time even while
//! years of a log are deleted. Each log has its own time limit in a run, so that no log keeps the others from being deleted;
//! the next run continues.

use std::time::Duration;

use tokio::time::Instant;
use waypost_core::id::ServerId;
use waypost_core::{Clock, Result, Timestamp};
use waypost_store::retention::{self as store, CallCounts, ServerLog};
use waypost_store::{Db, Tx, space, webhook_delivery};

/// Rows that are deleted in a transaction.
const BATCH: i64 = 500;
/// Pages of SQLite that are given back in a transaction: 1 MiB.
const PAGES: u32 = 256;
/// Free pages that SQLite keeps for what comes next: 4 MiB, or a twentieth of the file if that is more.
const SPARE_PAGES: i64 = 1_024;
/// The pause after a transaction, in its own durations: deleting takes at most a quarter of the writer's time.
const SHARE: u32 = 3;
/// The shortest and the longest pause.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long each log, and the release of free pages, may take in a run.
const PART: Duration = Duration::from_secs(20);

/// How long each log is kept, in milliseconds; `None` for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionPeriods {
    /// Tool calls.
    pub tool_calls: Option<i64>,
    /// Events of walkthroughs, and the counts of calls.
    pub events: Option<i64>,
    /// The audit log.
    pub audit: Option<i64>,
    /// Webhook deliveries that are not pending.
    pub deliveries: Option<i64>,
}

/// What a run deleted, in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeletedRows {
    /// Tool calls.
    pub tool_calls: u64,
    /// Events of walkthroughs.
    pub events: u64,
    /// Counts of rejected calls.
    pub rejections: u64,
    /// Counts of calls by nobody known.
    pub counted_calls: u64,
    /// Entries of the audit log.
    pub audit: u64,
    /// Webhook deliveries.
    pub deliveries: u64,
}

/// Deletes what is older than `periods`, and gives free space back.
///
/// # Errors
/// `unavailable` when the database is away. What was deleted until then stays deleted.
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
        for server in &rotated(servers, now) {
            *count += run.repeat(Portion::Log(log, server), Some(before)).await?;
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
        for server in &rotated(servers, now) {
            *count += run.repeat(Portion::Counts(counts, server), Some(before)).await?;
        }
    }
    deleted.audit = Run::new(db).repeat(Portion::Audit, before(periods.audit)).await?;
    deleted.deliveries = Run::new(db).repeat(Portion::Deliveries, before(periods.deliveries)).await?;
    Run::new(db).release().await?;
    report(&deleted);
    Ok(deleted)
}

/// Begins with another server in each run: if the time is not enough for all, no server is always among the last.
fn rotated(mut servers: Vec<ServerId>, now: Timestamp) -> Vec<ServerId> {
    if !servers.is_empty() {
        let first = usize::try_from(now.0).unwrap_or(0) % servers.len();
        servers.rotate_left(first);
    }
    servers
}

fn report(deleted: &DeletedRows) {
    let DeletedRows { tool_calls, events, rejections, counted_calls, audit, deliveries } = *deleted;
    let counts = [
        ("tool_calls", tool_calls),
        ("events", events),
        ("rejections", rejections),
        ("counted_calls", counted_calls),
        ("audit", audit),
        ("deliveries", deliveries),
    ];
    for (log, rows) in counts {
        metrics::counter!("waypost_retention_deleted_total", "log" => log).increment(rows);
    }
    if *deleted != DeletedRows::default() {
        tracing::info!(tool_calls, events, rejections, counted_calls, audit, deliveries, "deleted old rows");
    }
}

/// Rows that are deleted together.
#[derive(Clone, Copy)]
enum Portion<'a> {
    Log(ServerLog, &'a ServerId),
    Counts(CallCounts, &'a ServerId),
    Audit,
    Deliveries,
}

impl Portion<'_> {
    async fn delete(self, tx: &mut Tx, before: Timestamp) -> waypost_store::Result<u64> {
        match self {
            Self::Log(log, server) => store::delete_log(tx, log, server, (before, BATCH)).await,
            Self::Counts(counts, server) => store::delete_counts(tx, counts, server, (before, BATCH)).await,
            Self::Audit => store::delete_audit(tx, before, BATCH).await,
            Self::Deliveries => webhook_delivery::delete_old(tx, before, BATCH).await,
        }
    }
}

struct Run<'a> {
    db: &'a Db,
    until: Instant,
}

impl<'a> Run<'a> {
    fn new(db: &'a Db) -> Self {
        Self { db, until: Instant::now() + PART }
    }

    /// Deletes in transactions of at most [`BATCH`] rows until nothing is left or the time is up. Returns how many rows;
    /// 0 without a `before`.
    async fn repeat(&self, portion: Portion<'_>, before: Option<Timestamp>) -> waypost_store::Result<u64> {
        let Some(before) = before else { return Ok(0) };
        let mut deleted = 0;
        while Instant::now() < self.until {
            let begun = Instant::now();
            let once = async {
                let mut tx = self.db.begin().await?;
                let rows = portion.delete(&mut tx, before).await?;
                tx.commit().await?;
                Ok(rows)
            };
            let rows = self.db.with_timeout(once).await?;
            deleted += rows;
            // Also after the last batch: another server may be next.
            pause(begun.elapsed()).await;
            if rows < BATCH.unsigned_abs() {
                break;
            }
        }
        Ok(deleted)
    }

    /// Gives pages back that are free and not spare.
    async fn release(&self) -> waypost_store::Result<()> {
        while Instant::now() < self.until {
            let Some(pages) = space::count_pages(self.db).await? else { return Ok(()) };
            let excess = pages.free - SPARE_PAGES.max(pages.all / 20);
            if !pages.is_incremental || excess <= 0 {
                return Ok(());
            }
            let begun = Instant::now();
            space::release_pages(self.db, u32::try_from(excess).unwrap_or(PAGES).min(PAGES)).await?;
            pause(begun.elapsed()).await;
        }
        Ok(())
    }
}

async fn pause(elapsed: Duration) {
    tokio::time::sleep((SHARE * elapsed).clamp(PAUSE.0, PAUSE.1)).await;
}
