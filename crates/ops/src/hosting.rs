//! The hosting services: the progress writer, the call recorder and the in-memory caches.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::task::JoinHandle;
use waypost_content::clean;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{OrganizationId, VersionId};
use waypost_core::secret::{SecretKey, SecretKeys};
use waypost_core::version::Version;
use waypost_core::{Clock, Code, Error, Random, Result};
use waypost_jobs::Jobs;
use waypost_link::Forward;
use waypost_outbound::Outbound;
use waypost_store::error::UNAVAILABLE;
use waypost_store::recorder::Recorder;
use waypost_store::version;
use waypost_store::writer::Writer;
use waypost_store::{Conn, Db};

use crate::caches::{
    self, AgentTokenCache, Identities, PersonTokenCache, RecentSessions, StepTitles, TokenCache, UnknownAccounts,
};
use crate::call_contents::ContentsQueue;
use crate::limits::{NewUserLimit, TicketLimits};
use crate::notifications::Notifier;
use crate::offers::OfferCache;
use crate::{Ops, ToolboxSwitch};

/// The time limit of a client's call. Clients time out soon after, and a slow call would block others.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a client's call with a time limit.
///
/// # Errors
/// `unavailable` if the call times out. It is then unknown whether anything was changed.
pub async fn with_timeout<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::new(Code::Unavailable, UNAVAILABLE).caused_by(waypost_store::Error::Timeout);
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}

/// The hosting services of this process.
#[derive(Clone)]
pub struct Hosting {
    pub(crate) ops: Ops,
    pub(crate) writer: Writer,
    pub(crate) recorder: Recorder,
    pub(crate) call_contents: ContentsQueue,
    pub(crate) versions: Cache<VersionId, Arc<Version>>,
    pub(crate) step_titles: StepTitles,
    pub(crate) offer_cache: OfferCache,
    pub(crate) identities: Identities,
    pub(crate) recent_sessions: RecentSessions,
    pub(crate) tokens: TokenCache,
    pub(crate) agent_tokens: AgentTokenCache,
    pub(crate) person_tokens: PersonTokenCache,
    pub(crate) unknown_accounts: UnknownAccounts,
    pub(crate) new_users: NewUserLimit,
    pub(crate) keys: SecretKeys,
    pub(crate) clock: Arc<dyn Clock>,
    jobs: Jobs,
    pub(crate) ticket_limits: TicketLimits,
}

/// The background tasks of a [`Hosting`], which must be awaited at shutdown.
pub struct Tasks {
    writers: Vec<JoinHandle<()>>,
    recorder: JoinHandle<()>,
    jobs: Jobs,
}

/// The options of a [`Hosting`].
pub struct HostingOptions {
    /// The installation's secret keys.
    pub keys: SecretKeys,
    /// The size of the in-memory cache of published versions, in bytes.
    pub version_cache_bytes: u64,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of random bytes.
    pub random: Arc<dyn Random>,
}

impl Hosting {
    /// Starts hosting on `db`.
    #[must_use]
    pub fn start(db: Db, options: HostingOptions) -> (Self, Tasks) {
        let jobs = Jobs::default();
        let background = Ctx {
            caller: Caller::Operator,
            clock: Arc::clone(&options.clock),
            random: Arc::clone(&options.random),
            request_id: "background".to_owned(),
        };
        let (writer, writers) = Writer::start_in(&jobs, db.clone(), options.random);
        let (recorder, recording) = Recorder::start_in(&jobs, db.clone());
        let sealing = Ops::new(db.clone()).with_keyring(options.keys.keyring());
        let call_contents = ContentsQueue::start(&jobs, sealing, background.clone());
        let offer_cache = OfferCache::start(db.clone(), Arc::clone(&options.clock), &jobs);
        let hosting = Self {
            ops: Ops::new(db).with_keyring(options.keys.keyring()).with_background(background),
            writer,
            recorder,
            call_contents,
            versions: caches::versions(options.version_cache_bytes),
            step_titles: StepTitles::default(),
            offer_cache,
            identities: Identities::default(),
            recent_sessions: RecentSessions::default(),
            tokens: TokenCache::default(),
            agent_tokens: AgentTokenCache::default(),
            person_tokens: PersonTokenCache::default(),
            unknown_accounts: UnknownAccounts::default(),
            new_users: NewUserLimit::new(Arc::clone(&options.clock)),
            keys: options.keys,
            clock: options.clock,
            jobs: jobs.clone(),
            ticket_limits: TicketLimits::default(),
        };
        (hosting, Tasks { writers, recorder: recording, jobs })
    }

