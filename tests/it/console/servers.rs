//! Servers, their walkthroughs, the install page and sign-in providers, as pages and over the API.

use http::{Method, StatusCode, header};
use serde_json::json;
use waypost_core::organization::Role;

use super::{Browser, with_key};
use crate::app::{App, Org, Server, open};

const HOSTILE: &str = "<script>alert(1)</script>\"'&";

async fn stage(app: &App) -> (Org, Server, String) {
    let org = app.org("acme").await;
    let server = org.server("guide").await;
    let base = format!("/o/acme/servers/{}", server.id);
    (org, server, base)
}

async fn a_server_is_made_changed_and_deleted(app: App) {
    let org = app.org("acme").await;
    let owner = Browser::owner(&org).await;
    owner.page("/o/acme/servers").await.says("No server yet").says("/o/acme/servers/new");
    owner.page("/o/acme/servers/new").await.says("hx-get=\"/o/acme/servers/slug");
    // The slug follows the name, until somebody writes one.
    let field = "/o/acme/servers/slug?part=field&name=Acme%20Docs%21";
    owner.page(field).await.says("value=\"acme-docs\"");
    owner.page(&format!("{field}&slug=mine&suggested=acme")).await.says("value=\"mine\"");
    owner.page("/o/acme/servers/slug?slug=mine").await.says("mine is free");
    owner.page("/o/acme/servers/slug?slug=www").await.says("reserved");
    owner.page("/o/acme/servers/slug?slug=No%00%3Cb%3E").await.says("does not fit").does_not_say("<b>");
    let refused = owner.post("/o/acme/servers", &[("name", HOSTILE), ("slug", "x")]).await;
    refused.is(422).says("id=\"e-slug\"").says("&#60;script&#62;").does_not_say("<script>alert");
    let made = owner.post("/o/acme/servers", &[("name", HOSTILE), ("slug", "guide")]).await;
    made.is(303);
    let base = made.location().strip_suffix("/walkthroughs").unwrap().to_owned();
    for rest in ["", "/walkthroughs", "/install", "/try", "/settings", "/delete"] {
        owner.page(&format!("{base}{rest}")).await.says("&#60;script&#62;").does_not_say("<script>alert");
    }
    owner.page(&base).await.says("No walkthrough is placed here").says("http://localhost:8080/s/guide/mcp");
    owner.page("/o/acme/servers?q=alert").await.says(&base);
    owner.page("/o/acme/servers?q=%25").await.says("Nothing found");
    owner.page("/o/acme/servers?q=a%00b&after=%00").await;

    let settings = format!("{base}/settings");
    let fields =
        [("name", "Docs"), ("product_name", "Acme"), ("slug", "manual"), ("auth_type", "none"), ("toolset", "all")];
    let wrong =
        |name, value| fields.iter().copied().filter(|it| it.0 != name).chain([(name, value)]).collect::<Vec<_>>();
    for (name, value) in
        [("slug", "A"), ("name", " "), ("allowed_origins", "https://example.com/path"), ("auth_type", "magic")]
    {
        owner.post(&settings, &wrong(name, value)).await.is(422).says(&format!("id=\"e-{name}\""));
    }
    owner.post(&settings, &wrong("auth_type", "custom_oauth")).await.is(422).says("identity provider");
    owner.post(&settings, &fields).await.leads_to(&settings);
    let page = owner.page(&settings).await;
    page.says("Former addresses").says("<code>guide</code>").says("value=\"manual\"");
    owner.page(&base).await.says("tools are switched off");
    owner.post(&format!("{base}/slugs/release"), &[("slug", "guide")]).await.leads_to(&settings);
    owner.post(&format!("{base}/slugs/release"), &[("slug", "guide")]).await.is(404);

    owner.post(&format!("{base}/delete"), &[("confirm", "guide")]).await.is(422).says("id=\"e-confirm\"");
    owner.post(&format!("{base}/delete"), &[("confirm", "manual")]).await.leads_to("/o/acme/servers");
    owner.get(&base).await.is(404);
    app.finish().await;
}

