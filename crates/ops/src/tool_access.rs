//! The definitions that the agents of an organisation can use: its servers with their usable definitions, its tool sets, and
//! the grants of an agent.
//!
//! Invariants:
//! 1. What [`ToolAccessCache::find`] returns was current at most [`MAX_AGE`] before: a change to a grant, an approval,
//!    a tool set or the switch of the gateway takes effect in every process within this time.
//! 2. If the database fails, what was current at most [`MAX_AGE_WITHOUT_DATABASE`] before is returned; after that, only
//!    an error.
//! 3. A report of a toolbox, such as an update that was rolled back, does not increase the change counter. It takes
//!    effect after at most [`MAX_LOADED_AGE`].
//! 4. An organisation is loaded by one request at a time, within a time limit. The others wait for it and use its
//!    outcome, even if it fails, so that no request waits for several attempts one after another.
//! 5. After a server's definitions have been compared with the stored ones in this process (`AccessEntries::evict`), a request
//!    gets only what was read after that: neither what is cached, nor what is being loaded at that time.
//! 6. While the gateway is switched off for an organisation, [`ToolAccessCache::find`] returns only an error. The
//!    gateway has no other source of what an agent can use, so that no part of it can ignore the switch.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::grant::{Grant, MAX_GRANTS};
use waypost_core::id::{AgentId, InstanceId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::tool_definition::ToolDefinition;
use waypost_core::tool_override::ToolOverride;
use waypost_core::tool_set::{MAX_TOOL_SETS, ToolSet};
use waypost_core::{Code, Error, Result};
use waypost_store::grant::GrantFilter;
use waypost_store::{Conn, grant, instance, instance_source, organization, tool_definition, tool_override, tool_set};
use waypost_toolbox_proto::entry::Sharing;

use crate::Ops;
use crate::hosting::with_timeout;
use crate::tool_overrides::shadowed_tools;

/// The default age up to which access is used without checking in the database whether it has changed.
pub const MAX_AGE: Duration = Duration::from_millis(250);
/// The age up to which access is used if the database fails.
pub const MAX_AGE_WITHOUT_DATABASE: Duration = Duration::from_secs(1);
/// The age after which access is loaded again, even if no change is known.
pub const MAX_LOADED_AGE: Duration = Duration::from_secs(5);
/// The maximum number of organisations whose access is cached.
const ORGANIZATIONS: usize = 1_000;
/// The maximum number of agents of an organisation whose grants are cached: its maximum number of agents.
const AGENTS: usize = waypost_core::agent::MAX_AGENTS;
/// The number of instances that are read at a time.
const PAGE: i64 = 200;

/// The servers and tool sets of an organisation.
#[derive(Debug)]
pub struct ToolAccess {
    /// The organisation's slug.
    pub organization_slug: String,
    /// Whether its agents can use the gateway.
    pub gateway_enabled: bool,
    /// The servers, ordered by slug.
    pub servers: Vec<AccessibleServer>,
    /// The tool sets.
    pub tool_sets: Vec<ToolSet>,
}

/// The server of an instance.
#[derive(Debug)]
pub struct AccessibleServer {
    /// The instance.
    pub instance: Instance,
    /// The callers that share a container.
    pub sharing: Sharing,
    /// The definitions that are approved and listed, ordered by kind and name.
    pub definitions: Vec<ToolDefinition>,
    /// The URIs of the resources that are listed but not approved: they cannot be read through a template either.
    pub quarantined_resources: HashSet<String>,
    /// The names and descriptions of tools for agents, by original name.
    pub overrides: HashMap<String, ToolOverride>,
    /// The original names of the tools whose name an override gives to another tool.
    pub shadowed_tools: HashSet<String>,
}

/// The grants of an agent, by instance.
pub type Grants = HashMap<InstanceId, Vec<Grant>>;

/// The definitions that an agent can use.
#[derive(Debug, Clone)]
pub struct AgentAccess {
    /// The servers and tool sets of the organisation.
    pub access: Arc<ToolAccess>,
    /// The grants of the agent.
    pub grants: Arc<Grants>,
}

/// A cache of the access of agents.
#[derive(Debug)]
pub struct ToolAccessCache {
    ops: Ops,
    max_age: Duration,
}

/// The entries of the cache, by organisation. All clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AccessEntries(Arc<Mutex<hashlink::LruCache<OrganizationId, Arc<Entry>>>>);

#[derive(Debug, Default)]
struct Entry {
    current: RwLock<Option<Current>>,
    /// Held while the entry is loaded. Contains the last attempt, if it has failed.
    loading: tokio::sync::Mutex<Option<FailedLoad>>,
    /// The number of evictions.
    evictions: AtomicU64,
}

/// An attempt to load an entry that has failed.
#[derive(Debug)]
struct FailedLoad {
    at: Instant,
    error: Error,
}

/// The cached access of an organisation. Cheap to clone.
#[derive(Debug, Clone)]
struct Current {
    /// The value of the change counter to which the other fields belong.
    version: (i64, i64),
    /// The number of evictions before the version was read.
    evictions: u64,
    loaded_at: Instant,
    checked_at: Instant,
    access: Arc<ToolAccess>,
    /// The grants of the agents that were looked up at this value of the change counter.
    grants: Arc<Mutex<HashMap<AgentId, Arc<Grants>>>>,
}

impl ToolAccessCache {
    /// Creates a cache that uses access for `max_age` without checking it in the database. It shares its entries with
    /// the caches of all clones of `ops`.
    #[must_use]
    pub fn new(ops: Ops, max_age: Duration) -> Self {
        Self { ops, max_age }
    }

    /// Returns what an agent can use.
    ///
    /// # Errors
    /// `not_found` if the organisation does not exist; `forbidden` (`reason` is `gateway_off`) if its gateway is switched off;
    /// `unavailable` if the database has failed for a second.
    pub async fn find(&self, organization: &OrganizationId, agent: &AgentId) -> Result<AgentAccess> {
        let found = self.find_current(organization, agent).await?;
        if found.access.gateway_enabled { Ok(found) } else { Err(gateway_off()) }
    }

    /// Returns what an agent could use if the gateway were switched on: `gateway_enabled` is not checked.
    async fn find_current(&self, organization: &OrganizationId, agent: &AgentId) -> Result<AgentAccess> {
        let entry = self.ops.tool_access.entry(organization);
        let (arrived, evictions) = (Instant::now(), entry.evictions());
        if let Some(found) = entry.find(agent, self.max_age, evictions) {
            return Ok(found);
        }
        let mut failed = entry.loading.lock().await;
        // Another request may have loaded it in the meantime, or tried to.
        if let Some(found) = entry.find(agent, self.max_age.max(arrived.elapsed()), evictions) {
            return Ok(found);
        }
        if let Some(FailedLoad { error, .. }) = failed.as_ref().filter(|failed| failed.at >= arrived) {
            return entry.find(agent, MAX_AGE_WITHOUT_DATABASE, evictions).ok_or_else(|| error.without_cause());
        }
        match with_timeout(Box::pin(self.load(&entry, organization, agent))).await {
            Ok(found) => {
                *failed = None;
                Ok(found)
            }
            Err(error) if error.code == Code::NotFound => Err(error),
            Err(error) => {
                *failed = Some(FailedLoad { at: Instant::now(), error: error.without_cause() });
                entry.find(agent, MAX_AGE_WITHOUT_DATABASE, evictions).ok_or(error)
            }
        }
    }

    async fn load(&self, entry: &Entry, organization: &OrganizationId, agent: &AgentId) -> Result<AgentAccess> {
        let mut conn = self.ops.store.read().await?;
        // The counter is read first: a later change increases it, and is noticed by the next check.
        let (evictions, checked_at) = (entry.evictions(), Instant::now());
        let version = conn.organization_version(organization).await?;
        let known = entry.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.filter(|known| known.version == version);
        let current = match known {
            Some(known) if known.loaded_at.elapsed() < MAX_LOADED_AGE => Current { evictions, checked_at, ..known },
            known => {
                let access = Arc::new(load_access(&mut conn, organization).await?);
                // Toolboxes do not report grants.
                let grants = known.map(|known| known.grants).unwrap_or_default();
                Current { version, evictions, loaded_at: checked_at, checked_at, access, grants }
            }
        };
        if current.grants_of(agent).is_none() {
            let loaded = Arc::new(load_grants(&mut conn, organization, agent).await?);
            let mut grants = current.lock_grants();
            if grants.len() >= AGENTS {
                grants.clear();
            }
            grants.insert(agent.clone(), loaded);
        }
        entry.store(current);
        let found = entry.find(agent, MAX_AGE_WITHOUT_DATABASE, evictions);
        found.ok_or_else(|| Error::internal("the access was just loaded"))
    }
}

impl Default for AccessEntries {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(hashlink::LruCache::new(ORGANIZATIONS))))
    }
}

