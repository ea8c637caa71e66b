//! Support: a ticket over MCP, the team's work on it, mails, and what is refused.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_core::server::{AuthType, Support, Toolset};
use waypost_ops::servers::ServerSettings;

use super::{Browser, with_key};
use crate::app::{App, DAY, Server, Setup, open};

waypost_testkit::both!(open => a_ticket_waits_for_an_address, twenty_a_day, a_person_goes_with_their_tickets, a_deleted_walkthrough_has_no_link);

fn with_support() -> ServerSettings {
    ServerSettings { support: Some(Support::Tickets), toolset: Some(Toolset::All), ..ServerSettings::default() }
}

async fn ready(app: &App) -> Server {
    let server = app.org("acme").await.server_with("acme", with_support()).await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    server
}

fn stuck(title: &str) -> Value {
    json!({ "title": title, "problem": "It says **no**.", "context": "Tried twice" })
}

async fn first(browser: &Browser) -> Value {
    browser.api(Method::GET, "/tickets", None).await.is(200).json()["items"][0].clone()
}

async fn a_ticket_waits_for_an_address(app: App) {
    let server = ready(&app).await;
    let owner = Browser::owner(&server.org).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    user.play("next_walkthrough_step", json!({})).await.ok();
    let opened = user.call("get_support", stuck("No start")).await;
    assert_eq!(opened.ok()["status"], "needs_email");
    assert!(opened.text.contains("e-mail address"), "{}", opened.text);
    let ticket = first(&owner).await;
    assert_eq!((&ticket["id"], &ticket["number"]), (&opened.structured["ticket_id"], &json!(1)));
    let was = &ticket["walkthrough"];
    assert_eq!((&was["title"], &was["version"]), (&json!("Install Acme"), &json!(1)));
    assert_eq!((&was["step"]["title"], &was["step"]["position"]), (&json!("Unpack"), &json!(2)));
    // The same call again is the same ticket; with an address it goes on.
    let again = user.call("get_support", stuck("No start")).await;
    assert_eq!(again.ok(), opened.ok());
    let mut known = stuck("No start");
    known["email"] = json!("Zoe@b.example");
    let known = user.call("get_support", known).await;
    assert_eq!((&known.ok()["ticket_id"], &known.ok()["status"]), (&ticket["id"], &json!("pending")));
    assert_eq!(known.message(), known.text);
    let other = user.call("get_support", stuck("Something else")).await;
    assert_ne!(other.ok()["ticket_id"], ticket["id"]);
    assert_eq!(
        owner.api(Method::GET, "/tickets?status=pending", None).await.json()["items"][0]["email"],
        "Zoe@b.example"
    );
    // Whoever is not known at all gets a ticket as well. Ids tell the order from one millisecond to the next.
    app.later(1).await;
    let stranger = server.modern().call("get_support", stuck("Who am I")).await;
    assert_eq!(stranger.ok()["status"], "needs_email");
    assert_eq!(first(&owner).await["end_user_id"], Value::Null);
    app.later(1).await;
    let tracked =
        server.personal("ann").call("get_support", json!({ "title": "T", "problem": "P", "email": "a@b.de" })).await;
    assert_eq!(tracked.ok()["status"], "pending");
    assert!(first(&owner).await["end_user_id"].is_string(), "the organisation knows them");
    for (wrong, field) in [
        (json!({ "problem": "P" }), "title"),
        (json!({ "title": "x".repeat(201), "problem": "P" }), "title"),
        (json!({ "title": " \u{200b} ", "problem": "P" }), "title"),
        (json!({ "title": "T", "problem": "x".repeat(8_001) }), "problem"),
        (json!({ "title": "T", "problem": "P", "email": "a@b\r\nBcc: c@d.de" }), "email"),
        (json!({ "title": "T", "problem": "P", "priority": "urgent" }), "priority"),
    ] {
        let refused = user.call("get_support", wrong.clone()).await;
        assert_eq!(
            (refused.code(), &refused.structured["error"]["field"]),
            ("invalid_arguments", &json!(field)),
            "{wrong}"
        );
    }
    server.set(ServerSettings { support: Some(Support::Off), ..ServerSettings::default() }).await;
    assert_eq!(user.call("get_support", stuck("Off")).await.code(), "walkthrough_not_found");
    app.finish().await;
}

