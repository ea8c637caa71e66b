//! How users get in.

use waypost_core::organization::Role;
use waypost_core::secret::SecretKey;
use waypost_ops::user_accounts::set_up_token;

use super::Browser;
use crate::app::{App, open};

const FINE: &str = "quartz-banjo-umbrella-42";

async fn token(app: &App) -> Option<String> {
    set_up_token(&app.ops(), &SecretKey::new([7; 32])).await.unwrap()
}

async fn the_first_owner_sets_up_once(app: App) {
    let org = app.org("acme").await;
    let token = token(&app).await.unwrap();
    let browser = Browser::new(&app);
    browser.get("/setup").await.is(404).says("not valid any more");
    browser.get("/setup?token=AAAA").await.is(404);
    browser.page(&format!("/setup?token={token}")).await.says("Set up Waypost");
    let fields = [("token", token.as_str()), ("name", "Anna <b>"), ("email", "anna@example.com"), ("password", FINE)];
    let wrong = browser.post("/setup", &[fields[0], fields[1], fields[2], ("password", "short")]).await;
    wrong.is(422).says("at least 12").says("Anna &#60;b&#62;").does_not_say("short");
    browser.post("/setup", &fields).await.leads_to("/");
    browser.get("/").await.leads_to("/o/acme");
    assert_eq!(self::token(&app).await, None);
    Browser::new(&app).post("/setup", &fields).await.is(404);
    Browser::new(&app).get(&format!("/setup?token={token}")).await.is(404);
    let members = waypost_ops::users::list(app.cx(), &app.ops(), &org.id).await.unwrap();
    assert_eq!(
        members.iter().map(|it| (it.email.as_str(), it.role)).collect::<Vec<_>>(),
        [("anna@example.com", Role::Owner)]
    );
    browser.post("/logout", &[]).await.leads_to("/login");
    browser.get("/").await.leads_to("/login");
    browser.page("/login").await.says("You are signed out.");
    let wrong = browser.post("/login", &[("email", "anna@example.com"), ("password", "quartz")]).await;
    wrong.is(422).says("or the password is wrong").says("anna@example.com");
    browser
        .post("/login", &[("email", "anna@example.com"), ("password", FINE), ("next", "/o/acme")])
        .await
        .leads_to("/o/acme");
    app.finish().await;
}

waypost_testkit::both!(open => the_first_owner_sets_up_once);
