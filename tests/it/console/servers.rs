//! Servers, their walkthroughs, the install page and sign-in providers, on pages and over the API.

use http::{Method, StatusCode, header};
use serde_json::json;
use waypost_core::organization::Role;

use super::{ConsoleBrowser, call_with_key};
use crate::app::{App, Org, Server, open};

const HOSTILE: &str = "<script>alert(1)</script>\"'&";

async fn set_up(app: &App) -> (Org, Server, String) {
    let org = app.org("acme").await;
    let server = org.server("guide").await;
    let base = format!("/o/acme/servers/{}", server.id);
    (org, server, base)
}

async fn a_server_is_created_updated_and_deleted(app: App) {
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::owner(&org).await;
    owner.get_page("/o/acme/servers").await.assert_contains("No servers yet").assert_contains("/o/acme/servers/new");
    owner.get_page("/o/acme/servers/new").await.assert_contains("hx-get=\"/o/acme/servers/slug");
    // The slug follows the name until the user enters one.
    let field = "/o/acme/servers/slug?part=field&name=Acme%20Docs%21";
    owner.get_page(field).await.assert_contains("value=\"acme-docs\"");
    owner.get_page(&format!("{field}&slug=mine&suggested=acme")).await.assert_contains("value=\"mine\"");
    owner.get_page("/o/acme/servers/slug?slug=mine").await.assert_contains("mine is available");
    owner.get_page("/o/acme/servers/slug?slug=www").await.assert_contains("reserved");
    owner.get_page("/o/acme/servers/slug?slug=No%00%3Cb%3E").await.assert_contains("is invalid").assert_lacks("<b>");
    let rejected = owner.post("/o/acme/servers", &[("name", HOSTILE), ("slug", "x")]).await;
    rejected
        .assert_status(422)
        .assert_contains("id=\"e-slug\"")
        .assert_contains("&#60;script&#62;")
        .assert_lacks("<script>alert");
    let created = owner.post("/o/acme/servers", &[("name", HOSTILE), ("slug", "guide")]).await;
    created.assert_status(303);
    let base = created.location().strip_suffix("/walkthroughs").unwrap().to_owned();
    for rest in ["", "/walkthroughs", "/install", "/try", "/settings", "/delete"] {
        owner
            .get_page(&format!("{base}{rest}"))
            .await
            .assert_contains("&#60;script&#62;")
            .assert_lacks("<script>alert");
    }
    owner
        .get_page(&base)
        .await
        .assert_contains("No walkthroughs are assigned")
        .assert_contains("http://localhost:8080/s/guide/mcp");
    owner.get_page("/o/acme/servers?q=alert").await.assert_contains(&base);
    owner.get_page("/o/acme/servers?q=%25").await.assert_contains("No matching servers");
    owner.get_page("/o/acme/servers?q=a%00b&after=%00").await;

    let settings = format!("{base}/settings");
    let fields =
        [("name", "Docs"), ("product_name", "Acme"), ("slug", "manual"), ("auth_type", "none"), ("toolset", "all")];
    let wrong =
        |name, value| fields.iter().copied().filter(|field| field.0 != name).chain([(name, value)]).collect::<Vec<_>>();
    for (name, value) in
        [("slug", "A"), ("name", " "), ("allowed_origins", "https://example.com/path"), ("auth_type", "magic")]
    {
        owner
            .post(&settings, &wrong(name, value))
            .await
            .assert_status(422)
            .assert_contains(&format!("id=\"e-{name}\""));
    }
    owner
        .post(&settings, &wrong("auth_type", "custom_oauth"))
        .await
        .assert_status(422)
        .assert_contains("identity provider");
    owner.post(&settings, &fields).await.assert_redirect(&settings);
    let page = owner.get_page(&settings).await;
    page.assert_contains("Former slugs").assert_contains("<code>guide</code>").assert_contains("value=\"manual\"");
    owner.get_page(&base).await.assert_contains("tools are turned off");
    owner.post(&format!("{base}/slugs/release"), &[("slug", "guide")]).await.assert_redirect(&settings);
    owner.post(&format!("{base}/slugs/release"), &[("slug", "guide")]).await.assert_status(404);

    owner
        .post(&format!("{base}/delete"), &[("confirm", "guide")])
        .await
        .assert_status(422)
        .assert_contains("id=\"e-confirm\"");
    owner.post(&format!("{base}/delete"), &[("confirm", "manual")]).await.assert_redirect("/o/acme/servers");
    owner.get(&base).await.assert_status(404);
    app.finish().await;
}