impl AccessEntries {
    /// Makes later requests check in the database whether the access of an organisation has changed. Called for changes
    /// that this process has made or noticed.
    pub(crate) fn evict(&self, organization: &OrganizationId) {
        if let Some(entry) = self.lock().peek(organization) {
            entry.evict();
        }
    }

    fn entry(&self, organization: &OrganizationId) -> Arc<Entry> {
        let mut organizations = self.lock();
        if let Some(entry) = organizations.get(organization) {
            return Arc::clone(entry);
        }
        let entry = Arc::<Entry>::default();
        organizations.insert(organization.clone(), Arc::clone(&entry));
        entry
    }

    fn lock(&self) -> MutexGuard<'_, hashlink::LruCache<OrganizationId, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn lock_grants(&self) -> MutexGuard<'_, HashMap<AgentId, Arc<Grants>>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grants_of(&self, agent: &AgentId) -> Option<Arc<Grants>> {
        self.lock_grants().get(agent).map(Arc::clone)
    }
}

impl Entry {
    /// Returns what an agent can use if it was current less than `max_age` before. `evictions` is the number of
    /// evictions when the request arrived: access that was read before a later eviction is not returned.
    fn find(&self, agent: &AgentId, max_age: Duration, evictions: u64) -> Option<AgentAccess> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_ref().filter(|current| current.evictions >= evictions)?;
        if current.checked_at.elapsed() >= max_age {
            return None;
        }
        Some(AgentAccess { access: Arc::clone(&current.access), grants: current.grants_of(agent)? })
    }

    fn store(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
    }

    fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::SeqCst)
    }

    /// Ends the use of access that has been read, or is being read, for requests that arrive from now on.
    fn evict(&self) {
        self.evictions.fetch_add(1, Ordering::SeqCst);
    }
}