async fn twenty_a_day(app: App) {
    let server = ready(&app).await;
    let mut user = server.personal("ann");
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    for n in 0..20 {
        user.call("get_support", json!({ "title": format!("{n}"), "problem": "P", "email": "a@b.de" })).await.ok();
    }
    let more = json!({ "title": "more", "problem": "P", "email": "a@b.de" });
    assert_eq!(user.call("get_support", more.clone()).await.code(), "rate_limited");
    server.personal("bob").call("get_support", more.clone()).await.ok();
    app.later(DAY + 1).await;
    user.call("get_support", more).await.ok();
    app.finish().await;
}

async fn a_person_goes_with_their_tickets(app: App) {
    let server = ready(&app).await;
    let user = server.personal("ann");
    user.call("get_support", json!({ "title": "T", "problem": "P" })).await.ok();
    let org = &server.org.id;
    let id = waypost_ops::end_users::resolve(app.cx(), &app.ops(), org, "ann").await.unwrap();
    let mine = waypost_ops::tickets::list_for_end_user(app.cx(), &app.ops(), org, &id).await.unwrap();
    assert_eq!(mine.len(), 1);
    waypost_ops::end_users::delete(app.cx(), &app.ops(), org, &id).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM tickets").await, 0);
    app.forget_calls();
    app.finish().await;
}

/// A walkthrough in the trash has no page: where it is mentioned, its title is no link until it is restored.
async fn a_deleted_walkthrough_has_no_link(app: App) {
    let server = ready(&app).await;
    let owner = Browser::owner(&server.org).await;
    let user = server.personal("ann");
    user.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    let opened = user.call("get_support", json!({ "title": "T", "problem": "P", "email": "ann@b.example" })).await;
    let ticket = format!("/o/acme/tickets/{}", opened.ok()["ticket_id"].as_str().unwrap());
    let walkthrough = first(&owner).await["walkthrough"]["id"].as_str().unwrap().to_owned();
    let ann = owner.api(Method::GET, "/end-users?q=ann", None).await.is(200).json()["items"][0]["id"].clone();
    let (api, person) =
        (format!("/end-users/{}", ann.as_str().unwrap()), format!("/o/acme/end-users/{}", ann.as_str().unwrap()));
    let links = [format!("/o/acme/analytics?walkthrough={walkthrough}"), format!("/o/acme/walkthroughs/{walkthrough}")];
    for (deleted, status) in [(false, 200), (true, 404), (false, 200)] {
        for (page, link) in [&person, &ticket].into_iter().zip(&links) {
            let page = owner.page(page).await;
            page.says("Install Acme");
            assert_eq!(page.body.contains(&format!("href=\"{link}\"")), !deleted, "{}", page.body);
            assert_eq!(page.body.contains("Install Acme (deleted)"), deleted, "{}", page.body);
            owner.get(link).await.is(status);
        }
        let known = owner.api(Method::GET, &api, None).await.is(200).json();
        assert_eq!(known["attempts"][0]["walkthrough_deleted"], deleted);
        let (method, path) = if deleted { (Method::POST, "/restore") } else { (Method::DELETE, "") };
        let path = format!("/walkthroughs/{walkthrough}{path}");
        assert!(owner.api(method, &path, None).await.status.is_success());
    }
    app.forget_calls();
    app.finish().await;
}

#[tokio::test]
async fn where_users_sign_in_a_token_is_needed() {
    let app = App::new().await;
    let settings = ServerSettings { auth_type: Some(AuthType::PlatformOauth), ..with_support() };
    let server = app.org("acme").await.server_with("acme", settings).await;
    let call = json!({ "name": "get_support", "arguments": stuck("T") });
    let answer = server.modern().request("tools/call", call).send().await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().contains("resource_metadata="));
    app.finish().await;
}

