//! The caches of the operations that hosted servers use, except those of offers ([`crate::offers`]).
//!
//! [`crate::hosting::Hosting`] owns one of each. The types are defined here, and not in the modules that fill the
//! caches, so that these modules can depend on [`crate::hosting`] without a cycle.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use waypost_core::Timestamp;
use waypost_core::agent::{Agent, AgentToken};
use waypost_core::id::{EndUserId, OauthGrantId, OrganizationId, ServerId, SessionId, VersionId};
use waypost_core::version::Version;
use waypost_store::oauth_grant::AccessToken;
use waypost_store::system::PersonToken;

/// The time for which a positive lookup of an end user is cached.
const LOOKUP_LIFETIME: Duration = Duration::from_secs(1);
/// The time after the last use of a key for which the cache records that it has stored progress.
const STORED: Duration = Duration::from_hours(1);
/// The maximum number of cached keys of end users.
const MAX_KEYS: u64 = 100_000;
/// The maximum number of sessions whose last recorded use is cached.
const MAX_SESSIONS: u64 = 100_000;
/// The size of the cache of step titles, in bytes.
const TITLES_BYTES: u64 = 8 * 1024 * 1024;
/// The time for which an access token is cached, and therefore the maximum time for which a revoked token works.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(1);
/// The time for which the cache records that a handle has nothing to join.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(60);

/// The key that identifies an anonymous user. Any client can invent one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnonymousKey {
    /// A tracking ID of an organisation, in its stored form.
    Tracking(OrganizationId, String),
    /// The SHA-256 of a handle of a server, hexadecimal.
    Handle(ServerId, String),
}

/// A known end user, with the session of their handle.
#[derive(Debug, Clone)]
pub(crate) struct KnownUser {
    pub(crate) end_user_id: EndUserId,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) last_used_at: Timestamp,
}

/// The caches of anonymous users.
#[derive(Debug, Clone)]
pub(crate) struct Identities {
    /// Positive lookups of the last second.
    pub(crate) fresh: Cache<AnonymousKey, KnownUser>,
    /// Keys that were used within the last hour, for rate limits only: the user may have been deleted.
    pub(crate) stored: Cache<AnonymousKey, ()>,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            fresh: Cache::builder().max_capacity(MAX_KEYS).time_to_live(LOOKUP_LIFETIME).build(),
            stored: Cache::builder().max_capacity(MAX_KEYS).time_to_idle(STORED).build(),
        }
    }
}

impl Identities {
    pub(crate) fn insert(&self, key: AnonymousKey, known: KnownUser) {
        self.stored.insert(key.clone(), ());
        self.fresh.insert(key, known);
    }
}

/// The times at which sessions without a handle were last recorded as used.
#[derive(Debug, Clone)]
pub(crate) struct RecentSessions(pub(crate) Cache<SessionId, Timestamp>);

impl Default for RecentSessions {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_SESSIONS).build())
    }
}

/// The folded step titles of published versions. Entries never expire, because versions never change.
#[derive(Clone)]
pub(crate) struct StepTitles(pub(crate) Cache<VersionId, Arc<str>>);

impl Default for StepTitles {
    fn default() -> Self {
        let weigh = |_: &VersionId, titles: &Arc<str>| u32::try_from(titles.len() + 100).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(TITLES_BYTES).weigher(weigh).build())
    }
}

/// A cache of access tokens that were valid within the last second.
#[derive(Debug, Clone)]
pub(crate) struct TokenCache(pub(crate) Cache<(ServerId, String), AccessToken>);

impl Default for TokenCache {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_live(TOKEN_LIFETIME).build())
    }
}

/// A token of an agent that was valid when it was looked up.
#[derive(Debug, Clone)]
pub(crate) struct KnownAgentToken {
    pub(crate) token: AgentToken,
    pub(crate) agent: Agent,
    /// The monotonic time of the lookup.
    pub(crate) found_at: Duration,
}

/// A cache of the tokens of agents that were valid within the last second, by their SHA-256.
#[derive(Debug, Clone)]
pub(crate) struct AgentTokenCache(pub(crate) Cache<String, Arc<KnownAgentToken>>);

impl Default for AgentTokenCache {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_live(TOKEN_LIFETIME).build())
    }
}

/// An access token of a person that was valid when it was looked up.
#[derive(Debug, Clone)]
pub(crate) struct KnownPersonToken {
    pub(crate) token: PersonToken,
    pub(crate) agent: Agent,
    /// The monotonic time of the lookup.
    pub(crate) found_at: Duration,
}

/// A cache of the access tokens of people that were valid within the last second, by their SHA-256.
#[derive(Debug, Clone)]
pub(crate) struct PersonTokenCache(pub(crate) Cache<String, Arc<KnownPersonToken>>);

impl Default for PersonTokenCache {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_live(TOKEN_LIFETIME).build())
    }
}

/// A cache of handles that had nothing to join when they were last presented, with the grant of the token that they
/// were presented with.
///
/// A negative lookup may be cached here, unlike anywhere else: on a server with sign-in, no anonymous progress starts,
/// so an unknown handle remains unknown. The exception is a server whose sign-in is disabled and enabled again; a join
/// is then delayed by at most a minute.
#[derive(Debug, Clone)]
pub(crate) struct UnknownAccounts(pub(crate) Cache<(OauthGrantId, String), ()>);

impl Default for UnknownAccounts {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_live(UNKNOWN_LIFETIME).build())
    }
}

/// Creates the cache of published versions, of at most `bytes`.
pub(crate) fn versions(bytes: u64) -> Cache<VersionId, Arc<Version>> {
    Cache::builder()
        .max_capacity(bytes)
        .weigher(|_, version: &Arc<Version>| u32::try_from(version.size_bytes()).unwrap_or(u32::MAX))
        .build()
}
