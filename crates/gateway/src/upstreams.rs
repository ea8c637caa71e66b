//! Limits of the calls of one server, and its circuit breaker: a server that fails again and again is not called for a while,
//! so that its callers get an error at once and it can recover.
//!
//! Invariants:
//! 1. At most [`MAX_RUNNING`] calls of a server are running in this process, and at most [`MAX_WAITING`] wait; further
//!    ones are rejected at once. A container of one agent is limited by the number of this agent's calls
//!    ([`crate::slots`]) instead. Only calls that continue because their agent has answered can exceed [`MAX_RUNNING`]:
//!    the server is already processing them.
//! 2. After [`MAX_FAILURES`] failures in a row, no call reaches the server for [`OPEN_TIME`]. Then one call at a time is tried:
//!    its success closes the circuit, its failure opens it again.
//! 3. A call that is cancelled changes nothing.
//! 4. If each agent has its own containers or its own connection, it has its own circuit: failures of one agent open the circuit
//!    of no other.

use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashlink::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use waypost_core::id::{AgentId, InstanceId};
use waypost_core::instance::{Backend, Instance};
use waypost_core::{Code, Error, Result};
use waypost_toolbox_proto::entry::Sharing;

/// The maximum number of calls of a server that are running.
const MAX_RUNNING: usize = 32;
/// The maximum number of calls of a server that wait.
const MAX_WAITING: usize = 1_024;
/// The time after which a waiting call is rejected.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The number of failures in a row that open the circuit.
const MAX_FAILURES: u32 = 5;
/// The time for which the circuit stays open.
const OPEN_TIME: Duration = Duration::from_secs(60);
/// The maximum number of servers, and of circuits, that are remembered. A server that was evicted starts with a closed
/// circuit when it is called again.
const SERVERS: usize = 10_000;

/// A server whose definitions are checked: an instance, or, if agents have their own secrets, the container of one
/// agent, which can list different definitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerKey(InstanceId, Option<AgentId>);

impl ServerKey {
    /// Returns the server that an agent calls.
    pub(crate) fn new(instance: &Instance, agent: &AgentId) -> Self {
        let is_personal = !instance.personal_secrets.is_empty();
        Self(instance.id.clone(), is_personal.then(|| agent.clone()))
    }

    /// Returns the server of an instance that all agents share.
    pub(crate) fn shared(instance: InstanceId) -> Self {
        Self(instance, None)
    }

    /// Returns the instance.
    pub(crate) fn instance(&self) -> &InstanceId {
        &self.0
    }

    /// Returns the agent to which the server belongs; `None` if it does not belong to a single agent.
    pub(crate) fn agent(&self) -> Option<&AgentId> {
        self.1.as_ref()
    }
}

/// An instance, and the agent if each agent has its own circuit.
type CircuitKey = (InstanceId, Option<AgentId>);

/// A server that is called, and the limits that apply to it.
#[derive(Debug, Clone)]
pub(crate) struct CalledServer {
    /// The server whose definitions are checked. It can be the same for all agents, although each has its own
    /// container.
    pub(crate) key: ServerKey,
    circuit: CircuitKey,
    /// Whether the calls of other agents reach other containers.
    has_own_container: bool,
}

impl CalledServer {
    /// Returns the server that an agent calls.
    pub(crate) fn new(instance: &Instance, sharing: Sharing, agent: &AgentId) -> Self {
        let has_own_container = matches!(instance.backend, Backend::Container(_)) && sharing != Sharing::Shared;
        let has_own_circuit = has_own_container || instance.is_connected_per_agent();
        let circuit = (instance.id.clone(), has_own_circuit.then(|| agent.clone()));
        Self { key: ServerKey::new(instance, agent), circuit, has_own_container }
    }

    /// Returns the server whose definitions are read outside of calls.
    pub(crate) fn for_definitions(key: &ServerKey) -> Self {
        let circuit = (key.instance().clone(), key.agent().cloned());
        Self { key: key.clone(), circuit, has_own_container: key.agent().is_some() }
    }
}

/// The servers that have been called.
#[derive(Debug)]
pub(crate) struct Upstreams {
    circuits: Mutex<LruCache<CircuitKey, Arc<Mutex<Circuit>>>>,
    calls: Mutex<LruCache<InstanceId, Arc<Calls>>>,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self { circuits: Mutex::new(LruCache::new(SERVERS)), calls: Mutex::new(LruCache::new(SERVERS)) }
    }
}

/// The calls of a server.
#[derive(Debug)]
struct Calls {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Calls {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(MAX_RUNNING)), waiting: AtomicUsize::new(0) }
    }
}

#[derive(Debug, Default)]
struct Circuit {
    /// The number of failures in a row.
    failures: u32,
    /// When the circuit was opened.
    opened_at: Option<Instant>,
    /// Whether a trial call is running, which shows whether the server has recovered.
    is_trying: bool,
}