async fn roles_and_other_organisations(app: App) {
    let (org, server, base) = stage(&app).await;
    let guide = server.walkthrough("Install", &["One"]).await;
    let other = app.org("other").await;
    let (member, stranger) = (Browser::member(&org, "m@a.example", Role::Member).await, Browser::owner(&other).await);
    let assigned = member.api(Method::GET, &format!("/assignments?server_id={}", server.id), None).await.json();
    let assignment = assigned["items"][0]["id"].as_str().unwrap().to_owned();
    let reads = ["", "/walkthroughs", "/candidates", "/install", "/try", "/settings"];
    let writes = ["/settings", "/slugs/release", "/delete"];
    let moves = ["switch", "move", "remove"];
    for rest in reads {
        let answer = member.get(&format!("{base}{rest}")).await;
        assert!(answer.status.is_success() || answer.status == StatusCode::SEE_OTHER, "{rest}");
    }
    let fields = [
        ("slug", "mine"),
        ("name", "Mine"),
        ("confirm", "guide"),
        ("direction", "up"),
        ("walkthrough", guide.id.as_str()),
    ];
    for rest in writes {
        member.post(&format!("{base}{rest}"), &fields).await.is(403);
    }
    member.get("/o/acme/servers/new").await.is(403);
    member.post("/o/acme/servers", &fields).await.is(403);
    // In the address of their own organisation, and in that of the server's.
    for base in [base.replace("/o/acme", "/o/other"), base.clone()] {
        for rest in reads {
            stranger.get(&format!("{base}{rest}")).await.is(404);
        }
        for rest in writes.iter().chain(&["/walkthroughs"]) {
            stranger.post(&format!("{base}{rest}"), &fields).await.is(404);
        }
        for rest in moves {
            stranger.post(&format!("{base}/walkthroughs/{assignment}/{rest}"), &fields).await.is(404);
        }
    }
    let nobody = Browser::new(&app);
    assert!(nobody.get(&base).await.location().starts_with("/login?next="));

    for (method, path, body) in [
        (Method::GET, format!("/servers/{}", server.id), None),
        (Method::PATCH, format!("/servers/{}", server.id), Some(json!({ "name": "X" }))),
        (Method::DELETE, format!("/servers/{}", server.id), None),
        (Method::GET, format!("/servers/{}/slugs", server.id), None),
        (Method::DELETE, format!("/servers/{}/slugs/guide", server.id), None),
        (Method::PUT, format!("/servers/{}/assignments/order", server.id), Some(json!([assignment]))),
        (Method::GET, format!("/assignments?server_id={}", server.id), None),
        (Method::GET, format!("/assignments?walkthrough_id={}", guide.id), None),
        (Method::GET, format!("/assignments/{assignment}"), None),
        (Method::PATCH, format!("/assignments/{assignment}"), Some(json!({ "enabled": false }))),
        (Method::DELETE, format!("/assignments/{assignment}"), None),
        (Method::POST, "/assignments".into(), Some(json!({ "server_id": server.id, "walkthrough_id": guide.id }))),
    ] {
        let foreign = with_key(&other, Role::Owner, method.clone(), &path, body.clone()).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{method} {path}: {}", foreign.body);
        assert_eq!(foreign.header("content-type"), "application/problem+json");
        let own = with_key(&org, Role::Member, method.clone(), &path, body).await;
        let admin_only = path.starts_with("/servers/") && !path.ends_with("order") && method != Method::GET;
        assert_eq!(own.status == StatusCode::FORBIDDEN, admin_only, "{method} {path}: {}", own.body);
        let without = Browser::new(&app).api(method, &path, None).await;
        without.is(401);
    }
    app.finish().await;
}

