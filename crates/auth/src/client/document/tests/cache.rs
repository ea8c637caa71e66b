//! Tests of the lifetime of cached documents, with a manual clock.

use http::{HeaderMap, HeaderValue, header};

use super::super::fetch::lifetime;
use super::get;
use super::server::{JSON, Server, response};

#[test]
fn as_7_headers_determine_the_lifetime_of_a_document() {
    for (cache_control, age, seconds) in [
        (&[][..], None, 300),
        (&["public"], None, 300),
        (&["max-age=60"], None, 60),
        (&["public, Max-Age=\"60\", immutable"], None, 60),
        (&["max-age=0"], None, 0),
        (&["max-age=31536000"], None, 86_400),
        (&["max-age=99999999999999999999"], None, 0),
        (&["max-age=-1"], None, 0),
        (&["max-age=soon"], None, 0),
        (&["max-age"], None, 0),
        (&["max-age=600, max-age=60"], None, 60),
        (&["max-age=600", "max-age=60"], None, 60),
        (&["max-age=60, no-store"], None, 0),
        (&["NO-STORE"], None, 0),
        (&["max-age=60", "no-cache"], None, 0),
        (&["max-age=600"], Some("100"), 500),
        (&["max-age=600"], Some("700"), 0),
        (&["max-age=600"], Some("old"), 600),
        (&["s-max-age=60, x-max-age=7"], None, 300),
    ] {
        let mut headers = HeaderMap::new();
        for line in cache_control {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
        }
        headers.extend(age.map(|age| (header::AGE, HeaderValue::from_static(age))));
        assert_eq!(lifetime(&headers), seconds, "{cache_control:?} {age:?}");
    }
}

#[tokio::test]
async fn as_7_a_document_is_cached_for_its_lifetime() {
    let server = Server::start().await;
    let (documents, clock) = server.documents();
    server.serve_documents("Content-Type: application/json\r\nCache-Control: max-age=60\r\n");
    let url = server.url("/a");
    let first = get(&documents, &url).await.unwrap();
    clock.advance(59_999);
    // The cached document is returned even if the server is unavailable.
    server.respond_with(|_| Some(response("503 Down", "", "")));
    assert_eq!(get(&documents, &url).await.unwrap(), first);
    assert_eq!(server.requested_paths().len(), 1);
    clock.advance(1);
    assert!(get(&documents, &url).await.is_err());
    assert_eq!(server.requested_paths().len(), 2);
}

#[tokio::test]
async fn as_7_a_document_with_no_store_is_fetched_each_time() {
    let server = Server::start().await;
    let (documents, _) = server.documents();
    server.serve_documents("Content-Type: application/json\r\nCache-Control: no-store\r\n");
    for times in 1..=3 {
        get(&documents, &server.url("/a")).await.unwrap();
        assert_eq!(server.requested_paths().len(), times);
    }
}

#[tokio::test]
async fn as_7_errors_are_not_cached() {
    let server = Server::start().await;
    let (documents, _) = server.documents();
    let url = server.url("/a");
    let other_document = server.document("/b").to_string();
    for reply in
        [response("404 Not Found", "Cache-Control: max-age=600\r\n", ""), response("200 OK", JSON, &other_document)]
    {
        server.respond_with(move |_| Some(reply.clone()));
        assert!(get(&documents, &url).await.is_err());
    }
    server.serve_documents(JSON);
    assert!(get(&documents, &url).await.is_ok());
    assert_eq!(server.requested_paths().len(), 3);
}

#[tokio::test]
async fn concurrent_callers_share_one_fetch() {
    let server = Server::start().await;
    let (documents, _) = server.documents();
    for (path, is_valid) in [("/good", true), ("/bad", false)] {
        match is_valid {
            true => server.serve_documents("Content-Type: application/json\r\nCache-Control: no-store\r\n"),
            false => server.respond_with(|_| Some(response("500 Broken", "", ""))),
        }
        let before = server.requested_paths().len();
        let url = server.url(path);
        // In one task, so that all three requests start before the first response can be read.
        let (a, b, c) = tokio::join!(get(&documents, &url), get(&documents, &url), get(&documents, &url));
        assert_eq!([a.is_ok(), b.is_ok(), c.is_ok()], [is_valid; 3]);
        assert_eq!(server.requested_paths().len(), before + 1);
    }
}

/// A caller that disconnects does not affect the others that wait for the same document.
#[tokio::test]
async fn a_cancelled_caller_does_not_cancel_the_fetch_of_others() {
    let server = Server::start().await;
    let (documents, _) = server.documents();
    let url = server.url("/a");
    let fetch = || async { get(&documents, &url).await };
    let cancelled = tokio::spawn({
        let (documents, url) = (documents.clone(), url.clone());
        async move { get(&documents, &url).await }
    });
    while server.requested_paths().is_empty() {
        tokio::task::yield_now().await;
    }
    server.serve_documents(JSON);
    let ((), result) = tokio::join!(async { cancelled.abort() }, fetch());
    assert!(result.is_ok());
    assert_eq!(server.requested_paths().len(), 2);
}