#[tokio::test]
async fn the_team_is_told_and_answers_by_mail() {
    let app = App::with(Setup { can_mail: true, ..Setup::default() }).await;
    let server = ready(&app).await;
    let owner = Browser::member(&server.org, "owner@acme.example", Role::Owner).await;
    let member = Browser::member(&server.org, "member@acme.example", Role::Member).await;
    let title = "Help\r\nBcc: everybody@acme.example <script>alert(1)</script>";
    let arguments = json!({ "title": title, "problem": "<img src=x onerror=alert(1)> =1+1", "email": "zoe@b.example" });
    let opened = server.modern().call("get_support", arguments).await;
    let id = opened.ok()["ticket_id"].as_str().unwrap().to_owned();
    app.send_emails().await;
    let mails = app.mails().sent();
    assert_eq!(
        mails.iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(),
        ["owner@acme.example"],
        "admins and owners"
    );
    assert_eq!(mails[0].subject, "[#1] New ticket: Help Bcc: everybody@acme.example <script>alert(1)</script>");
    assert!(mails[0].text.contains(&format!("http://localhost:8080/o/acme/tickets/{id}")), "{}", mails[0].text);
    let path = format!("/o/acme/tickets/{id}");
    let page = member.page(&path).await;
    page.says("&#60;script&#62;")
        .does_not_say("<script>alert")
        .does_not_say("<img src=x")
        .says("Goes to zoe@b.example by mail");
    member.page("/o/acme/tickets").await.says("#1 Help").does_not_say("<script>alert");
    // A note stays inside; an answer goes out and resolves.
    let note = [("body", "Only us"), ("kind", "note"), ("then", "")];
    member.post(&format!("{path}/comments"), &note).await.leads_to(&path);
    app.later(1).await;
    let empty = member.post(&format!("{path}/comments"), &[("body", " "), ("kind", "answer")]).await;
    empty.is(422).says("must not be empty");
    let answer = [("body", "Try **this**"), ("kind", "answer"), ("then", "resolved")];
    member.post(&format!("{path}/comments"), &answer).await.leads_to(&path);
    app.send_emails().await;
    let mails = app.mails().sent();
    let mut got: Vec<_> = mails[1..].iter().map(|mail| (mail.to.as_str(), &mail.subject[..12])).collect();
    got.sort();
    assert_eq!(got, [("zoe@b.example", "[#1] Answer:"), ("zoe@b.example", "[#1] Resolve")]);
    assert!(mails.iter().all(|mail| !mail.text.contains("Only us")));
    member.page(&path).await.says("Sent to zoe@b.example").says("<strong>this</strong>").says("Resolved");
    // The assignee is told, unless they took it themselves.
    let change = json!({ "assignee_id": "owner@acme.example", "status": "in_progress" });
    member.api(Method::PATCH, &format!("/tickets/{id}"), Some(change)).await.is(200);
    app.send_emails().await;
    let mails = app.mails().sent();
    assert_eq!((mails[3].to.as_str(), &mails[3].subject[..10]), ("owner@acme.example", "[#1] Yours"));
    // What was written can be changed, with its history; by its author and by admins.
    let comments = member.api(Method::GET, &format!("/tickets/{id}/comments"), None).await.is(200).json();
    let comment = comments["items"][1]["id"].as_str().unwrap();
    let field = format!("body-{comment}");
    member.post(&format!("{path}/comments/{comment}"), &[(&field, "Try _that_")]).await.leads_to(&path);
    member.page(&path).await.says("<em>that</em>").says("show what stood there before");
    let other = Browser::member(&server.org, "other@acme.example", Role::Member).await;
    other.post(&format!("{path}/comments/{comment}"), &[(&field, "Mine")]).await.is(403);
    other.post(&format!("{path}/comments/{comment}/delete"), &[]).await.is(403);
    owner.post(&format!("{path}/comments/{comment}/delete"), &[]).await.leads_to(&path);
    owner.page(&path).await.does_not_say("<em>that</em>");
    app.finish().await;
}