async fn walkthroughs_are_placed_ordered_switched_and_removed(app: App) {
    let (org, server, base) = stage(&app).await;
    let (first, second) = (server.walkthrough("First", &["One"]).await, server.walkthrough("Second", &["One"]).await);
    let third = org.walkthrough(HOSTILE, &["One"]).await;
    let member = Browser::member(&org, "m@a.example", Role::Member).await;
    let page = member.page(&format!("{base}/walkthroughs")).await;
    page.says("First").says("offered").says(third.id.as_str()).does_not_say("<script>alert");
    let place = format!("{base}/walkthroughs");
    member.post(&place, &[("walkthrough", third.id.as_str())]).await.leads_to(&place);
    member.post(&place, &[("walkthrough", "wt_000000000000")]).await.is(404);
    let listed = format!("/assignments?server_id={}", server.id);
    let list = || member.api(Method::GET, &listed, None);
    let items = list().await.json()["items"].as_array().unwrap().clone();
    let walkthroughs: Vec<_> = items.iter().map(|it| it["walkthrough_id"].as_str().unwrap()).collect();
    assert_eq!(walkthroughs, [first.id.as_str(), second.id.as_str(), third.id.as_str()]);
    let ids: Vec<_> = items.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    let at = |n: usize, act: &str| format!("{place}/{}/{act}", ids[n]);
    member.post(&at(2, "move"), &[("direction", "up")]).await.leads_to(&place);
    member.post(&at(0, "move"), &[("direction", "up")]).await.leads_to(&place);
    member.post(&at(1, "switch"), &[("enabled", "false")]).await.leads_to(&place);
    let now = list().await.json();
    let told: Vec<_> = now["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["id"].as_str().unwrap(), it["enabled"].as_bool().unwrap()))
        .collect();
    assert_eq!(told, [(ids[0].as_str(), true), (ids[2].as_str(), true), (ids[1].as_str(), false)]);
    app.refresh().await;
    member.page(&base).await.says("2 of 3").says("2 walkthroughs to play");
    let order = format!("/servers/{}/assignments/order", server.id);
    let sorted = member.api(Method::PUT, &order, Some(json!([ids[1], ids[0]]))).await;
    assert_eq!(sorted.is(200).json()["items"][0]["enabled"], false, "the switch stays");
    for wrong in [json!([ids[0], ids[0]]), json!({}), json!([1])] {
        member.api(Method::PUT, &order, Some(wrong)).await.is(422);
    }
    for wrong in [json!(["msw_000000000000"]), json!([""]), json!(["\u{0}"])] {
        member.api(Method::PUT, &order, Some(wrong)).await.is(404);
    }
    member.post(&at(1, "remove"), &[]).await.leads_to(&place);
    member.post(&at(1, "remove"), &[]).await.is(404);
    assert_eq!(list().await.json()["items"].as_array().unwrap().len(), 2);
    app.finish().await;
}

async fn the_install_page_has_a_text_for_each_client(app: App) {
    let (org, _, base) = stage(&app).await;
    let member = Browser::member(&org, "m@a.example", Role::Member).await;
    let install = format!("{base}/install");
    member.page(&install).await.says("claude mcp add --transport http guide http://localhost:8080/s/guide/mcp");
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
        member.page(&format!("{install}?client={client}")).await.says(text);
    }
    member
        .page(&format!("{install}?tracking_id=anna~1.b_C-d"))
        .await
        .says("http://localhost:8080/s/guide/t/anna~1.b_C-d/mcp");
    for wrong in ["%22", "a%20b", "%3Cscript%3E", "a%2F..%2Fb", "%24(id)", "%00", &"x".repeat(129)] {
        let page = member.get(&format!("{install}?tracking_id={wrong}")).await;
        page.is(422).says("id=\"e-tracking_id\"").says("/s/guide/mcp").does_not_say("/t/").does_not_say("<script>");
    }
    app.finish().await;
}

async fn the_api_of_servers(app: App) {
    let org = app.org("acme").await;
    let call = async |method: Method, path: &str, body| with_key(&org, Role::Admin, method, path, body).await;
    let made = call(Method::POST, "/servers", Some(json!({ "slug": "guide", "auth_type": "collect_email" }))).await;
    let server = made.is(201).json();
    let path = format!("/servers/{}", server["id"].as_str().unwrap());
    assert_eq!(made.header(header::LOCATION.as_str()), format!("/api/v1{path}"));
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
        let answer = call(Method::POST, "/servers", Some(body)).await;
        assert_eq!(answer.is(422).json()["field"], field, "{}", answer.body);
    }
    for body in [
        json!({ "slug": "fine", "id": "srv_000000000000" }),
        json!({ "slug": "fine", "organization_id": "org_000000000000" }),
        json!({ "slug": "fine", "toolset": "none" }),
        json!({ "slug": 1 }),
        json!([]),
    ] {
        call(Method::POST, "/servers", Some(body)).await.is(422);
    }
    call(Method::POST, "/servers", Some(json!({ "slug": "guide" }))).await.is(409);
    call(Method::POST, "/servers", Some(json!({ "slug": "more" }))).await.is(201);
    let page = call(Method::GET, "/servers?limit=1", None).await.json();
    assert_eq!(page["items"][0]["sign_in"], "auto", "the default");
    let cursor = page["next_cursor"].as_str().unwrap();
    let last = call(Method::GET, &format!("/servers?limit=1&cursor={cursor}"), None).await.json();
    assert_eq!((&last["items"][0]["slug"], &last["next_cursor"]), (&json!("more"), &json!(null)));
    for query in ["limit=0", "limit=201", "limit=x", "cursor=!", "cursor=AAAA", "other=1"] {
        call(Method::GET, &format!("/servers?{query}"), None).await.is(422);
    }
    assert_eq!(call(Method::GET, "/servers?q=GUI%00", None).await.json()["items"].as_array().unwrap().len(), 1);
    let check = call(Method::GET, "/servers/slug-check?slug=guide", None).await.json();
    assert!(check["available"] == false && check["reason"].as_str().unwrap().contains("taken"), "{check}");
    assert_eq!(call(Method::GET, "/servers/slug-check?slug=free", None).await.json()["available"], true);

    let change =
        json!({ "slug": "manual", "toolset": "all", "walkthrough_tools_enabled": false, "sign_in": "on_connect" });
    let changed = call(Method::PATCH, &path, Some(change)).await.is(200).json();
    assert_eq!((&changed["slug"], &changed["toolset"]), (&json!("manual"), &json!("all")));
    assert_eq!(changed["auth_type"], "collect_email", "what is absent stays");
    call(Method::PATCH, &path, Some(json!({ "slug": "more" }))).await.is(409);
    let slugs = call(Method::GET, &format!("{path}/slugs"), None).await.json();
    assert_eq!(slugs["items"], json!([{ "slug": "guide" }]));
    call(Method::DELETE, &format!("{path}/slugs/guide"), None).await.is(204);
    for slug in ["guide", "manual", "%00"] {
        call(Method::DELETE, &format!("{path}/slugs/{slug}"), None).await.is(404);
    }
    for id in ["srv_000000000000", "x", "%00", "srv_%27"] {
        call(Method::GET, &format!("/servers/{id}"), None).await.is(404);
    }
    call(Method::GET, "/assignments", None).await.is(422);
    call(Method::DELETE, &path, None).await.is(204);
    call(Method::GET, &path, None).await.is(404);
    app.finish().await;
}

