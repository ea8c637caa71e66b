//! The background jobs of `serve`. They are supervised by `hosting.jobs()` and listed in docs/operations.md.
//!
//! Jobs on shared data have a lease, so that only one replica runs them. Jobs on the state of a process run in every
//! process, as do the jobs that send webhooks and ticket emails, because each message is claimed by one process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use waypost_core::caller::Ctx;
use waypost_core::{SystemClock, SystemRandom};
use waypost_jobs::{Job, Jobs, Leases, Result};
use waypost_ops::identity_provider;
use waypost_ops::job_leases::JobLeases;
use waypost_ops::link_leases::{self, LinkLeases};
use waypost_ops::retention::{self, RetentionPeriods};
use waypost_ops::toolbox_directory::{KnownRevisions, ToolboxDirectory};
use waypost_ops::walkthroughs::{revisions, trash};
use waypost_ops::{
    Ops, agent_tokens, analytics, authorizations, deployments, identity, instances, notifications, remote_checks,
    remote_tokens, tool_definitions, toolbox_counts, toolboxes,
};

use crate::notifications::NotificationSender;
use crate::telemetry::Metrics;
use crate::webhooks::{self, WebhookQueue, WebhookSender};

/// Interval of memory maintenance.
const MEMORY_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of jobs on the database.
const DATABASE_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which queues are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of the search for changes to toolboxes by other processes.
const LINK_INTERVAL: Duration = Duration::from_millis(250);
/// Time after which a job that runs every few seconds is late.
const FREQUENT_LATE_AFTER: Duration = Duration::from_secs(60);
/// Time after which the email job is late: ten rounds, each with the timeouts of a mail server.
const EMAIL_LATE_AFTER: Duration = Duration::from_secs(15 * 60);

/// The data that the jobs work on.
#[derive(Clone)]
pub struct JobContext {
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The resources that operations use.
    pub ops: Ops,
    /// The retention periods of logs.
    pub retention: RetentionPeriods,
    /// The dependencies of the links to toolboxes.
    pub toolboxes: ToolboxDirectory,
    /// The leases of links; `None` without replicas.
    pub leases: Option<LinkLeases>,
}

/// Starts all jobs. They end with [`Jobs::stop`].
pub fn start(jobs: &Jobs, context: JobContext) {
    start_local(jobs, &context);
    let leases = Arc::new(JobLeases::new(context.ops.store().clone(), Arc::new(SystemClock), &SystemRandom));
    let leased = LeasedJobs { jobs, leases, ops: context.ops.clone() };
    leased.start("sessions", |ops| async move {
        identity::delete_expired(ops.store(), &SystemClock).await?;
        Ok(())
    });
    leased.start("sign-ins", |ops| async move {
        authorizations::delete_expired(ops.store(), &SystemClock).await?;
        Ok(())
    });
    leased.start("agent-tokens", |ops| async move {
        agent_tokens::delete_ended(ops.store(), &SystemClock).await?;
        Ok(())
    });
    leased.start("revisions", |ops| async move {
        revisions::delete_expired(ops.store(), &SystemClock).await?;
        Ok(())
    });
    leased.start("trash", |ops| async move {
        trash::purge_expired(&Ctx::operator(), &ops).await?;
        Ok(())
    });
    leased.start("analytics", |ops| async move { Ok(analytics::pack_settled(ops.store(), &SystemClock).await?) });
    let periods = context.retention;
    leased.start("retention", move |ops| async move {
        retention::delete_old(ops.store(), &SystemClock, &periods).await?;
        Ok(())
    });
    if context.ops.is_toolboxes_enabled() {
        start_toolboxes(&leased);
    }
    leased.start(identity_provider::JOB, |ops| async move {
        identity_provider::refresh_due_tokens(&Ctx::operator(), &ops).await?;
        Ok(())
    });
}

