//! The definitions that the agents of an organisation can use: its servers with their usable definitions, its tool sets, and
//! the grants of an agent.
//!
//! Invariants:
//! 1. What [`ToolAccessCache::find`] returns was current at most [`MAX_AGE`] before: a change of a grant, an approval or a tool
//!    set takes effect in every process within this time.
//! 2. If the database fails, what was current at most [`MAX_AGE_WITHOUT_DATABASE`] before is returned; then nothing is.
//! 3. What a toolbox reports, such as an update that was rolled back, is not numbered as a change. It takes effect after at most
//!    [`MAX_LOADED_AGE`].
//! 4. An organisation is loaded by one request at a time, within a time limit. The others wait for it and use its outcome, also
//!    if it fails: no request waits for the attempts of several others one after another.

use std::collections::{HashMap, HashSet};
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

/// The default of the age up to which access is used without asking the database whether it has changed.
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
    /// Who shares a container.
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

/// A cache of access.
#[derive(Debug)]
pub struct ToolAccessCache {
    ops: Ops,
    max_age: Duration,
    organizations: Mutex<hashlink::LruCache<OrganizationId, Arc<Entry>>>,
}

#[derive(Debug, Default)]
struct Entry {
    current: RwLock<Option<Current>>,
    /// Held while the entry is loaded. Contains the last attempt, if it has failed.
    loading: tokio::sync::Mutex<Option<FailedLoad>>,
}

/// An attempt to load an entry that has failed.
#[derive(Debug)]
struct FailedLoad {
    at: Instant,
    error: Error,
}

/// What is known of an organisation. Cheap to clone.
#[derive(Debug, Clone)]
struct Current {
    /// The number of changes. Everything that is known belongs to it.
    version: (i64, i64),
    loaded_at: Instant,
    checked_at: Instant,
    access: Arc<ToolAccess>,
    /// The grants of the agents that were seen with this number of changes.
    grants: Arc<Mutex<HashMap<AgentId, Arc<Grants>>>>,
}

impl ToolAccessCache {
    /// Creates an empty cache, which uses access without asking the database for `max_age`.
    #[must_use]
    pub fn new(ops: Ops, max_age: Duration) -> Self {
        let organizations = Mutex::new(hashlink::LruCache::new(ORGANIZATIONS));
        Self { ops, max_age, organizations }
    }

    /// Returns what an agent can use.
    ///
    /// # Errors
    /// `not_found` if the organisation does not exist; `unavailable` if the database has failed for a second.
    pub async fn find(&self, organization: &OrganizationId, agent: &AgentId) -> Result<AgentAccess> {
        let entry = self.entry(organization);
        let arrived = Instant::now();
        if let Some(found) = entry.find(agent, self.max_age) {
            return Ok(found);
        }
        let mut failed = entry.loading.lock().await;
        // Another request may have loaded it in the meantime, or tried to.
        if let Some(found) = entry.find(agent, self.max_age.max(arrived.elapsed())) {
            return Ok(found);
        }
        if let Some(FailedLoad { error, .. }) = failed.as_ref().filter(|failed| failed.at >= arrived) {
            return entry.find(agent, MAX_AGE_WITHOUT_DATABASE).ok_or_else(|| error.without_cause());
        }
        match with_timeout(Box::pin(self.load(&entry, organization, agent))).await {
            Ok(found) => {
                *failed = None;
                Ok(found)
            }
            Err(error) if error.code == Code::NotFound => Err(error),
            Err(error) => {
                *failed = Some(FailedLoad { at: Instant::now(), error: error.without_cause() });
                entry.find(agent, MAX_AGE_WITHOUT_DATABASE).ok_or(error)
            }
        }
    }

    /// Forgets what is known of an organisation, so that the next request reads it again. For changes of this process.
    pub fn evict(&self, organization: &OrganizationId) {
        if let Some(current) = self.entry(organization).current.write().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            current.version = (-1, -1);
            current.checked_at -= MAX_AGE_WITHOUT_DATABASE;
        }
    }

    fn entry(&self, organization: &OrganizationId) -> Arc<Entry> {
        let mut organizations = self.organizations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = organizations.get(organization) {
            return Arc::clone(entry);
        }
        let entry = Arc::<Entry>::default();
        organizations.insert(organization.clone(), Arc::clone(&entry));
        entry
    }

    async fn load(&self, entry: &Entry, organization: &OrganizationId, agent: &AgentId) -> Result<AgentAccess> {
        let mut conn = self.ops.store.read().await?;
        // Read first: a change after it has a higher number, and is read with the next check.
        let checked_at = Instant::now();
        let version = conn.organization_version(organization).await?;
        let known = entry.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.filter(|known| known.version == version);
        let current = match known {
            Some(known) if known.loaded_at.elapsed() < MAX_LOADED_AGE => Current { checked_at, ..known },
            known => {
                let access = Arc::new(load_access(&mut conn, organization).await?);
                // Toolboxes do not report grants.
                let grants = known.map(|known| known.grants).unwrap_or_default();
                Current { version, loaded_at: checked_at, checked_at, access, grants }
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
        *entry.current.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
        entry.find(agent, MAX_AGE_WITHOUT_DATABASE).ok_or_else(|| Error::internal("the access was just loaded"))
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
    fn find(&self, agent: &AgentId, max_age: Duration) -> Option<AgentAccess> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_ref().filter(|current| current.checked_at.elapsed() < max_age)?;
        Some(AgentAccess { access: Arc::clone(&current.access), grants: current.grants_of(agent)? })
    }
}

/// Returns what an agent can use at present, without the cache.
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
    Ok(ToolAccess { organization_slug: found.slug, servers, tool_sets })
}
