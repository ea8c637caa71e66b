//! The trace context of a call is forwarded to the server in `_meta` if it is valid.

use http::StatusCode;
use serde_json::{Value, json};

use super::Stage;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

/// Calls a tool and returns `_meta` as the server received it.
async fn received(stage: &Stage, headers: &[(&str, &str)], meta: Option<Value>) -> Option<Value> {
    let mut params = json!({ "name": "search__find" });
    if let Some(meta) = meta {
        params["_meta"] = meta;
    }
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }).to_string();
    let (status, text) = stage.send("/gateway/mcp", Some(&stage.token), headers, body).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    stage.received().pop().unwrap()["params"].get("_meta").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_trace_context_reaches_the_server() {
    let stage = Stage::new().await.ready().await;
    let both = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")];
    for (headers, meta, expected) in [
        (&both[..1], None, Some(json!({ "traceparent": PARENT }))),
        (&both[..], None, Some(json!({ "traceparent": PARENT, "tracestate": "a=1,b=2" }))),
        (&both[..1], Some(json!({ "progressToken": 1 })), Some(json!({ "progressToken": 1, "traceparent": PARENT }))),
        (&both[1..], None, None),
        (&[], Some(json!({ "traceparent": PARENT, "x": 1 })), Some(json!({ "traceparent": PARENT, "x": 1 }))),
        // The message takes precedence over the headers.
        (&both[..], Some(json!({ "traceparent": OTHER })), Some(json!({ "traceparent": OTHER }))),
        (
            &both[..],
            Some(json!({ "traceparent": OTHER, "tracestate": "c=3" })),
            Some(json!({ "traceparent": OTHER, "tracestate": "c=3" })),
        ),
    ] {
        assert_eq!(received(&stage, headers, meta.clone()).await, expected, "{headers:?} {meta:?}");
    }
    // A request of 2026-07-28.
    let params = json!({ "name": "search__find", "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } });
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }).to_string();
    let own = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "search__find")];
    let headers = [&own[..], &both[..1]].concat();
    stage.send("/gateway/mcp", Some(&stage.token), &headers, body).await;
    assert_eq!(stage.received().pop().unwrap()["params"]["_meta"], json!({ "traceparent": PARENT }));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_trace_context_is_removed() {
    let stage = Stage::new().await.ready().await;
    for (headers, meta, expected) in [
        (&[("traceparent", "00-0-0-00"), ("tracestate", "a=1")][..], None, None),
        (&[("traceparent", PARENT), ("traceparent", OTHER)], None, None),
        (&[("traceparent", PARENT), ("tracestate", "A")], None, Some(json!({ "traceparent": PARENT }))),
        (&[], Some(json!({ "traceparent": "x", "tracestate": "a=1", "y": 1 })), Some(json!({ "y": 1 }))),
        (&[], Some(json!({ "tracestate": "a=1" })), Some(json!({}))),
        (&[], Some(json!({ "traceparent": { "a": 1 } })), Some(json!({}))),
        (&[], Some(json!({ "traceparent": PARENT, "tracestate": 7 })), Some(json!({ "traceparent": PARENT }))),
        (&[("traceparent", PARENT)], Some(json!({ "traceparent": null })), Some(json!({}))),
    ] {
        assert_eq!(received(&stage, headers, meta.clone()).await, expected, "{headers:?} {meta:?}");
    }
    stage.finish().await;
}
