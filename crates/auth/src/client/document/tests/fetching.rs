//! Tests of valid and invalid responses from a client's server.

use std::time::Duration;

use waypost_outbound::{Error, Outbound, Policy};

use super::super::{ClientDocuments, DocumentError};
use super::get;
use super::server::{JSON, Server, response};

#[tokio::test]
async fn as_7_fetches_the_document_of_a_client() {
    let server = Server::start().await;
    server.serve_documents(JSON);
    let (documents, _) = server.documents();
    let document = get(&documents, &server.url("/client.json?v=1")).await.unwrap();
    assert_eq!((&document.client_id, &*document.client_name), (&server.url("/client.json?v=1"), "Client"));
    assert_eq!(server.requested_paths(), ["/client.json?v=1"]);
}

#[tokio::test]
async fn as_7_only_responses_with_status_200_are_accepted() {
    let server = Server::start().await;
    let target = server.url("/there");
    let body = server.document("/a").to_string();
    for status in ["201 Created", "301 Moved", "302 Found", "307 Again", "404 Not Found", "410 Gone", "503 Down"] {
        let (location, body) = (format!("{JSON}Location: {target}\r\n"), body.clone());
        server.respond_with(move |_| Some(response(status, &location, &body)));
        let error = get(&server.documents().0, &server.url("/a")).await.unwrap_err();
        let DocumentError::Status(code) = error else { panic!("{status}: {error}") };
        assert!(status.starts_with(&code.to_string()), "{status}: {code}");
    }
    assert_eq!(server.requested_paths(), ["/a"; 7], "no redirect is followed");
}

#[tokio::test]
async fn as_7_only_json_responses_are_accepted() {
    let server = Server::start().await;
    let (documents, _) = server.documents();
    for (content_type, is_json) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/oauth-client+json", true),
        ("text/html", false),
        ("text/json", false),
        ("application/jsonp", false),
        ("application/octet-stream", false),
        ("", false),
    ] {
        let body = server.document("/a").to_string();
        let headers = format!("Content-Type: {content_type}\r\nCache-Control: no-store\r\n");
        server.respond_with(move |_| Some(response("200 OK", &headers, &body)));
        match get(&documents, &server.url("/a")).await {
            Ok(_) => assert!(is_json, "{content_type}"),
            Err(error) => assert!(!is_json && matches!(error, DocumentError::ContentType), "{content_type}: {error}"),
        }
    }
    server.respond_with(|_| Some(response("200 OK", JSON, "<!doctype html><title>Sign in</title>")));
    let error = get(&documents, &server.url("/html")).await.unwrap_err();
    assert!(matches!(error, DocumentError::Json), "{error}");
}

#[tokio::test]
async fn as_7_a_document_with_another_id_is_rejected() {
    let server = Server::start().await;
    let other_document = server.document("/other").to_string();
    server.respond_with(move |_| Some(response("200 OK", JSON, &other_document)));
    let error = get(&server.documents().0, &server.url("/a")).await.unwrap_err();
    assert!(matches!(error, DocumentError::WrongId), "{error}");
}

