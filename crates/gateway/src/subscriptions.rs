//! Subscriptions to single resources of servers that all agents share.
//!
//! A topic is a resource of a server with at least one subscriber; the stream of the server ([`crate::server_stream`]) is
//! subscribed to its topics. A subscriber is a mailbox, which a stream of an agent empties ([`crate::listen`]).
//!
//! Invariants:
//! 1. A mailbox contains each resource at most once, however often a server announces that it has changed, and only
//!    resources to which it is subscribed.
//! 2. A subscription lasts until it is dropped. A topic without subscribers does not exist.
//! 3. The number of subscriptions per agent, per organisation and in total, and the number of topics per server are
//!    limited.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use waypost_core::id::{AgentId, InstanceId, OrganizationId};
use waypost_core::{Code, Error, Result};

use crate::slots::{LimitReached, MAX_SUBSCRIPTIONS, Slot, Slots};

/// The maximum number of topics of a server.
const MAX_TOPICS: usize = 1_000;

/// The resources that have changed, with their public URIs.
#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<HashSet<(InstanceId, String)>>);

impl Mailbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Removes and returns all resources.
    pub(crate) fn take(&self) -> HashSet<(InstanceId, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, resource: (InstanceId, String)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(resource);
    }

    fn remove(&self, resource: &(InstanceId, String)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(resource);
    }
}

/// The subscriptions of all agents. All clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Subscriptions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    slots: Slots,
    servers: Mutex<HashMap<InstanceId, HashMap<String, Topic>>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Topic {
    /// Whether the server announces changes; `None` if it has not been asked yet.
    outcome: watch::Sender<Option<Outcome>>,
    subscribers: HashMap<u64, Subscriber>,
}

/// The decision about a topic. The error is shared by all subscriptions that wait for it.
type Outcome = std::result::Result<(), Arc<Error>>;

#[derive(Debug)]
struct Subscriber {
    public: String,
    mailbox: Arc<Mailbox>,
}

/// A subscription, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    subscriptions: Subscriptions,
    instance: InstanceId,
    /// The URI by which the server knows the resource.
    uri: String,
    id: u64,
    public: String,
    mailbox: Arc<Mailbox>,
    outcome: watch::Receiver<Option<Outcome>>,
    /// Tells the stream of the server that the topics have changed.
    wake: Arc<Notify>,
    _slot: Slot,
}

/// A resource of a server, as the server and as an agent know it.
pub(crate) struct Resource<'a> {
    pub(crate) instance: &'a InstanceId,
    pub(crate) uri: &'a str,
    pub(crate) public: &'a str,
}

impl Default for Subscriptions {
    fn default() -> Self {
        let (slots, servers, next) = (Slots::for_subscriptions(), Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Shared { slots, servers, next }))
    }
}

impl Subscriptions {
    /// Subscribes a mailbox of an agent of an organisation to a resource. `wake` notifies the stream of the server.
    ///
    /// # Errors
    /// `rate_limited` (`reason` is `too_many_subscriptions`) if a limit is reached.
    pub(crate) fn subscribe(
        &self,
        (organization, agent): (&OrganizationId, &AgentId),
        resource: &Resource<'_>,
        mailbox: &Arc<Mailbox>,
        wake: &Arc<Notify>,
    ) -> Result<Subscription> {
        let slot = self.0.slots.acquire(organization, agent).map_err(too_many)?;
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (uri, public) = (resource.uri.to_owned(), resource.public.to_owned());
        let mut servers = self.servers();
        let topics = servers.entry(resource.instance.clone()).or_default();
        if topics.len() >= MAX_TOPICS && !topics.contains_key(&uri) {
            let message = "Too many resources of this server have subscriptions at present. Try again later.";
            return Err(refused(message));
        }
        let topic = topics.entry(uri.clone()).or_insert_with(|| {
            let (outcome, subscribers) = (watch::Sender::new(None), HashMap::new());
            Topic { outcome, subscribers }
        });
        let subscriber = Subscriber { public: public.clone(), mailbox: Arc::clone(mailbox) };
        topic.subscribers.insert(id, subscriber);
        let outcome = topic.outcome.subscribe();
        drop(servers);
        wake.notify_one();
        Ok(Subscription {
            subscriptions: self.clone(),
            instance: resource.instance.clone(),
            uri,
            id,
            public,
            mailbox: Arc::clone(mailbox),
            outcome,
            wake: Arc::clone(wake),
            _slot: slot,
        })
    }

    /// Puts a resource that has changed into the mailboxes of its subscribers.
    pub(crate) fn publish(&self, instance: &InstanceId, uri: &str) {
        let servers = self.servers();
        let topic = servers.get(instance).and_then(|topics| topics.get(uri));
        for subscriber in topic.into_iter().flat_map(|topic| topic.subscribers.values()) {
            subscriber.mailbox.put((instance.clone(), subscriber.public.clone()));
        }
    }

