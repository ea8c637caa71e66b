//! Headers of agents that are forwarded to remote servers.

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::server::Server;
use super::{Stage, json_of};

const LEGACY: [(&str, &str); 1] = [("mcp-protocol-version", "2025-11-25")];
const MODERN: [(&str, &str); 3] =
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "far__find")];

impl Stage {
    /// Calls the tool with these headers in addition to those of the protocol revision.
    async fn call_with(&self, is_modern: bool, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut params = json!({ "name": "far__find" });
        if is_modern {
            params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {} });
        }
        let own = if is_modern { &MODERN[..] } else { &LEGACY[..] };
        let text = json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params }).to_string();
        let response = self.send(Method::POST, &[own, headers].concat(), text).await;
        (response.status(), json_of(response).await)
    }
}

async fn stage_with_headers(headers: &str) -> Stage {
    let headers = headers.parse().unwrap();
    Stage::with(|options| waypost_gateway::GatewayOptions { forwarded_headers: headers, ..options }).await
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

const SENT: [(&str, &str); 7] = [
    ("X-Tenant", "acme"),
    ("x-request-id", "r-1"),
    ("cookie", "session=1"),
    ("x-api-key", "k"),
    ("x-forwarded-for", "192.0.2.1"),
    ("origin", "http://localhost:8080"),
    ("accept-language", "de"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_headers_reach_the_server_and_only_with_calls() {
    for is_modern in [false, true] {
        let (stage, server) = (stage_with_headers("x-tenant,X-Request-ID").await, Server::start().await);
        server.set(|state| state.is_modern = is_modern);
        stage.ready(&server.url).await;
        for agent_is_modern in [false, true] {
            assert_eq!(stage.call_with(agent_is_modern, &SENT).await.1["result"]["n"], 1.0);
            let (headers, _) = server.calls().pop().unwrap();
            assert_eq!((values(&headers, "x-tenant"), values(&headers, "x-request-id")), (vec!["acme"], vec!["r-1"]));
            for name in ["authorization", "cookie", "x-api-key", "x-forwarded-for", "origin", "accept-language"] {
                assert!(values(&headers, name).is_empty(), "{name}");
            }
            assert_eq!(stage.call_with(agent_is_modern, &[]).await.1["result"]["n"], 1.0);
            assert!(values(&server.calls().pop().unwrap().0, "x-tenant").is_empty(), "that of an earlier call");
        }
        // Checks are not made on behalf of an agent.
        server.set(|state| state.received.clear());
        stage.call_with(false, &SENT).await;
        let received = std::mem::take(&mut server.state.lock().unwrap().received);
        let with_header = received.iter().filter(|(headers, _)| headers.contains_key("x-tenant"));
        let methods: Vec<&Value> = with_header.map(|(_, body)| &body["method"]).collect();
        assert_eq!((methods, received.len() > 1), (vec![&json!("tools/call")], true));
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_list_no_header_reaches_the_server() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    stage.ready(&server.url).await;
    stage.call_with(false, &SENT).await;
    let (headers, _) = server.calls().pop().unwrap();
    assert!(SENT.iter().all(|(name, _)| !headers.contains_key(*name)), "{headers:?}");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_never_replaced_by_a_header_of_an_agent() {
    let (stage, server) = (stage_with_headers("x-tenant,x-api-key").await, Server::start().await);
    let secret = json!({ "name": "far-key", "value": "own" });
    let secret = stage.api.post("/secrets", secret).await.assert_status(201).json()["id"].clone();
    let id = stage.ready(&server.url).await;
    // The gateway uses the secret from the next connection on, even if it has cached the instance.
    let patch = json!({ "secrets": { "X-Api-Key": secret } });
    stage.api.call(Method::PATCH, &format!("/instances/{id}"), Some(patch)).await.assert_status(200);
    stage.check().await;
    stage.call_with(false, &SENT).await;
    let (headers, _) = server.calls().pop().unwrap();
    assert_eq!((values(&headers, "x-api-key"), values(&headers, "x-tenant")), (vec!["own"], vec!["acme"]));
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_a_repeated_or_large_header_is_rejected() {
    let (stage, server) = (stage_with_headers("x-tenant,x-other").await, Server::start().await);
    stage.ready(&server.url).await;
    let large = "v".repeat(4 * 1024 + 1);
    for headers in [[("x-tenant", "a"), ("x-tenant", "b")], [("x-tenant", "a"), ("x-other", large.as_str())]] {
        for is_modern in [false, true] {
            let (status, answer) = stage.call_with(is_modern, &headers).await;
            assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32600)), "{answer}");
            assert!(!answer.to_string().contains(&large[..32]));
        }
    }
    assert!(server.calls().is_empty());
    // Other headers can be repeated.
    assert_eq!(stage.call_with(false, &[("x-own", "a"), ("x-own", "b")]).await.1["result"]["n"], 1.0);
    stage.api.app.clone().finish().await;
}
