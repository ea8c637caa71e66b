//! Methods and headers of HTTP.

use http::Method;
use insta::assert_snapshot;

use super::{line, ready, request};

#[tokio::test]
async fn methods_of_http_other_than_post() {
    let (app, server) = ready().await;
    for method in [Method::GET, Method::DELETE, Method::PUT, Method::PATCH] {
        for path in [server.path(), "/s/acme/t/ann/mcp".to_owned()] {
            let answer = app.request(method.clone(), &path).header("accept", "text/event-stream").send().await;
            assert_eq!(answer.verdict(), (405, -32_600), "{method} {path}");
            assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        }
    }
    let head = app.request(Method::HEAD, "/s/nobody/mcp").send().await;
    assert_eq!(head.status, 404);
    app.finish().await;
}

#[tokio::test]
async fn accept_and_content_type() {
    let (app, server) = ready().await;
    let body = request("ping").to_string();
    let mut seen = line("no accept", &app.post(&server.path(), body.clone()).without("accept").send().await);
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
        let answer = app.post(&server.path(), body.clone()).header("accept", accept).send().await;
        seen.push_str(&line(&format!("accept {accept:?}"), &answer));
    }
    seen.push_str(&line("no type", &app.post(&server.path(), body.clone()).without("content-type").send().await));
    for kind in ["application/json; charset=utf-8", "Application/JSON", "text/plain", "application/jsonp", ""] {
        let answer = app.post(&server.path(), body.clone()).header("content-type", kind).send().await;
        seen.push_str(&line(&format!("type {kind:?}"), &answer));
    }
    assert_snapshot!(seen, @r#"
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
