//! Whom a rate limit counts a call for, and how many new users there may be.

use axum::body::Body;
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::json;
use waypost_core::organization::Role;
use waypost_core::personal::PersonalId;
use waypost_core::random::SeededRandom;
use waypost_mcp::limits::LimitOptions;

use crate::app::{App, Server, Setup};
use crate::client::{Answer, Called, Client, Raw};
use crate::console::key;
use crate::sign_in::platform;

waypost_testkit::both!(open => progress_makes_an_identity, new_users_have_a_limit);

/// As an operator would set it who wants to see the limit at work.
const FIVE: LimitOptions = LimitOptions { per_caller: 5, burst: 5, per_address: 4, per_server: 0 };
/// Calls at once.
const MANY: usize = 300;
/// Sends a request and returns the answer.
type Sending<'a> = Box<dyn Fn() -> Raw + 'a>;

async fn open(url: &str) -> App {
    App::at_with(url, setup(FIVE)).await
}

/// Behind a proxy, so that a test can choose the client's address.
fn setup(limits: LimitOptions) -> Setup {
    let trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    Setup { limits, trusted_proxies, new_users: 8, ..Setup::default() }
}

async fn ready(app: &App) -> Server {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run", "Enjoy"]).await;
    server
}

/// How many of the answers are no 429. Every 429 says when to try again.
fn passed(answers: &[Answer]) -> usize {
    let limited = |answer: &&Answer| answer.status == 429;
    for answer in answers.iter().filter(limited) {
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{answer}");
    }
    answers.iter().filter(|answer| answer.status != 429).count()
}

/// Sends many requests, all before the clock moves on.
async fn send_many(request: impl Fn(usize) -> Raw) -> Vec<Answer> {
    let mut answers = Vec::new();
    for n in 0..MANY {
        answers.push(request(n).send().await);
    }
    answers
}

fn list(client: &Client) -> Raw {
    client.request("tools/list", json!({}))
}

async fn select(client: &Client) -> Called {
    client.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await
}

#[tokio::test]
async fn made_up_identities_share_the_limit_of_their_address() {
    let app = App::with(setup(FIVE)).await;
    let server = ready(&app).await;
    let random = SeededRandom::new(9);
    let handles = send_many(|n| {
        let arguments = json!({ "walkthrough_id": "install-acme", "progress_handle": format!("wph_{n}") });
        server.modern().request("tools/list", json!({ "arguments": arguments }))
    });
    assert_eq!(passed(&handles.await), 5, "random handles");
    app.later(60_000).await;
    assert_eq!(passed(&send_many(|n| list(&server.personal(&format!("label-{n}")))).await), 5, "random tracking IDs");
    app.later(60_000).await;
    let personal = send_many(|_| list(&server.personal(PersonalId::new(&random).expose()))).await;
    assert_eq!(passed(&personal), 5, "random personal URLs");
    app.later(60_000).await;
    let network = |n: usize| format!("2001:db8:0:1:{n:x}::{n:x}");
    let many =
        send_many(|n| list(&server.personal(&format!("label-{n}"))).header("x-forwarded-for", &network(n))).await;
    assert_eq!(passed(&many), 5, "an IPv6 network is one client");
    let other = list(&server.modern()).header("x-forwarded-for", "[2001:db8:0:2::1]:4711").send().await;
    assert_eq!(other.status, 200, "another network has its own limit");
    app.later(60_000).await;
    let address = |n: usize| format!("198.51.{}.{}:4711", n / 250, n % 250);
    let many = send_many(|n| list(&server.personal("ann")).header("x-forwarded-for", &address(n))).await;
    assert_eq!(passed(&many), 5, "one identity counts for itself at every address");
    app.finish().await;
}

