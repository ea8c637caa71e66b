//! Attacks: issuer mix-up, tokens for other audiences, people without permission, and forged or stolen credentials.

use waypost_core::agent::AgentState;
use waypost_core::tool_set::ToolSetMember;
use waypost_ops::agents::{self, AgentPatch};
use waypost_ops::tool_sets::{self, NewToolSet};
use waypost_ops::{organizations, users};

use super::*;
use crate::gateway::Stage;
use crate::sign_in::{EndUserBrowser, OauthClient, create_sign_in_server, start_walkthrough};

/// Clients, requests, codes and tokens of a hosted server are not valid at the gateway, and vice versa.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuers_cannot_be_mixed_up() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let anna = PersonBrowser::new(&server.org, "anna@example.com").await;
    let (person, end_user) = (GatewayClient::register(&app).await, OauthClient::register(&server).await);
    let (end_user_browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    // Clients.
    let foreign = GatewayClient { app: app.clone(), id: end_user.id.clone() };
    foreign.open(&anna.browser, ACME, &[]).await.assert_status(400).assert_contains("not registered");
    let foreign = OauthClient { id: person.id.clone(), ..end_user.clone() };
    let page = end_user_browser.open(&foreign.authorize_path(&[])).await;
    assert!(page.status == 400 && page.body.contains("not registered"), "{}", page.body);
    // Requests: the page of one issuer does not open the request of the other, in the same browser.
    let page = person.open(&anna.browser, ACME, &[]).await;
    let request = consent_path(&page).split_once('?').unwrap().1.to_owned();
    for name in ["sign-in", "consent", "authorize/continue"] {
        let path = format!("/s/acme/oauth/{name}?{request}");
        anna.browser.get(&path).await.assert_status(400).assert_contains("no longer active");
    }
    // Codes.
    let code = person.get_code(&anna.browser, ACME).await;
    let form = [
        ("grant_type", "authorization_code"),
        ("redirect_uri", CALLBACK),
        ("code", &code),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(person.post_token("/s/acme/oauth/token", &form).await.error().1, "invalid_client");
    assert_eq!(end_user.exchange(&code).await.error().1, "invalid_grant");
    let tokens = Tokens::from_response(&person.exchange(&code, ACME).await);
    let server_code = end_user.get_code(&end_user_browser, &[]).await;
    assert_eq!(person.exchange(&server_code, ACME).await.error().1, "invalid_grant");
    let server_tokens = Tokens::from_response(&end_user.exchange(&server_code).await);
    // Access tokens. The audience of neither includes the other resource, the console or the API.
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 200);
    assert_eq!(start_walkthrough(&server, Some(&server_tokens.access)).await.status, 200);
    for path in [path_of(ACME), "/gateway/mcp", "/gateway/other/mcp"] {
        assert_eq!(status(&app, path, &server_tokens.access).await, 401, "{path}");
    }
    assert_eq!(start_walkthrough(&server, Some(&tokens.access)).await.status, 401);
    assert_eq!(status(&app, "/api/v1/servers", &tokens.access).await, 401);
    // Refresh tokens and revocation.
    assert_eq!(person.refresh(&server_tokens.refresh).await.error().1, "invalid_grant");
    assert_eq!(end_user.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    person.post_token("/gateway/oauth/revoke", &[("token", &server_tokens.refresh)]).await;
    Tokens::from_response(&person.refresh(&tokens.refresh).await);
    Tokens::from_response(&end_user.refresh(&server_tokens.refresh).await);
    app.finish().await;
}

/// A token is valid for one resource.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_bound_to_its_organisation_and_tool_set() {
    let stage = Stage::new().await;
    let (app, org) = (stage.api.app.clone(), stage.api.org.clone());
    let anna = PersonBrowser::new(&org, "anna@example.com").await;
    let other = app.org("other").await;
    add_member(&other, &anna.user).await;
    for slug in ["reading", "writing"] {
        let members = vec![ToolSetMember { instance_id: stage.instance.parse().unwrap(), tools: None }];
        let new = NewToolSet { slug: slug.to_owned(), name: None, prefix: true, members };
        tool_sets::create(app.cx(), &app.running_ops(), &org.id, &new).await.unwrap();
    }
    let client = GatewayClient::register(&app).await;
    let (reading, foreign) =
        ("http://localhost:8080/gateway/acme/reading/mcp", "http://localhost:8080/gateway/other/mcp");
    let mut seen = Vec::new();
    for resource in [ACME, reading, foreign] {
        let tokens = client.get_tokens(&anna.browser, resource).await;
        for path in [
            "/gateway/mcp",
            "/gateway/acme/mcp",
            "/gateway/acme/reading/mcp",
            "/gateway/acme/writing/mcp",
            "/gateway/acme/none/mcp",
            "/gateway/other/mcp",
            "/gateway/none/mcp",
        ] {
            seen.push(format!("{} at {path}: {}", path_of(resource), status(&app, path, &tokens.access).await));
        }
    }
    insta::assert_snapshot!(seen.join("\n"), @r"
    /gateway/acme/mcp at /gateway/mcp: 401
    /gateway/acme/mcp at /gateway/acme/mcp: 200
    /gateway/acme/mcp at /gateway/acme/reading/mcp: 401
    /gateway/acme/mcp at /gateway/acme/writing/mcp: 401
    /gateway/acme/mcp at /gateway/acme/none/mcp: 401
    /gateway/acme/mcp at /gateway/other/mcp: 404
    /gateway/acme/mcp at /gateway/none/mcp: 404
    /gateway/acme/reading/mcp at /gateway/mcp: 401
    /gateway/acme/reading/mcp at /gateway/acme/mcp: 401
    /gateway/acme/reading/mcp at /gateway/acme/reading/mcp: 200
    /gateway/acme/reading/mcp at /gateway/acme/writing/mcp: 401
    /gateway/acme/reading/mcp at /gateway/acme/none/mcp: 401
    /gateway/acme/reading/mcp at /gateway/other/mcp: 404
    /gateway/acme/reading/mcp at /gateway/none/mcp: 404
    /gateway/other/mcp at /gateway/mcp: 401
    /gateway/other/mcp at /gateway/acme/mcp: 404
    /gateway/other/mcp at /gateway/acme/reading/mcp: 404
    /gateway/other/mcp at /gateway/acme/writing/mcp: 404
    /gateway/other/mcp at /gateway/acme/none/mcp: 404
    /gateway/other/mcp at /gateway/other/mcp: 200
    /gateway/other/mcp at /gateway/none/mcp: 404
    ");
    // The token endpoint does not exchange a grant for another resource.
    let code = client.get_code(&anna.browser, reading).await;
    assert_eq!(client.exchange(&code, ACME).await.error(), (400, "invalid_target".to_owned()));
    assert_eq!(client.exchange(&code, reading).await.error(), (400, "invalid_grant".to_owned()), "the code is used");
    stage.finish().await;
}

async fn add_member(org: &Org, user: &UserId) {
    let mut tx = org.app.db().begin().await.unwrap();
    waypost_store::user::add_member(&mut tx, &org.id, user, Role::Member, org.app.cx().now()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Other users get the same page, whether the organisation or the tool set exists or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_can_consent() {
    let app = App::new().await;
    app.org("acme").await;
    let stranger = PersonBrowser::new(&app.org("other").await, "eve@example.com").await;
    let client = GatewayClient::register(&app).await;
    let mut pages = Vec::new();
    for slug in ["acme", "none", "other/none"] {
        let page = client.open(&stranger.browser, &ACME.replace("acme", slug), &[]).await;
        page.assert_status(404).assert_contains("does not exist, or eve@example.com is not a member");
        // The buttons of the page cannot be used to consent.
        decide(&stranger.browser, &page, "allow").await.assert_status(404);
        pages.push(page.body.split("request=").next().unwrap().replace(&slug.to_owned(), "SLUG"));
        let denied = decide(&stranger.browser, &page, "deny").await;
        assert_eq!(parameter(&denied, "error").as_deref(), Some("access_denied"));
    }
    assert_eq!(pages[0], pages[1]);
    assert_eq!(pages[0], pages[2]);
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM agents").await, 0);
    app.finish().await;
}

/// The tokens of users who may no longer use the gateway are rejected within one second, and permanently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_with_the_membership_the_agent_and_the_organisation() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let client = GatewayClient::register(&app).await;
    let (cx, ops) = (app.cx(), app.running_ops());
    // The membership ends. A new membership does not restore the tokens.
    let anna = PersonBrowser::new(&org, "anna@example.com").await;
    let tokens = client.get_tokens(&anna.browser, ACME).await;
    let code = client.get_code(&anna.browser, ACME).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 200);
    users::delete(cx, &ops, &org.id, &anna.user).await.unwrap();
    app.advance_clock(1_000).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    assert_eq!(client.exchange(&code, ACME).await.error().1, "invalid_grant");
    client.open(&anna.browser, ACME, &[]).await.assert_status(404);
    add_member(&org, &anna.user).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    // The membership was deleted, but not the agent.
    let bert = PersonBrowser::new(&org, "bert@example.com").await;
    let tokens = client.get_tokens(&bert.browser, ACME).await;
    app.execute("DELETE FROM memberships WHERE user_id IN (SELECT id FROM users WHERE email = 'bert@example.com')")
        .await;
    app.advance_clock(1_000).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    // A disabled agent, and a deleted one.
    let carl = PersonBrowser::new(&org, "carl@example.com").await;
    let tokens = client.get_tokens(&carl.browser, ACME).await;
    let agent = agent_of(&org, &carl.user).await.unwrap();
    let set = async |state| {
        let change = AgentPatch { name: None, state: Some(state) };
        agents::update(cx, &ops, &org.id, &agent, &change).await.unwrap();
        app.advance_clock(1_000).await;
    };
    set(AgentState::Disabled).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    let page = client.open(&carl.browser, ACME, &[]).await;
    decide(&carl.browser, &page, "allow").await.assert_status(403).assert_contains("has disabled your access");
    set(AgentState::Active).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 200, "tokens of a disabled agent are kept");
    agents::delete(cx, &ops, &org.id, &agent).await.unwrap();
    app.advance_clock(1_000).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401);
    // A deleted organisation.
    let tokens = client.get_tokens(&carl.browser, ACME).await;
    organizations::delete(cx, &ops, &org.id).await.unwrap();
    app.advance_clock(1_000).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    app.finish().await;
}