    /// Returns the URIs of the topics of a server, without those that it has refused.
    pub(crate) fn uris(&self, instance: &InstanceId) -> BTreeSet<String> {
        let servers = self.servers();
        let topics = servers.get(instance).into_iter().flatten();
        let is_wanted = |topic: &Topic| !matches!(*topic.outcome.borrow(), Some(Err(_)));
        topics.filter(|(_, topic)| is_wanted(topic)).map(|(uri, _)| uri.clone()).collect()
    }

    /// Whether a server has a topic.
    pub(crate) fn has_topics(&self, instance: &InstanceId) -> bool {
        self.servers().contains_key(instance)
    }

    /// Decides about those topics of a server that are still undecided. `refusal` returns the error for a URI; `None`
    /// to accept it.
    pub(crate) fn decide(
        &self,
        instance: &InstanceId,
        uris: &BTreeSet<String>,
        refusal: impl Fn(&str) -> Option<Error>,
    ) {
        let servers = self.servers();
        let Some(topics) = servers.get(instance) else { return };
        for (uri, topic) in uris.iter().filter_map(|uri| topics.get_key_value(uri)) {
            topic.outcome.send_if_modified(|outcome| {
                let is_new = outcome.is_none();
                if is_new {
                    *outcome = Some(refusal(uri).map_or(Ok(()), |error| Err(Arc::new(error))));
                }
                is_new
            });
        }
    }

    /// Ends all subscriptions of a server that no longer has a stream. Those that wait for a decision are refused.
    pub(crate) fn forget(&self, instance: &InstanceId, refusal: &Error) {
        let topics = self.servers().remove(instance).unwrap_or_default();
        for topic in topics.into_values() {
            topic.outcome.send_if_modified(|outcome| {
                let is_new = outcome.is_none();
                if is_new {
                    *outcome = Some(Err(Arc::new(refusal.without_cause())));
                }
                is_new
            });
        }
    }

