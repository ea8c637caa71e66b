//! Redirects: followed by hand, each judged like the first.

use super::server::{Server, answer};
use super::*;

const THREE: Limits = Limits { redirects: 3, ..LIMITS };

fn to(target: &str) -> super::server::Reply {
    answer("302 Found", &format!("Location: {target}\r\nSet-Cookie: a=b; Path=/\r\n"), "over there")
}

#[tokio::test]
async fn are_followed_as_often_as_the_call_says() {
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/end" => answer("200 OK", "", "end"),
        path => to(match path {
            "/a" => "/b",
            "/b" => "c",
            _ => "/end",
        }),
    })
    .await;
    let outbound = outbound(&["127.0.0.0/8"]);
    let answer = outbound.get(&server.url("/a"), THREE).await.unwrap();
    assert_eq!((&answer.body[..], answer.url), (&b"end"[..], server.url("/end")));
    assert!(server.seen().iter().all(|request| !request.contains("cookie") && !request.contains("referer")));

    let two = Limits { redirects: 2, ..LIMITS };
    let error = outbound.get(&server.url("/a"), two).await.unwrap_err();
    assert_eq!(error.to_string(), "`127.0.0.1` redirects too often.");
    let answer = outbound.get(&server.url("/a"), LIMITS).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (302, &b"over there"[..]));
}

#[tokio::test]
async fn into_a_refused_network_are_refused() {
    let bad = Server::start("127.0.0.2", |_| answer("200 OK", "", "inside")).await;
    let port = bad.port();
    let good = Server::start("127.0.0.1", move |request| {
        let inside = match request.split(' ').nth(1).unwrap() {
            "/address" => format!("http://127.0.0.2:{port}/"),
            "/other-clothes" => format!("http://[::ffff:127.0.0.2]:{port}/"),
            "/number" => format!("http://2130706434:{port}/"),
            "/protocol-relative" => format!("//127.0.0.2:{port}/"),
            "/metadata" => "http://169.254.169.254/latest/meta-data/".to_owned(),
            _ => unreachable!("no other path is asked for"),
        };
        to(&inside)
    })
    .await;
    let outbound = outbound(&["127.0.0.1/32"]);
    for path in ["/address", "/other-clothes", "/number", "/protocol-relative", "/metadata"] {
        let error = outbound.get(&good.url(path), THREE).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{path}: {error:?}");
    }
    assert_eq!((good.seen().len(), bad.seen().len()), (5, 0));
}

#[tokio::test]
async fn never_lead_from_https_to_http() {
    let plain = Server::start("127.0.0.1", |_| answer("200 OK", "", "plain")).await;
    let target = plain.url("/").to_string();
    let (secure, root) = Server::secure(&["localhost"], move |_| to(&target)).await;
    let policy = Policy { extra_roots_pem: Some(root), ..allowing(&["127.0.0.0/8", "::1/128"]) };
    let outbound = route(policy);
    let error = outbound.get(&url(&format!("https://localhost:{}/", secure.port())), THREE).await.unwrap_err();
    assert_eq!(error.to_string(), "`localhost` redirects to an address without https.");
    assert_eq!((secure.seen().len(), plain.seen().len()), (1, 0));
}

#[tokio::test]
async fn lead_nowhere_without_a_usable_target() {
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/none" => answer("302 Found", "", ""),
        "/broken" => to("http://[::1"),
        "/file" => to("file:///etc/passwd"),
        _ => to("http://user:secret@127.0.0.1/"),
    })
    .await;
    let outbound = outbound(&["127.0.0.0/8"]);
    for path in ["/none", "/broken"] {
        let error = outbound.get(&server.url(path), THREE).await.unwrap_err();
        assert!(matches!(error, Error::Redirect { why: "to nowhere", .. }), "{path}: {error:?}");
    }
    for path in ["/file", "/userinfo"] {
        let error = outbound.get(&server.url(path), THREE).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{path}: {error:?}");
    }
}

/// Not even to the same host: another path of it may belong to somebody else.
#[tokio::test]
async fn carry_neither_credentials_nor_bodies() {
    let server = Server::start("127.0.0.1", |request| match request.split(' ').nth(1).unwrap() {
        "/end" => answer("200 OK", "", "end"),
        _ => to("/end"),
    })
    .await;
    let outbound = outbound(&["127.0.0.0/8"]);
    let request = |method: &str| {
        let request = http::Request::builder().method(method).uri(server.url("/start").as_str());
        let request = request.header("Authorization", "Bearer planted").header("Accept", "application/json");
        request.body(b"planted body".to_vec()).unwrap()
    };
    let answer = outbound.send(request("GET"), THREE).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"end"[..]));
    let seen = server.seen();
    assert!(seen[0].contains("authorization: Bearer planted\r\n") && seen[0].ends_with("planted body"), "{}", seen[0]);
    assert!(!seen[1].contains("planted") && seen[1].contains("accept: application/json\r\n"), "{}", seen[1]);

    // A form with a client's secret is for the address that it was made for.
    let answer = outbound.send(request("POST"), THREE).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.seen().len()), (302, 3));
}
