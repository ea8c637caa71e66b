//! Requests, their responses, and URLs that are rejected before any request is sent.

use tokio::net::TcpListener;

use super::server::{Reply, Server, response};
use super::*;
use crate::Failure;

#[tokio::test]
async fn loopback_is_rejected_in_every_notation() {
    let server = Server::start("127.0.0.1", |_| response("200 OK", "", "inside")).await;
    let outbound = route_allowing(&[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f000001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "127。0。0。1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ] {
        for scheme in ["http", "https"] {
            let target = url(&format!("{scheme}://{host}:{}/", server.port()));
            let error = outbound.check_url(&target).unwrap_err();
            assert!(matches!(error, Error::AddressNotAllowed { .. }), "{target}: {error:?}");
            let error = outbound.get(&target, LIMITS).await.unwrap_err();
            assert!(matches!(error, Error::AddressNotAllowed { .. }), "{target}: {error:?}");
        }
    }
    assert_eq!(server.received(), Vec::<String>::new());
}

#[tokio::test]
async fn requests_to_an_allowed_network_are_sent() {
    let server = Server::start("127.0.0.1", |_| response("404 Not Found", "X-Test: 1\r\n", "nothing here")).await;
    let outbound = route_allowing(&["127.0.0.1/32"]);
    let response = outbound.get(&server.url("/a?b=c"), LIMITS).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.body[..]), (404, &b"nothing here"[..]));
    assert_eq!((response.headers["x-test"].to_str().unwrap(), response.url), ("1", server.url("/a?b=c")));
    let [request] = &server.received()[..] else { panic!("expected exactly one request") };
    assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(concat!("user-agent: Waypost/", env!("CARGO_PKG_VERSION"), "\r\n")), "{request}");
}

#[tokio::test]
async fn a_request_is_sent_unchanged_to_the_host_of_its_url() {
    let server = Server::start("127.0.0.1", |_| response("201 Created", "", "created")).await;
    let request = http::Request::post(server.url("/token").as_str())
        .header("Authorization", "Basic eA==")
        .header("Host", "elsewhere.example")
        .body(b"grant_type=x".to_vec())
        .unwrap();
    let response = route_allowing(&["127.0.0.0/8"]).send(request, LIMITS).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.body()[..]), (201, &b"created"[..]));
    let [request] = &server.received()[..] else { panic!("expected exactly one request") };
    assert!(request.starts_with("POST /token ") && request.ends_with("\r\n\r\ngrant_type=x"), "{request}");
    assert!(request.contains("authorization: Basic eA==\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", server.address)), "{request}");
}

#[tokio::test]
async fn unusable_urls_are_rejected() {
    let outbound = route_allowing(&["127.0.0.0/8"]);
    for target in ["ftp://example.com/", "file:///etc/passwd", "data:text/plain,x", "unix:/run/x.sock"] {
        let error = outbound.check_url(&url(target)).unwrap_err();
        assert_eq!(error.to_string(), "The URL cannot be used: it does not begin with https://.", "{target}");
    }
    for target in ["https://user@example.com/", "https://:secret@example.com/", "https://a:b@127.0.0.1/"] {
        let error = outbound.get(&url(target), LIMITS).await.unwrap_err();
        assert_eq!(error.to_string(), "The URL cannot be used: it contains a user name or a password.", "{target}");
    }
    let relative = http::Request::get("/path").body(Vec::new()).unwrap();
    assert!(matches!(outbound.send(relative, LIMITS).await, Err(Error::InvalidUrl { .. })));
    for target in
        ["https://example.com/", "https://93.184.215.14:8443/x", "http://127.0.0.1:1/", "http://name.example/"]
    {
        assert!(outbound.check_url(&url(target)).is_ok(), "{target}");
    }
}

#[tokio::test]
async fn the_size_limit_applies_while_the_body_is_read() {
    let server = Server::start("127.0.0.1", |request| {
        let chunks = format!("400\r\n{}\r\n", "x".repeat(1024));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        match request.split(' ').nth(1).unwrap() {
            "/fits" => response("200 OK", "", &"x".repeat(1024)),
            "/announced" => Reply::Hold("HTTP/1.1 200 OK\r\nContent-Length: 1025\r\n\r\n".to_owned()),
            "/fits-in-chunks" => Reply::Close(format!("{chunked}{chunks}0\r\n\r\n")),
            // The body never ends, so this test finishes only if the limit applies while reading.
            "/endless" => Reply::Hold(format!("{chunked}{chunks}1\r\nx\r\n")),
            _ => Reply::Hold(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "x".repeat(1025))),
        }
    })
    .await;
    let outbound = route_allowing(&["127.0.0.0/8"]);
    for path in ["/fits", "/fits-in-chunks"] {
        assert_eq!(outbound.get(&server.url(path), LIMITS).await.unwrap().body.len(), 1024, "{path}");
    }
    for path in ["/announced", "/endless", "/until-close"] {
        let error = outbound.get(&server.url(path), LIMITS).await.unwrap_err();
        assert_eq!(error.to_string(), "The response of `127.0.0.1` is larger than 1024 bytes.", "{path}");
    }
}

