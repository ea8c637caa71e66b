//! Checks that a server still lists what was approved: before it is called, and soon after it has announced a change.
//!
//! Concurrent calls of a server wait for the same check: one check runs at a time per server, not one per call. It runs
//! in its own task, so that it does not end with the call that began it: other calls may wait for it, and a server that
//! hangs has to be remembered as failed. A server that announces changes all the time causes at most one check per
//! [`ANNOUNCED_INTERVAL`].
//!
//! If a check began after a call arrived, the call is relayed only if the server listed its definition in this check,
//! and the definition is approved according to what was stored after it. Otherwise, a call could be relayed although
//! this process has just read that the definition has changed: another process may have stored the change first, or may
//! store an older list later.
//!
//! If agents have containers with their own secrets, the list of one container says nothing about the others. Before a
//! call, the list of the agent's container is read, and the call is relayed only if this list contains its definition.
//! Only the list of the container that admins see (`instances::containers::find_for_lists`) changes the definitions of
//! the instance; it is read in the background.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashlink::LruCache;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::Instant;
use waypost_core::id::OrganizationId;
use waypost_core::instance::Instance;
use waypost_core::{Error, Result};
use waypost_ops::hosting::with_timeout;
use waypost_ops::instances::containers::{self, ContainerKey};
use waypost_ops::instances::server_stream::find_running;
use waypost_ops::tool_definitions::{fetch, observe};

use crate::Gateway;
use crate::upstreams::{CalledServer, ServerKey};

/// The time for which the failure of a check applies to other calls, so that they do not wait for a dead server one
/// after another.
const FAILURE_AGE: Duration = Duration::from_secs(1);
/// The minimum time to live that a server can declare for its list (`ttlMs` of 2026-07-28). Otherwise, a server that
/// declares 0 would be read before every call, contrary to the setting.
const MIN_TTL: Duration = Duration::from_secs(5);
/// The minimum interval between the starts of two checks that a server causes by announcing changes: short enough that
/// a changed definition does not stay unnoticed for long, and long enough that such a server costs no more than one
/// that is called all the time.
const ANNOUNCED_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum number of servers whose last check is remembered. Other servers are checked again.
const SERVERS: usize = 10_000;

/// The last check of each server.
#[derive(Debug)]
pub(crate) struct Freshness {
    servers: Mutex<LruCache<ServerKey, Arc<Server>>>,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { servers: Mutex::new(LruCache::new(SERVERS)) }
    }
}

#[derive(Debug, Default)]
struct Server {
    /// Held during a check.
    last: Arc<tokio::sync::Mutex<LastCheck>>,
    announced: Mutex<Announced>,
}

#[derive(Debug, Default)]
struct LastCheck {
    /// When the last check began, if it succeeded, and the time to live that the server declared for its list.
    succeeded: Option<(Instant, Option<Duration>)>,
    failed: Option<(Instant, Error)>,
    /// The digests of the listed definitions, if the last check succeeded.
    digests: Option<Arc<HashSet<String>>>,
}

impl LastCheck {
    /// Returns the result of this check for a call. `is_new` states whether the check began after the call arrived, and
    /// `is_own` whether the container of the call's agent was read.
    ///
    /// An older list of a server that all agents share rejects nothing: what the server has added since then may be
    /// approved.
    fn result(&self, is_new: bool, is_own: bool) -> Checked {
        let digests = self.digests.clone().filter(|_| is_new || is_own);
        Checked { is_new: is_new && !is_own, digests }
    }
}

/// The result of a check.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Whether the stored definitions were compared with a new list after the call arrived, so that access must be read again.
    pub(crate) is_new: bool,
    /// The digests of the definitions that the called server lists; `None` if the stored definitions decide alone.
    digests: Option<Arc<HashSet<String>>>,
}

impl Checked {
    /// Whether the called server lists a definition with this digest. Always true if the stored definitions decide
    /// alone.
    pub(crate) fn lists(&self, digest: &str) -> bool {
        self.digests.as_ref().is_none_or(|digests| digests.contains(digest))
    }
}

/// The checks that a server causes by announcing changes.
#[derive(Debug, Default)]
struct Announced {
    /// Whether a check is scheduled that has not begun yet.
    is_scheduled: bool,
    /// When the last check began.
    begun: Option<Instant>,
}