#[tokio::test]
async fn tickets_are_worked_on_over_the_api() {
    let app = App::new().await;
    let server = ready(&app).await;
    let owner = Browser::owner(&server.org).await;
    owner.page("/o/acme/tickets").await.says("No tickets yet");
    for n in 0..3 {
        app.later(1).await;
        server
            .modern()
            .call("get_support", json!({ "title": format!("T{n}"), "problem": "P", "email": "a@b.de" }))
            .await
            .ok();
    }
    let page = owner.api(Method::GET, "/tickets?limit=2", None).await.is(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let next = format!("/tickets?limit=2&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(owner.api(Method::GET, &next, None).await.json()["items"][0]["title"], "T0");
    let id = page["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/tickets/{id}");
    let seen = owner.api(Method::GET, &path, None).await;
    assert_eq!(seen.header("etag"), "\"1\"");
    let patch = |body: Value| owner.api(Method::PATCH, &path, Some(body));
    patch(json!({ "status": "closed", "priority": "high" })).await.is(200);
    patch(json!({ "status": "resolved" })).await.is(409);
    patch(json!({ "status": "needs_email" })).await.is(409);
    patch(json!({ "assignee_id": "usr_nobody00000000" })).await.is(422);
    patch(json!({ "number": 7 })).await.is(422);
    patch(json!({ "status": "pending" })).await.is(200);
    let taken = owner.api(Method::GET, "/tickets?q=T2&priority=high&assignee=none", None).await.json();
    assert_eq!(taken["items"].as_array().unwrap().len(), 1);
    let ids: Vec<_> = [id.as_str(), "tkt_000000000000000000000000", "x"].map(str::to_owned).into();
    let bulk = owner
        .api(Method::POST, "/tickets/bulk", Some(json!({ "ids": ids, "status": "in_progress" })))
        .await
        .is(200)
        .json();
    let codes: Vec<_> = bulk["results"].as_array().unwrap().iter().map(|it| it["error"]["code"].as_str()).collect();
    assert_eq!(codes, [None, Some("not_found"), Some("not_found")]);
    owner.api(Method::POST, "/tickets/bulk", Some(json!({ "ids": [] }))).await.is(422);
    for wrong in ["status=odd", "assignee=x", "server_id=%00", "cursor=1", "limit=0", "more=1"] {
        owner.api(Method::GET, &format!("/tickets?{wrong}"), None).await.is(422);
    }
    owner.api(Method::GET, "/tickets?q=%00%25_", None).await.is(200);
    // The console's own forms.
    let form =
        [("ids", id.as_str()), ("status", "resolved"), ("priority", ""), ("assignee", ""), ("back", "status=pending")];
    owner.post("/o/acme/tickets/bulk", &form).await.leads_to("/o/acme/tickets?status=pending");
    owner.page("/o/acme/tickets?status=pending&q=T0").await.says("T0").says("1 ticket changed.");
    owner.get("/o/acme/tickets?status=odd").await.is(422);
    let stale = [("status", "closed"), ("priority", "low"), ("assignee", "none"), ("revision", "1")];
    owner.post(&format!("/o/acme{path}"), &stale).await.is(412).says("has changed meanwhile");
    // Another organisation does not know of it.
    let other = Browser::owner(&app.org("other").await).await;
    other.api(Method::GET, &path, None).await.is(404);
    other.api(Method::PATCH, &path, Some(json!({ "status": "closed" }))).await.is(404);
    other.api(Method::POST, &format!("{path}/comments"), Some(json!({ "body": "x" }))).await.is(404);
    other.get(&format!("/o/other{path}")).await.is(404);
    with_key(&server.org, Role::Member, Method::GET, &path, None).await.is(200);
    app.finish().await;
}
