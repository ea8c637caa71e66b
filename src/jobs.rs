//! The background jobs of `serve`. They are supervised by `hosting.jobs()` and listed in docs/operations.md.
//!
//! Jobs on shared data have a lease, so that only one replica runs them. Jobs on the state of a process run in every
//! process. So does the sending of webhooks, because each delivery is claimed by one process.

use std::sync::Arc;
use std::time::Duration;

use waypost_core::caller::Ctx;
use waypost_core::{SystemClock, SystemRandom};
use waypost_jobs::{Job, Jobs, Leases, Result};
use waypost_ops::identity_provider::{self, IdentityProviderContext};
use waypost_ops::job_leases::JobLeases;
use waypost_ops::retention::{self, RetentionPeriods};
use waypost_ops::walkthroughs::{revisions, trash};
use waypost_ops::{Ops, analytics, authorizations, identity, notifications};
use waypost_store::Db;

use crate::notifications::NotificationSender;
use crate::telemetry::Metrics;
use crate::webhooks::{self, WebhookQueue, WebhookSender};

/// Interval of memory maintenance.
const MEMORY_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of jobs on the database.
const DATABASE_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which queues are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a job that runs every few seconds is late.
const FREQUENT_LATE_AFTER: Duration = Duration::from_secs(60);
/// Time after which the email job is late: ten rounds, each with the timeouts of a mail server.
const EMAIL_LATE_AFTER: Duration = Duration::from_secs(15 * 60);

/// The data that the jobs work on.
#[derive(Clone)]
pub struct JobContext {
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The context for requests to identity providers and webhook receivers.
    pub provider_context: IdentityProviderContext,
    /// The retention periods of logs.
    pub retention: RetentionPeriods,
    /// The database.
    pub db: Db,
}

/// Starts all jobs. They end with [`Jobs::stop`].
pub fn start(jobs: &Jobs, context: JobContext) {
    start_local(jobs, &context);
    let leases = Arc::new(JobLeases::new(context.db.clone(), Arc::new(SystemClock), &SystemRandom));
    let leased = LeasedJobs { jobs, leases, db: context.db.clone() };
    leased.start("sessions", |db| async move {
        identity::delete_expired(&db, &SystemClock).await?;
        Ok(())
    });
    leased.start("sign-ins", |db| async move {
        authorizations::delete_expired(&db, &SystemClock).await?;
        Ok(())
    });
    leased.start("revisions", |db| async move {
        revisions::delete_expired(&db, &SystemClock).await?;
        Ok(())
    });
    leased.start("trash", |db| async move {
        trash::purge_expired(&Ctx::operator(), &Ops::new(db)).await?;
        Ok(())
    });
    leased.start("analytics", |db| async move { Ok(analytics::pack_settled(&db, &SystemClock).await?) });
    let periods = context.retention;
    leased.start("retention", move |db| async move {
        retention::delete_old(&db, &SystemClock, &periods).await?;
        Ok(())
    });
    let provider_context = context.provider_context;
    leased.start(identity_provider::JOB, move |db| {
        let provider_context = provider_context.clone();
        async move {
            identity_provider::refresh_due_tokens(&Ctx::operator(), &Ops::new(db), &provider_context).await?;
            Ok(())
        }
    });
}

/// Starts the job that sends emails about tickets. It runs in every process, because each digest and each email is claimed
/// by one process. A mail server that times out makes a run slow, but must not take the process out of service.
pub fn start_emails(jobs: &Jobs, sender: NotificationSender) {
    jobs.start(Job { late_after: EMAIL_LATE_AFTER, ..Job::new(notifications::JOB, POLL_INTERVAL) }, move || {
        let sender = sender.clone();
        async move { Ok(sender.send_due().await?) }
    });
}

/// Starts the jobs that run in every process.
fn start_local(jobs: &Jobs, context: &JobContext) {
    let (context, registry) = (context.clone(), jobs.clone());
    let sender = WebhookSender {
        cx: Ctx::operator(),
        ops: Ops::new(context.db.clone()),
        provider_context: context.provider_context.clone(),
    };
    let queue = Arc::new(WebhookQueue::new(sender));
    jobs.start(Job { late_after: FREQUENT_LATE_AFTER, ..Job::new(webhooks::JOB, POLL_INTERVAL) }, move || {
        let queue = Arc::clone(&queue);
        async move { Ok(queue.start_due().await?) }
    });
    jobs.start(Job { late_after: FREQUENT_LATE_AFTER, ..Job::new("memory", MEMORY_INTERVAL) }, move || {
        let (context, registry) = (context.clone(), registry.clone());
        async move {
            context.metrics.upkeep();
            registry.observe();
            Ok(())
        }
    });
}

/// Starts jobs on shared data, with a lease.
struct LeasedJobs<'a> {
    jobs: &'a Jobs,
    leases: Arc<dyn Leases>,
    db: Db,
}

impl LeasedJobs<'_> {
    fn start<F, R>(&self, name: &'static str, run: F)
    where
        F: Fn(Db) -> R + Send + Sync + 'static,
        R: Future<Output = Result> + Send + 'static,
    {
        let db = self.db.clone();
        self.jobs.start_leased(Job::new(name, DATABASE_INTERVAL), Arc::clone(&self.leases), move || run(db.clone()));
    }
}