impl Freshness {
    fn server(&self, key: &ServerKey) -> Arc<Server> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(key) {
            return Arc::clone(server);
        }
        let server = Arc::default();
        servers.insert(key.clone(), Arc::clone(&server));
        server
    }
}

impl Server {
    fn announced(&self) -> MutexGuard<'_, Announced> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announced {
    /// Schedules a check. Returns the delay until it begins; `None` if one is scheduled already.
    fn schedule(&mut self) -> Option<Duration> {
        if std::mem::replace(&mut self.is_scheduled, true) {
            return None;
        }
        Some(self.begun.map_or(Duration::ZERO, |begun| ANNOUNCED_INTERVAL.saturating_sub(begun.elapsed())))
    }

    /// Records that the scheduled check begins. Changes that are announced from now on need another check.
    fn begin(&mut self) {
        *self = Self { is_scheduled: false, begun: Some(Instant::now()) };
    }
}

/// Returns the maximum age of a list: the setting or the time to live that the server declares (at least [`MIN_TTL`]),
/// whichever is shorter.
fn max_age(setting: Duration, ttl: Option<Duration>) -> Duration {
    ttl.map_or(setting, |ttl| setting.min(ttl.max(MIN_TTL)))
}

impl Gateway {
    /// Reads the list of an instance's server, unless it was read within the maximum age.
    ///
    /// # Errors
    /// Those of [`fetch`].
    pub(crate) async fn check_definitions(
        self: &Arc<Self>,
        instance: &Instance,
        (key, container): (&ServerKey, &ContainerKey),
    ) -> Result<Checked> {
        let container = Some(container).filter(|_| key.agent().is_some());
        self.check_older(instance, (key, container), self.options.definition_max_age).await
    }

