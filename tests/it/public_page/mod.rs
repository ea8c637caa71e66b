//! The public page of a server (docs/public-page.md).

mod personal;

use http::Method;
use insta::assert_snapshot;
use serde_json::{Value, json};
use waypost_core::server::{AuthType, SignInPolicy};
use waypost_ops::servers::{self, ServerSettings};

use crate::app::{App, Server, Setup};
use crate::client::{HttpResponse, RawRequest};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const WALKTHROUGH: &str = "install-acme";

async fn set_up(setup: Setup) -> (App, Server) {
    let app = App::with(setup).await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Configure", "Run", "Check"]).await;
    (app, server)
}

fn https_setup() -> Setup {
    Setup { public_url: "https://way.example", ..Setup::default() }
}

/// Creates a browser's request for a page.
fn page_request(app: &App, host: &str, path: &str) -> RawRequest {
    app.request(Method::GET, path).header("host", host).header("accept", HTML)
}

/// Returns the MCP URL that the page shows.
fn shown_url(page: &HttpResponse) -> String {
    let (_, rest) = page.body.split_once("<code id=\"url\">").unwrap_or_else(|| panic!("no URL: {page}"));
    rest.split('<').next().unwrap().to_owned()
}

/// Returns the ID in the personal URL that the page shows.
fn shown_id(page: &HttpResponse) -> String {
    let url = shown_url(page);
    let (_, rest) = url.split_once("/t/").unwrap_or_else(|| panic!("{url} is not personal"));
    rest.strip_suffix("/mcp").unwrap().to_owned()
}

