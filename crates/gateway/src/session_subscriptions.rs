//! Subscriptions of agents that use the revisions with a handshake. They are created in a session with
//! `resources/subscribe`, and the GET streams of the session deliver the changes ("Resources", "Subscriptions").
//!
//! Invariants:
//! 1. A subscription belongs to one session of this process. It ends with `resources/unsubscribe`, with the session, and
//!    [`UNUSED_TIME`] after the last stream of the session was closed.
//! 2. What has changed while the session has no stream is delivered by the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::session::Session;
use crate::subscriptions::{Mailbox, Subscription};

/// The time for which the subscriptions of a session without a stream are kept.
const UNUSED_TIME: Duration = Duration::from_secs(300);

/// The subscriptions of all sessions. All clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionSubscriptions(Arc<Mutex<HashMap<String, Entry>>>);

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    /// The subscriptions by public URI.
    subscriptions: HashMap<String, Subscription>,
    /// The number of streams and requests that use the entry.
    users: usize,
    /// When the last of them ended.
    unused_since: Instant,
}

/// A stream or request that uses the subscriptions of a session.
#[derive(Debug)]
pub(crate) struct SessionUse {
    all: SessionSubscriptions,
    key: String,
    mailbox: Arc<Mailbox>,
}

impl SessionSubscriptions {
    /// Begins to use the subscriptions of a session. They are in use until the result is dropped.
    pub(crate) fn enter(&self, session: &Session) -> SessionUse {
        let mut entries = self.entries();
        let entry = entries.entry(session.key.clone()).or_insert_with(|| Entry {
            mailbox: Arc::default(),
            subscriptions: HashMap::new(),
            users: 0,
            unused_since: Instant::now(),
        });
        entry.users += 1;
        SessionUse { all: self.clone(), key: session.key.clone(), mailbox: Arc::clone(&entry.mailbox) }
    }

    /// Ends one subscription of a session, if there is one.
    pub(crate) fn unsubscribe(&self, session: &Session, public: &str) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&session.key) else { return };
        entry.subscriptions.remove(public);
        if entry.is_empty() {
            entries.remove(&session.key);
        }
    }

    /// Ends all subscriptions of a session.
    pub(crate) fn end(&self, session: &Session) {
        self.entries().remove(&session.key);
    }

    /// Ends the subscriptions of sessions that have had no stream for [`UNUSED_TIME`].
    pub(crate) fn expire(&self) {
        self.entries().retain(|_, entry| entry.users > 0 || entry.unused_since.elapsed() < UNUSED_TIME);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.users == 0 && self.subscriptions.is_empty()
    }
}

impl SessionUse {
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Whether the session is subscribed to a resource.
    pub(crate) fn has(&self, public: &str) -> bool {
        self.all.entries().get(&self.key).is_some_and(|entry| entry.subscriptions.contains_key(public))
    }

    /// Adds a subscription, unless the session has ended.
    pub(crate) fn add(&self, subscription: Subscription) {
        if let Some(entry) =
            self.all.entries().get_mut(&self.key).filter(|entry| Arc::ptr_eq(&entry.mailbox, &self.mailbox))
        {
            entry.subscriptions.insert(subscription.public().to_owned(), subscription);
        }
    }
}

impl Drop for SessionUse {
    fn drop(&mut self) {
        let mut entries = self.all.entries();
        let own = entries.get_mut(&self.key).filter(|entry| Arc::ptr_eq(&entry.mailbox, &self.mailbox));
        let Some(entry) = own else { return };
        entry.users -= 1;
        entry.unused_since = Instant::now();
        if entry.is_empty() {
            entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::caller::Ctx;
    use waypost_core::id::{AgentId, InstanceId, OrganizationId};
    use waypost_mcp_wire::strict::Message;

    use super::*;
    use crate::GatewayAddress;
    use crate::subscriptions::{Resource, Subscriptions};

    #[tokio::test(start_paused = true)]
    async fn subscriptions_end_with_the_session_or_if_it_has_no_stream_for_long() {
        let (all, subscriptions) = (SessionSubscriptions::default(), Subscriptions::default());
        let initialize = br#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        let session =
            || Session::new(&GatewayAddress::default(), &Message::read(initialize).unwrap(), &Ctx::operator());
        let (one, other) = (session(), session());
        let (agent, instance) = (AgentId::from_store("agt_1".to_owned()), InstanceId::from_store("ins_1".to_owned()));
        let organization = OrganizationId::from_store("org_1".to_owned());
        let subscribe = |used: &SessionUse, uri: &str| {
            let resource = Resource { instance: &instance, uri, public: uri };
            let agent = (&organization, &agent);
            used.add(subscriptions.subscribe(agent, &resource, used.mailbox(), &Arc::default()).unwrap());
        };
        let stream = all.enter(&one);
        let request = all.enter(&one);
        subscribe(&request, "a");
        subscribe(&request, "b");
        assert!(stream.has("a") && !all.enter(&other).has("a"));
        drop(request);
        all.unsubscribe(&one, "b");
        subscriptions.publish(&instance, "a");
        subscriptions.publish(&instance, "b");
        assert_eq!(stream.mailbox().take().len(), 1);
        tokio::time::advance(UNUSED_TIME).await;
        all.expire();
        assert!(stream.has("a"), "it has a stream");
        drop(stream);
        subscriptions.publish(&instance, "a");
        tokio::time::advance(UNUSED_TIME / 2).await;
        all.expire();
        let stream = all.enter(&one);
        assert_eq!(stream.mailbox().take().len(), 1, "what has changed meanwhile");
        drop(stream);
        tokio::time::advance(UNUSED_TIME).await;
        all.expire();
        assert!(!subscriptions.has_topics(&instance) && all.entries().is_empty());

        let stream = all.enter(&one);
        subscribe(&stream, "a");
        all.end(&one);
        assert!(!subscriptions.has_topics(&instance));
        subscribe(&stream, "a");
        assert!(!subscriptions.has_topics(&instance), "the session has ended");
        drop(stream);
        assert!(all.entries().is_empty());
    }
}
