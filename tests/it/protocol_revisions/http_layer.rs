//! HTTP methods and headers.

use http::Method;
use insta::assert_snapshot;

use super::{legacy_message, set_up, summarize};

#[tokio::test]
async fn http_methods_other_than_post_are_rejected() {
    let (app, server) = set_up().await;
    for method in [Method::GET, Method::DELETE, Method::PUT, Method::PATCH] {
        for path in [server.path(), "/s/acme/t/ann/mcp".to_owned()] {
            let response = app.request(method.clone(), &path).header("accept", "text/event-stream").send().await;
            assert_eq!(response.status_and_code(), (405, -32_600), "{method} {path}");
            assert_eq!(response.header("allow"), Some("POST"), "{method}");
        }
    }
    let head = app.request(Method::HEAD, "/s/nobody/mcp").send().await;
    assert_eq!(head.status, 404);
    app.finish().await;
}

#[tokio::test]
async fn accept_and_content_type_are_validated() {
    let (app, server) = set_up().await;
    let body = legacy_message("ping").to_string();
    let mut summary = summarize("no accept", &app.post(&server.path(), body.clone()).without("accept").send().await);
    for accept in [
        "*/*",
        "application/json",
        "application/*",
        "text/event-stream",
        "text/event-stream, application/json",
        "application/json;q=0, text/event-stream",
        "APPLICATION/JSON, TEXT/EVENT-STREAM",
        "text/html",
        "",
    ] {
        let response = app.post(&server.path(), body.clone()).header("accept", accept).send().await;
        summary.push_str(&summarize(&format!("accept {accept:?}"), &response));
    }
    summary
        .push_str(&summarize("no type", &app.post(&server.path(), body.clone()).without("content-type").send().await));
    for kind in ["application/json; charset=utf-8", "Application/JSON", "text/plain", "application/jsonp", ""] {
        let response = app.post(&server.path(), body.clone()).header("content-type", kind).send().await;
        summary.push_str(&summarize(&format!("type {kind:?}"), &response));
    }
    assert_snapshot!(summary, @r#"
    no accept: 200 result
    accept "*/*": 200 result
    accept "application/json": 200 result
    accept "application/*": 200 result
    accept "text/event-stream": 406 -32600 Not Acceptable: Client must accept both application/json and text/event-stream
    accept "text/event-stream, application/json": 200 result
    accept "application/json;q=0, text/event-stream": 200 result
    accept "APPLICATION/JSON, TEXT/EVENT-STREAM": 200 result
    accept "text/html": 406 -32600 Not Acceptable: Client must accept both application/json and text/event-stream
    accept "": 406 -32600 Not Acceptable: Client must accept both application/json and text/event-stream
    no type: 415 -32600 Unsupported Media Type: Content-Type must be application/json
    type "application/json; charset=utf-8": 200 result
    type "Application/JSON": 200 result
    type "text/plain": 415 -32600 Unsupported Media Type: Content-Type must be application/json
    type "application/jsonp": 415 -32600 Unsupported Media Type: Content-Type must be application/json
    type "": 415 -32600 Unsupported Media Type: Content-Type must be application/json
    "#);
    app.finish().await;
}