impl Upstreams {
    /// Waits until a server can be called.
    ///
    /// # Errors
    /// `unavailable` (`reason` is `circuit_open`) if it has failed repeatedly; `rate_limited` (`server_busy`) if too many calls
    /// wait, or this one has waited too long.
    pub(crate) async fn enter(&self, server: &CalledServer) -> Result<Attempt> {
        let circuit = get_or_insert(&self.circuits, &server.circuit);
        // Checked before waiting, so that an open circuit is reported at once, and again afterwards.
        lock(&circuit).check()?;
        let permit = match server.has_own_container {
            true => None,
            false => Some(get_or_insert(&self.calls, server.key.instance()).acquire().await?),
        };
        let is_trial = lock(&circuit).enter()?;
        Ok(Attempt { circuit, is_trial, has_succeeded: None, _permit: permit })
    }

    /// Takes a slot for a call that the server is already processing, without waiting. Returns `None` if no slot is
    /// free, or the server has failed repeatedly; the call then continues without one.
    pub(crate) fn try_enter(&self, server: &CalledServer) -> Option<Attempt> {
        let circuit = get_or_insert(&self.circuits, &server.circuit);
        let permit = match server.has_own_container {
            true => None,
            false => {
                let calls = get_or_insert(&self.calls, server.key.instance());
                Some(Arc::clone(&calls.running).try_acquire_owned().ok()?)
            }
        };
        let is_trial = lock(&circuit).enter().ok()?;
        Some(Attempt { circuit, is_trial, has_succeeded: None, _permit: permit })
    }
}

