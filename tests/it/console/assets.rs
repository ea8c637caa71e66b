//! Compression of responses.

use std::io::Read;

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use waypost_console::routes::Access;

use super::{ConsoleBrowser, ConsoleResponse};
use crate::app::App;

const BROWSER: &str = "gzip, deflate, br, zstd";

fn request(method: Method, path: &str, accept: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(header::ACCEPT_ENCODING, accept)
}

async fn get(browser: &ConsoleBrowser, path: &str, accept: &str) -> ConsoleResponse {
    let request = request(Method::GET, path, accept).header(header::ACCEPT, "text/html, */*");
    browser.send(request.body(Body::empty()).unwrap()).await
}

/// Returns the decompressed body.
fn decode(response: &ConsoleResponse) -> String {
    let mut text = String::new();
    match response.header("content-encoding") {
        "br" => brotli::Decompressor::new(&response.bytes[..], 4_096).read_to_string(&mut text).unwrap(),
        "gzip" => flate2::read::GzDecoder::new(&response.bytes[..]).read_to_string(&mut text).unwrap(),
        other => panic!("content-encoding: {other}"),
    };
    text
}

#[tokio::test]
async fn files_pages_and_json_are_compressed() {
    let app = App::new().await;
    let server = app.org("acme").await.server("acme").await;
    let walkthrough =
        server.walkthrough("Install Acme", &["Download", "Unpack", "Run", "Check", "Configure", "Finish"]).await;
    let browser = ConsoleBrowser::owner(&server.org).await;
    let draft = format!("/api/v1/walkthroughs/{}", walkthrough.id);
    for path in ["/assets/console.css", "/o/acme", "/o/acme/walkthroughs", &draft, "/api/v1/openapi.json"] {
        let plain = get(&browser, path, "identity").await;
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"), "{path}");
        for (accept, coding) in [(BROWSER, "br"), ("gzip", "gzip"), ("br;q=0, gzip;q=0.5", "gzip")] {
            let encoded = get(&browser, path, accept).await;
            assert_eq!(encoded.status, 200, "{path}");
            assert_eq!((encoded.header("content-encoding"), encoded.header("vary")), (coding, "accept-encoding"));
            // Only the lengths are compared, because pages contain the time of the response.
            assert_eq!(decode(&encoded).len(), plain.bytes.len(), "{path}");
            assert!(encoded.bytes.len() * 3 < plain.bytes.len() * 2, "{path}: {}", encoded.bytes.len());
        }
        // No request is rejected because of its `Accept-Encoding`.
        assert_eq!(get(&browser, path, "identity;q=0, *;q=0").await.status, 200, "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn entity_tags_belong_to_one_coding_and_can_be_sent_back() {
    let app = App::new().await;
    let server = app.org("acme").await.server("acme").await;
    let id = server.walkthrough("Install Acme", &["Download", "Unpack", "Run", "Check", "Configure", "Finish"]).await;
    let browser = ConsoleBrowser::owner(&server.org).await;
    let path = format!("/api/v1/walkthroughs/{}", id.id);
    let plain = get(&browser, &path, "identity").await;
    let revision = plain.json()["revision"].as_u64().unwrap();
    assert_eq!(plain.header("etag"), format!("\"{revision}\""));
    for (accept, coding) in [("br", "br"), ("gzip", "gzip")] {
        let encoded = get(&browser, &path, accept).await;
        let tag = encoded.header("etag").to_owned();
        assert_eq!(tag, format!("\"{revision}-{coding}\""));
        let known = request(Method::GET, &path, accept).header(header::IF_NONE_MATCH, &tag);
        let confirmed = browser.send(known.body(Body::empty()).unwrap()).await;
        assert_eq!((confirmed.status.as_u16(), confirmed.header("etag")), (304, tag.as_str()));
        assert_eq!((confirmed.header("vary"), confirmed.bytes.len()), ("accept-encoding", 0));
    }
    // HEAD returns the headers of GET, without the body.
    let head = browser.send(request(Method::HEAD, &path, "br").body(Body::empty()).unwrap()).await;
    assert_eq!((head.status.as_u16(), head.header("content-encoding"), head.bytes.len()), (200, "br", 0));
    assert_eq!(head.header("etag"), format!("\"{revision}-br\""));
    let head = browser.send(request(Method::HEAD, &path, "identity").body(Body::empty()).unwrap()).await;
    assert_eq!(head.header("content-length"), plain.bytes.len().to_string());

    let change = |tag: String| {
        let request = request(Method::PATCH, &path, "br")
            .header(header::IF_MATCH, tag)
            .header(header::CONTENT_TYPE, "application/json")
            .header("sec-fetch-site", "same-origin");
        request.body(Body::from(json!({ "description": "Changed." }).to_string())).unwrap()
    };
    let changed = browser.send(change(format!("\"{revision}-br\""))).await;
    assert_eq!((changed.status.as_u16(), changed.json()["revision"].as_u64()), (200, Some(revision + 1)));
    let outdated = browser.send(change(format!("\"{revision}-gzip\""))).await;
    assert_eq!(outdated.status, 412);
    app.finish().await;
}

/// The length of a compressed response depends on its content, so no response that contains a secret is compressed
/// (BREACH).
#[tokio::test]
async fn responses_with_secrets_are_not_compressed() {
    let app = App::new().await;
    let server = app.org("acme").await.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack"]).await;
    let browser = ConsoleBrowser::owner(&server.org).await;
    // Pages of visitors, pages that belong to no organisation, a page with a personal URL, and small responses.
    let server_id = server.id.to_string();
    let visitor = ConsoleBrowser::new(&app);
    let page = get(&visitor, "/login", BROWSER).await;
    assert!(page.status == 200 && page.bytes.len() > 1_024, "{}", page.body);
    assert_eq!(page.header("content-encoding"), "");
    let pages = ["/account", &format!("/o/acme/servers/{server_id}/try"), "/api/v1/servers", "/nowhere"];
    for path in pages {
        let page = get(&browser, path, BROWSER).await;
        assert!(matches!(page.status.as_u16(), 200 | 404), "{path}: {}", page.status);
        assert_eq!(page.header("content-encoding"), "", "{path}");
    }
    for path in ["/s/acme", "/s/acme/mcp"] {
        let page = app.request(Method::GET, path).header("accept", "text/html").header("accept-encoding", BROWSER);
        let page = page.send().await;
        assert_eq!((page.status.as_u16(), page.header("content-encoding")), (200, None), "{path}");
    }
    // A new secret is in the response to the POST that creates it.
    let form = request(Method::POST, "/o/acme/api-keys", BROWSER)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin");
    let created = browser.send(form.body(Body::from("name=CI&scope=member&expires_on=")).unwrap()).await;
    assert!(created.bytes.len() > 1_024 && created.body.contains("wpk_"), "{}", created.body);
    assert_eq!(created.header("content-encoding"), "");
    // Another site can make the browser load a page as often as it wants, with text of its choice in the query.
    for (site, coding) in [("same-origin", "br"), ("none", "br"), ("same-site", ""), ("cross-site", "")] {
        let page = request(Method::GET, "/o/acme/walkthroughs?q=guess", BROWSER).header("sec-fetch-site", site);
        let page = browser.send(page.body(Body::empty()).unwrap()).await;
        assert_eq!((page.status.as_u16(), page.header("content-encoding")), (200, coding), "{site}");
    }
    app.finish().await;
}

/// Pages that a visitor can load and responses to forms are never compressed, whatever their length.
#[test]
fn only_pages_of_members_can_be_compressed() {
    for route in waypost_console::routes().list() {
        let expected = route.method == Method::GET
            && matches!(route.access, Access::Member(_))
            && route.path != "/o/{org}/servers/{server}/try";
        assert_eq!(route.is_compressible(), expected, "{} {}", route.method, route.path);
    }
}

/// API responses to GET requests may be compressed, so they must not contain secrets. In the OpenAPI document, the
/// description of a member with a secret says "returned only once".
#[test]
fn no_response_to_get_has_a_member_for_a_secret() {
    let document = waypost_api::document();
    let schemas = &document["components"]["schemas"];
    let mut with_secrets = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if has_secret(&operation["responses"], schemas, 0) {
                with_secrets.push(format!("{method} {path}"));
            }
        }
    }
    assert!(with_secrets.len() >= 3, "{with_secrets:?}");
    assert!(with_secrets.iter().all(|operation| operation.starts_with("post ")), "{with_secrets:?}");
}

fn has_secret(schema: &Value, schemas: &Value, depth: usize) -> bool {
    match schema {
        _ if depth > 24 => false,
        Value::Object(members) => members.iter().any(|(name, value)| match (name.as_str(), value) {
            ("$ref", Value::String(path)) => has_secret(&schemas[path.rsplit('/').next().unwrap()], schemas, depth + 1),
            ("description", Value::String(text)) => text.contains("returned only once"),
            _ => has_secret(value, schemas, depth + 1),
        }),
        Value::Array(items) => items.iter().any(|item| has_secret(item, schemas, depth + 1)),
        _ => false,
    }
}
