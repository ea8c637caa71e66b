//! Invited users create an account or sign in, and join the organisation.

use waypost_core::organization::{Role, SignUpPolicy};
use waypost_ops::{invitations, users};

use super::ConsoleBrowser;
use super::sign_in::{OTHER_PASSWORD, create_unverified_member, create_verified_member, hidden_field, start_app};
use crate::app::App;

#[tokio::test]
async fn an_invited_colleague_joins() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let anna = create_verified_member(&app, &org, "anna@example.com", Role::Owner).await;
    let invite = async |email: &str| {
        let created = invitations::create(app.cx(), &app.ops(), &org.id, email, Role::Admin).await.unwrap();
        format!("/invite?token={}", created.secret)
    };
    let path = invite("berta@example.com").await;
    // The page informs a user who is signed in with a different email, and the user returns to the invitation after
    // signing out.
    let page = anna.get_page(&path).await;
    page.assert_contains("You are signed in as <strong>anna@example.com</strong>").assert_contains("berta@example.com");
    assert_eq!(hidden_field(&page, "next"), path);
    let token = path.split_once('=').unwrap().1;
    anna.post("/invite", &[("token", token)]).await.assert_status(403).assert_contains("Sign in with that email");
    // The invited person creates an account.
    let berta = ConsoleBrowser::new(&app);
    berta
        .get_page(&path)
        .await
        .assert_contains("Join <bdi>acme</bdi>")
        .assert_contains("an admin")
        .assert_contains("Create account and join");
    let fields = [("token", token), ("name", "Berta\r\nBcc: x"), ("password", OTHER_PASSWORD)];
    berta
        .post("/invite", &[fields[0], fields[1], ("password", "short")])
        .await
        .assert_status(422)
        .assert_contains("at least 12");
    berta.post("/invite", &fields).await.assert_redirect("/o/acme");
    berta.get_page("/account").await.assert_contains("Berta  Bcc: x").assert_contains("Welcome to acme.");
    ConsoleBrowser::new(&app).get(&path).await.assert_status(404).assert_contains("no longer valid");
    berta.post("/invite", &fields).await.assert_status(404);
    // Berta's unverified account is limited to this organisation: another organisation's invitation creates a separate
    // account.
    berta.get("/organizations/new").await.assert_status(200);
    berta
        .post("/organizations/new", &[("name", "Mine"), ("slug", "mine")])
        .await
        .assert_status(403)
        .assert_contains("not verified");
    assert_eq!(app.count("SELECT count(*) FROM organizations").await, 1);
    let other_org = app.org("other").await;
    let invite_to_other = async || {
        let address = "berta@example.com";
        let created = invitations::create(app.cx(), &app.ops(), &other_org.id, address, Role::Member).await.unwrap();
        format!("/invite?token={}", created.secret)
    };
    let path = invite_to_other().await;
    berta.get_page(&path).await.assert_contains("Create account and join").assert_lacks("Accept and join");
    let token = path.split_once('=').unwrap().1;
    berta
        .post("/invite", &[("token", token), ("name", "Berta"), ("password", OTHER_PASSWORD)])
        .await
        .assert_redirect("/o/other");
    berta.get("/o/acme").await.assert_status(404);
    let fields = [("email", "berta@example.com"), ("password", OTHER_PASSWORD), ("next", "/o/acme/members")];
    berta.post("/login", &fields).await.assert_redirect("/o/acme/members");
    berta.get_page("/o/acme/members").await;
    let member = users::resolve(app.cx(), &app.ops(), &other_org.id, "berta@example.com").await.unwrap();
    users::delete(app.cx(), &app.ops(), &other_org.id, &member.user_id).await.unwrap();
    // A user with a verified account signs in and returns to the invitation.
    let member = users::resolve(app.cx(), &app.ops(), &org.id, "berta@example.com").await.unwrap();
    let mut tx = app.db().begin().await.unwrap();
    waypost_store::user::mark_verified(&mut tx, &member.user_id, app.cx().now()).await.unwrap();
    tx.commit().await.unwrap();
    let path = invite_to_other().await;
    let token = path.split_once('=').unwrap().1;
    let again = ConsoleBrowser::new(&app);
    again
        .get_page(&path)
        .await
        .assert_contains("sign in to accept")
        .assert_contains("/login?next=%2Finvite%3Ftoken%3D");
    again
        .post("/login", &[("email", "berta@example.com"), ("password", OTHER_PASSWORD), ("next", &path)])
        .await
        .assert_redirect(&path);
    again.get_page(&path).await.assert_contains("Accept and join");
    again.post("/invite", &[("token", token)]).await.assert_redirect("/o/other");
    app.finish().await;
}

/// The page is the same whether the email has a verified account, an unverified account or none.
#[tokio::test]
async fn an_invitation_does_not_reveal_whether_an_account_exists() {
    for sign_up in [SignUpPolicy::Invite, SignUpPolicy::Closed] {
        let app = start_app(sign_up, false).await;
        let (org, other) = (app.org("acme").await, app.org("other").await);
        create_verified_member(&app, &other, "known@example.com", Role::Owner).await;
        create_unverified_member(&app, &other, "begun@example.com", Role::Owner).await;
        let mut pages = Vec::new();
        for email in ["known@example.com", "begun@example.com", "nobody@example.com"] {
            let created = invitations::create(app.cx(), &app.ops(), &org.id, email, Role::Member).await.unwrap();
            let page = ConsoleBrowser::new(&app).get_page(&format!("/invite?token={}", created.secret)).await;
            let expires_at = created.invitation.expires_at.rfc3339();
            let plain =
                |text: &str| text.replace(email, "EMAIL").replace(&created.secret, "TOKEN").replace(&expires_at, "AT");
            let mut seen = plain(&page.body);
            if sign_up == SignUpPolicy::Invite {
                let fields = [("token", created.secret.as_str()), ("name", "X"), ("password", OTHER_PASSWORD)];
                let response = ConsoleBrowser::new(&app).post("/invite", &fields).await;
                seen.push_str(&format!("{} {}", response.status, response.location()));
            }
            pages.push(seen);
        }
        assert_eq!(pages[0], pages[1]);
        assert_eq!(pages[0], pages[2]);
        app.finish().await;
    }
}