/// Returns the value of a key. Creates the value if there is none.
fn get_or_insert<K: Clone + Eq + Hash, V: Default>(all: &Mutex<LruCache<K, Arc<V>>>, key: &K) -> Arc<V> {
    let mut all = lock(all);
    if let Some(found) = all.get(key) {
        return Arc::clone(found);
    }
    let new = Arc::<V>::default();
    all.insert(key.clone(), Arc::clone(&new));
    new
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    async fn acquire(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting).ok_or_else(busy)?;
        match tokio::time::timeout(MAX_WAIT, Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

/// A waiting call, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Option<Self> {
        let counted = Self(waiting);
        // If there are too many, dropping `counted` corrects the number.
        (waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(counted)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Circuit {
    fn check(&self) -> Result<()> {
        let remaining = self.opened_at.map(|at| OPEN_TIME.saturating_sub(at.elapsed()));
        match remaining {
            Some(remaining) if self.is_trying || !remaining.is_zero() => {
                let message =
                    "The server has failed repeatedly, so it is not called for up to a minute. Try again later.";
                Err(Error::new(Code::Unavailable, message).with("reason", "circuit_open"))
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the call is a trial call.
    fn enter(&mut self) -> Result<bool> {
        self.check()?;
        self.is_trying = self.opened_at.is_some();
        Ok(self.is_trying)
    }
}

/// Returns the error for a call that cannot wait, or has waited too long.
fn busy() -> Error {
    let message = "Too many calls of this server are waiting. Try again later.";
    Error::new(Code::RateLimited, message).with("reason", "server_busy")
}

/// A call of a server.
#[derive(Debug)]
pub(crate) struct Attempt {
    circuit: Arc<Mutex<Circuit>>,
    is_trial: bool,
    has_succeeded: Option<bool>,
    /// `None` if the number of calls is not limited here.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Attempt {
    /// Records that the server has answered, even if only with an error. Without a recorded outcome, the call counts as
    /// cancelled.
    pub(crate) fn record_success(&mut self) {
        self.has_succeeded = Some(true);
    }

    /// Records that a call has failed, if the error shows a failure of the server. An offline toolbox does not count,
    /// because this is reported at once, and its servers can be called as soon as it is back; nor do wrong credentials,
    /// which have to be corrected.
    pub(crate) fn record_failure(&mut self, error: &Error) {
        const OF_SERVER: [&str; 5] = ["timeout", "unreachable", "server_error", "no_mcp", "not_available"];
        let reason = error.reason().unwrap_or_default();
        // An error that the server itself has reported is an answer.
        let is_answer = error.details.contains_key("server_code");
        if OF_SERVER.contains(&reason) && !is_answer {
            self.has_succeeded = Some(false);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut circuit = lock(&self.circuit);
        if self.is_trial {
            circuit.is_trying = false;
        }
        match self.has_succeeded {
            Some(true) => *circuit = Circuit { is_trying: circuit.is_trying, ..Circuit::default() },
            Some(false) => {
                circuit.failures += 1;
                // Calls that began before the circuit was opened do not keep it open longer.
                if self.is_trial || (circuit.failures >= MAX_FAILURES && circuit.opened_at.is_none()) {
                    circuit.opened_at = Some(Instant::now());
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    fn server() -> CalledServer {
        CalledServer::for_definitions(&ServerKey(InstanceId::from_store("ins_1".to_owned()), None))
    }

    /// Returns the same server, called by an agent that has its own connection and, optionally, its own container.
    fn of_agent(agent: &str, has_own_container: bool) -> CalledServer {
        let server = server();
        let circuit = (server.key.0.clone(), Some(AgentId::from_store(agent.to_owned())));
        CalledServer { circuit, has_own_container, ..server }
    }

    fn failure(reason: &str) -> Error {
        Error::new(Code::ToolServerError, "It failed.").with("reason", reason)
    }

    async fn call(upstreams: &Upstreams, has_succeeded: Option<bool>) -> Result<()> {
        let mut attempt = upstreams.enter(&server()).await?;
        match has_succeeded {
            Some(true) => attempt.record_success(),
            Some(false) => attempt.record_failure(&failure("timeout")),
            None => attempt.record_failure(&failure("toolbox_offline")),
        }
        Ok(())
    }

    fn is_open(result: &Result<()>) -> bool {
        result.as_ref().is_err_and(|error| error.details["reason"] == "circuit_open")
    }

    #[tokio::test(start_paused = true)]
    async fn the_circuit_opens_after_five_failures_in_a_row_and_is_tried_after_a_minute() {
        let upstreams = Upstreams::default();
        for outcome in [false, false, false, false, true, false, false, false, false] {
            call(&upstreams, Some(outcome)).await.unwrap();
        }
        call(&upstreams, None).await.unwrap();
        call(&upstreams, Some(false)).await.unwrap();
        assert!(is_open(&call(&upstreams, Some(true)).await));
        let other = CalledServer::for_definitions(&ServerKey(InstanceId::from_store("ins_2".to_owned()), None));
        assert!(upstreams.enter(&other).await.is_ok(), "another server is not affected");
        assert!(upstreams.try_enter(&server()).is_none());
        let personal = ServerKey(server().key.0, Some(AgentId::from_store("agt_1".to_owned())));
        let personal = CalledServer::for_definitions(&personal);
        assert!(upstreams.enter(&personal).await.is_ok(), "nor is the container of an agent");
        tokio::time::advance(OPEN_TIME - Duration::from_millis(1)).await;
        assert!(is_open(&call(&upstreams, Some(true)).await));
        tokio::time::advance(Duration::from_millis(1)).await;
        let mut trial = upstreams.enter(&server()).await.unwrap();
        assert!(is_open(&call(&upstreams, Some(true)).await), "one call at a time is tried");
        trial.record_failure(&failure("unreachable"));
        drop(trial);
        assert!(is_open(&call(&upstreams, Some(true)).await), "its failure opens the circuit again");
        tokio::time::advance(OPEN_TIME).await;
        call(&upstreams, None).await.unwrap();
        call(&upstreams, Some(true)).await.unwrap();
        for _ in 0..4 {
            call(&upstreams, Some(false)).await.unwrap();
        }
        assert!(call(&upstreams, Some(true)).await.is_ok(), "it was closed");
    }

    #[tokio::test(start_paused = true)]
    async fn each_agent_with_its_own_container_or_connection_has_its_own_circuit() {
        for has_own_container in [true, false] {
            let upstreams = Upstreams::default();
            let [one, two] = ["agt_1", "agt_2"].map(|agent| of_agent(agent, has_own_container));
            for _ in 0..MAX_FAILURES {
                upstreams.enter(&one).await.unwrap().record_failure(&failure("timeout"));
            }
            assert!(is_open(&upstreams.enter(&one).await.map(drop)));
            assert!(upstreams.enter(&two).await.is_ok(), "{has_own_container}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn agents_with_their_own_connections_share_the_calls_of_the_server_but_not_those_of_containers() {
        let upstreams = Upstreams::default();
        let one = of_agent("agt_1", false);
        let running: Vec<_> = join_all((0..MAX_RUNNING).map(|_| upstreams.enter(&one))).await;
        assert!(running.iter().all(Result::is_ok));
        let two = of_agent("agt_2", false);
        assert!(futures::poll!(Box::pin(upstreams.enter(&two))).is_pending());
        assert!(upstreams.enter(&of_agent("agt_2", true)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn running_and_waiting_calls_are_limited() {
        let upstreams = Upstreams::default();
        let id = server();
        let mut running: Vec<_> = join_all((0..MAX_RUNNING).map(|_| upstreams.enter(&id))).await;
        assert!(running.iter().all(Result::is_ok));
        assert!(upstreams.try_enter(&id).is_none());
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(upstreams.enter(&id))).collect();
        for call in &mut waiting {
            assert!(futures::poll!(call).is_pending());
        }
        let rejected = upstreams.enter(&id).await.unwrap_err();
        assert_eq!((rejected.code, &rejected.details["reason"]), (Code::RateLimited, &"server_busy".into()));
        drop(running.pop());
        let first = waiting.remove(0).await;
        assert!(first.is_ok(), "in the order in which they arrived");
        // A call that gives up makes room for another.
        drop(waiting.pop());
        let mut last = Box::pin(upstreams.enter(&id));
        assert!(futures::poll!(&mut last).is_pending());
        tokio::time::advance(MAX_WAIT).await;
        assert_eq!(last.await.unwrap_err().details["reason"], "server_busy");
        drop((running, waiting, first));
        assert!(upstreams.enter(&id).await.is_ok());
        assert!(upstreams.try_enter(&id).is_some());
    }
}