    /// Sets the notifier, which sends emails.
    #[must_use]
    pub fn with_notifier(self, notifier: Arc<dyn Notifier>) -> Self {
        Self { ops: self.ops.with_notifier(notifier), ..self }
    }

    /// Sets the HTTP client for requests to URLs that users specify.
    #[must_use]
    pub fn with_outbound(self, outbound: Outbound) -> Self {
        Self { ops: self.ops.with_outbound(outbound), ..self }
    }

    /// Sets the limit of new anonymous users per client address and hour; 0 means no limit.
    #[must_use]
    pub fn with_new_users_per_address(self, count: u32) -> Self {
        Self { new_users: self.new_users.with_count(count), ..self }
    }

    /// Sets the maximum number of instances of an organisation.
    #[must_use]
    pub fn with_instance_limit(self, count: u32) -> Self {
        Self { ops: self.ops.with_instance_limit(count), ..self }
    }

    /// Sets the origin of the console, which is part of URLs in messages.
    #[must_use]
    pub fn with_console_origin(self, origin: String) -> Self {
        Self { ops: self.ops.with_console_origin(origin), ..self }
    }

    /// Switches toolboxes and instances on or off for the whole installation.
    #[must_use]
    pub fn with_toolboxes(self, switch: ToolboxSwitch) -> Self {
        Self { ops: self.ops.with_toolboxes(switch), ..self }
    }

    /// Sets how requests are forwarded to toolboxes that have no link to this process.
    #[must_use]
    pub fn with_forward(self, forward: Arc<dyn Forward>) -> Self {
        Self { ops: self.ops.with_forward(forward), ..self }
    }

    /// Sets the limits of support tickets.
    #[must_use]
    pub fn with_ticket_limits(self, ticket_limits: TicketLimits) -> Self {
        Self { ticket_limits, ..self }
    }

    /// Returns the installation's current secret key.
    #[must_use]
    pub fn secret(&self) -> &SecretKey {
        &self.keys.current
    }

    /// Returns the current and the previous secret key, for verification and decryption.
    #[must_use]
    pub fn keys(&self) -> &SecretKeys {
        &self.keys
    }

    /// Returns the recorder of calls.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Returns the clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns the operations on the same database.
    #[must_use]
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Returns the cache of the servers' offers.
    #[must_use]
    pub fn offer_cache(&self) -> &OfferCache {
        &self.offer_cache
    }

    /// Returns the supervised jobs of this process.
    #[must_use]
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Returns the number of calls that wait for the writer.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.writer.depth()
    }

    /// Returns a connection for reading.
    pub(crate) async fn read(&self) -> Result<Conn> {
        Ok(self.ops.store.read().await?)
    }

    /// Returns a published version from the cache or the store. The caller must have checked that the version's
    /// walkthrough is offered on the server.
    pub(crate) async fn version(&self, organization: &OrganizationId, id: &VersionId) -> Result<Arc<Version>> {
        if let Some(version) = self.versions.get(id) {
            return Ok(version);
        }
        let mut conn = self.read().await?;
        let version = Arc::new(load_version(&mut conn, organization, id).await?);
        self.versions.insert(id.clone(), Arc::clone(&version));
        Ok(version)
    }

    /// Creates the context of a client's call to a server.
    #[must_use]
    pub fn context(&self, caller: waypost_core::caller::Caller, random: Arc<dyn Random>, request_id: String) -> Ctx {
        Ctx { caller, clock: Arc::clone(&self.clock), random, request_id }
    }
}

/// Reads a published version and cleans it for serving.
pub(crate) async fn load_version(conn: &mut Conn, organization: &OrganizationId, id: &VersionId) -> Result<Version> {
    let missing = || Error::internal(format!("version {id} is referenced but does not exist"));
    Ok(clean::version(version::find_with_steps(conn, organization, id).await?.ok_or_else(missing)?))
}

impl Tasks {
    /// Stops the jobs and waits until everything that is queued is written. All clones of the [`Hosting`] must have
    /// been dropped.
    pub async fn finish(self) {
        self.jobs.stop().await;
        for task in self.writers.into_iter().chain([self.recorder]) {
            if let Err(error) = task.await {
                tracing::error!(%error, "background task failed");
            }
        }
    }
}