/// A session costs its client nothing, so it is nobody until it has stored progress.
async fn progress_makes_an_identity(app: App) {
    let server = ready(&app).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(server.legacy("2025-06-18").connect().await);
    }
    app.later(60_000).await;
    assert_eq!(passed(&send_many(|n| list(&sessions[n % 5])).await), 5, "new sessions are their address");
    app.later(60_000).await;
    for session in &sessions {
        assert_eq!(select(session).await.at(), "1/3 0 %");
    }
    app.later(60_000).await;
    assert_eq!(passed(&send_many(|n| list(&sessions[n % 5])).await), 20, "four times the limit of one caller");
    app.later(60_000).await;
    assert_eq!(passed(&send_many(|_| list(&sessions[0])).await), 5, "each counts for itself");
    assert_eq!(list(&sessions[1]).send().await.status, 200, "and takes nothing from the others");
    assert_eq!(passed(&send_many(|_| list(&server.modern())).await), 5, "nor from those who are new");
    // Another replica, or this one after a restart, knows them after their first call.
    app.finish().await;
}

async fn new_users_have_a_limit(app: App) {
    let server = ready(&app).await;
    let users = async |app: &App| app.count("SELECT count(*) FROM end_users").await;
    let mut first = server.modern();
    for n in 0..8 {
        let client = if n == 0 { &mut first } else { &mut server.modern() };
        assert_eq!(
            client.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.at(),
            "1/3 0 %"
        );
        app.later(1_000).await;
    }
    for client in [server.modern(), server.personal("label"), server.legacy("2025-06-18").connect().await] {
        let refused = select(&client).await;
        assert_eq!(refused.code(), "rate_limited");
        assert!(refused.structured["error"]["retry_after_seconds"].as_u64().unwrap() >= 1, "{refused}");
        app.later(1_000).await;
    }
    assert_eq!(users(&app).await, 8);
    assert_eq!(first.call("next_walkthrough_step", json!({})).await.at(), "2/3 33 %", "users of before continue");
    let params = json!({ "name": "select_walkthrough", "arguments": { "walkthrough_id": "install-acme" } });
    let other = server.modern().request("tools/call", params).header("x-forwarded-for", "198.51.100.1").send().await;
    app.count_call();
    assert_eq!(other.result()["isError"], json!(false), "another address has its own limit: {other}");
    app.later(3_600_000 / 8).await;
    assert_eq!(select(&server.modern()).await.at(), "1/3 0 %", "one more after an eighth of an hour");
    assert_eq!(users(&app).await, 10);
    app.finish().await;
}

/// With the limits of a fresh installation: two hundred people behind one address start together and go on together.
#[tokio::test]
async fn a_class_behind_one_address_works() {
    let app = App::with(Setup { limits: LimitOptions::default(), ..Setup::default() }).await;
    let server = ready(&app).await;
    let random = SeededRandom::new(9);
    let class: Vec<Client> = (0..200).map(|_| server.personal(PersonalId::new(&random).expose())).collect();
    // As fast as the address may: two hundred at once, then a hundred a second.
    for client in &class {
        assert_eq!(list(client).send().await.status, 200);
    }
    app.later(2_000).await;
    for client in &class {
        assert_eq!(select(client).await.at(), "1/3 0 %");
    }
    // From now on each has a limit of their own, and all of them together that of five.
    for at in ["2/3 33 %", "3/3 66 %", "completed 100 %"] {
        for client in &class {
            assert_eq!(client.call("next_walkthrough_step", json!({})).await.at(), at);
        }
        app.later(500).await;
    }
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 200);
    // What is left of the three hundred of an hour.
    let mut started = 200;
    while select(&server.personal(&format!("late-{started}"))).await.structured["error"].is_null() {
        app.later(10).await;
        started += 1;
    }
    assert!((300..=305).contains(&started), "{started}");
    app.finish().await;
}

/// No request at an MCP address is without a limit, whatever it is.
#[tokio::test]
async fn requests_that_are_no_calls_count() {
    let app = App::with(setup(FIVE)).await;
    let server = ready(&app).await;
    let path = server.path();
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }]).to_string();
    let modern = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let response = json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string();
    let kinds: [(&str, u16, Sending<'_>); 8] = [
        ("GET", 405, Box::new(|| app.request(Method::GET, &path))),
        ("DELETE", 405, Box::new(|| app.request(Method::DELETE, &path))),
        ("no JSON", 400, Box::new(|| app.post(&path, "{"))),
        ("too large", 413, Box::new(|| app.post(&path, vec![b' '; 1_048_577]))),
        ("unknown session", 404, Box::new(|| app.post(&path, modern.clone()).header("mcp-session-id", "x.y"))),
        ("wrong era", 400, Box::new(|| app.post(&path, modern.clone()).header("mcp-protocol-version", "2026-07-28"))),
        ("wrong batch", 400, Box::new(|| app.post(&path, batch.clone()).header("mcp-protocol-version", "2025-06-18"))),
        ("response", 202, Box::new(|| app.post(&path, response.clone()))),
    ];
    for (kind, status, request) in kinds {
        let answers = send_many(|_| request()).await;
        assert_eq!(answers[0].status, status, "{kind}: {}", answers[0]);
        assert_eq!(passed(&answers), 5, "{kind}");
        app.later(60_000).await;
    }
    app.finish().await;
}