async fn roles_and_organisations_are_enforced(app: App) {
    let (org, server, base) = set_up(&app).await;
    let walkthrough = server.walkthrough("Install", &["One"]).await;
    let other = app.org("other").await;
    let (member, outsider) =
        (ConsoleBrowser::member(&org, "m@a.example", Role::Member).await, ConsoleBrowser::owner(&other).await);
    let assigned = member.api(Method::GET, &format!("/assignments?server_id={}", server.id), None).await.json();
    let assignment = assigned["items"][0]["id"].as_str().unwrap().to_owned();
    let reads = ["", "/walkthroughs", "/candidates", "/install", "/try", "/settings"];
    let writes = ["/settings", "/slugs/release", "/delete"];
    let moves = ["switch", "move", "remove"];
    for rest in reads {
        let response = member.get(&format!("{base}{rest}")).await;
        assert!(response.status.is_success() || response.status == StatusCode::SEE_OTHER, "{rest}");
    }
    let fields = [
        ("slug", "mine"),
        ("name", "Mine"),
        ("confirm", "guide"),
        ("direction", "up"),
        ("walkthrough", walkthrough.id.as_str()),
    ];
    for rest in writes {
        member.post(&format!("{base}{rest}"), &fields).await.assert_status(403);
    }
    member.get("/o/acme/servers/new").await.assert_status(403);
    member.post("/o/acme/servers", &fields).await.assert_status(403);
    // With the slug of their own organisation, and with the slug of the server's organisation.
    for base in [base.replace("/o/acme", "/o/other"), base.clone()] {
        for rest in reads {
            outsider.get(&format!("{base}{rest}")).await.assert_status(404);
        }
        for rest in writes.iter().chain(&["/walkthroughs"]) {
            outsider.post(&format!("{base}{rest}"), &fields).await.assert_status(404);
        }
        for rest in moves {
            outsider.post(&format!("{base}/walkthroughs/{assignment}/{rest}"), &fields).await.assert_status(404);
        }
    }
    let anonymous = ConsoleBrowser::new(&app);
    assert!(anonymous.get(&base).await.location().starts_with("/login?next="));

    for (method, path, body) in [
        (Method::GET, format!("/servers/{}", server.id), None),
        (Method::PATCH, format!("/servers/{}", server.id), Some(json!({ "name": "X" }))),
        (Method::DELETE, format!("/servers/{}", server.id), None),
        (Method::GET, format!("/servers/{}/slugs", server.id), None),
        (Method::DELETE, format!("/servers/{}/slugs/guide", server.id), None),
        (Method::PUT, format!("/servers/{}/assignments/order", server.id), Some(json!([assignment]))),
        (Method::GET, format!("/assignments?server_id={}", server.id), None),
        (Method::GET, format!("/assignments?walkthrough_id={}", walkthrough.id), None),
        (Method::GET, format!("/assignments/{assignment}"), None),
        (Method::PATCH, format!("/assignments/{assignment}"), Some(json!({ "enabled": false }))),
        (Method::DELETE, format!("/assignments/{assignment}"), None),
        (
            Method::POST,
            "/assignments".into(),
            Some(json!({ "server_id": server.id, "walkthrough_id": walkthrough.id })),
        ),
    ] {
        let foreign = call_with_key(&other, Role::Owner, method.clone(), &path, body.clone()).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{method} {path}: {}", foreign.body);
        assert_eq!(foreign.header("content-type"), "application/problem+json");
        let own = call_with_key(&org, Role::Member, method.clone(), &path, body).await;
        let admin_only = path.starts_with("/servers/") && !path.ends_with("order") && method != Method::GET;
        assert_eq!(own.status == StatusCode::FORBIDDEN, admin_only, "{method} {path}: {}", own.body);
        let without = ConsoleBrowser::new(&app).api(method, &path, None).await;
        without.assert_status(401);
    }
    app.finish().await;
}