/// Starts the jobs of toolboxes on shared data.
fn start_toolboxes(leased: &LeasedJobs<'_>) {
    leased.start("toolboxes", |ops| async move {
        toolboxes::report_unresponsive(&Ctx::operator(), &ops).await?;
        toolboxes::delete_expired_tokens(&Ctx::operator(), &ops).await?;
        deployments::end_offline(&Ctx::operator(), &ops).await?;
        Ok(())
    });
    leased.start("secret-rotations", |ops| async move {
        instances::advance_rotations(&Ctx::operator(), &ops).await?;
        Ok(())
    });
    leased.start(remote_tokens::JOB, |ops| async move {
        remote_tokens::refresh_due(&Ctx::operator(), &ops).await?;
        Ok(())
    });
    let job = Job { late_after: FREQUENT_LATE_AFTER, ..Job::new("remote-servers", POLL_INTERVAL) };
    leased.start_job(job, |ops| async move { Ok(remote_checks::check_due(&Ctx::operator(), &ops).await?) });
    let job = Job { late_after: FREQUENT_LATE_AFTER, ..Job::new("initial-approvals", POLL_INTERVAL) };
    leased.start_job(job, |ops| async move { Ok(tool_definitions::check_new(&Ctx::operator(), &ops).await?) });
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
    let sender = WebhookSender { cx: Ctx::operator(), ops: context.ops.clone() };
    let queue = Arc::new(WebhookQueue::new(sender));
    jobs.start(Job { late_after: FREQUENT_LATE_AFTER, ..Job::new(webhooks::JOB, POLL_INTERVAL) }, move || {
        let queue = Arc::clone(&queue);
        async move { Ok(queue.start_due().await?) }
    });
    if context.ops.is_toolboxes_enabled() {
        start_links(jobs, &context);
        start_counts(jobs, &context.ops);
        if let Some(leases) = context.leases.clone() {
            start_lease_renewal(jobs, &context.ops, leases);
        }
    }
    jobs.start(Job { late_after: FREQUENT_LATE_AFTER, ..Job::new("memory", MEMORY_INTERVAL) }, move || {
        let (context, registry) = (context.clone(), registry.clone());
        async move {
            context.metrics.upkeep();
            registry.observe();
            Ok(())
        }
    });
}

/// Starts the job that notices changes to toolboxes by other processes.
fn start_links(jobs: &Jobs, context: &JobContext) {
    let (directory, known) = (context.toolboxes.clone(), Arc::new(Mutex::new(KnownRevisions::default())));
    jobs.start(Job { late_after: FREQUENT_LATE_AFTER, ..Job::new("toolbox-links", LINK_INTERVAL) }, move || {
        let (directory, known) = (directory.clone(), Arc::clone(&known));
        async move { Ok(directory.refresh_links(&mut *known.lock().await).await?) }
    });
}

/// Starts the job that renews the leases of the links to this process.
fn start_lease_renewal(jobs: &Jobs, ops: &Ops, leases: LinkLeases) {
    let links = ops.links().clone();
    let job = Job::new("toolbox-link-leases", link_leases::RENEWAL_INTERVAL);
    jobs.start(Job { late_after: FREQUENT_LATE_AFTER, ..job }, move || {
        let (links, leases) = (links.clone(), leases.clone());
        async move { Ok(leases.renew(&links.toolboxes()).await?) }
    });
}

/// Starts the job that counts toolboxes and instances for the metrics.
fn start_counts(jobs: &Jobs, ops: &Ops) {
    let ops = ops.clone();
    jobs.start(Job::new("toolbox-counts", DATABASE_INTERVAL), move || {
        let ops = ops.clone();
        async move { Ok(toolbox_counts::observe(&Ctx::operator(), &ops).await?) }
    });
}

/// Starts jobs on shared data, with a lease.
struct LeasedJobs<'a> {
    jobs: &'a Jobs,
    leases: Arc<dyn Leases>,
    ops: Ops,
}

impl LeasedJobs<'_> {
    fn start<F, R>(&self, name: &'static str, run: F)
    where
        F: Fn(Ops) -> R + Send + Sync + 'static,
        R: Future<Output = Result> + Send + 'static,
    {
        self.start_job(Job::new(name, DATABASE_INTERVAL), run);
    }

    fn start_job<F, R>(&self, job: Job, run: F)
    where
        F: Fn(Ops) -> R + Send + Sync + 'static,
        R: Future<Output = Result> + Send + 'static,
    {
        let ops = self.ops.clone();
        self.jobs.start_leased(job, Arc::clone(&self.leases), move || run(ops.clone()));
    }
}
