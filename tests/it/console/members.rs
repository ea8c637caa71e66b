//! Members and invitations.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_ops::organizations::{self, OrganizationPatch};
use waypost_ops::users;

use super::{ConsoleBrowser, call_with_key};
use crate::app::{App, DAY, Setup, open};

async fn list_members(browser: &ConsoleBrowser) -> Vec<(String, String, String)> {
    let listed = browser.api(Method::GET, "/members", None).await.json();
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let row = |item: &Value| (text(item, "id"), text(item, "email"), text(item, "role"));
    listed["items"].as_array().unwrap().iter().map(row).collect()
}

async fn roles_are_enforced_and_members_removed(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let owner = ConsoleBrowser::member(&org, "owner@example.com", Role::Owner).await;
    let admin = ConsoleBrowser::member(&org, "admin@example.com", Role::Admin).await;
    let member = ConsoleBrowser::member(&org, "member@example.com", Role::Member).await;
    let outsider = ConsoleBrowser::owner(&other).await;
    let all = list_members(&owner).await;
    let id = |email: &str| all.iter().find(|member| member.1 == email).unwrap().0.clone();
    let (owner_id, admin_id, member_id) = (id("owner@example.com"), id("admin@example.com"), id("member@example.com"));
    let role_change = |role: &str| Some(json!({ "role": role }));
    let path = |id: &str| format!("/members/{id}");

    // Users cannot raise their own role, and only the role can be changed.
    member.api(Method::PATCH, &path(&member_id), role_change("owner")).await.assert_status(403);
    admin.api(Method::PATCH, &path(&admin_id), role_change("owner")).await.assert_status(403);
    admin.api(Method::PATCH, &path(&owner_id), role_change("member")).await.assert_status(403);
    admin.api(Method::DELETE, &path(&owner_id), None).await.assert_status(403);
    call_with_key(&org, Role::Admin, Method::PATCH, &path(&member_id), role_change("owner")).await.assert_status(403);
    for body in [json!({ "role": "king" }), json!({}), json!({ "role": "admin", "email": "x@example.com" })] {
        owner.api(Method::PATCH, &path(&member_id), Some(body)).await.assert_status(422);
    }
    for (method, body) in [(Method::GET, None), (Method::PATCH, role_change("admin")), (Method::DELETE, None)] {
        outsider.api(method.clone(), &path(&member_id), body.clone()).await.assert_status(404);
        owner.api(method.clone(), "/members/usr_zzzzzzzzzzzzzzzz", body.clone()).await.assert_status(404);
        owner.api(method.clone(), "/members/x%00y", body.clone()).await.assert_status(404);
        ConsoleBrowser::new(&app).api(method, &path(&member_id), body).await.assert_status(401);
    }
    owner
        .api(Method::PATCH, &path(&owner_id), role_change("admin"))
        .await
        .assert_status(409)
        .assert_contains("last owner");
    owner.api(Method::DELETE, &path(&owner_id), None).await.assert_status(409);
    owner
        .api(Method::PATCH, &path(&member_id), role_change("admin"))
        .await
        .assert_status(200)
        .assert_contains("\"admin\"");

    let page = owner.get_page("/o/acme/members").await;
    page.assert_contains("the only owner")
        .assert_contains("They immediately lose access")
        .assert_contains("you</span>");
    let page = open_page_as_member(&org, &outsider).await;
    page.assert_lacks("Invite").assert_lacks("<select");
    owner
        .post(&format!("/o/acme/members/{owner_id}/role"), &[("role", "member")])
        .await
        .assert_status(409)
        .assert_contains("last owner");
    owner.post(&format!("/o/acme/members/{member_id}/role"), &[("role", "nobody")]).await.assert_status(422);
    owner
        .post(&format!("/o/acme/members/{member_id}/role"), &[("role", "member")])
        .await
        .assert_redirect("/o/acme/members");
    owner.get_page("/o/acme/members").await.assert_contains("member@example.com now has the role member.");
    member.post(&format!("/o/acme/members/{admin_id}/remove"), &[]).await.assert_status(403);
    outsider.post(&format!("/o/other/members/{admin_id}/remove"), &[]).await.assert_status(404);
    owner.post(&format!("/o/acme/members/{member_id}/remove"), &[]).await.assert_redirect("/o/acme/members");
    member.get("/o/acme").await.assert_status(404);
    member.get("/").await.assert_redirect("/organizations/new");
    admin.post(&format!("/o/acme/members/{admin_id}/remove"), &[]).await.assert_redirect("/");
    assert_eq!(list_members(&owner).await.len(), 2, "the owner and the member who opened the page");
    app.finish().await;
}

