//! The whole flow: challenge, metadata, registration, sign-in, consent, tokens, refresh and revocation.

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use waypost_core::grant::AccessLevel;
use waypost_core::organization::Role;

use super::*;
use crate::console::sign_in::{PASSWORD, create_verified_member};
use crate::gateway::Stage;

async fn get_json(app: &App, path: &str) -> (u16, Value) {
    let request = Request::get(path).header(header::HOST, "localhost:8080").body(Body::empty()).unwrap();
    let response = send(app, request).await;
    (response.status.as_u16(), serde_json::from_str(&response.body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_and_uses_the_tools_granted_to_their_agent() {
    let mut stage = Stage::new().await;
    let (app, org) = (stage.api.app.clone(), stage.api.org.clone());
    // 1. The challenge names the metadata of the resource, which names the issuer.
    let (status, challenge, _) = list_tools(&app, path_of(ACME), None).await;
    let metadata = "http://localhost:8080/.well-known/oauth-protected-resource/gateway/acme/mcp";
    assert_eq!(challenge, format!("Bearer resource_metadata=\"{metadata}\", scope=\"gateway\""));
    assert_eq!(status, 401);
    let (_, resource) = get_json(&app, path_of(metadata)).await;
    assert_eq!(
        (&resource["resource"], &resource["authorization_servers"]),
        (&json!(ACME), &json!(["http://localhost:8080/gateway"]))
    );
    let (_, issuer) = get_json(&app, "/.well-known/oauth-authorization-server/gateway").await;
    assert_eq!(issuer["issuer"], "http://localhost:8080/gateway");
    assert_eq!(issuer["authorization_endpoint"], "http://localhost:8080/gateway/oauth/authorize");
    assert_eq!(issuer["scopes_supported"], json!(["gateway"]));
    for path in ["/.well-known/openid-configuration/gateway", "/gateway/.well-known/openid-configuration"] {
        assert_eq!(get_json(&app, path).await, (200, issuer.clone()), "{path}");
    }
    // 2. The client registers. A visitor signs in to the console, and consents.
    let client = GatewayClient::register(&app).await;
    create_verified_member(&app, &org, "anna@example.com", Role::Member).await;
    let browser = ConsoleBrowser::new(&app);
    let login = client.open(&browser, ACME, &[]).await;
    login.assert_status(200).assert_contains("name=\"password\"");
    let next = hidden_field(&login, "next").replace("&#38;", "&").replace("&amp;", "&").replace("&#x3d;", "=");
    let fields = [("email", "anna@example.com"), ("password", PASSWORD), ("next", next.as_str())];
    let page = follow(&browser, browser.post("/login", &fields).await).await;
    page.assert_status(200).assert_contains("Test client").assert_contains("acme").assert_contains("anna@example.com");
    let user = hidden_field(&page, "user").parse().unwrap();
    assert_eq!(agent_of(&org, &user).await, None, "the agent is created at consent");
    let allowed = decide(&browser, &page, "allow").await;
    assert_eq!(parameter(&allowed, "state").as_deref(), Some("a b&c"));
    assert_eq!(parameter(&allowed, "iss").as_deref(), Some("http://localhost:8080/gateway"));
    let tokens = Tokens::from_response(&client.exchange(&code_of(&allowed), ACME).await);
    // 3. The agent of the person has no grants until an admin adds one.
    let (status, _, body) = list_tools(&app, path_of(ACME), Some(&tokens.access)).await;
    assert_eq!((status, body.contains("search__find")), (200, false), "{body}");
    stage.agent = agent_of(&org, &user).await.unwrap();
    let stage = stage.ready().await;
    let (_, _, body) = list_tools(&app, path_of(ACME), Some(&tokens.access)).await;
    assert!(body.contains("search__find"), "{body}");
    // 4. A refresh rotates the token; reuse of an old refresh token revokes all tokens.
    let second = Tokens::from_response(&client.refresh(&tokens.refresh).await);
    let third = Tokens::from_response(&client.refresh(&second.refresh).await);
    let (_, _, body) = list_tools(&app, path_of(ACME), Some(&third.access)).await;
    assert!(body.contains("search__find"), "{body}");
    assert_eq!(client.refresh(&tokens.refresh).await.error(), (400, "invalid_grant".to_owned()));
    app.advance_clock(2_000).await;
    for token in [&tokens.access, &second.access, &third.access] {
        assert_eq!(super::status(&app, path_of(ACME), token).await, 401);
    }
    assert_eq!(client.refresh(&third.refresh).await.error(), (400, "invalid_grant".to_owned()));
    // 5. All of this is recorded in the audit log.
    let acts = app.query_lines("SELECT act FROM audit_events WHERE actor LIKE 'usr_%' OR act = 'grant.revoke'").await;
    for act in ["agent.create", "grant.create", "grant.revoke"] {
        assert!(acts.contains(act), "{act} {acts}");
    }
    stage.grant(AccessLevel::ReadOnly).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_and_metadata_do_not_reveal_which_addresses_exist() {
    let app = App::new().await;
    app.org("acme").await;
    for (path, expected) in [
        ("/gateway/acme/mcp", 200),
        ("/gateway/none/mcp", 200),
        ("/gateway/acme/none/mcp", 200),
        ("/gateway/acme/a--b/mcp", 404),
        ("/gateway/Acme/mcp", 404),
        ("/gateway/mcp", 404),
    ] {
        let (status, body) = get_json(&app, &format!("/.well-known/oauth-protected-resource{path}")).await;
        assert_eq!(status, expected, "{path}");
        let (status, challenge, _) = list_tools(&app, path, None).await;
        assert_eq!(status, 401, "{path}");
        match expected {
            200 => {
                assert_eq!(body["resource"], format!("http://localhost:8080{path}"));
                assert!(challenge.contains(&format!("oauth-protected-resource{path}\"")), "{challenge}");
            }
            _ => assert_eq!(challenge, "Bearer", "{path}"),
        }
        let (_, challenge, _) = list_tools(&app, path, Some("wrong")).await;
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authorization_request_requires_one_resource_and_pkce() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let anna = PersonBrowser::new(&org, "anna@example.com").await;
    let client = GatewayClient::register(&app).await;
    // The client is new, so errors are shown to the user before they are sent to the client.
    client.open(&anna.browser, "", &[]).await.assert_status(400).assert_contains("resource is missing");
    for (resource, changes, message) in [
        ("http://localhost:8080/gateway/mcp", &[][..], "resource must be exactly one URL"),
        ("http://localhost:8080/s/acme/mcp", &[], "resource must be exactly one URL"),
        ("https://evil.example/gateway/acme/mcp", &[], "resource must be exactly one URL"),
        (ACME, &[("code_challenge", "")], "code_challenge is missing"),
        (ACME, &[("code_challenge_method", "plain")], "must be S256"),
        (ACME, &[("scope", "walk")], "unknown scope"),
        (ACME, &[("redirect_uri", "https://evil.example/cb")], "did not register"),
        (ACME, &[("prompt", "none")], "prompt=none"),
    ] {
        let page = client.open(&anna.browser, resource, changes).await;
        page.assert_status(400).assert_contains(message);
    }
    let two = format!("{}&resource={}", client.authorize_path(ACME, &[]), ACME.replace("acme", "other"));
    anna.browser.get(&two).await.assert_status(400).assert_contains("resource must be exactly one URL");
    let page = client.open(&anna.browser, ACME, &[("scope", "gateway")]).await;
    let denied = decide(&anna.browser, &page, "deny").await;
    assert_eq!(parameter(&denied, "error").as_deref(), Some("access_denied"));
    assert_eq!(agent_of(&org, &anna.user).await, None);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompt_login_requires_a_new_session() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let anna = PersonBrowser::new(&org, "anna@example.com").await;
    let client = GatewayClient::register(&app).await;
    app.advance_clock(1_000).await;
    let page = client.open(&anna.browser, ACME, &[("prompt", "login")]).await;
    page.assert_status(200).assert_contains("Sign in again");
    let request = page.body.split("sign-out?request=").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let consent = format!("/gateway/oauth/consent?request={request}");
    let skipped = anna.browser.get(&consent).await;
    assert!(skipped.location().starts_with("/gateway/oauth/sign-in?"), "{}", skipped.location());
    let sign_out = format!("/gateway/oauth/sign-out?request={request}");
    let signed_out = anna.browser.post(&sign_out, &[("csrf", &hidden_field(&page, "csrf"))]).await;
    assert!(signed_out.location().starts_with("/login?next="), "{}", signed_out.location());
    assert_eq!(anna.browser.cookie("__Host-wp_console"), None);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_can_disconnect_a_client_in_the_console() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let (anna, eve) =
        (PersonBrowser::new(&org, "anna@example.com").await, PersonBrowser::new(&org, "eve@example.com").await);
    let client = GatewayClient::register(&app).await;
    let tokens = client.get_tokens(&anna.browser, ACME).await;
    eve.browser.get_page("/account").await.assert_lacks("Connected applications");
    let page = anna.browser.get_page("/account").await;
    page.assert_contains("Connected applications").assert_contains("Test client").assert_contains(ACME);
    let (_, rest) = page.body.split_once("/account/applications/").unwrap();
    let action = format!("/account/applications/{}", rest.split('"').next().unwrap());
    eve.browser.post(&action, &[]).await.assert_status(404);
    eve.browser.post("/account/applications/nonsense/disconnect", &[]).await.assert_status(404);
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 200);
    anna.browser.post(&action, &[]).await.assert_redirect("/account");
    app.advance_clock(1_000).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401);
    assert_eq!(client.refresh(&tokens.refresh).await.error(), (400, "invalid_grant".to_owned()));
    anna.browser.get_page("/account").await.assert_lacks("Connected applications");
    anna.browser.post(&action, &[]).await.assert_status(404);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_can_revoke_its_tokens() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let anna = PersonBrowser::new(&org, "anna@example.com").await;
    let client = GatewayClient::register(&app).await;
    let tokens = client.get_tokens(&anna.browser, ACME).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 200);
    client.post_token("/gateway/oauth/revoke", &[("token", &tokens.access)]).await;
    assert_eq!(status(&app, path_of(ACME), &tokens.access).await, 401, "in this process, at once");
    let second = Tokens::from_response(&client.refresh(&tokens.refresh).await);
    client.post_token("/gateway/oauth/revoke", &[("token", &second.refresh)]).await;
    app.advance_clock(2_000).await;
    assert_eq!(status(&app, path_of(ACME), &second.access).await, 401);
    app.finish().await;
}
