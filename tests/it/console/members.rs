//! Members and invitations.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_ops::organizations::{self, OrganizationPatch};
use waypost_ops::users;

use super::{Browser, with_key};
use crate::app::{App, DAY, Setup, open};

async fn ids(browser: &Browser) -> Vec<(String, String, String)> {
    let listed = browser.api(Method::GET, "/members", None).await.json();
    let text = |it: &Value, name: &str| it[name].as_str().unwrap().to_owned();
    let row = |it: &Value| (text(it, "id"), text(it, "email"), text(it, "role"));
    listed["items"].as_array().unwrap().iter().map(row).collect()
}

async fn roles_and_removal(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let owner = Browser::member(&org, "owner@example.com", Role::Owner).await;
    let admin = Browser::member(&org, "admin@example.com", Role::Admin).await;
    let member = Browser::member(&org, "member@example.com", Role::Member).await;
    let stranger = Browser::owner(&other).await;
    let all = ids(&owner).await;
    let id = |email: &str| all.iter().find(|it| it.1 == email).unwrap().0.clone();
    let (owner_id, admin_id, member_id) = (id("owner@example.com"), id("admin@example.com"), id("member@example.com"));
    let to = |role: &str| Some(json!({ "role": role }));
    let path = |id: &str| format!("/members/{id}");

    // Nobody raises themselves, and nothing but the role can be sent.
    member.api(Method::PATCH, &path(&member_id), to("owner")).await.is(403);
    admin.api(Method::PATCH, &path(&admin_id), to("owner")).await.is(403);
    admin.api(Method::PATCH, &path(&owner_id), to("member")).await.is(403);
    admin.api(Method::DELETE, &path(&owner_id), None).await.is(403);
    with_key(&org, Role::Admin, Method::PATCH, &path(&member_id), to("owner")).await.is(403);
    for body in [json!({ "role": "king" }), json!({}), json!({ "role": "admin", "email": "x@example.com" })] {
        owner.api(Method::PATCH, &path(&member_id), Some(body)).await.is(422);
    }
    for (method, body) in [(Method::GET, None), (Method::PATCH, to("admin")), (Method::DELETE, None)] {
        stranger.api(method.clone(), &path(&member_id), body.clone()).await.is(404);
        owner.api(method.clone(), "/members/usr_zzzzzzzzzzzzzzzz", body.clone()).await.is(404);
        owner.api(method.clone(), "/members/x%00y", body.clone()).await.is(404);
        Browser::new(&app).api(method, &path(&member_id), body).await.is(401);
    }
    owner.api(Method::PATCH, &path(&owner_id), to("admin")).await.is(409).says("last owner");
    owner.api(Method::DELETE, &path(&owner_id), None).await.is(409);
    owner.api(Method::PATCH, &path(&member_id), to("admin")).await.is(200).says("\"admin\"");

    let page = owner.page("/o/acme/members").await;
    page.says("the only owner").says("They lose access").says("you</span>");
    let page = member_page(&org, &stranger).await;
    page.does_not_say("Invite").does_not_say("<select");
    owner.post(&format!("/o/acme/members/{owner_id}/role"), &[("role", "member")]).await.is(409).says("last owner");
    owner.post(&format!("/o/acme/members/{member_id}/role"), &[("role", "nobody")]).await.is(422);
    owner.post(&format!("/o/acme/members/{member_id}/role"), &[("role", "member")]).await.leads_to("/o/acme/members");
    owner.page("/o/acme/members").await.says("member@example.com is member now.");
    member.post(&format!("/o/acme/members/{admin_id}/remove"), &[]).await.is(403);
    stranger.post(&format!("/o/other/members/{admin_id}/remove"), &[]).await.is(404);
    owner.post(&format!("/o/acme/members/{member_id}/remove"), &[]).await.leads_to("/o/acme/members");
    member.get("/o/acme").await.is(404);
    member.get("/").await.leads_to("/organizations/new");
    admin.post(&format!("/o/acme/members/{admin_id}/remove"), &[]).await.leads_to("/");
    assert_eq!(ids(&owner).await.len(), 2, "the owner, and who looked at the page");
    app.finish().await;
}

/// The page as a plain member sees it.
async fn member_page(org: &crate::app::Org, _: &Browser) -> super::Answer {
    Browser::member(org, "plain@example.com", Role::Member).await.page("/o/acme/members").await
}