/// Returns the page's cookie as the browser sends it back.
fn page_cookie(page: &HttpResponse) -> String {
    page.header("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_page_is_served_on_every_url_of_the_server() {
    let (app, _server) = set_up(Setup::default()).await;
    let mut seen = String::new();
    for (host, path) in [
        ("localhost:8080", "/s/acme"),
        ("localhost:8080", "/s/acme/"),
        ("localhost:8080", "/s/ACME"),
        ("acme.localhost:8080", "/"),
        ("localhost:8080", "/s/acme/mcp"),
        ("localhost:8080", "/s/acme/t/ann/mcp"),
        ("acme.localhost:8080", "/mcp"),
        ("acme.localhost:8080", "/t/ann/mcp"),
        ("localhost:8080", "/s/nobody"),
        ("localhost:8080", "/s/nobody/mcp"),
        ("nobody.localhost:8080", "/"),
        ("acme.localhost:8080", "/s/acme"),
        ("acme.localhost:8080", "/login"),
        ("localhost:8080", "/s/acme/other"),
        ("localhost:8080", "/s/a'%20OR%201=1--"),
        ("evil.example", "/s/acme"),
    ] {
        let page = page_request(&app, host, path).send().await;
        let shown = if page.body.contains("<code id=\"url\">") { "page" } else { "" };
        seen.push_str(&format!("{host:22} {path:20} {} {shown}\n", page.status.as_u16()));
    }
    assert_snapshot!(seen, @r"
    localhost:8080         /s/acme              200 page
    localhost:8080         /s/acme/             200 page
    localhost:8080         /s/ACME              308 
    acme.localhost:8080    /                    200 page
    localhost:8080         /s/acme/mcp          200 page
    localhost:8080         /s/acme/t/ann/mcp    200 page
    acme.localhost:8080    /mcp                 200 page
    acme.localhost:8080    /t/ann/mcp           200 page
    localhost:8080         /s/nobody            404 
    localhost:8080         /s/nobody/mcp        404 
    nobody.localhost:8080  /                    404 
    acme.localhost:8080    /s/acme              404 
    acme.localhost:8080    /login               404 
    localhost:8080         /s/acme/other        404 
    localhost:8080         /s/a'%20OR%201=1--   404 
    evil.example           /s/acme              421
    ");
    let moved = page_request(&app, "localhost:8080", "/s/ACME").send().await;
    assert_eq!(moved.header("location"), Some("/s/acme"));
    let head = app.request(Method::HEAD, "/s/acme").header("accept", HTML).send().await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
    let program = app.request(Method::GET, "/s/acme").header("accept", "*/*").send().await;
    assert!(program.body.contains("<h1>"), "the page URL has only HTML");
    for (host, path) in [("localhost", "/s/acme"), ("localhost", "/s/acme/"), ("acme.localhost", "/")] {
        assert_eq!(app.post(path, "{}").header("host", host).send().await.status, 404, "POST {path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn other_programs_get_405_on_mcp_urls() {
    let (app, _server) = set_up(Setup::default()).await;
    for path in ["/s/acme/mcp", "/s/acme/t/ann/mcp"] {
        for accept in ["text/event-stream", "application/json, text/event-stream", "*/*", "text/html;q=0"] {
            let response = app.request(Method::GET, path).header("accept", accept).send().await;
            assert_eq!(response.status_and_code(), (405, -32_600), "GET {path} {accept}");
            assert_eq!(response.header("allow"), Some("POST"));
        }
        let response = app.request(Method::DELETE, path).header("accept", "text/event-stream").send().await;
        assert_eq!(response.status_and_code(), (405, -32_600));
    }
    let delete = app.request(Method::DELETE, "/s/acme/mcp").header("accept", HTML).send().await;
    assert_eq!(delete.status_and_code(), (405, -32_600), "only GET shows the page");
    app.finish().await;
}

#[tokio::test]
async fn the_page_shows_the_server_walkthroughs_and_clients() {
    let app = App::with(https_setup()).await;
    let org = app.org("acme").await;
    let settings = ServerSettings {
        name: Some("Acme guide".to_owned()),
        product_name: Some("Acme Rockets".to_owned()),
        ..ServerSettings::default()
    };
    let server = org.server_with("guide", settings).await;
    server.walkthrough("Install Acme", &["Download"]).await;
    let hostile = "<script>alert(1)</script>\"'&";
    server
        .import(&json!({
            "version": "1.1",
            "walkthrough": { "title": "Launch", "description": hostile, "type": "course", "estimatedDurationMinutes": 12 },
            "steps": [
                { "key": "a", "title": "A", "contentFields": { "version": "v1", "contentForUser": "a" } },
                { "key": "b", "title": "B", "contentFields": { "version": "v1", "contentForUser": "b" } },
            ],
        }))
        .await;
    let page = page_request(&app, "way.example", "/s/guide").send().await;
    for text in [
        "<h1><bdi>Acme guide</bdi></h1>",
        "Learn Acme Rockets",
        "<h3><bdi>Install Acme</bdi></h3>",
        "1 step",
        "<h3><bdi>Launch</bdi></h3>",
        "2 steps · about 12 minutes",
        "&#60;script&#62;alert(1)",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    assert!(!page.body.contains("<script>alert"), "{}", page.body);
    for client in [
        "Claude Code",
        "Claude (web and desktop)",
        "ChatGPT",
        "Cursor",
        "VS Code",
        "Windsurf",
        "Zed",
        "Codex",
        "Gemini CLI",
        "opencode",
        "JetBrains IDEs",
        "Cline",
        "Other clients",
    ] {
        assert!(page.body.contains(&format!("\">{client}</label>")), "{client}");
    }
    let url = shown_url(&page);
    assert!(url.starts_with("https://way.example/s/guide/t/pu_"), "{url}");
    assert!(page.body.contains(&format!("claude mcp add --transport http guide {url}")));
    assert!(page.body.contains(&format!("[mcp_servers.guide]\nurl = &#34;{url}&#34;")), "{}", page.body);
    assert!(page.body.matches(&url).count() > 10, "each client's snippet has the personal URL");
    assert!(!page.body.contains("https://way.example/s/guide/mcp"), "no snippet has the plain URL");
    assert!(!page.body.contains("works only on this machine") && !page.body.contains("connects from the cloud"));
    server.update(ServerSettings { walkthrough_tools_enabled: Some(false), ..ServerSettings::default() }).await;
    let page = page_request(&app, "guide.way.example", "/").send().await;
    assert!(page.body.contains("There are no walkthroughs yet") && !page.body.contains("Install Acme"));
    assert!(self::shown_url(&page).starts_with("https://guide.way.example/t/pu_"));
    app.finish().await;
}

#[tokio::test]
async fn a_server_with_sign_in_shows_its_plain_url_and_sets_no_cookie() {
    let (app, server) = set_up(https_setup()).await;
    let earlier_page = page_request(&app, "way.example", "/s/acme").send().await;
    server.update(ServerSettings { auth_type: Some(AuthType::PlatformOauth), ..ServerSettings::default() }).await;
    for (host, path, plain) in [
        ("way.example", "/s/acme", "https://way.example/s/acme/mcp"),
        ("way.example", "/s/acme/t/ann/mcp", "https://way.example/s/acme/mcp"),
        ("acme.way.example", "/", "https://acme.way.example/mcp"),
    ] {
        let page = page_request(&app, host, path).header("cookie", &page_cookie(&earlier_page)).send().await;
        assert_eq!(shown_url(&page), plain);
        assert_eq!(page.header("set-cookie"), None);
        assert!(page.body.contains("Install Acme") && page.body.contains("4 steps"), "{}", page.body);
        assert!(!page.body.contains("/t/"), "{}", page.body);
    }
    server.update(ServerSettings { sign_in: Some(SignInPolicy::OnConnect), ..ServerSettings::default() }).await;
    let page = page_request(&app, "way.example", "/s/acme").send().await;
    assert!(!page.body.contains("Install Acme") && page.body.contains("after you sign in"), "{}", page.body);
    // `on_connect` has no effect without OAuth.
    server.update(ServerSettings { auth_type: Some(AuthType::CollectEmail), ..ServerSettings::default() }).await;
    let page = page_request(&app, "way.example", "/s/acme").send().await;
    assert!(page.body.contains("Install Acme") && shown_url(&page).contains("/t/pu_"));
    app.finish().await;
}

#[tokio::test]
async fn a_disabled_page_looks_like_an_unknown_server() {
    let (app, server) = set_up(https_setup()).await;
    let earlier_page = page_request(&app, "way.example", "/s/acme").send().await;
    server.update(ServerSettings { public_page: Some(false), ..ServerSettings::default() }).await;
    let describe = |response: &HttpResponse| {
        let mut headers: Vec<_> = response.headers.iter().filter(|(name, _)| *name != "x-request-id").collect();
        headers.sort_by_key(|(name, _)| name.as_str());
        format!("{} {headers:?} {}", response.status, response.body)
    };
    for (off, unknown) in [
        (("way.example", "/s/acme"), ("way.example", "/s/nobody")),
        (("way.example", "/s/acme/"), ("way.example", "/s/nobody/")),
        (("way.example", "/s/acme/mcp"), ("way.example", "/s/nobody/mcp")),
        (("way.example", "/s/acme/t/ann/mcp"), ("way.example", "/s/nobody/t/ann/mcp")),
        (("acme.way.example", "/"), ("nobody.way.example", "/")),
        (("acme.way.example", "/mcp"), ("nobody.way.example", "/mcp")),
        (("way.example", "/s/acme/logo.png"), ("way.example", "/s/nobody/logo.png")),
    ] {
        let off = page_request(&app, off.0, off.1).header("cookie", &page_cookie(&earlier_page)).send().await;
        let unknown = page_request(&app, unknown.0, unknown.1).send().await;
        assert_eq!(off.status, 404);
        assert_eq!(describe(&off), describe(&unknown));
        assert_eq!(off.header("set-cookie"), None);
    }
    let client = server.modern().at_host("way.example", "/s/acme/mcp");
    assert_eq!(client.list_tools().await.len(), 5, "the MCP server is not affected");
    app.finish().await;
}

#[tokio::test]
async fn responses_keep_the_personal_url_private() {
    let (app, server) = set_up(https_setup()).await;
    let page = page_request(&app, "way.example", "/s/acme").header("origin", "https://way.example").send().await;
    let missing = page_request(&app, "way.example", "/s/nobody").header("origin", "https://evil.example").send().await;
    for response in [&page, &missing] {
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(response.header("x-robots-tag"), Some("noindex, nofollow, noarchive"));
        assert_eq!(response.header("x-frame-options"), Some("DENY"));
        assert_eq!(response.header("access-control-allow-origin"), None);
        let policy = response.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(response.body.contains("<meta name=\"robots\" content=\"noindex"), "{}", response.body);
    }
    for path in ["/s/acme/mcp", "/s/acme/t/ann/mcp"] {
        let mcp = page_request(&app, "way.example", path).header("origin", "https://way.example").send().await;
        assert_eq!(mcp.header("access-control-allow-origin"), None, "the MCP endpoint has CORS, its page does not");
        assert_eq!(mcp.header("cache-control"), Some("no-store"));
    }
    server.update(ServerSettings { public_page_indexed: Some(true), ..ServerSettings::default() }).await;
    let page = page_request(&app, "way.example", "/s/acme").send().await;
    assert_eq!(page.header("x-robots-tag"), Some("noarchive"), "an archive would publish one visitor's URL");
    assert!(!page.body.contains("noindex") && page.body.contains("data-nosnippet"), "{}", page.body);
    app.finish().await;
}

#[tokio::test]
async fn a_loopback_url_shows_a_warning() {
    let (app, _server) = set_up(Setup::default()).await;
    let page = page_request(&app, "localhost:8080", "/s/acme").send().await;
    assert!(
        page.body.contains("works only on this machine") && page.body.contains("<code>http://localhost:8080</code>")
    );
    assert_eq!(page.body.matches("connects from the cloud").count(), 2, "Claude and ChatGPT");
    app.finish().await;
}

#[tokio::test]
async fn a_former_slug_shows_the_current_url() {
    let (app, server) = set_up(https_setup()).await;
    let earlier_page = page_request(&app, "way.example", "/s/acme").send().await;
    server.update(ServerSettings { slug: Some("rockets".to_owned()), ..ServerSettings::default() }).await;
    let page = page_request(&app, "way.example", "/s/acme").header("cookie", &page_cookie(&earlier_page)).send().await;
    assert_eq!(shown_url(&page), format!("https://way.example/s/rockets/t/{}/mcp", shown_id(&earlier_page)));
    // The response for the former slug hands the ID over to the current path in a second cookie.
    let given: Vec<_> = page.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(given[0].contains("; Path=/s/acme;"), "{given:?}");
    assert!(
        given[1].starts_with("__Secure-wp_personal_former=") && given[1].contains("; Path=/s/rockets;"),
        "{given:?}"
    );
    assert_eq!(given.len(), 2);
    let handed_over = given[1].split(';').next().unwrap();
    let current = page_request(&app, "way.example", "/s/rockets").header("cookie", handed_over).send().await;
    assert_eq!(shown_url(&current), shown_url(&page));
    assert_eq!(current.headers.get_all("set-cookie").iter().count(), 1, "the cookie is set again for the new path");
    // A visitor who already has a personal URL for the current slug keeps it.
    let own = page_request(&app, "way.example", "/s/rockets").send().await;
    assert_ne!(shown_id(&own), shown_id(&earlier_page));
    let both = format!("{}; {handed_over}", page_cookie(&own));
    assert_eq!(
        shown_id(&page_request(&app, "way.example", "/s/rockets").header("cookie", &both).send().await),
        shown_id(&own)
    );
    let page = page_request(&app, "acme.way.example", "/").send().await;
    assert!(shown_url(&page).starts_with("https://rockets.way.example/t/pu_"));
    servers::release_slug(app.cx(), &app.ops(), &server.org.id, &server.id, "acme").await.unwrap();
    app.refresh().await;
    assert_eq!(page_request(&app, "way.example", "/s/acme").send().await.status, 404);
    let new_owner = app.org("other").await.server("acme").await;
    let page = page_request(&app, "way.example", "/s/acme").header("cookie", &page_cookie(&earlier_page)).send().await;
    assert_ne!(shown_id(&page), shown_id(&earlier_page), "the next owner of the slug gets no old IDs");
    assert_eq!(new_owner.slug, "acme");
    app.finish().await;
}

#[tokio::test]
async fn the_page_is_small_and_rate_limited() {
    let (app, server) = set_up(https_setup()).await;
    for n in 0..55 {
        let document = json!({
            "version": "1.1",
            "walkthrough": { "title": format!("{n} {}", "t".repeat(150)), "description": "d".repeat(2_000), "type": "course" },
            "steps": [{ "key": "a", "title": "A", "contentFields": { "version": "v1", "contentForUser": "a" } }],
        });
        server.import(&document).await;
    }
    let page = page_request(&app, "way.example", "/s/acme").send().await;
    assert!(page.body.len() < 100_000, "{} bytes", page.body.len());
    assert!(page.body.contains("And 6 more"), "{}", page.body);
    let mut rejected = None;
    // The manual clock does not advance, so the limit does not refill.
    for _ in 0..5_000 {
        let page = page_request(&app, "way.example", "/s/nobody").send().await;
        if page.status != 404 {
            rejected = Some(page);
            break;
        }
    }
    let rejected = rejected.expect("a client with too many requests is rejected");
    assert_eq!(rejected.status, 429);
    assert!(rejected.header("retry-after").is_some() && rejected.body.contains("Too many requests"));
    app.finish().await;
}

#[tokio::test]
async fn settings_are_available_in_the_api_and_console() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let owner = crate::console::ConsoleBrowser::owner(&org).await;
    let created = owner.api(Method::POST, "/servers", Some(json!({ "slug": "guide" }))).await.json();
    assert_eq!((&created["public_page"], &created["public_page_indexed"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(created["public_page_url"], "http://localhost:8080/s/guide");
    let path = format!("/servers/{}", created["id"].as_str().unwrap());
    let change = json!({ "public_page": false, "public_page_indexed": true });
    let changed = owner.api(Method::PATCH, &path, Some(change)).await.json();
    assert_eq!((&changed["public_page"], &changed["public_page_indexed"]), (&Value::Bool(false), &Value::Bool(true)));
    let base = format!("/o/acme/servers/{}", created["id"].as_str().unwrap());
    owner.get_page(&base).await.assert_lacks("Copy link for your users").assert_contains("public page is turned off");
    owner.get_page("/o/acme/servers").await.assert_lacks("Copy link for your users");
    let form = [
        ("name", "Guide"),
        ("product_name", "Guide"),
        ("slug", "guide"),
        ("auth_type", "none"),
        ("toolset", "guided"),
        ("public_page", "true"),
    ];
    owner.post(&format!("{base}/settings"), &form).await.assert_redirect(&format!("{base}/settings"));
    let server = owner.api(Method::GET, &path, None).await.json();
    assert_eq!((&server["public_page"], &server["public_page_indexed"]), (&Value::Bool(true), &Value::Bool(false)));
    for page in [base.as_str(), "/o/acme/servers"] {
        let page = owner.get_page(page).await;
        page.assert_contains("Copy link for your users").assert_contains("http://localhost:8080/s/guide");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_page_shows_the_logo_of_the_organisation() {
    let (app, server) = set_up(https_setup()).await;
    let page = page_request(&app, "way.example", "/s/acme").send().await;
    assert!(!page.body.contains("<img"), "there is no logo yet");
    assert_eq!(page_request(&app, "way.example", "/s/acme/logo.png").send().await.status, 404);
    let png = data_encoding::BASE64
        .decode(b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
        .unwrap();
    waypost_ops::logos::set(app.cx(), &app.ops(), &server.org.id, png).await.unwrap();
    for (host, path, logo) in
        [("way.example", "/s/acme", "/s/acme/logo.png?v="), ("acme.way.example", "/", "/logo.png?v=")]
    {
        let page = page_request(&app, host, path).send().await;
        let (_, src) = page.body.split_once("<img src=\"").unwrap_or_else(|| panic!("{page}"));
        let src = src.split('"').next().unwrap();
        assert!(src.starts_with(logo), "{src}");
        let request = http::Request::get(src).header("host", host).body(axum::body::Body::empty()).unwrap();
        let response = app.send(request).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"image/png".parse().unwrap())
        );
    }
    assert_eq!(page_request(&app, "way.example", "/logo.png").send().await.status, 404, "the main host has no logo");
    app.finish().await;
}