async fn walkthroughs_are_assigned_ordered_disabled_and_removed(app: App) {
    let (org, server, base) = set_up(&app).await;
    let (first, second) = (server.walkthrough("First", &["One"]).await, server.walkthrough("Second", &["One"]).await);
    let third = org.walkthrough(HOSTILE, &["One"]).await;
    let member = ConsoleBrowser::member(&org, "m@a.example", Role::Member).await;
    let page = member.get_page(&format!("{base}/walkthroughs")).await;
    page.assert_contains("First")
        .assert_contains("available")
        .assert_contains(third.id.as_str())
        .assert_lacks("<script>alert");
    let assignments_page = format!("{base}/walkthroughs");
    member.post(&assignments_page, &[("walkthrough", third.id.as_str())]).await.assert_redirect(&assignments_page);
    member.post(&assignments_page, &[("walkthrough", "wt_000000000000")]).await.assert_status(404);
    let listed = format!("/assignments?server_id={}", server.id);
    let list = || member.api(Method::GET, &listed, None);
    let items = list().await.json()["items"].as_array().unwrap().clone();
    let walkthroughs: Vec<_> = items.iter().map(|item| item["walkthrough_id"].as_str().unwrap()).collect();
    assert_eq!(walkthroughs, [first.id.as_str(), second.id.as_str(), third.id.as_str()]);
    let ids: Vec<_> = items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    let at = |n: usize, action: &str| format!("{assignments_page}/{}/{action}", ids[n]);
    member.post(&at(2, "move"), &[("direction", "up")]).await.assert_redirect(&assignments_page);
    member.post(&at(0, "move"), &[("direction", "up")]).await.assert_redirect(&assignments_page);
    member.post(&at(1, "switch"), &[("enabled", "false")]).await.assert_redirect(&assignments_page);
    let now = list().await.json();
    let enabled_by_id: Vec<_> = now["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["id"].as_str().unwrap(), item["enabled"].as_bool().unwrap()))
        .collect();
    assert_eq!(enabled_by_id, [(ids[0].as_str(), true), (ids[2].as_str(), true), (ids[1].as_str(), false)]);
    app.refresh().await;
    member.get_page(&base).await.assert_contains("2 of 3").assert_contains("and 2 walkthroughs.");
    let order = format!("/servers/{}/assignments/order", server.id);
    let sorted = member.api(Method::PUT, &order, Some(json!([ids[1], ids[0]]))).await;
    assert_eq!(sorted.assert_status(200).json()["items"][0]["enabled"], false, "sorting does not enable an assignment");
    for wrong in [json!([ids[0], ids[0]]), json!({}), json!([1])] {
        member.api(Method::PUT, &order, Some(wrong)).await.assert_status(422);
    }
    for wrong in [json!(["msw_000000000000"]), json!([""]), json!(["\u{0}"])] {
        member.api(Method::PUT, &order, Some(wrong)).await.assert_status(404);
    }
    member.post(&at(1, "remove"), &[]).await.assert_redirect(&assignments_page);
    member.post(&at(1, "remove"), &[]).await.assert_status(404);
    assert_eq!(list().await.json()["items"].as_array().unwrap().len(), 2);
    app.finish().await;
}

async fn the_install_page_has_instructions_for_each_client(app: App) {
    let (org, _, base) = set_up(&app).await;
    let member = ConsoleBrowser::member(&org, "m@a.example", Role::Member).await;
    let install = format!("{base}/install");
    member
        .get_page(&install)
        .await
        .assert_contains("claude mcp add --transport http guide http://localhost:8080/s/guide/mcp");
    for (client, text) in [
        ("cursor", "href=\"cursor://anysphere.cursor-deeplink/mcp/install?name=guide&#38;config="),
        ("vs-code", "href=\"vscode:mcp/install?%7B%22name%22%3A%22guide%22"),
        ("windsurf", "serverUrl"),
        ("zed", "context_servers"),
        ("inspector", "@modelcontextprotocol/inspector"),
        ("claude-desktop", "mcp-remote"),
        ("json", "mcpServers"),
        ("nonsense", "claude mcp add"),
    ] {
        member.get_page(&format!("{install}?client={client}")).await.assert_contains(text);
    }
    member
        .get_page(&format!("{install}?tracking_id=anna~1.b_C-d"))
        .await
        .assert_contains("http://localhost:8080/s/guide/t/anna~1.b_C-d/mcp");
    for wrong in ["%22", "a%20b", "%3Cscript%3E", "a%2F..%2Fb", "%24(id)", "%00", &"x".repeat(129)] {
        let page = member.get(&format!("{install}?tracking_id={wrong}")).await;
        page.assert_status(422)
            .assert_contains("id=\"e-tracking_id\"")
            .assert_contains("/s/guide/mcp")
            .assert_lacks("/t/")
            .assert_lacks("<script>");
    }
    app.finish().await;
}

async fn servers_are_managed_over_the_api(app: App) {
    let org = app.org("acme").await;
    let call = async |method: Method, path: &str, body| call_with_key(&org, Role::Admin, method, path, body).await;
    let created = call(Method::POST, "/servers", Some(json!({ "slug": "guide", "auth_type": "collect_email" }))).await;
    let server = created.assert_status(201).json();
    let path = format!("/servers/{}", server["id"].as_str().unwrap());
    assert_eq!(created.header(header::LOCATION.as_str()), format!("/api/v1{path}"));
    assert_eq!(server["mcp_url"], "http://localhost:8080/s/guide/mcp");
    assert_eq!(server["mcp_host_url"], "http://guide.localhost:8080/mcp");
    assert_eq!((&server["name"], &server["oauth_config_id"]), (&json!("guide"), &json!(null)));
    for (body, field) in [
        (json!({ "slug": "x" }), "slug"),
        (json!({ "slug": "guide\u{0}" }), "slug"),
        (json!({ "slug": "fine", "name": "" }), "name"),
        (json!({ "slug": "fine", "allowed_origins": ["*"] }), "allowed_origins"),
        (json!({ "slug": "fine", "oauth_config_id": "none" }), "oauth_config_id"),
        (json!({ "slug": "fine", "oauth_config_id": "oac_000000000000" }), "oauth_config_id"),
        (json!({ "slug": "fine", "auth_type": "custom_oauth" }), "oauth_config_id"),
    ] {
        let response = call(Method::POST, "/servers", Some(body)).await;
        assert_eq!(response.assert_status(422).json()["field"], field, "{}", response.body);
    }
    for body in [
        json!({ "slug": "fine", "id": "srv_000000000000" }),
        json!({ "slug": "fine", "organization_id": "org_000000000000" }),
        json!({ "slug": "fine", "toolset": "none" }),
        json!({ "slug": 1 }),
        json!([]),
    ] {
        call(Method::POST, "/servers", Some(body)).await.assert_status(422);
    }
    call(Method::POST, "/servers", Some(json!({ "slug": "guide" }))).await.assert_status(409);
    call(Method::POST, "/servers", Some(json!({ "slug": "more" }))).await.assert_status(201);
    let page = call(Method::GET, "/servers?limit=1", None).await.json();
    assert_eq!(page["items"][0]["sign_in"], "auto", "the default value");
    let cursor = page["next_cursor"].as_str().unwrap();
    let last = call(Method::GET, &format!("/servers?limit=1&cursor={cursor}"), None).await.json();
    assert_eq!((&last["items"][0]["slug"], &last["next_cursor"]), (&json!("more"), &json!(null)));
    for query in ["limit=0", "limit=201", "limit=x", "cursor=!", "cursor=AAAA", "other=1"] {
        call(Method::GET, &format!("/servers?{query}"), None).await.assert_status(422);
    }
    assert_eq!(call(Method::GET, "/servers?q=GUI%00", None).await.json()["items"].as_array().unwrap().len(), 1);
    let check = call(Method::GET, "/servers/slug-check?slug=guide", None).await.json();
    assert!(check["available"] == false && check["reason"].as_str().unwrap().contains("taken"), "{check}");
    assert_eq!(call(Method::GET, "/servers/slug-check?slug=free", None).await.json()["available"], true);

    let change =
        json!({ "slug": "manual", "toolset": "all", "walkthrough_tools_enabled": false, "sign_in": "on_connect" });
    let changed = call(Method::PATCH, &path, Some(change)).await.assert_status(200).json();
    assert_eq!((&changed["slug"], &changed["toolset"]), (&json!("manual"), &json!("all")));
    assert_eq!(changed["auth_type"], "collect_email", "absent members are not changed");
    call(Method::PATCH, &path, Some(json!({ "slug": "more" }))).await.assert_status(409);
    let slugs = call(Method::GET, &format!("{path}/slugs"), None).await.json();
    assert_eq!(slugs["items"], json!([{ "slug": "guide" }]));
    call(Method::DELETE, &format!("{path}/slugs/guide"), None).await.assert_status(204);
    for slug in ["guide", "manual", "%00"] {
        call(Method::DELETE, &format!("{path}/slugs/{slug}"), None).await.assert_status(404);
    }
    for id in ["srv_000000000000", "x", "%00", "srv_%27"] {
        call(Method::GET, &format!("/servers/{id}"), None).await.assert_status(404);
    }
    call(Method::GET, "/assignments", None).await.assert_status(422);
    call(Method::DELETE, &path, None).await.assert_status(204);
    call(Method::GET, &path, None).await.assert_status(404);
    app.finish().await;
}

async fn sign_in_providers_are_managed(app: App) {
    let (org, ..) = set_up(&app).await;
    let owner = ConsoleBrowser::owner(&org).await;
    let member = ConsoleBrowser::member(&org, "m@a.example", Role::Member).await;
    owner.get_page("/o/acme/oauth-configs").await.assert_contains("No sign-in providers yet");
    owner.get_page("/o/acme/oauth-configs/new").await.assert_contains("http://localhost:8080/s/SERVER/oauth/callback");
    let fields = [("name", HOSTILE), ("issuer", "not a url"), ("client_id", "waypost"), ("client_secret", "hush-hush")];
    let rejected = owner.post("/o/acme/oauth-configs", &fields).await;
    rejected
        .assert_status(422)
        .assert_contains("role=\"alert\"")
        .assert_lacks("hush-hush")
        .assert_lacks("<script>alert");
    member.post("/o/acme/oauth-configs", &fields).await.assert_status(403);

    let id = insert_provider(&app, &org).await;
    let base = format!("/o/acme/oauth-configs/{id}");
    owner
        .get_page(&base)
        .await
        .assert_contains("Check provider")
        .assert_contains("Set (encrypted)")
        .assert_lacks("v1.sealed");
    member
        .get_page(&base)
        .await
        .assert_contains("https://id.example")
        .assert_lacks("v1.sealed")
        .assert_lacks("Check provider");
    let unchanged = owner.get_page(&base).await;
    unchanged.assert_contains("value=\"openid email\"");
    let fields = [
        ("name", "Renamed"),
        ("issuer", "https://id.example"),
        ("client_id", "waypost"),
        ("scopes", "openid email"),
        ("token_auth_method", "client_secret_basic"),
        ("subject_claim", "sub"),
    ];
    // A new name needs no request to the provider.
    owner.post(&base, &fields).await.assert_redirect(&base);
    owner.get_page("/o/acme/oauth-configs").await.assert_contains("Renamed");
    let response = owner.api(Method::GET, &format!("/oauth-configs/{id}"), None).await;
    response.assert_status(200).assert_lacks("v1.sealed").assert_lacks("\"client_secret\"");
    assert_eq!(response.json()["has_client_secret"], true);
    for body in
        [json!({}), json!({ "name": "x", "issuer": "" }), json!({ "name": "x", "issuer": "\u{0}", "client_id": "a" })]
    {
        owner.api(Method::POST, "/oauth-configs", Some(body)).await.assert_status(422);
    }
    let other = ConsoleBrowser::owner(&app.org("other").await).await;
    for (method, rest) in [(Method::GET, ""), (Method::PATCH, ""), (Method::DELETE, ""), (Method::POST, "/check")] {
        let body = (method == Method::PATCH).then(|| json!({ "name": "x" }));
        other.api(method, &format!("/oauth-configs/{id}{rest}"), body).await.assert_status(404);
    }
    let theirs = base.replace("/o/acme", "/o/other");
    other.get(&theirs).await.assert_status(404);
    for rest in ["", "/check", "/delete"] {
        other.post(&format!("{theirs}{rest}"), &fields).await.assert_status(404);
        member.post(&format!("{base}{rest}"), &fields).await.assert_status(403);
    }
    owner.post(&format!("{base}/delete"), &[("confirm", "Renamed")]).await.assert_redirect("/o/acme/oauth-configs");
    owner.get(&base).await.assert_status(404);
    app.finish().await;
}

/// Inserts a provider without checking it.
async fn insert_provider(app: &App, org: &Org) -> String {
    use waypost_core::id::OauthConfigId;
    use waypost_core::oauth_config::{OauthConfig, ProviderKind, TokenAuthMethod};
    let config = OauthConfig {
        id: OauthConfigId::new(&*app.cx().random),
        organization_id: org.id.clone(),
        name: "Acme".to_owned(),
        kind: ProviderKind::Openid,
        issuer: "https://id.example".to_owned(),
        authorization_endpoint: "https://id.example/a".to_owned(),
        token_endpoint: "https://id.example/t".to_owned(),
        userinfo_endpoint: None,
        jwks_uri: Some("https://id.example/k".to_owned()),
        client_id: "waypost".to_owned(),
        client_secret: Some("v1.sealed".to_owned()),
        token_auth_method: TokenAuthMethod::ClientSecretBasic,
        scopes: vec!["openid".to_owned(), "email".to_owned()],
        subject_claim: "sub".to_owned(),
        link_verified_email: false,
        created_at: app.cx().now(),
        updated_at: app.cx().now(),
    };
    let mut tx = app.db().begin().await.unwrap();
    waypost_store::oauth_config::insert(&mut tx, &config).await.unwrap();
    tx.commit().await.unwrap();
    config.id.to_string()
}

waypost_testkit::both!(extended open => a_server_is_created_updated_and_deleted, roles_and_organisations_are_enforced, walkthroughs_are_assigned_ordered_disabled_and_removed, the_install_page_has_instructions_for_each_client, servers_are_managed_over_the_api, sign_in_providers_are_managed);