/// Opens the members page as a new member.
async fn open_page_as_member(org: &crate::app::Org, _: &ConsoleBrowser) -> super::ConsoleResponse {
    ConsoleBrowser::member(org, "plain@example.com", Role::Member).await.get_page("/o/acme/members").await
}

async fn invitation_links_are_shown_once(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let admin = ConsoleBrowser::member(&org, "admin@example.com", Role::Admin).await;
    let member = ConsoleBrowser::member(&org, "member@example.com", Role::Member).await;
    let outsider = ConsoleBrowser::owner(&other).await;
    let new = |email: &str, role: &str| Some(json!({ "email": email, "role": role }));
    member.api(Method::POST, "/invitations", new("x@example.com", "member")).await.assert_status(403);
    member.api(Method::GET, "/invitations", None).await.assert_status(403);
    admin.api(Method::POST, "/invitations", new("x@example.com", "owner")).await.assert_status(403);
    admin
        .api(Method::POST, "/invitations", new("Member@example.com", "member"))
        .await
        .assert_status(409)
        .assert_contains("already a member");
    for body in [new("x", "member"), new("x@example.com\nBcc: y@example.com", "member"), new("x@example.com", "king")] {
        admin.api(Method::POST, "/invitations", body).await.assert_status(422);
    }
    let first = admin.api(Method::POST, "/invitations", new("Anna@Example.com", "member")).await;
    let first = first.assert_status(201).json();
    let (id, link) = (first["id"].as_str().unwrap(), first["link"].as_str().unwrap());
    assert!(link.starts_with("http://localhost:8080/invite?token=") && link.len() == 35 + 43, "{link}");
    assert_eq!(
        (&first["state"], &first["mailed"], &first["role"]),
        (&json!("pending"), &json!(false), &json!("member"))
    );
    let second =
        admin.api(Method::POST, "/invitations", new("anna@example.com", "admin")).await.assert_status(201).json();
    let path = format!("/invitations/{id}");
    assert_eq!(admin.api(Method::GET, &path, None).await.json()["state"], "revoked", "replaced");
    admin.api(Method::GET, &path, None).await.assert_lacks(&link[40..]);
    let hashes = app.query_lines("SELECT token_hash FROM invitations").await;
    assert!(!hashes.contains(&link[35..]), "only the hash is stored");

    let path = format!("/invitations/{}", second["id"].as_str().unwrap());
    for (method, path) in
        [(Method::GET, path.clone()), (Method::DELETE, path.clone()), (Method::POST, format!("{path}/resend"))]
    {
        outsider.api(method.clone(), &path, None).await.assert_status(404);
        member.api(method.clone(), &path, None).await.assert_status(403);
        ConsoleBrowser::new(&app).api(method, &path, None).await.assert_status(401);
    }
    let resent = admin.api(Method::POST, &format!("{path}/resend"), None).await.assert_status(200).json();
    assert_eq!(resent["id"], second["id"]);
    assert_ne!(resent["link"], second["link"], "the old link is no longer valid");
    app.advance_clock(2 * DAY).await;
    assert_eq!(admin.api(Method::GET, &path, None).await.json()["state"], "expired");
    admin.api(Method::POST, &format!("{path}/resend"), None).await.assert_status(200).assert_contains("pending");
    admin.api(Method::DELETE, &path, None).await.assert_status(204);
    admin.api(Method::DELETE, &path, None).await.assert_status(204);
    admin.api(Method::POST, &format!("{path}/resend"), None).await.assert_status(409);

    let page = admin.get_page("/o/acme/members").await;
    page.assert_contains("revoked").assert_lacks("/invite?token=").assert_lacks("value=\"owner\"");
    let sent = admin.post("/o/acme/invitations", &[("email", "bob@example.com"), ("role", "member")]).await;
    sent.assert_status(200)
        .assert_contains("/invite?token=")
        .assert_contains("cannot send email")
        .assert_contains("be able to see it again");
    let hostile = admin.post("/o/acme/invitations", &[("email", "<b>@x"), ("role", "member")]).await;
    hostile.assert_status(422).assert_contains("id=\"e-email\"").assert_lacks("<b>@x");
    outsider.post("/o/acme/invitations", &[("email", "b@example.com"), ("role", "member")]).await.assert_status(404);
    member.post("/o/acme/invitations", &[("email", "b@example.com"), ("role", "member")]).await.assert_status(403);
    let listed = admin.api(Method::GET, "/invitations?limit=1", None).await.json();
    assert_eq!(listed["items"][0]["email"], "bob@example.com");
    let bob = listed["items"][0]["id"].as_str().unwrap().to_owned();
    let rest = format!("/invitations?limit=2&cursor={}", listed["next_cursor"].as_str().unwrap());
    let rest = admin.api(Method::GET, &rest, None).await.json();
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (2, &Value::Null));
    for wrong in ["limit=0", "limit=201", "limit=x", "cursor=", "cursor=x%00", "other=1"] {
        admin.api(Method::GET, &format!("/invitations?{wrong}"), None).await.assert_status(422);
    }
    admin
        .post(&format!("/o/acme/invitations/{bob}/resend"), &[])
        .await
        .assert_status(200)
        .assert_contains("/invite?token=");
    admin.post(&format!("/o/acme/invitations/{bob}/revoke"), &[]).await.assert_redirect("/o/acme/members");
    outsider.post(&format!("/o/other/invitations/{bob}/revoke"), &[]).await.assert_status(404);
    app.finish().await;
}