#[tokio::test]
async fn as_7_large_documents_are_rejected() {
    let server = Server::start().await;
    let (documents, _) = server.documents();
    let padded = |path: &str, length: usize| {
        let body = server.document(path).to_string();
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    let (largest, larger) = (padded("/largest", 5 * 1024), padded("/larger", 5 * 1024 + 1));
    server
        .respond_with(move |path| Some(response("200 OK", JSON, if path == "/largest" { &largest } else { &larger })));
    assert!(get(&documents, &server.url("/largest")).await.is_ok());
    let error = get(&documents, &server.url("/larger")).await.unwrap_err();
    let DocumentError::Fetch(cause) = &error else { panic!("{error}") };
    assert!(matches!(**cause, Error::TooLarge { limit: 5120, .. }), "{error}");
}

#[tokio::test]
async fn as_7_a_server_that_does_not_respond_times_out() {
    let server = Server::start().await;
    let (mut documents, _) = server.documents();
    assert_eq!(documents.limits.timeout, Duration::from_secs(5));
    documents.limits.timeout = Duration::from_millis(200);
    let error = get(&documents, &server.url("/silent")).await.unwrap_err();
    assert_eq!(error.to_string(), "`127.0.0.1` did not respond in time.");
}

#[tokio::test]
async fn documents_in_private_networks_are_not_fetched() {
    let server = Server::start().await;
    server.serve_documents(JSON);
    let (_, clock) = server.documents();
    let documents = ClientDocuments::new(Outbound::new(Policy::default()).unwrap(), clock);
    for url in [server.url("/a"), server.url("/a").replace("127.0.0.1", "localhost")] {
        let error = get(&documents, &url).await.unwrap_err();
        let DocumentError::Fetch(cause) = &error else { panic!("{error}") };
        assert!(matches!(**cause, Error::AddressNotAllowed { .. }), "{url}: {error}");
    }
    assert_eq!(server.requested_paths(), Vec::<String>::new());
}

/// Plain http is not fetched, even from networks where it would be allowed.
#[tokio::test]
async fn ids_without_https_are_not_fetched() {
    let server = Server::start().await;
    let (documents, _) = server.documents();
    let error = get(&documents, &server.url("/a").replace("https:", "http:")).await.unwrap_err();
    assert!(matches!(error, DocumentError::Url { .. }), "{error}");
    assert_eq!(server.requested_paths(), Vec::<String>::new());
}

/// A client that specifies URLs does not learn which of them exist in private networks: unresolved names, rejected
/// addresses, failed connections, other statuses, other content and another document look the same to the user, but
/// differ in the log.
#[tokio::test]
async fn private_networks_are_not_revealed() {
    let server = Server::start().await;
    let (private, clock) = server.documents();
    let public = ClientDocuments::new(Outbound::new(Policy::default()).unwrap(), clock);
    server.respond_with(|path| match path {
        "/status" => Some(response("404 Not Found", JSON, "{}")),
        "/html" => Some(response("200 OK", "Content-Type: text/html\r\n", "<p>")),
        "/text" => Some(response("200 OK", JSON, "text")),
        _ => Some(response("200 OK", JSON, "{}")),
    });
    let closed = format!("https://127.0.0.1:{}/a", closed_port());
    let mut reasons = std::collections::BTreeSet::new();
    let mut messages = reasons.clone();
    for (documents, url) in [
        (&private, "https://name.invalid/a".to_owned()),
        (&public, "https://10.0.0.1/a".to_owned()),
        (&public, "https://localhost/a".to_owned()),
        (&private, closed),
        (&private, server.url("/status")),
        (&private, server.url("/html")),
        (&private, server.url("/text")),
        (&private, server.url("/other")),
    ] {
        let error = get(documents, &url).await.unwrap_err();
        reasons.insert(error.to_string());
        messages.insert(error.message());
    }
    assert_eq!(reasons.len(), 8, "{reasons:?}");
    assert_eq!(messages.len(), 1, "{messages:?}");
}

/// The number of concurrent fetches is bounded; cached documents are returned without a fetch.
#[tokio::test]
async fn concurrent_fetches_are_bounded() {
    let server = Server::start().await;
    server.serve_documents(JSON);
    let (mut documents, _) = server.documents();
    assert_eq!(documents.permits.available_permits(), 64);
    get(&documents, &server.url("/a")).await.unwrap();
    documents.permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let error = get(&documents, &server.url("/b")).await.unwrap_err();
    assert!(matches!(error, DocumentError::Busy), "{error}");
    let route = super::route(documents.outbound());
    assert!(documents.is_cached(&route, &server.url("/a")) && !documents.is_cached(&route, &server.url("/b")));
    get(&documents, &server.url("/a")).await.unwrap();
}

/// Returns a local port on which nothing listens.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