#[tokio::test]
async fn a_request_without_a_timely_response_times_out() {
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/silent" => Reply::Hold(String::new()),
        "/in-the-head" => Reply::Hold("HTTP/1.1 200 OK\r\nX-".to_owned()),
        _ => Reply::Hold("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345".to_owned()),
    })
    .await;
    let short = Limits { timeout: Duration::from_millis(100), ..LIMITS };
    let outbound = route_allowing(&["127.0.0.0/8"]);
    for path in ["/silent", "/in-the-head", "/in-the-body"] {
        let error = outbound.get(&server.url(path), short).await.unwrap_err();
        assert_eq!(error.to_string(), "`127.0.0.1` did not respond in time.", "{path}");
    }
}

#[tokio::test]
async fn kinds_of_connection_failures_are_distinguished() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outbound = route_allowing(&["127.0.0.0/8"]);
    let error = outbound.get(&url(&format!("http://{closed}/")), LIMITS).await.unwrap_err();
    assert_eq!(error.to_string(), "`127.0.0.1` cannot be reached: the connection could not be established.");
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/no-http" => Reply::Close("SSH-2.0-OpenSSH_9.9\r\n".to_owned()),
        _ => Reply::Close("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345".to_owned()),
    })
    .await;
    for path in ["/no-http", "/cut-off"] {
        let error = outbound.get(&server.url(path), LIMITS).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { failure: Failure::IncompleteResponse, .. }), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn certificates_are_checked() {
    let (server, root) = Server::start_tls(&["localhost"], |_| response("200 OK", "", "secure")).await;
    let allow = || policy_allowing(&["127.0.0.0/8", "::1/128"]);
    let (right, wrong) =
        (url(&format!("https://localhost:{}/", server.port())), url(&format!("https://{}/", server.address)));

    let trusting = route_with_policy(Policy { extra_roots_pem: Some(root), ..allow() });
    assert_eq!(&trusting.get(&right, LIMITS).await.unwrap().body[..], b"secure");
    for (outbound, target) in [(trusting, wrong), (route_with_policy(allow()), right)] {
        let error = outbound.get(&target, LIMITS).await.unwrap_err();
        assert!(matches!(&error, Error::Unreachable { failure: Failure::Tls(_), .. }), "{target}: {error:?}");
    }
}

#[test]
fn additional_roots_must_be_certificates() {
    for pem in [&b""[..], b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = Outbound::new(Policy { extra_roots_pem: Some(pem.to_vec()), ..policy_allowing(&[]) }).unwrap_err();
        assert!(matches!(error, Error::Setup { .. }), "{error:?}");
    }
}

#[test]
fn plain_http_to_public_addresses_is_rejected_even_if_an_entry_contains_them() {
    let outbound = route_allowing(&["0.0.0.0/0", "::/0"]);
    for target in ["http://10.1.2.3/", "http://127.0.0.1/", "http://[fd00::1]/", "https://8.8.8.8/"] {
        assert!(outbound.check_url(&url(target)).is_ok(), "{target}");
    }
    for target in ["http://8.8.8.8/", "http://[2606:4700::1111]/", "http://[::ffff:8.8.8.8]/"] {
        assert!(matches!(outbound.check_url(&url(target)), Err(Error::HttpNotAllowed { .. })), "{target}");
    }
}

#[test]
fn routes_share_connections_only_if_their_allowed_networks_are_equal() {
    let entries = ["127.0.0.0/8=sign-in", "127.0.0.0/8=webhooks@acme"].map(|entry| entry.parse().unwrap());
    let outbound = Outbound::new(Policy { allow: entries.to_vec(), extra_roots_pem: None }).unwrap();
    let scope = |purpose, names: &[&str]| outbound.route(purpose, names).unwrap().scope();
    assert_eq!(scope(Purpose::SignIn, &["other"]), scope(Purpose::Webhooks, &["org_1", "acme"]));
    assert_ne!(scope(Purpose::Webhooks, &["acme"]), scope(Purpose::Webhooks, &["other"]));
    assert_eq!(scope(Purpose::Webhooks, &["other"]), scope(Purpose::Tools, &[]));
}

#[tokio::test]
async fn an_unguarded_route_accepts_additional_roots() {
    let (server, root) = Server::start_tls(&["localhost"], |_| response("200 OK", "", "secure")).await;
    let url = url::Url::parse(&format!("https://localhost:{}/", server.port())).unwrap();
    let route = Route::unguarded_with_roots(&url, &root).unwrap();
    assert_eq!(route.get(&url, LIMITS).await.unwrap().body, "secure");
    assert!(Route::unguarded(&url).unwrap().get(&url, LIMITS).await.is_err());
    assert!(matches!(Route::unguarded_with_roots(&url, b"not PEM"), Err(Error::Setup { .. })));
}
