//! Account takeover through an invitation (docs/security.md): an account that another organisation prepared for an
//! email must give no access once the owner of the email signs in.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::{ConsoleBrowser, call_with_key};
use crate::app::{App, Setup};

const VICTIM: &str = "victim@big.example";
const PASSWORD: &str = "quartz-banjo-umbrella-42";

async fn url(url: &str) -> String {
    url.to_owned()
}

fn token(link: &str) -> String {
    link.split_once("token=").unwrap().1.split_whitespace().next().unwrap().to_owned()
}

async fn invite(admin: &ConsoleBrowser, role: &str) -> Value {
    let body = json!({ "email": VICTIM, "role": role });
    admin.api(Method::POST, "/invitations", Some(body)).await.assert_status(201).json()
}

/// Returns the code in the `count`-th email, which must be to the victim.
async fn email_code(app: &App, count: usize) -> String {
    let mails = app.mails().wait_for_count(count).await;
    assert_eq!(mails[count - 1].to, VICTIM);
    mails[count - 1].text.lines().next().unwrap().to_owned()
}

/// Signs the victim in with an email code from the `count`-th email.
async fn sign_in_by_code(app: &App, count: usize) -> ConsoleBrowser {
    let browser = ConsoleBrowser::new(app);
    let sent = browser.post("/login/code", &[("email", VICTIM), ("next", "/account")]).await;
    let page = browser.get_page(sent.location()).await;
    let sent = page.body.split_once("name=\"sent\" value=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let form = [("sent", sent.as_str()), ("code", &email_code(app, count).await), ("next", "/account")];
    browser.post("/code", &form).await.assert_redirect("/account");
    browser
}

/// A tenant's admin reads the link, sets a password and creates a key. Later the installation sends email, another
/// organisation invites the owner of the email, and that person signs in.
async fn an_account_prepared_by_another_tenant_gives_no_access(url: String) {
    let app = App::open_at(&url).await;
    let evil = app.org("evil").await;
    let admin = ConsoleBrowser::member(&evil, "mallory@evil.example", Role::Owner).await;
    let link = invite(&admin, "owner").await["link"].as_str().unwrap().to_owned();
    let attacker = ConsoleBrowser::new(&app);
    let fields = [("token", &*token(&link)), ("name", "Victim"), ("password", PASSWORD)];
    attacker.post("/invite", &fields).await.assert_redirect("/o/evil");
    let new_key = |name: &str| Some(json!({ "name": name, "scope": "owner" }));
    let key = attacker.api(Method::POST, "/api-keys", new_key("mine")).await.assert_status(201).json();
    let key = key["key"].as_str().unwrap().to_owned();
    let call = async |app: &App, key: &str| {
        let request = http::Request::get("/api/v1/members").header("authorization", format!("Bearer {key}"));
        ConsoleBrowser::new(app).send(request.body(axum::body::Body::empty()).unwrap()).await.status.as_u16()
    };
    assert_eq!(call(&app, &key).await, 200);
    let cookie = attacker.cookie("__Host-wp_console").unwrap();
    app.finish().await;

    let app = App::open_with(&url, Setup { can_mail: true, seed: 2, ..Setup::default() }).await;
    let big = app.org("big").await;
    let big_owner = ConsoleBrowser::member(&big, "boss@big.example", Role::Owner).await;
    let sent = invite(&big_owner, "owner").await;
    assert_eq!((&sent["link"], &sent["mailed"]), (&Value::Null, &json!(true)));
    let mails = app.mails().wait_for_count(1).await;
    let token = token(&mails[0].text);
    // The owner of the email signs in with a code and accepts the invitation.
    let victim = sign_in_by_code(&app, 2).await;
    victim.get_page("/account").await.assert_contains("Your email is verified.").assert_contains("were revoked");
    victim.get_page(&format!("/invite?token={token}")).await.assert_contains("Accept and join");
    victim.post("/invite", &[("token", &token)]).await.assert_redirect("/o/big");
    victim.get_page("/o/big").await;

    // The attacker's session, password and key give no access.
    let attacker = ConsoleBrowser::new(&app);
    attacker.set_cookie("__Host-wp_console", &cookie);
    attacker.get("/o/big").await.assert_redirect("/login?next=%2Fo%2Fbig");
    attacker.get("/o/evil").await.assert_redirect("/login?next=%2Fo%2Fevil");
    let attacker = attacker.for_org("big");
    attacker.api(Method::POST, "/api-keys", new_key("taken")).await.assert_status(401);
    let fields = [("email", VICTIM), ("password", PASSWORD), ("next", "/o/big")];
    attacker.post("/login", &fields).await.assert_status(422).assert_contains("or password is incorrect");
    attacker.api(Method::POST, "/api-keys", new_key("taken")).await.assert_status(401);
    assert_eq!(call(&app, &key).await, 401);
    assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM users WHERE email = 'victim@big.example'").await, 1);
    // The audit log of the organisation shows the failed attempt and its address.
    let events = big_owner.api(Method::GET, "/audit-events?act=user.sign_in", None).await.json();
    let failed =
        events["items"].as_array().unwrap().iter().find(|event| event["act"] == "user.sign_in_failed").unwrap();
    assert_eq!((&failed["detail"]["by"], &failed["detail"]["address"]), (&json!("password"), &json!("192.0.2.7")));
    assert!(failed["detail"]["request_id"].is_string() && failed["detail"]["user_agent"].is_string(), "{failed}");
    app.finish().await;
}

/// The invitation of one tenant is pending when another organisation invites the same email. If the installation sends
/// email, only the owner of the email gets the links.
async fn with_email_only_the_recipient_gets_the_link(url: String) {
    let app = App::open_with(&url, Setup { can_mail: true, ..Setup::default() }).await;
    let (evil, big) = (app.org("evil").await, app.org("big").await);
    let admin = ConsoleBrowser::member(&evil, "mallory@evil.example", Role::Owner).await;
    let big_owner = ConsoleBrowser::member(&big, "boss@big.example", Role::Owner).await;
    let sent = invite(&admin, "owner").await;
    let mails = app.mails().wait_for_count(1).await;
    let secret = token(&mails[0].text);
    // The link is not in the response, the list, the page or the audit log, and not readable with an API key.
    let id = sent["id"].as_str().unwrap().to_owned();
    let mut read = vec![sent.to_string()];
    for path in ["/invitations".to_owned(), format!("/invitations/{id}"), "/audit-events".to_owned()] {
        read.push(admin.api(Method::GET, &path, None).await.assert_status(200).body.clone());
    }
    read.push(
        call_with_key(&evil, Role::Owner, Method::GET, "/invitations", None).await.assert_status(200).body.clone(),
    );
    for path in ["/o/evil/members", "/o/evil/audit"] {
        read.push(admin.get_page(path).await.body.clone());
    }
    let page = admin.post("/o/evil/invitations", &[("email", "x@big.example"), ("role", "member")]).await;
    read.push(page.assert_status(200).body.clone());
    for text in &read {
        assert!(!text.contains(&secret) && !text.contains("/invite?token="), "{text}");
    }
    invite(&big_owner, "admin").await;
    let mails = app.mails().wait_for_count(3).await;
    let big_token = token(&mails[2].text);
    // The link in the email verifies the email, so earlier invitations can be accepted too.
    let victim = ConsoleBrowser::new(&app);
    let fields = [("token", &*big_token), ("name", "Vera"), ("password", PASSWORD)];
    victim.post("/invite", &fields).await.assert_redirect("/o/big");
    assert_eq!(app.count("SELECT count(*) FROM users WHERE verified_at IS NOT NULL AND name = 'Vera'").await, 1);
    victim.get("/o/evil").await.assert_status(404);
    victim.post("/invite", &[("token", &secret)]).await.assert_redirect("/o/evil");
    app.finish().await;
}

waypost_testkit::both!(
    url => an_account_prepared_by_another_tenant_gives_no_access, with_email_only_the_recipient_gets_the_link
);