async fn sign_in_providers(app: App) {
    let (org, ..) = stage(&app).await;
    let owner = Browser::owner(&org).await;
    let member = Browser::member(&org, "m@a.example", Role::Member).await;
    owner.page("/o/acme/oauth-configs").await.says("No sign-in provider yet");
    owner.page("/o/acme/oauth-configs/new").await.says("http://localhost:8080/s/SERVER/oauth/callback");
    let fields = [("name", HOSTILE), ("issuer", "not a url"), ("client_id", "waypost"), ("client_secret", "hush-hush")];
    let refused = owner.post("/o/acme/oauth-configs", &fields).await;
    refused.is(422).says("role=\"alert\"").does_not_say("hush-hush").does_not_say("<script>alert");
    member.post("/o/acme/oauth-configs", &fields).await.is(403);

    let id = saved(&app, &org).await;
    let base = format!("/o/acme/oauth-configs/{id}");
    owner.page(&base).await.says("Check the provider").says("kept, sealed").does_not_say("v1.sealed");
    member.page(&base).await.says("https://id.example").does_not_say("v1.sealed").does_not_say("Check the provider");
    let unchanged = owner.page(&base).await;
    unchanged.says("value=\"openid email\"");
    let fields = [
        ("name", "Renamed"),
        ("issuer", "https://id.example"),
        ("client_id", "waypost"),
        ("scopes", "openid email"),
        ("token_auth_method", "client_secret_basic"),
        ("subject_claim", "sub"),
    ];
    // A new name concerns nobody but the organisation: the provider is not asked.
    owner.post(&base, &fields).await.leads_to(&base);
    owner.page("/o/acme/oauth-configs").await.says("Renamed");
    let answer = owner.api(Method::GET, &format!("/oauth-configs/{id}"), None).await;
    answer.is(200).does_not_say("v1.sealed").does_not_say("\"client_secret\"");
    assert_eq!(answer.json()["has_client_secret"], true);
    for body in
        [json!({}), json!({ "name": "x", "issuer": "" }), json!({ "name": "x", "issuer": "\u{0}", "client_id": "a" })]
    {
        owner.api(Method::POST, "/oauth-configs", Some(body)).await.is(422);
    }
    let other = Browser::owner(&app.org("other").await).await;
    for (method, rest) in [(Method::GET, ""), (Method::PATCH, ""), (Method::DELETE, ""), (Method::POST, "/check")] {
        let body = (method == Method::PATCH).then(|| json!({ "name": "x" }));
        other.api(method, &format!("/oauth-configs/{id}{rest}"), body).await.is(404);
    }
    let theirs = base.replace("/o/acme", "/o/other");
    other.get(&theirs).await.is(404);
    for rest in ["", "/check", "/delete"] {
        other.post(&format!("{theirs}{rest}"), &fields).await.is(404);
        member.post(&format!("{base}{rest}"), &fields).await.is(403);
    }
    owner.post(&format!("{base}/delete"), &[("confirm", "Renamed")]).await.leads_to("/o/acme/oauth-configs");
    owner.get(&base).await.is(404);
    app.finish().await;
}

/// A provider that is saved, as if somebody had looked at it.
async fn saved(app: &App, org: &Org) -> String {
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

waypost_testkit::both!(open => a_server_is_made_changed_and_deleted, roles_and_other_organisations, walkthroughs_are_placed_ordered_switched_and_removed, the_install_page_has_a_text_for_each_client, the_api_of_servers, sign_in_providers);