    fn end(&self, subscription: &Subscription) {
        let mut servers = self.servers();
        let Some(topics) = servers.get_mut(&subscription.instance) else { return };
        if let Some(topic) = topics.get_mut(&subscription.uri) {
            topic.subscribers.remove(&subscription.id);
            if topic.subscribers.is_empty() {
                topics.remove(&subscription.uri);
                subscription.wake.notify_one();
            }
        }
        if topics.is_empty() {
            servers.remove(&subscription.instance);
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<InstanceId, HashMap<String, Topic>>> {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Returns the public URI of the resource.
    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// Waits until the server has accepted the subscription.
    ///
    /// # Errors
    /// The error with which the subscription was refused.
    pub(crate) async fn confirm(&mut self) -> Result<()> {
        let closed = || Error::internal("the topic of a subscription was removed");
        let outcome = self.outcome.wait_for(Option::is_some).await.map_err(|_| closed())?;
        match &*outcome {
            Some(Err(error)) => Err(error.without_cause()),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscriptions.end(self);
        self.mailbox.remove(&(self.instance.clone(), std::mem::take(&mut self.public)));
    }
}

fn too_many(limit: LimitReached) -> Error {
    match limit {
        LimitReached::Agent => refused(format!(
            "Too many subscriptions: an agent can have {MAX_SUBSCRIPTIONS}. End one, or read the resource again."
        )),
        LimitReached::Organization => {
            refused("Too many subscriptions: the organisation cannot have another one at present. Try again later.")
        }
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Code::RateLimited, message).with("reason", "too_many_subscriptions")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::from_store(text.to_owned())
    }

    struct Fixture {
        subscriptions: Subscriptions,
        mailbox: Arc<Mailbox>,
        wake: Arc<Notify>,
    }

    impl Fixture {
        fn new() -> Self {
            let (subscriptions, mailbox, wake) = (Subscriptions::default(), Arc::default(), Arc::default());
            Self { subscriptions, mailbox, wake }
        }

        fn subscribe(&self, agent: &str, instance: &str, uri: &str) -> Result<Subscription> {
            self.subscribe_in("org_1", (agent, instance), uri)
        }

        fn subscribe_in(&self, organization: &str, (agent, instance): (&str, &str), uri: &str) -> Result<Subscription> {
            let (agent, instance) = (AgentId::from_store(agent.to_owned()), id(instance));
            let organization = OrganizationId::from_store(organization.to_owned());
            let public = format!("wp+s:{uri}");
            let resource = Resource { instance: &instance, uri, public: &public };
            self.subscriptions.subscribe((&organization, &agent), &resource, &self.mailbox, &self.wake)
        }
    }

    #[tokio::test]
    async fn what_has_changed_is_in_the_mailbox_once_until_the_subscription_ends() {
        let fixture = Fixture::new();
        let subscriptions = &fixture.subscriptions;
        let mut one = fixture.subscribe("agt_1", "ins_1", "a").unwrap();
        fixture.wake.notified().await;
        assert!(futures::poll!(Box::pin(one.confirm())).is_pending());
        subscriptions.decide(&id("ins_1"), &subscriptions.uris(&id("ins_1")), |_| None);
        one.confirm().await.unwrap();
        for (instance, uri) in [("ins_1", "a"), ("ins_1", "a"), ("ins_1", "b"), ("ins_2", "a")] {
            subscriptions.publish(&id(instance), uri);
        }
        assert!(!fixture.mailbox.is_empty());
        assert_eq!(fixture.mailbox.take(), [(id("ins_1"), "wp+s:a".to_owned())].into());
        subscriptions.publish(&id("ins_1"), "a");
        drop(one);
        assert!(fixture.mailbox.is_empty(), "what was not delivered is dropped");
        subscriptions.publish(&id("ins_1"), "a");
        assert!(fixture.mailbox.is_empty() && !subscriptions.has_topics(&id("ins_1")));
        fixture.wake.notified().await;
    }

    #[tokio::test]
    async fn a_topic_that_the_server_refuses_is_not_asked_for_again() {
        let fixture = Fixture::new();
        let subscriptions = &fixture.subscriptions;
        let (mut good, mut bad) =
            (fixture.subscribe("agt_1", "ins_1", "a").unwrap(), fixture.subscribe("agt_1", "ins_1", "b").unwrap());
        let uris = subscriptions.uris(&id("ins_1"));
        assert_eq!(uris.len(), 2);
        subscriptions.decide(&id("ins_1"), &uris, |uri| (uri == "b").then(|| Error::new(Code::Conflict, "No.")));
        good.confirm().await.unwrap();
        assert_eq!(bad.confirm().await.unwrap_err().message, "No.");
        assert_eq!(subscriptions.uris(&id("ins_1")), ["a".to_owned()].into());
        // A decision is final.
        subscriptions.decide(&id("ins_1"), &uris, |_| Some(Error::new(Code::Conflict, "Later.")));
        good.confirm().await.unwrap();
    }

    #[tokio::test]
    async fn subscriptions_that_wait_for_a_server_that_loses_its_stream_are_refused() {
        let fixture = Fixture::new();
        let mut waiting = fixture.subscribe("agt_1", "ins_1", "a").unwrap();
        let mut other = fixture.subscribe("agt_1", "ins_2", "a").unwrap();
        fixture.subscriptions.forget(&id("ins_1"), &Error::new(Code::Conflict, "None."));
        assert_eq!(waiting.confirm().await.unwrap_err().message, "None.");
        assert!(futures::poll!(Box::pin(other.confirm())).is_pending());
        fixture.subscriptions.publish(&id("ins_1"), "a");
        drop(waiting);
        assert!(fixture.mailbox.is_empty() && !fixture.subscriptions.has_topics(&id("ins_1")));
    }

    #[test]
    fn an_organisation_with_many_subscriptions_leaves_some_for_others() {
        let fixture = Fixture::new();
        let subscribe = |n: usize| {
            let (agent, uri) = (format!("agt_{}", n / MAX_SUBSCRIPTIONS), (n % MAX_SUBSCRIPTIONS).to_string());
            fixture.subscribe(&agent, "ins_1", &uri)
        };
        let held: Vec<_> = (0..5_000).map(|n| subscribe(n).unwrap()).collect();
        let refused = subscribe(held.len()).unwrap_err();
        assert_eq!((refused.code, refused.reason()), (Code::RateLimited, Some("too_many_subscriptions")));
        assert!(refused.message.contains("the organisation"), "{}", refused.message);
        assert!(refused.message.ends_with("Try again later."), "{}", refused.message);
        assert!(fixture.subscribe_in("org_2", ("agt_x", "ins_2"), "a").is_ok());
    }

    #[test]
    fn the_subscriptions_of_an_agent_and_the_topics_of_a_server_are_limited() {
        let fixture = Fixture::new();
        let mut held = Vec::new();
        for agent in 0..MAX_TOPICS / MAX_SUBSCRIPTIONS {
            let agent = format!("agt_{agent}");
            let new =
                (0..MAX_SUBSCRIPTIONS).map(|n| fixture.subscribe(&agent, "ins_1", &format!("{agent}/{n}")).unwrap());
            held.extend(new);
            let refused = fixture.subscribe(&agent, "ins_1", "other").unwrap_err();
            assert!(refused.message.contains("an agent can have 100"), "{}", refused.message);
        }
        let refused = fixture.subscribe("agt_x", "ins_1", "other").unwrap_err();
        assert_eq!((refused.code, refused.reason()), (Code::RateLimited, Some("too_many_subscriptions")));
        assert!(refused.message.contains("of this server"), "{}", refused.message);
        assert!(fixture.subscribe("agt_x", "ins_1", "agt_0/0").is_ok(), "the topic exists");
        assert!(fixture.subscribe("agt_x", "ins_2", "other").is_ok());
        held.clear();
        assert!(fixture.subscribe("agt_0", "ins_1", "other").is_ok());
    }
}