async fn invitations_are_shown_once(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let admin = Browser::member(&org, "admin@example.com", Role::Admin).await;
    let member = Browser::member(&org, "member@example.com", Role::Member).await;
    let stranger = Browser::owner(&other).await;
    let new = |email: &str, role: &str| Some(json!({ "email": email, "role": role }));
    member.api(Method::POST, "/invitations", new("x@example.com", "member")).await.is(403);
    member.api(Method::GET, "/invitations", None).await.is(403);
    admin.api(Method::POST, "/invitations", new("x@example.com", "owner")).await.is(403);
    admin.api(Method::POST, "/invitations", new("Member@example.com", "member")).await.is(409).says("member already");
    for body in [new("x", "member"), new("x@example.com\nBcc: y@example.com", "member"), new("x@example.com", "king")] {
        admin.api(Method::POST, "/invitations", body).await.is(422);
    }
    let first = admin.api(Method::POST, "/invitations", new("Anna@Example.com", "member")).await;
    let first = first.is(201).json();
    let (id, link) = (first["id"].as_str().unwrap(), first["link"].as_str().unwrap());
    assert!(link.starts_with("http://localhost:8080/invite?token=") && link.len() == 35 + 43, "{link}");
    assert_eq!(
        (&first["state"], &first["mailed"], &first["role"]),
        (&json!("pending"), &json!(false), &json!("member"))
    );
    let second = admin.api(Method::POST, "/invitations", new("anna@example.com", "admin")).await.is(201).json();
    let path = format!("/invitations/{id}");
    assert_eq!(admin.api(Method::GET, &path, None).await.json()["state"], "revoked", "replaced");
    admin.api(Method::GET, &path, None).await.does_not_say(&link[40..]);
    let hashes = app.lines("SELECT token_hash FROM invitations").await;
    assert!(!hashes.contains(&link[35..]), "only the hash is stored");

    let path = format!("/invitations/{}", second["id"].as_str().unwrap());
    for (method, path) in
        [(Method::GET, path.clone()), (Method::DELETE, path.clone()), (Method::POST, format!("{path}/resend"))]
    {
        stranger.api(method.clone(), &path, None).await.is(404);
        member.api(method.clone(), &path, None).await.is(403);
        Browser::new(&app).api(method, &path, None).await.is(401);
    }
    let resent = admin.api(Method::POST, &format!("{path}/resend"), None).await.is(200).json();
    assert_eq!(resent["id"], second["id"]);
    assert_ne!(resent["link"], second["link"], "the old link is dead");
    app.later(2 * DAY).await;
    assert_eq!(admin.api(Method::GET, &path, None).await.json()["state"], "expired");
    admin.api(Method::POST, &format!("{path}/resend"), None).await.is(200).says("pending");
    admin.api(Method::DELETE, &path, None).await.is(204);
    admin.api(Method::DELETE, &path, None).await.is(204);
    admin.api(Method::POST, &format!("{path}/resend"), None).await.is(409);

    let page = admin.page("/o/acme/members").await;
    page.says("taken back").does_not_say("/invite?token=").does_not_say("value=\"owner\"");
    let sent = admin.post("/o/acme/invitations", &[("email", "bob@example.com"), ("role", "member")]).await;
    sent.is(200).says("/invite?token=").says("sends no e-mail").says("shown this once");
    let hostile = admin.post("/o/acme/invitations", &[("email", "<b>@x"), ("role", "member")]).await;
    hostile.is(422).says("id=\"e-email\"").does_not_say("<b>@x");
    stranger.post("/o/acme/invitations", &[("email", "b@example.com"), ("role", "member")]).await.is(404);
    member.post("/o/acme/invitations", &[("email", "b@example.com"), ("role", "member")]).await.is(403);
    let listed = admin.api(Method::GET, "/invitations?limit=1", None).await.json();
    assert_eq!(listed["items"][0]["email"], "bob@example.com");
    let bob = listed["items"][0]["id"].as_str().unwrap().to_owned();
    let rest = format!("/invitations?limit=2&cursor={}", listed["next_cursor"].as_str().unwrap());
    let rest = admin.api(Method::GET, &rest, None).await.json();
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (2, &Value::Null));
    for wrong in ["limit=0", "limit=201", "limit=x", "cursor=", "cursor=x%00", "other=1"] {
        admin.api(Method::GET, &format!("/invitations?{wrong}"), None).await.is(422);
    }
    admin.post(&format!("/o/acme/invitations/{bob}/resend"), &[]).await.is(200).says("/invite?token=");
    admin.post(&format!("/o/acme/invitations/{bob}/revoke"), &[]).await.leads_to("/o/acme/members");
    stranger.post(&format!("/o/other/invitations/{bob}/revoke"), &[]).await.is(404);
    app.finish().await;
}

