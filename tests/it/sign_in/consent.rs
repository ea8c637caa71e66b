//! Consent: AS-7 and AS-11, and what binds a request to its browser.

use http::StatusCode;
use serde_json::json;

use super::{Browser, OauthClient, Tokens, WEB_CALLBACK, action_of, platform};
use crate::app::{App, DAY, open};

waypost_testkit::both!(open =>
    a_request_is_completed_once,
    who_refuses_gives_nothing,
    a_personal_url_is_claimed_by_who_signs_in_first,
);

async fn a_request_is_completed_once(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let page = browser.open(&client.authorize(&[])).await;
    let csrf = page.field("csrf");
    let form = [("csrf", csrf.as_str()), ("decision", "allow")];
    let action = action_of(&page);
    let (one, two) = tokio::join!(browser.post(&action, &form), browser.post(&action, &form));
    let given = [&one, &two].iter().filter(|answer| answer.status == StatusCode::SEE_OTHER).count();
    assert_eq!(given, 1, "{} {}", one.status, two.status);
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 1);
    assert_eq!(browser.get(&action).await.status, StatusCode::BAD_REQUEST, "it is over");
    app.finish().await;
}

async fn who_refuses_gives_nothing(app: App) {
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let page = browser.open(&client.authorize(&[])).await;
    let answer = browser.post(&action_of(&page), &[("csrf", &page.field("csrf")), ("decision", "deny")]).await;
    assert_eq!(answer.parameter("error").as_deref(), Some("access_denied"));
    assert_eq!(answer.parameter("state").as_deref(), Some("a b&c"));
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'grant.refuse'").await, 1);
    assert_eq!(browser.open(&client.authorize(&[])).await.status, StatusCode::OK, "and is asked again");
    app.finish().await;
}

#[tokio::test]
async fn the_page_says_who_wants_what_and_where_the_browser_goes() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let page = browser.open(&client.authorize(&[("scope", "walk:read")])).await;
    for text in ["Test client", "127.0.0.1:3999", "anna@example.com", "See your walkthroughs and your progress"] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    assert!(page.body.contains("nobody vouches for it"), "a program of this machine is warned of");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("form-action 'self' http://127.0.0.1:3999;"), "{policy}");
    app.finish().await;
}