async fn invitations_are_rate_limited(app: App) {
    let org = app.org("acme").await;
    let admin = ConsoleBrowser::member(&org, "admin@example.com", Role::Admin).await;
    let mut accepted = 0;
    // The manual clock does not advance, so the limit does not refill.
    let rejected = loop {
        let body = json!({ "email": format!("x{accepted}@example.com"), "role": "member" });
        let response = admin.api(Method::POST, "/invitations", Some(body)).await;
        if response.status.as_u16() == 429 {
            break response;
        }
        response.assert_status(201);
        accepted += 1;
        assert!(accepted < 600, "invitations are not limited");
    };
    assert!(accepted >= 60, "rejected after only {accepted} requests");
    assert!(!rejected.header("retry-after").is_empty());
    app.finish().await;
}

#[tokio::test]
async fn invitations_are_sent_by_email() {
    let app = App::with(Setup { can_mail: true, ..Setup::default() }).await;
    let org = app.org("acme").await;
    let changes =
        OrganizationPatch { name: Some("Acme\r\nBcc: evil@example.com".to_owned()), ..OrganizationPatch::default() };
    organizations::update(app.cx(), &app.ops(), &org.id, &changes).await.unwrap();
    let admin = ConsoleBrowser::member(&org, "admin@example.com", Role::Admin).await;
    let body = json!({ "email": "Anna@example.com", "role": "member" });
    let sent = admin.api(Method::POST, "/invitations", Some(body)).await.assert_status(201).json();
    assert_eq!((&sent["mailed"], &sent["link"]), (&json!(true), &Value::Null), "the link is only in the email");
    let page = admin.post("/o/acme/invitations", &[("email", "bob@example.com"), ("role", "admin")]).await;
    page.assert_status(200).assert_contains("We sent an email with a link").assert_lacks("/invite?token=");
    let mails = app.mails().wait_for_count(2).await;
    let mail = mails.iter().find(|mail| mail.to == "Anna@example.com").unwrap();
    assert!(mail.text.contains("http://localhost:8080/invite?token="), "{}", mail.text);
    assert!(mail.text.contains("admin@example.com has invited you"));
    let resend = format!("/invitations/{}/resend", sent["id"].as_str().unwrap());
    let resent = admin.api(Method::POST, &resend, None).await.assert_status(200).json();
    assert_eq!((&resent["mailed"], &resent["link"]), (&json!(true), &Value::Null));
    assert_eq!(mail.subject, "Invitation to “Acme Bcc: evil@example.com”", "the subject is a single line");
    app.finish().await;
}

async fn members_without_a_verified_email_are_marked(app: App) {
    let org = app.org("acme").await;
    let admin = ConsoleBrowser::member(&org, "admin@example.com", Role::Admin).await;
    let bob = users::create(app.cx(), &app.ops(), &org.id, "bob@example.com", Role::Member).await.unwrap().user_id;
    let is_verified = async |email: &str| {
        let member = users::resolve(app.cx(), &app.ops(), &org.id, email).await.unwrap();
        admin.api(Method::GET, &format!("/members/{}", member.user_id), None).await.json()["verified"].clone()
    };
    assert_eq!(
        (is_verified("admin@example.com").await, is_verified("bob@example.com").await),
        (json!(true), json!(false))
    );
    admin.get_page("/o/acme/members").await.assert_contains("not verified</span>");
    let mut tx = app.db().begin().await.unwrap();
    waypost_store::user::mark_verified(&mut tx, &bob, app.cx().now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(is_verified("bob@example.com").await, json!(true));
    admin.get_page("/o/acme/members").await.assert_lacks("not verified");
    app.finish().await;
}

waypost_testkit::both!(
    open => members_without_a_verified_email_are_marked, roles_are_enforced_and_members_removed, invitation_links_are_shown_once, invitations_are_rate_limited);