/// Reads what an agent can currently use, without the cache.
pub(crate) async fn load(conn: &mut Conn, organization: &OrganizationId, agent: &AgentId) -> Result<AgentAccess> {
    let access = Arc::new(load_access(conn, organization).await?);
    Ok(AgentAccess { access, grants: Arc::new(load_grants(conn, organization, agent).await?) })
}

async fn load_grants(conn: &mut Conn, organization: &OrganizationId, agent: &AgentId) -> Result<Grants> {
    let limit = u32::try_from(MAX_GRANTS).unwrap_or(u32::MAX);
    let filter = GrantFilter { agent: Some(agent), instance: None };
    let mut grants = Grants::new();
    for grant in grant::list(conn, organization, filter, None, limit).await? {
        grants.entry(grant.instance_id.clone()).or_default().push(grant);
    }
    Ok(grants)
}

/// Returns all instances of an organisation, ordered by slug.
pub(crate) async fn list_instances(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<Instance>> {
    let mut instances: Vec<Instance> = Vec::new();
    loop {
        let after = instances.last().map(|instance| instance.slug.clone());
        let page = instance::list(conn, organization, after.as_deref(), PAGE).await?;
        if page.is_empty() {
            return Ok(instances);
        }
        instances.extend(page);
    }
}

async fn load_access(conn: &mut Conn, organization: &OrganizationId) -> Result<ToolAccess> {
    let found = organization::find(conn, organization).await?.ok_or_else(|| Error::not_found("organisation"))?;
    let mut definitions: HashMap<InstanceId, Vec<ToolDefinition>> = HashMap::new();
    for definition in tool_definition::list_usable(conn, organization).await? {
        definitions.entry(definition.instance_id.clone()).or_default().push(definition);
    }
    let mut quarantined: HashMap<InstanceId, HashSet<String>> = HashMap::new();
    for (instance, uri) in tool_definition::list_quarantined_resources(conn, organization).await? {
        quarantined.entry(instance).or_default().insert(uri);
    }
    let mut overrides: HashMap<InstanceId, HashMap<String, ToolOverride>> = HashMap::new();
    for one in tool_override::list(conn, organization, None).await? {
        overrides.entry(one.instance_id.clone()).or_default().insert(one.tool.clone(), one);
    }
    let mut servers = Vec::new();
    for instance in list_instances(conn, organization).await? {
        // An instance without usable definitions cannot be used.
        let Some(definitions) = definitions.remove(&instance.id) else { continue };
        let sharing = match instance.catalog_version_id() {
            Some(version) => {
                let source = instance_source::find(conn, organization, version).await?;
                source.map_or(Sharing::PerSession, |source| source.version.definition.sharing)
            }
            None => Sharing::Shared,
        };
        let quarantined_resources = quarantined.remove(&instance.id).unwrap_or_default();
        let overrides = overrides.remove(&instance.id).unwrap_or_default();
        let shadowed_tools = shadowed_tools(&instance.slug, &definitions, &overrides);
        let server =
            AccessibleServer { instance, sharing, definitions, quarantined_resources, overrides, shadowed_tools };
        servers.push(server);
    }
    let limit = u32::try_from(MAX_TOOL_SETS).unwrap_or(u32::MAX);
    let tool_sets = tool_set::list(conn, organization, None, limit).await?;
    Ok(ToolAccess { organization_slug: found.slug, gateway_enabled: found.gateway_enabled, servers, tool_sets })
}

/// The `reason` of the error while the gateway is switched off for an organisation.
pub const OFF_REASON: &str = "gateway_off";

fn gateway_off() -> Error {
    let message = "The gateway is switched off for this organisation. An admin can switch it on again.";
    Error::new(Code::Forbidden, message).with("reason", OFF_REASON)
}

#[cfg(test)]
mod tests {
    use waypost_core::Random;
    use waypost_core::random::SeededRandom;

    use super::*;
    use crate::caches::TOKEN_LIFETIME;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn agent() -> AgentId {
        AgentId::from_store("agt_1".to_owned())
    }

    /// Returns access whose reading began at `step`, after this number of evictions.
    fn read_at(step: usize, evictions: u64) -> Current {
        let access = ToolAccess {
            organization_slug: step.to_string(),
            gateway_enabled: true,
            servers: Vec::new(),
            tool_sets: Vec::new(),
        };
        let (now, grants) = (Instant::now(), HashMap::from([(agent(), Arc::default())]));
        Current {
            version: (0, 0),
            evictions,
            loaded_at: now,
            checked_at: now,
            access: Arc::new(access),
            grants: Arc::new(Mutex::new(grants)),
        }
    }

    /// Returns the step at which the reading of the access that a request gets began.
    fn find(entry: &Entry, evictions: u64) -> Option<usize> {
        entry.find(&agent(), HOUR, evictions).map(|found| found.access.organization_slug.parse().unwrap())
    }

    /// Changes of grants, approvals, tokens, agents and instances take effect in every process within one second.
    #[test]
    fn access_is_used_for_at_most_one_second_after_it_was_read() {
        for age in [MAX_AGE, MAX_AGE_WITHOUT_DATABASE, TOKEN_LIFETIME] {
            assert!(age <= Duration::from_secs(1), "{age:?}");
        }
    }

    #[test]
    fn a_read_that_began_before_an_eviction_serves_only_earlier_requests() {
        let entry = Entry::default();
        let before = entry.evictions();
        let reading = read_at(1, entry.evictions());
        entry.evict();
        let after = entry.evictions();
        entry.store(reading);
        assert_eq!(find(&entry, before), Some(1), "it arrived before the eviction");
        assert_eq!(find(&entry, after), None);
        entry.store(read_at(2, entry.evictions()));
        assert_eq!((find(&entry, before), find(&entry, after)), (Some(2), Some(2)));
        entry.evict();
        assert_eq!((find(&entry, after), find(&entry, entry.evictions())), (Some(2), None));
    }

    /// Invariants 4 and 5, for any order of requests, evictions and readings.
    #[test]
    fn no_request_gets_access_that_was_read_before_an_earlier_eviction() {
        let random = SeededRandom::new(7);
        let below = |limit: usize| {
            let mut bytes = [0];
            random.fill(&mut bytes);
            usize::from(bytes[0]) % limit
        };
        let entry = Entry::default();
        let (mut evicted, mut requests) = (Vec::new(), Vec::new());
        let (mut reading, mut stored) = (None, None);
        for step in 0..5_000 {
            match below(5) {
                0 => {
                    entry.evict();
                    evicted.push(step);
                }
                1 if reading.is_none() => reading = Some((step, entry.evictions())),
                2 => {
                    if let Some((began, evictions)) = reading.take() {
                        entry.store(read_at(began, evictions));
                        stored = Some(began);
                    }
                }
                3 => requests.push((step, entry.evictions())),
                _ if !requests.is_empty() => {
                    let (arrived, evictions) = requests.swap_remove(below(requests.len()));
                    let found = find(&entry, evictions);
                    let last_eviction = evicted.iter().rev().find(|at| **at < arrived);
                    let is_usable = stored.is_some_and(|began| last_eviction.is_none_or(|at| began > *at));
                    assert_eq!(found, stored.filter(|_| is_usable), "{arrived}");
                }
                _ => {}
            }
        }
    }

    #[test]
    fn an_eviction_affects_one_organisation() {
        let entries = AccessEntries::default();
        let [one, other] = ["org_1", "org_2"].map(|id| OrganizationId::from_store(id.to_owned()));
        for id in [&one, &other] {
            entries.entry(id).store(read_at(1, 0));
        }
        entries.clone().evict(&one);
        entries.evict(&OrganizationId::from_store("org_unknown".to_owned()));
        let found = [&one, &other].map(|id| entries.entry(id)).map(|entry| find(&entry, entry.evictions()));
        assert_eq!(found, [None, Some(1)]);
    }
}
