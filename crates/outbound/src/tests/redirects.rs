//! Redirects: every hop is checked like the first request.

use super::server::{Server, response};
use super::*;

const THREE_REDIRECTS: Limits = Limits { redirects: 3, ..LIMITS };

fn redirect_to(target: &str) -> super::server::Reply {
    response("302 Found", &format!("Location: {target}\r\nSet-Cookie: a=b; Path=/\r\n"), "moved")
}

#[tokio::test]
async fn redirects_are_followed_up_to_the_limit() {
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/end" => response("200 OK", "", "end"),
        path => redirect_to(match path {
            "/a" => "/b",
            "/b" => "c",
            _ => "/end",
        }),
    })
    .await;
    let outbound = route_allowing(&["127.0.0.0/8"]);
    let response = outbound.get(&server.url("/a"), THREE_REDIRECTS).await.unwrap();
    assert_eq!((&response.body[..], response.url), (&b"end"[..], server.url("/end")));
    assert!(server.received().iter().all(|request| !request.contains("cookie") && !request.contains("referer")));

    let two = Limits { redirects: 2, ..LIMITS };
    let error = outbound.get(&server.url("/a"), two).await.unwrap_err();
    assert_eq!(error.to_string(), "`127.0.0.1` redirects too many times.");
    let response = outbound.get(&server.url("/a"), LIMITS).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.body[..]), (302, &b"moved"[..]));
}

#[tokio::test]
async fn redirects_into_a_forbidden_network_are_rejected() {
    let bad = Server::start("127.0.0.2", |_| response("200 OK", "", "inside")).await;
    let port = bad.port();
    let good = Server::start("127.0.0.1", move |request| {
        let inside = match request.split(' ').nth(1).unwrap() {
            "/address" => format!("http://127.0.0.2:{port}/"),
            "/mapped" => format!("http://[::ffff:127.0.0.2]:{port}/"),
            "/number" => format!("http://2130706434:{port}/"),
            "/protocol-relative" => format!("//127.0.0.2:{port}/"),
            "/metadata" => "http://169.254.169.254/latest/meta-data/".to_owned(),
            _ => unreachable!("no other path is requested"),
        };
        redirect_to(&inside)
    })
    .await;
    let outbound = route_allowing(&["127.0.0.1/32"]);
    for path in ["/address", "/mapped", "/number", "/protocol-relative", "/metadata"] {
        let error = outbound.get(&good.url(path), THREE_REDIRECTS).await.unwrap_err();
        assert!(matches!(error, Error::AddressNotAllowed { .. }), "{path}: {error:?}");
    }
    assert_eq!((good.received().len(), bad.received().len()), (5, 0));
}

#[tokio::test]
async fn redirects_from_https_to_http_are_rejected() {
    let plain = Server::start("127.0.0.1", |_| response("200 OK", "", "plain")).await;
    let target = plain.url("/").to_string();
    let (secure, root) = Server::start_tls(&["localhost"], move |_| redirect_to(&target)).await;
    let policy = Policy { extra_roots_pem: Some(root), ..policy_allowing(&["127.0.0.0/8", "::1/128"]) };
    let outbound = route_with_policy(policy);
    let error =
        outbound.get(&url(&format!("https://localhost:{}/", secure.port())), THREE_REDIRECTS).await.unwrap_err();
    assert_eq!(error.to_string(), "`localhost` redirects from https to http.");
    assert_eq!((secure.received().len(), plain.received().len()), (1, 0));
}

#[tokio::test]
async fn redirects_without_a_valid_target_are_rejected() {
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/none" => response("302 Found", "", ""),
        "/broken" => redirect_to("http://[::1"),
        "/file" => redirect_to("file:///etc/passwd"),
        _ => redirect_to("http://user:secret@127.0.0.1/"),
    })
    .await;
    let outbound = route_allowing(&["127.0.0.0/8"]);
    for path in ["/none", "/broken"] {
        let error = outbound.get(&server.url(path), THREE_REDIRECTS).await.unwrap_err();
        assert!(matches!(error, Error::Redirect { reason: "without a valid target", .. }), "{path}: {error:?}");
    }
    for path in ["/file", "/userinfo"] {
        let error = outbound.get(&server.url(path), THREE_REDIRECTS).await.unwrap_err();
        assert!(matches!(error, Error::InvalidUrl { .. }), "{path}: {error:?}");
    }
}

/// They are not sent even to the same host, because another path may belong to another tenant of that host.
#[tokio::test]
async fn redirected_requests_carry_neither_credentials_nor_bodies() {
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/end" => response("200 OK", "", "end"),
        _ => redirect_to("/end"),
    })
    .await;
    let outbound = route_allowing(&["127.0.0.0/8"]);
    let request = |method: &str| {
        let request = http::Request::builder().method(method).uri(server.url("/start").as_str());
        let request = request.header("Authorization", "Bearer planted").header("Accept", "application/json");
        request.body(b"planted body".to_vec()).unwrap()
    };
    let response = outbound.send(request("GET"), THREE_REDIRECTS).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"end"[..]));
    let received = server.received();
    assert!(
        received[0].contains("authorization: Bearer planted\r\n") && received[0].ends_with("planted body"),
        "{}",
        received[0]
    );
    assert!(
        !received[1].contains("planted") && received[1].contains("accept: application/json\r\n"),
        "{}",
        received[1]
    );

    // A form that contains a client secret must be sent only to its original URL.
    let response = outbound.send(request("POST"), THREE_REDIRECTS).await.unwrap();
    assert_eq!((response.status().as_u16(), server.received().len()), (302, 3));
}