/// A form is accepted only from the page of this request, in this browser, for the user who saw it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consent_cannot_be_forged() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let (anna, eve) =
        (PersonBrowser::new(&org, "anna@example.com").await, PersonBrowser::new(&org, "eve@example.com").await);
    let client = GatewayClient::register(&app).await;
    let page = client.open(&anna.browser, ACME, &[]).await;
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"), "clickjacking");
    assert_eq!(page.header("cache-control"), "no-store");
    let (path, csrf, user) = (consent_path(&page), hidden_field(&page, "csrf"), hidden_field(&page, "user"));
    // Another browser, with or without its own request.
    eve.browser.get(&path).await.assert_status(400);
    let other = client.open(&eve.browser, ACME, &[]).await;
    eve.browser.get(&path).await.assert_status(400);
    let other_csrf = hidden_field(&other, "csrf");
    // A token of another request, none, and a form of another site.
    for csrf in [other_csrf.as_str(), "", "x"] {
        let fields = [("csrf", csrf), ("user", user.as_str()), ("decision", "allow")];
        anna.browser.post(&path, &fields).await.assert_status(403);
    }
    let form = encode_form(&[("csrf", &csrf), ("user", &user), ("decision", "allow")]);
    let request = Request::post(&path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ORIGIN, "https://evil.example");
    anna.browser.send(request.body(Body::from(form)).unwrap()).await.assert_status(403);
    // Another user has signed in with this browser since then: nobody can consent for a user who has not seen the page.
    let own = anna.browser.cookie("__Host-wp_console").unwrap();
    anna.browser.set_cookie("__Host-wp_console", &eve.browser.cookie("__Host-wp_console").unwrap());
    let fields = [("csrf", csrf.as_str()), ("user", user.as_str()), ("decision", "allow")];
    let again = anna.browser.post(&path, &fields).await;
    assert!(again.location().starts_with("/gateway/oauth/authorize/continue?"), "{}", again.location());
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 0);
    anna.browser.set_cookie("__Host-wp_console", &own);
    // The request can be completed only once.
    code_of(&anna.browser.post(&path, &fields).await);
    anna.browser.post(&path, &fields).await.assert_status(400).assert_contains("no longer active");
    app.finish().await;
}

/// A code is valid once, and only for the client and the verifier for which it was issued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_code_is_useless() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let anna = PersonBrowser::new(&org, "anna@example.com").await;
    let (client, other) = (GatewayClient::register(&app).await, GatewayClient::register(&app).await);
    let code = client.get_code(&anna.browser, ACME).await;
    assert_eq!(other.exchange(&code, ACME).await.error().1, "invalid_grant");
    let wrong = "x".repeat(43);
    let form = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", &wrong), ("resource", ACME)];
    assert_eq!(client.post_token("/gateway/oauth/token", &form).await.error().1, "invalid_grant");
    let code = client.get_code(&anna.browser, ACME).await;
    let tokens = Tokens::from_response(&client.exchange(&code, ACME).await);
    assert_eq!(other.refresh(&tokens.refresh).await.error().1, "invalid_grant");
    assert_eq!(client.exchange(&code, ACME).await.error().1, "invalid_grant");
    app.advance_clock(1_000).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401, "reuse of the code revokes its grant");
    app.finish().await;
}
