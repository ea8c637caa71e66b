//! No caller gets a request that was caused by a call of another caller, in whatever order calls begin, end and are
//! given up.

use futures::FutureExt;
use proptest::prelude::*;

use super::callers::{FORM, caller, question};
use super::*;

const CALLERS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Action {
    /// A caller begins a call.
    Begin(usize),
    /// The server asks during one of the calls that it has received and not answered.
    Ask(usize),
    /// The server answers one of these calls.
    Finish(usize),
    /// A caller gives one of its calls up. The server ignores this.
    GiveUp(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let number = 0..32_usize;
    prop_oneof![
        3 => (0..CALLERS).prop_map(Action::Begin),
        4 => number.clone().prop_map(Action::Ask),
        2 => number.clone().prop_map(Action::Finish),
        1 => number.prop_map(Action::GiveUp),
    ]
}

/// A call that the server is processing.
struct Running {
    caller: usize,
    request: Value,
    /// `None` if the caller has given it up.
    messages: Option<Messages>,
}

struct Model {
    fixture: Fixture,
    session: Arc<Session>,
    server: Server,
    calls: Vec<Running>,
    asked: usize,
}

impl Model {
    async fn new() -> Self {
        let fixture = Fixture::new();
        let (attached, mut server) = server();
        let (session, ()) = tokio::join!(fixture.connect(attached), server.initialize());
        Self { fixture, session: session.unwrap(), server, calls: Vec::new(), asked: 0 }
    }

    async fn act(&mut self, action: Action) {
        let at = |number: usize, calls: &[Running]| (!calls.is_empty()).then(|| number % calls.len());
        match action {
            Action::Begin(number) => {
                let options = caller(&format!("caller {number}"), FORM);
                let (messages, request) =
                    tokio::join!(self.session.call(call("same", "x"), options), self.server.read());
                self.calls.push(Running { caller: number, request, messages: Some(messages.unwrap()) });
            }
            Action::Ask(number) => {
                if let Some(at) = at(number, &self.calls) {
                    self.ask(at).await;
                }
            }
            Action::Finish(number) => {
                if let Some(at) = at(number, &self.calls) {
                    let call = self.calls.remove(at);
                    self.server.write(&result(&call.request, json!("done")));
                    match call.messages {
                        Some(mut messages) => {
                            let message = messages.next().await.unwrap().unwrap();
                            assert!(message.ends_with(br#""result":"done"}"#), "{message:?}");
                        }
                        // Once the daemon has answered the ping, it has read the late response.
                        None => self.ping().await,
                    }
                }
            }
            Action::GiveUp(number) => {
                if let Some(at) = at(number, &self.calls)
                    && self.calls[at].messages.take().is_some()
                {
                    assert_eq!(self.server.read().await["method"], "notifications/cancelled");
                }
            }
        }
    }

    async fn ping(&mut self) {
        self.server.write(&json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }));
        assert_eq!(self.server.read().await["result"], json!({}));
    }

    /// Sends a request during a call, and checks which caller gets it.
    async fn ask(&mut self, at: usize) {
        self.asked += 1;
        let cause = self.calls[at].caller;
        let id = format!("q{}", self.asked);
        self.server.write(&question(id.clone(), &cause.to_string()));
        let is_alone = self.calls.iter().all(|call| call.caller == cause)
            && self.calls.iter().filter(|call| call.messages.is_some()).count() == 1;
        // The daemon answers rejected requests in the order of the messages.
        self.server.write(&json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }));
        let first = self.server.read().await;
        let is_rejected = first["id"] == *id;
        if is_rejected {
            assert!(first["error"].is_object());
            assert_eq!(self.server.read().await["id"], "p");
        }
        let mut received = None;
        for call in &mut self.calls {
            if let Some(message) = call.messages.as_mut().and_then(|messages| messages.next().now_or_never()) {
                let message: Value = serde_json::from_slice(&message.unwrap().unwrap()).unwrap();
                assert_eq!(message["params"]["message"], cause.to_string(), "asked caller {}", call.caller);
                assert_eq!(call.caller, cause);
                assert!(received.replace(message).is_none(), "one caller is asked");
            }
        }
        assert_eq!(received.is_some(), !is_rejected, "it is asked or rejected");
        assert!(!is_alone || self.asked > 32 || received.is_some(), "there is only one caller");
        if let Some(message) = received {
            let response = result(&message, json!({})).to_string();
            self.fixture.bridge.respond("ins_1", response.as_bytes()).await.unwrap();
            assert_eq!(self.server.read().await["id"], *id);
        }
        assert_eq!(self.fixture.bridge.requests.len(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_request_reaches_only_the_caller_that_caused_it(actions in prop::collection::vec(action(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new().await;
            for action in actions {
                model.act(action).await;
            }
        });
    }
}
