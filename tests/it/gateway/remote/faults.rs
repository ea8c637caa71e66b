//! Remote servers that misbehave.

use std::time::Duration;

use futures::future::{Either, join_all, select};
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use waypost_gateway::GatewayOptions;
use waypost_ops::instances;
use waypost_ops::instances::containers::ContainerKey;
use waypost_ops::instances::exchange::{Exchange, ExchangeTarget};

use super::super::{tool, wait_for_calls};
use super::Stage;
use super::server::{Fault, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_call_is_retried_once_if_the_connection_breaks() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    stage.ready(&server.url).await;
    server.set(|state| state.fault = Some(Fault::Breaks(1)));
    assert_eq!(stage.call().await["result"]["n"], 1.0, "the agent does not notice");
    assert_eq!(server.calls().len(), 2);
    server.set(|state| state.fault = Some(Fault::Breaks(2)));
    assert_eq!(stage.call().await["error"]["data"]["reason"], "unreachable");
    assert_eq!(server.calls().len(), 2, "only once more");
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    server.calls();

    // The same tool, now with the class `write`.
    server.set(|state| state.tools[0]["description"] = json!("Deletes."));
    stage.check_definitions().await;
    stage.approve_as("write").await;
    server.set(|state| state.fault = Some(Fault::Breaks(1)));
    assert_eq!(stage.call().await["error"]["data"]["reason"], "unreachable");
    assert_eq!(server.calls().len(), 1, "nobody knows whether the server has processed it");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_a_connection_that_was_replaced_fails_without_ending_the_new_connection() {
    let (stage, earlier, current) = (Stage::new().await, Server::start().await, Server::start().await);
    let id = stage.connect(&earlier.url).await;
    stage.check().await;
    let (cx, ops, org) = (stage.api.app.cx(), stage.api.app.running_ops(), &stage.api.org.id);
    let instance = instances::get(cx, &ops, org, &id.parse().unwrap()).await.unwrap().instance;
    let container = ContainerKey::new(String::new());
    let open = async || {
        let message = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find"}}"#;
        let limits = (Duration::from_secs(20), 1024 * 1024);
        Exchange::open(&ops, ExchangeTarget::new(&instance, &container), message.into(), limits).await.unwrap()
    };
    earlier.set(|state| state.fault = Some(Fault::BreaksLater));
    let mut late = open().await;
    assert_eq!(earlier.calls().len(), 1);
    let patch = json!({ "remote": { "url": current.url } });
    stage.api.call(Method::PATCH, &format!("/instances/{id}"), Some(patch)).await.assert_status(200);
    stage.check().await;
    assert!(open().await.next().await.unwrap().is_some());
    let handshakes = || current.state.lock().unwrap().params("initialize").len();
    let before = handshakes();
    assert!(before > 0);
    earlier.set(|state| state.close_streams());
    assert_eq!(late.next().await.unwrap_err().details["reason"], "unreachable");
    assert!(open().await.next().await.unwrap().is_some());
    assert_eq!(handshakes(), before, "the new connection is used");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_first_response_to_a_call_reaches_its_agent() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    stage.ready(&server.url).await;
    server.set(|state| state.fault = Some(Fault::Babbles));
    for _ in 0..3 {
        let answer = stage.call().await;
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": "x", "result": { "content": [], "n": 1.0 } }));
    }
    server.set(|state| state.fault = None);
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_changes_constantly_does_not_affect_other_definitions() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    stage.ready(&server.url).await;
    let restless = |n: usize| tool("restless", &format!("Version {n}."));
    for n in 0..5 {
        server.set(|state| state.tools = vec![tool("find", "Finds."), restless(n)]);
        stage.check_definitions().await;
        assert_eq!(stage.call().await["result"]["n"], 1.0);
        let pending = stage.api.get("/tool-approvals?state=pending").await;
        let names: Vec<&Value> = pending["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
        assert!(!names.is_empty() && names.iter().all(|name| *name == "restless"), "{names:?}");
    }
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_times_out_if_the_server_does_not_respond() {
    let call_timeout = Duration::from_millis(500);
    // The lists of the server are read before the call.
    for fault in [Fault::Hangs, Fault::HangsOnLists] {
        let stage = Stage::with(|options| GatewayOptions { call_timeout, ..options }).await;
        let server = Server::start().await;
        stage.ready(&server.url).await;
        server.set(|state| state.fault = Some(fault));
        // Every other limit is longer.
        let answer = timeout(Duration::from_secs(20), stage.call()).await.expect("the call ends in time");
        assert_eq!(answer["error"]["data"]["reason"], "timeout", "{answer}");
        wait_for_calls(&stage.api.app, 1).await;
        assert_eq!(stage.api.get("/calls").await["items"][0]["outcome"], "timed_out");
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_definitions_does_not_end_with_the_call_that_started_it() {
    let call_timeout = Duration::from_millis(500);
    let stage = Stage::with(|options| GatewayOptions { call_timeout, ..options }).await;
    let server = Server::start().await;
    stage.ready(&server.url).await;
    let lists = || server.state.lock().unwrap().params("tools/list").len();
    let before = lists();
    server.set(|state| state.fault = Some(Fault::HangsOnLists));
    {
        let begun = std::pin::pin!(server.wait_until(|state| state.params("tools/list").len() > before));
        let call = std::pin::pin!(stage.call());
        // If the agent disconnects or cancels the call, the future of the call is dropped.
        let Either::Left(_) = select(begun, call).await else { panic!("there is no check") };
    }
    for _ in 0..2 {
        let answer = stage.call().await;
        assert_eq!(answer["error"]["data"]["reason"], "timeout", "{answer}");
    }
    assert_eq!(lists(), before + 1, "all calls wait for the same check");
    stage.api.app.clone().finish().await;
}

/// The number of concurrent calls, which is the limit of an agent.
const CALLS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_calls_leave_no_tasks() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    stage.ready(&server.url).await;
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    server.calls();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    server.set(|state| state.fault = Some(Fault::Hangs));
    for _ in 0..3 {
        let mut received = 0;
        let arrived = std::pin::pin!(async {
            while received < CALLS {
                received += server.calls().len();
                tokio::task::yield_now().await;
            }
        });
        let calls = std::pin::pin!(join_all((0..CALLS).map(|_| stage.call())));
        // If the agent disconnects, the futures of its calls are dropped.
        let Either::Left(_) = select(arrived, calls).await else { panic!("the server does not answer") };
    }
    // There were 30 calls. Pooled connections and the stream that is open while a server is used have their own tasks.
    let ended = async {
        while tasks() > before + 2 * CALLS {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert!(in_time.is_ok(), "{} tasks, before {before}", tasks());
    server.set(|state| state.fault = None);
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    stage.api.app.clone().finish().await;
}