/// Everything else has a limit per address: names of servers that are made up, former addresses, pages.
#[tokio::test]
async fn other_requests_have_a_limit() {
    let app = App::with(setup(FIVE)).await;
    let server = ready(&app).await;
    assert_eq!(list(&server.modern()).send().await.status, 200, "the server is in memory from now on");
    let paths =
        ["/s/unknown/mcp", "/s/acme/sse", "/login", "/.well-known/oauth-authorization-server/s/acme", "/nowhere"];
    for path in paths {
        let mut count = 0;
        let limited = loop {
            let answer = app.request(Method::GET, path).header("x-forwarded-for", "198.51.100.1").send().await;
            if answer.status == 429 {
                break answer;
            }
            count += 1;
            assert!(count <= 12_000, "{path}");
        };
        assert_eq!(count, 12_000, "{path}");
        assert!(limited.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{limited}");
        let other = app.request(Method::GET, path).header("x-forwarded-for", "198.51.100.2").send().await;
        assert_ne!(other.status, 429, "{path}");
        app.later(60_000).await;
    }
    app.finish().await;
}

/// Whatever is asked of which host: only calls of MCP and probes do not count.
#[tokio::test]
async fn every_other_request_counts() {
    let app = App::with(setup(FIVE)).await;
    let server = ready(&app).await;
    platform(&app, "secure").await;
    assert_eq!(list(&server.modern()).send().await.status, 200, "the server is in memory from now on");
    for _ in 0..12_000 {
        app.request(Method::GET, "/nowhere").send().await;
    }
    let browser = "text/html,*/*";
    let main = "localhost:8080";
    for (method, host, path) in [
        (Method::GET, main, "/login"),
        (Method::GET, main, "/login/with/github"),
        (Method::GET, main, "/logo.png"),
        (Method::HEAD, main, "/s/acme"),
        (Method::GET, main, "/s/ACME"),
        (Method::GET, main, "/s/acme/logo.png"),
        (Method::GET, main, "/s/acme/mcp"),
        (Method::GET, main, "/s/ACME/mcp"),
        (Method::GET, main, "/mcp"),
        (Method::GET, "acme.localhost:8080", "/"),
        (Method::GET, "acme.localhost:8080", "/mcp"),
        (Method::GET, "acme.localhost:8080", "/login"),
        (Method::GET, main, "/s/secure/oauth/sign-in"),
        (Method::GET, main, "/s/secure/oauth/logo.png"),
        (Method::OPTIONS, main, "/s/secure/oauth/token"),
        (Method::OPTIONS, main, "/s/acme/mcp"),
        (Method::DELETE, main, "/.well-known/oauth-authorization-server/s/secure"),
        (Method::PUT, main, "/api/v1/servers"),
        (Method::GET, main, "/api/openapi.json"),
        (Method::GET, "evil.example", "/s/acme"),
        (Method::POST, "evil.example", "/s/acme/mcp"),
    ] {
        let answer = app.request(method.clone(), path).header("host", host).header("accept", browser).send().await;
        assert_eq!(answer.status, 429, "{method} {host} {path}");
    }
    let mut twice = Request::get("/login").header("host", main).body(Body::empty()).unwrap();
    twice.headers_mut().append("host", HeaderValue::from_static(main));
    assert_eq!(app.send(twice).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(app.request(Method::GET, "/healthz").send().await.status, 200);
    assert_eq!(list(&server.modern()).send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_request_without_a_client_address_is_rejected() {
    let app = App::with(setup(FIVE)).await;
    ready(&app).await;
    for path in ["/s/acme/mcp", "/login", "/api/v1/servers", "/s/acme", "/healthz"] {
        let request = Request::get(path).header("host", "localhost:8080").body(Body::empty()).unwrap();
        assert_eq!(app.send_without_peer(request).await.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
    app.finish().await;
}

/// RFC 9112, section 3.2.
#[tokio::test]
async fn a_request_has_one_host() {
    let app = App::with(setup(FIVE)).await;
    ready(&app).await;
    for path in ["/s/acme/mcp", "/s/acme", "/login", "/api/v1/servers", "/s/acme/oauth/token", "/nowhere", "/healthz"] {
        for second in ["localhost:8080", "evil.example"] {
            let mut request = Request::get(path).header("host", "localhost:8080").body(Body::empty()).unwrap();
            request.headers_mut().append("host", HeaderValue::from_static(second));
            assert_eq!(app.send(request).await.status(), StatusCode::BAD_REQUEST, "{path} {second}");
        }
    }
    app.finish().await;
}

/// What a client wrote into the list of addresses never counts.
#[tokio::test]
async fn a_forged_entry_is_no_client_address() {
    let app = App::with(setup(FIVE)).await;
    let server = ready(&app).await;
    for broken in ["unknown", "", "_hidden", "198.51.100.7:port"] {
        let forged = |n: usize| format!("203.0.{}.{}, {broken}, 192.0.2.9", n / 250, n % 250);
        let answers = send_many(|n| list(&server.modern()).header("x-forwarded-for", &forged(n))).await;
        assert_eq!(passed(&answers), 5, "{broken:?}: the peer's address counts");
        app.later(60_000).await;
    }
    for entry in ["198.51.100.7:PORT", "[2001:db8::7]:PORT", "198.51.100.7"] {
        let forged = |n: usize| format!("203.0.{}.{}, {}", n / 250, n % 250, entry.replace("PORT", &n.to_string()));
        let answers = send_many(|n| list(&server.modern()).header("x-forwarded-for", &forged(n))).await;
        assert_eq!(passed(&answers), 5, "{entry}: the entry of the proxy counts");
        assert_eq!(list(&server.modern()).send().await.status, 200, "{entry}: and not the peer");
        app.later(60_000).await;
    }
    app.finish().await;
}

/// Also in pieces, without a length that is known beforehand.
#[tokio::test]
async fn a_body_has_a_mebibyte_at_most_everywhere() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    server.org.server("open").await;
    let key = key(&app, &server.org.id, Role::Owner).await;
    let logo = format!("/api/v1/organizations/{}/logo", server.org.id);
    for (method, path) in [
        (Method::POST, "/s/open/mcp"),
        (Method::POST, "/s/acme/oauth/token"),
        (Method::POST, "/s/acme/oauth/register"),
        (Method::POST, "/login"),
        (Method::POST, "/o/acme/settings/logo"),
        (Method::POST, "/api/v1/servers"),
        (Method::POST, "/api/v1/walkthroughs/import?filename=a.md"),
        (Method::PUT, &logo),
        (Method::POST, "/nowhere"),
    ] {
        let status = async |body: Body| {
            let form = path == "/login" || path.ends_with("/token");
            let kind = if form { "application/x-www-form-urlencoded" } else { "application/json" };
            let request = Request::builder()
                .method(&method)
                .uri(path)
                .header("host", "localhost:8080")
                .header("sec-fetch-site", "same-origin")
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", if path.contains("import") { "application/octet-stream" } else { kind });
            app.send(request.body(body).unwrap()).await.status().as_u16()
        };
        assert_ne!(status(Body::from(vec![b'a'; 1_048_576])).await, 413, "{path}");
        assert_eq!(status(Body::from(vec![b'a'; 1_048_577])).await, 413, "{path}");
        if path != "/nowhere" && !path.starts_with("/o/") {
            let pieces = (0..17).map(|_| Ok::<_, std::io::Error>(vec![b'a'; 65_536]));
            assert_eq!(status(Body::from_stream(futures::stream::iter(pieces))).await, 413, "{path}, in pieces");
        }
    }
    app.finish().await;
}