#[tokio::test]
async fn a_request_belongs_to_its_browser() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (victim, _) = Browser::signed_in(&server, "victim").await;
    let (attacker, _) = Browser::signed_in(&server, "attacker").await;
    let page = attacker.open(&client.authorize(&[])).await;
    let (action, csrf) = (action_of(&page), page.field("csrf"));
    // The victim is lured to the attacker's request: nothing is shown, nothing is done.
    assert_eq!(victim.get(&action).await.status, StatusCode::BAD_REQUEST);
    victim.get(&client.authorize(&[])).await.location();
    assert_eq!(victim.get(&action).await.status, StatusCode::BAD_REQUEST);
    let form = [("csrf", csrf.as_str()), ("decision", "allow")];
    assert_eq!(victim.post(&action, &form).await.status, StatusCode::BAD_REQUEST);
    // A form without the token, or with that of another request, is refused.
    for csrf in ["", "AAAA", &victim.open(&client.authorize(&[])).await.field("csrf")] {
        let answer = attacker.post(&action, &[("csrf", csrf), ("decision", "allow")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 0);
    app.later(31 * 60 * 1_000).await;
    assert_eq!(attacker.post(&action, &form).await.status, StatusCode::BAD_REQUEST, "expired");
    app.finish().await;
}

#[tokio::test]
async fn sessions_of_one_organisation_are_nothing_to_another() {
    let app = App::new().await;
    let (acme, other) = (platform(&app, "acme").await, platform(&app, "other").await);
    let client = OauthClient::register(&other).await;
    let (browser, _) = Browser::signed_in(&acme, "anna").await;
    let answer = browser.get(&client.authorize(&[])).await;
    assert!(answer.location().starts_with("/s/other/oauth/sign-in"), "{}", answer.location());
    // Nor under the other one's name.
    let stolen = browser.cookie(&format!("__Host-wp_eu_{}", acme.org.id)).unwrap();
    browser.set_cookie(&format!("__Host-wp_eu_{}", other.org.id), &stolen);
    let answer = browser.get(&client.authorize(&[])).await;
    assert!(answer.location().starts_with("/s/other/oauth/sign-in"), "{}", answer.location());
    // A browser stays signed in for 30 days.
    app.later(29 * DAY).await;
    let client = OauthClient::register(&acme).await;
    assert_eq!(browser.open(&client.authorize(&[])).await.status, StatusCode::OK);
    app.later(DAY - 1).await;
    assert_eq!(browser.open(&client.authorize(&[])).await.status, StatusCode::OK);
    app.later(1).await;
    let client = OauthClient::register(&acme).await;
    assert!(browser.get(&client.authorize(&[])).await.location().starts_with("/s/acme/oauth/sign-in"));
    app.finish().await;
}

/// AS-12: asking for more is asked again, and takes nothing away.
#[tokio::test]
async fn more_scopes_are_asked_for_and_nothing_is_lost() {
    let app = App::new().await;
    let server = platform(&app, "acme").await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let (browser, _) = Browser::signed_in(&server, "anna").await;
    let answer = client.exchange(&client.code(&browser, &[("scope", "walk:read")]).await).await;
    assert_eq!(answer.json()["scope"], "walk:read");
    let reading = Tokens::of(&answer);
    let refused = super::select(&server, Some(&reading.access)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.header("www-authenticate"),
        "Bearer resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/s/acme/mcp\", \
         scope=\"walk\", error=\"insufficient_scope\"",
        "RS-7"
    );
    assert_eq!(browser.open(&client.authorize(&[("scope", "walk walk:read")])).await.status, StatusCode::OK);
    let more = client.exchange(&client.code(&browser, &[("scope", "walk walk:read")]).await).await;
    assert_eq!(more.json()["scope"], "walk walk:read");
    assert_eq!(super::select(&server, Some(&Tokens::of(&more).access)).await.status, StatusCode::OK);
    // The first grant lives on, and less than what was allowed is not asked for again.
    Tokens::of(&client.refresh(&reading.refresh).await);
    let answer = browser.open(&client.authorize(&[("scope", "walk:read")])).await;
    assert!(answer.location().starts_with(WEB_CALLBACK));
    app.finish().await;
}

/// What was done under a tracking id becomes that of the first who signs in, after the page has said so; who comes later
/// starts afresh.
async fn a_personal_url_is_claimed_by_who_signs_in_first(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let before = server.personal("ann");
    before.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    before.call("next_walkthrough_step", json!({})).await.ok();
    super::sign_in_needed(&server).await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let resource = [("resource", "http://localhost:8080/s/acme/t/ann/mcp")];
    let position = async |tokens: &Tokens| {
        let answer = super::select(&server, Some(&tokens.access)).await.json();
        answer["result"]["structuredContent"]["step"]["position"].clone()
    };
    let (first, _) = Browser::signed_in(&server, "anna").await;
    // A client that she knows already: she is asked all the same, because there is something to tell.
    client.code(&first, &[]).await;
    let page = first.open(&client.authorize(&resource)).await;
    assert!(page.status == StatusCode::OK && page.body.contains("ann"), "{}", page.body);
    let tokens = Tokens::of(&client.exchange(&client.code(&first, &resource).await).await);
    assert_eq!(position(&tokens).await, 2);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'join.create'").await, 1);
    let (second, _) = Browser::signed_in(&server, "bea").await;
    client.code(&second, &[]).await;
    let answer = second.open(&client.authorize(&resource)).await;
    assert!(answer.location().starts_with(WEB_CALLBACK), "there is nothing to tell");
    let tokens = Tokens::of(&client.exchange(&answer.parameter("code").unwrap()).await);
    assert_eq!(position(&tokens).await, 1);
    app.finish().await;
}
