//! The background jobs of `serve` beside its requests. `hosting.jobs()` supervises them; docs/operations.md lists them.
//!
//! Jobs on what is shared have a lease: of several replicas, one runs them. Jobs on what each process has for itself run
//! everywhere, and so does the sending of webhooks, because each message is claimed by one process.

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

/// How often memory that nobody needs is given back.
const OFTEN: Duration = Duration::from_secs(5);
/// How often the database is looked through.
const SELDOM: Duration = Duration::from_secs(30);
/// How often the queue of webhooks is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A job of every few seconds is late after this long.
const LATE: Duration = Duration::from_secs(60);
/// The job of emails is late after this long: its ten rounds, each with the timeouts of a mail server.
const SLOW: Duration = Duration::from_secs(15 * 60);

/// What the jobs work on.
#[derive(Clone)]
pub struct JobContext {
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The ways to organisations' identity providers.
    pub provider_context: IdentityProviderContext,
    /// How long logs are kept.
    pub retention: RetentionPeriods,
    /// The database.
    pub db: Db,
}

/// Starts all jobs among `jobs`. They end with [`Jobs::stop`].
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

/// Starts the sending of emails about tickets, in every process: each digest and each email is claimed by one. A mail server
/// that times out makes a run slow, which is no reason to take a process out of service.
pub fn start_emails(jobs: &Jobs, sender: NotificationSender) {
    jobs.start(Job { late_after: SLOW, ..Job::new(notifications::JOB, LOOK) }, move || {
        let sender = sender.clone();
        async move { Ok(sender.look().await?) }
    });
}

/// Jobs that every process has for itself.
fn start_local(jobs: &Jobs, context: &JobContext) {
    let (context, registry) = (context.clone(), jobs.clone());
    let deliveries = WebhookSender {
        cx: Ctx::operator(),
        ops: Ops::new(context.db.clone()),
        provider_context: context.provider_context.clone(),
    };
    let queue = Arc::new(WebhookQueue::new(deliveries));
    jobs.start(Job { late_after: LATE, ..Job::new(webhooks::JOB, LOOK) }, move || {
        let queue = Arc::clone(&queue);
        async move { Ok(queue.look().await?) }
    });
    jobs.start(Job { late_after: LATE, ..Job::new("memory", OFTEN) }, move || {
        let (context, registry) = (context.clone(), registry.clone());
        async move {
            context.metrics.upkeep();
            registry.observe();
            Ok(())
        }
    });
}

/// How jobs on what all replicas share are started.
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
        self.jobs.start_leased(Job::new(name, SELDOM), Arc::clone(&self.leases), move || run(db.clone()));
    }
}
