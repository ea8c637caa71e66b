//! Requests for secrets, which wait for the link and for their answers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot, watch};
use waypost_toolbox_proto::message::{DaemonMessage, InstanceSecrets};

/// The maximum number of requests that wait for an answer. Further ones wait for their turn.
const MAX_REQUESTS: usize = 64;

/// The requests that wait for an answer.
pub(super) struct SecretRequests {
    state: Mutex<State>,
    /// The number of the newest request.
    newest: watch::Sender<u64>,
    turns: Semaphore,
}

#[derive(Default)]
struct State {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    instance_id: String,
    generation: u64,
    key: Option<String>,
    answer: oneshot::Sender<Option<InstanceSecrets>>,
}

/// Removes a request if its caller stops waiting.
struct Guard<'a>(&'a SecretRequests, u64);

impl SecretRequests {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), newest: watch::channel(0).0, turns: Semaphore::new(MAX_REQUESTS) }
    }

    /// Requests the secrets for a container of an instance, and waits for the answer. Returns the secrets in the
    /// answer, if any.
    pub(super) async fn request(
        &self,
        instance_id: &str,
        generation: u64,
        key: Option<&str>,
    ) -> Option<InstanceSecrets> {
        let _turn = self.turns.acquire().await.ok()?;
        let (answer, received) = oneshot::channel();
        let number = {
            let mut state = self.state();
            state.last += 1;
            let number = state.last;
            let (instance_id, key) = (instance_id.to_owned(), key.map(str::to_owned));
            state.waiting.insert(number, Waiting { instance_id, generation, key, answer });
            number
        };
        let _guard = Guard(self, number);
        self.newest.send_replace(number);
        received.await.ok().flatten()
    }

    /// Passes an answer to its request. Answers to unknown requests are dropped.
    pub(super) fn answer(&self, number: u64, secrets: Option<InstanceSecrets>) {
        let waiting = self.state().waiting.remove(&number);
        if let Some(waiting) = waiting {
            // The caller may have stopped waiting.
            let _ = waiting.answer.send(secrets);
        }
    }

    /// Returns the requests with numbers above `after`, as messages, and the highest number. A new link starts at 0,
    /// because the answers to earlier requests were lost with the previous link.
    pub(super) fn messages(&self, after: u64) -> (u64, Vec<DaemonMessage>) {
        let state = self.state();
        let messages = state.waiting.range(after + 1..).map(|(number, waiting)| DaemonMessage::SecretRequest {
            request: *number,
            instance_id: waiting.instance_id.clone(),
            generation: waiting.generation,
            key: waiting.key.clone(),
        });
        (state.last, messages.collect())
    }

    /// Returns a receiver that changes with every request.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.state().waiting.remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(value: &str) -> InstanceSecrets {
        InstanceSecrets { values: [("TOKEN".to_owned(), value.to_owned())].into(), ..InstanceSecrets::default() }
    }

    #[tokio::test]
    async fn answers_reach_their_requests_in_any_order() {
        let requests = SecretRequests::new();
        let answers = async {
            let (last, messages) = requests.messages(0);
            let DaemonMessage::SecretRequest { request, instance_id, generation, key } = &messages[1] else { panic!() };
            assert_eq!((*request, instance_id.as_str(), *generation, last), (2, "ins_b", 3, 2));
            assert_eq!(key.as_deref(), Some("agent:agt_1"));
            requests.answer(9, Some(secrets("nobody's")));
            requests.answer(2, Some(secrets("b")));
            requests.answer(1, None);
            requests.answer(1, Some(secrets("a second answer")));
        };
        let (a, b, ()) = tokio::join!(
            requests.request("ins_a", 1, None),
            requests.request("ins_b", 3, Some("agent:agt_1")),
            answers
        );
        assert_eq!((a, b), (None, Some(secrets("b"))));
        assert_eq!(requests.messages(0), (2, vec![]));
    }

    #[tokio::test]
    async fn a_request_is_withdrawn_when_its_caller_stops_waiting() {
        let requests = SecretRequests::new();
        assert!(futures::poll!(std::pin::pin!(requests.request("ins_a", 1, None))).is_pending());
        assert_eq!(requests.messages(0), (1, vec![]));
    }
}
