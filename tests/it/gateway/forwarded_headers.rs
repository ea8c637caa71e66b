//! Headers of agents that are forwarded to servers in containers.

use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode};
use serde_json::json;
use waypost_gateway::GatewayOptions;
use waypost_toolbox_proto::forwarded_headers::decode;
use waypost_toolbox_proto::http::{CALL_HEADERS, FORWARDED_HEADERS_HEADER};

use super::Stage;
use crate::app::Setup;

/// The headers that an agent sends.
const SENT: [(&str, &str); 7] = [
    ("X-Tenant", "acmé \"\\"),
    ("x-request-id", "r-1"),
    ("cookie", "session=1"),
    ("x-api-key", "k"),
    ("x-forwarded-for", "192.0.2.1"),
    ("waypost-forwarded-headers", r#"{"x-absent":"forged"}"#),
    ("waypost-container-key", "agent:other"),
];

async fn stage_with_headers(names: &str) -> Stage {
    let forwarded_headers = names.parse().unwrap();
    let setup = Setup::default();
    let gateway = setup.gateway.map(|options| GatewayOptions { forwarded_headers, ..options });
    Stage::with(Setup { gateway, ..setup }).await.ready().await
}

/// Calls the tool with these headers, in addition to those of the protocol revision.
async fn call(stage: &Stage, is_modern: bool, headers: &[(&str, &str)]) -> StatusCode {
    let mut params = json!({ "name": "search__find" });
    let mut all = vec![("mcp-protocol-version", "2025-11-25")];
    if is_modern {
        params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {} });
        all = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "search__find")];
    }
    all.extend(headers);
    let text = json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params }).to_string();
    stage.send("/gateway/mcp", Some(&stage.token), &all, text).await.0
}

/// Returns the headers for the server in a request to the toolbox.
fn forwarded(headers: &HeaderMap) -> Option<BTreeMap<String, Vec<u8>>> {
    headers.get(FORWARDED_HEADERS_HEADER).map(|value| decode(value.as_bytes()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_listed_headers_reach_the_toolbox_and_only_with_their_own_call() {
    let stage = stage_with_headers("x-tenant,X-Request-ID,x-absent").await;
    for is_modern in [false, true] {
        for headers in [&SENT[..], &[]] {
            assert_eq!(call(&stage, is_modern, headers).await, StatusCode::OK);
        }
    }
    let received = std::mem::take(&mut stage.server.lock().unwrap().headers);
    let values = [("x-tenant", "acmé \"\\"), ("x-request-id", "r-1")];
    let expected = BTreeMap::from(values.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
    let of_calls: Vec<_> = received.iter().map(forwarded).collect();
    assert_eq!(of_calls, [Some(expected.clone()), None, Some(expected), None]);
    let own = |name: &str| name == "content-type" || CALL_HEADERS.contains(&name);
    assert!(received.iter().all(|headers| headers.keys().all(|name| own(name.as_str()))), "{received:?}");
    assert_eq!(received[0]["waypost-container-key"], format!("agent:{}", stage.agent));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_a_repeated_header_is_rejected() {
    let stage = stage_with_headers("x-tenant").await;
    let headers = [("x-tenant", "a"), ("x-tenant", "b")];
    assert_eq!(call(&stage, false, &headers).await, StatusCode::BAD_REQUEST);
    assert!(stage.server.lock().unwrap().headers.is_empty());
    stage.finish().await;
}