async fn invitations_are_limited(app: App) {
    let org = app.org("acme").await;
    let admin = Browser::member(&org, "admin@example.com", Role::Admin).await;
    let mut accepted = 0;
    // The limit fills up again while the requests are sent, so it may take more than 61 of them.
    let refused = loop {
        let body = json!({ "email": format!("x{accepted}@example.com"), "role": "member" });
        let answer = admin.api(Method::POST, "/invitations", Some(body)).await;
        if answer.status.as_u16() == 429 {
            break answer;
        }
        answer.is(201);
        accepted += 1;
        assert!(accepted < 600, "60 a minute from one network");
    };
    assert!(accepted >= 60, "60 at once: {accepted}");
    assert!(!refused.header("retry-after").is_empty());
    app.finish().await;
}

#[tokio::test]
async fn invitations_go_out_by_mail() {
    let app = App::with(Setup { can_mail: true, ..Setup::default() }).await;
    let org = app.org("acme").await;
    let changes =
        OrganizationPatch { name: Some("Acme\r\nBcc: evil@example.com".to_owned()), ..OrganizationPatch::default() };
    organizations::update(app.cx(), &app.ops(), &org.id, &changes).await.unwrap();
    let admin = Browser::member(&org, "admin@example.com", Role::Admin).await;
    let body = json!({ "email": "Anna@example.com", "role": "member" });
    let sent = admin.api(Method::POST, "/invitations", Some(body)).await.is(201).json();
    assert_eq!((&sent["mailed"], &sent["link"]), (&json!(true), &Value::Null), "the link proves the address");
    let page = admin.post("/o/acme/invitations", &[("email", "bob@example.com"), ("role", "admin")]).await;
    page.is(200).says("An e-mail with a link is on its way").does_not_say("/invite?token=");
    let mails = app.mails().wait_for_count(2).await;
    let mail = mails.iter().find(|mail| mail.to == "Anna@example.com").unwrap();
    assert!(mail.text.contains("http://localhost:8080/invite?token="), "{}", mail.text);
    assert!(mail.text.contains("admin@example.com invites you"));
    let resend = format!("/invitations/{}/resend", sent["id"].as_str().unwrap());
    let resent = admin.api(Method::POST, &resend, None).await.is(200).json();
    assert_eq!((&resent["mailed"], &resent["link"]), (&json!(true), &Value::Null));
    assert_eq!(mail.subject, "Invitation to “Acme Bcc: evil@example.com”", "one line");
    app.finish().await;
}

async fn members_without_a_verified_address_are_marked(app: App) {
    let org = app.org("acme").await;
    let admin = Browser::member(&org, "admin@example.com", Role::Admin).await;
    let bob = users::create(app.cx(), &app.ops(), &org.id, "bob@example.com", Role::Member).await.unwrap().user_id;
    let is_verified = async |email: &str| {
        let member = users::find(app.cx(), &app.ops(), &org.id, email).await.unwrap();
        admin.api(Method::GET, &format!("/members/{}", member.user_id), None).await.json()["verified"].clone()
    };
    assert_eq!(
        (is_verified("admin@example.com").await, is_verified("bob@example.com").await),
        (json!(true), json!(false))
    );
    admin.page("/o/acme/members").await.says("not verified</span>");
    let mut tx = app.db().begin().await.unwrap();
    waypost_store::user::verify(&mut tx, &bob, app.cx().now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(is_verified("bob@example.com").await, json!(true));
    admin.page("/o/acme/members").await.does_not_say("not verified");
    app.finish().await;
}

waypost_testkit::both!(
    open => members_without_a_verified_address_are_marked, roles_and_removal, invitations_are_shown_once, invitations_are_limited);