    /// Schedules a check of a server's definitions, because it has announced that a list has changed. An agent's own
    /// container is read with the secrets of this agent, which it has already.
    pub(crate) fn announce_change(self: &Arc<Self>, organization: &OrganizationId, key: &ServerKey) {
        let server = self.freshness.server(key);
        let Some(delay) = server.announced().schedule() else { return };
        let (gateway, stop) = (Arc::downgrade(self), self.stop.clone());
        let (organization, key) = (organization.clone(), key.clone());
        waypost_jobs::spawn("gateway-announced-check", async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            server.announced().begin();
            let Some(gateway) = gateway.upgrade() else { return };
            if let Err(error) = gateway.check_announced(&organization, &key).await {
                let instance = key.instance();
                tracing::debug!(%instance, %error, "failed to check definitions after a change was announced");
            }
        });
    }

    async fn check_announced(self: &Arc<Self>, organization: &OrganizationId, key: &ServerKey) -> Result<()> {
        let Some(instance) = find_running(&self.ops, organization, key.instance()).await? else { return Ok(()) };
        let container = match key.agent() {
            // Since the announcement, the secrets of the agent may have been removed, or those of the instance changed.
            Some(agent) if ServerKey::new(&instance, agent) == *key => {
                Some(containers::find_of_agent(&self.ops, &instance, agent).await?)
            }
            Some(_) => return Ok(()),
            None => None,
        };
        let mut attempt = self.upstreams.enter(&CalledServer::for_definitions(key)).await?;
        match self.check_older(&instance, (key, container.as_ref()), Duration::ZERO).await {
            Ok(_) => {
                attempt.record_success();
                Ok(())
            }
            Err(error) => {
                attempt.record_failure(&error);
                Err(error)
            }
        }
    }

    /// Reads the list of a server, unless it was read within `setting`. `container` is the container of an agent with
    /// its own secrets.
    async fn check_older(
        self: &Arc<Self>,
        instance: &Instance,
        (key, container): (&ServerKey, Option<&ContainerKey>),
        setting: Duration,
    ) -> Result<Checked> {
        let (arrived, is_own) = (Instant::now(), container.is_some());
        let server = self.freshness.server(key);
        let last = Arc::clone(&server.last).lock_owned().await;
        // With a maximum age of zero, a check that began after this call arrived is sufficient.
        let is_fresh = |(at, ttl): (Instant, _)| at >= arrived || at.elapsed() < max_age(setting, ttl);
        if let Some((at, _)) = last.succeeded.filter(|succeeded| is_fresh(*succeeded)) {
            return Ok(last.result(at >= arrived, is_own));
        }
        if let Some((at, error)) = last.failed.as_ref().filter(|(at, _)| *at >= arrived || at.elapsed() < FAILURE_AGE) {
            tracing::debug!(seconds = at.elapsed().as_secs_f64(), "a failed check of definitions applies to this call");
            return Err(error.without_cause());
        }
        let result = self.begin_check(instance.clone(), container.cloned(), last);
        result.await.unwrap_or_else(|_| Err(Error::internal("a check of definitions ended without a result")))
    }

    /// Begins a check in the background. The check continues even if no call waits for its result any more, but then
    /// ends when the gateway stops.
    fn begin_check(
        self: &Arc<Self>,
        instance: Instance,
        container: Option<ContainerKey>,
        last: OwnedMutexGuard<LastCheck>,
    ) -> oneshot::Receiver<Result<Checked>> {
        let (mut sender, receiver) = oneshot::channel();
        let (gateway, stop) = (Arc::clone(self), self.stop.clone());
        waypost_jobs::spawn("gateway-definition-check", async move {
            let abandoned = async {
                stop.cancelled().await;
                sender.closed().await;
            };
            let result = tokio::select! {
                () = abandoned => return,
                result = gateway.run_check(&instance, container.as_ref(), last) => result,
            };
            // The call may have ended.
            drop(sender.send(result));
        });
        receiver
    }

    /// Reads the list of a server, and stores what is new. Its duration is limited.
    async fn run_check(
        self: &Arc<Self>,
        instance: &Instance,
        container: Option<&ContainerKey>,
        mut last: OwnedMutexGuard<LastCheck>,
    ) -> Result<Checked> {
        let (begun, is_own) = (Instant::now(), container.is_some());
        // Boxed: large futures are slow to move.
        let listing = match Box::pin(fetch(&self.ops, instance, container)).await {
            Ok(listing) => listing,
            Err(error) => {
                // The next call checks again, even if the announced change was not read.
                *last = LastCheck { failed: Some((Instant::now(), error.without_cause())), ..LastCheck::default() };
                return Err(error);
            }
        };
        if is_own {
            self.announce_change(&instance.organization_id, &ServerKey::shared(instance.id.clone()));
        } else {
            let observation = observe(&self.cx, &self.ops, instance, &listing.definitions);
            Box::pin(with_timeout(observation)).await?;
        }
        let digests = listing.definitions.into_iter().map(|listed| listed.digest).collect();
        *last = LastCheck { succeeded: Some((begun, listing.ttl)), failed: None, digests: Some(Arc::new(digests)) };
        Ok(last.result(true, is_own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_valid_until_the_earlier_of_the_setting_and_its_time_to_live() {
        let seconds = Duration::from_secs;
        for (setting, ttl, expected) in [
            (30, None, 30),
            (30, Some(60), 30),
            (30, Some(10), 10),
            (30, Some(0), 5),
            (3, Some(0), 3),
            (0, Some(60), 0),
        ] {
            assert_eq!(max_age(seconds(setting), ttl.map(seconds)), seconds(expected), "{setting} {ttl:?}");
        }
    }

    #[test]
    fn a_call_needs_what_was_listed_after_it_arrived() {
        let digests = Some(Arc::new(HashSet::from(["approved".to_owned()])));
        let last = LastCheck { digests, ..LastCheck::default() };
        for (is_new, is_own, lists_others) in
            [(true, false, false), (false, false, true), (true, true, false), (false, true, false)]
        {
            let checked = last.result(is_new, is_own);
            assert!(checked.lists("approved"));
            assert_eq!(checked.lists("changed"), lists_others, "{is_new} {is_own}");
            assert_eq!(checked.is_new, is_new && !is_own);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_announces_changes_all_the_time_is_checked_once_per_interval() {
        let mut announced = Announced::default();
        assert_eq!(announced.schedule(), Some(Duration::ZERO), "the first one is checked at once");
        assert_eq!(announced.schedule(), None, "the check that follows is sufficient");
        announced.begin();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(announced.schedule(), Some(Duration::from_secs(3)), "the change may be newer than the check");
        assert_eq!(announced.schedule(), None);
        announced.begin();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(announced.schedule(), Some(Duration::ZERO));
    }
}
