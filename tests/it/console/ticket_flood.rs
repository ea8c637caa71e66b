//! A flood of tickets: few rows are stored, emails are batched, and other users can still sign in.

use serde_json::json;
use waypost_core::organization::Role;
use waypost_core::server::Support;
use waypost_core::ticket::TicketStatus;
use waypost_ops::servers::ServerSettings;
use waypost_ops::tickets::limits::TicketLimits;

use super::ConsoleBrowser;
use crate::app::{App, Org, Server, Setup};

async fn url(url: &str) -> String {
    url.to_owned()
}

waypost_testkit::both!(url => tickets_from_one_address_are_limited_and_emails_batched, two_replicas_send_a_digest_once,
    queued_emails_are_sent_after_a_restart);

const MINUTE: i64 = 60_000;

async fn start_with_email(url: &str, seed: u64) -> App {
    App::open_with(url, Setup { can_mail: true, seed, ..Setup::default() }).await
}

async fn create_support_server(org: &Org, slug: &str) -> Server {
    org.server_with(slug, ServerSettings { support: Some(Support::Tickets), ..ServerSettings::default() }).await
}

/// Opens a ticket of maximum length. Returns `ok` or the error code.
async fn open_ticket(server: &Server, tracking_id: &str, n: usize) -> String {
    let arguments = json!({ "title": format!("Ticket {n} of {tracking_id}"), "problem": "x".repeat(8_000),
        "context": "y".repeat(8_000), "email": "z@b.example" });
    let result = server.personal(tracking_id).call("get_support", arguments).await;
    if result.structured["error"].is_null() { "ok".to_owned() } else { result.error_code().to_owned() }
}

/// Counts the emails sent to an address.
fn count_emails(app: &App, to: &str) -> usize {
    app.mails().sent().iter().filter(|mail| mail.to == to).count()
}

async fn tickets_from_one_address_are_limited_and_emails_batched(url: String) {
    let app = start_with_email(&url, 1).await;
    let (acme, other) = (app.org("acme").await, app.org("other").await);
    let server = create_support_server(&acme, "acme").await;
    ConsoleBrowser::member(&acme, "owner@acme.example", Role::Owner).await;
    ConsoleBrowser::member(&other, "owner@other.example", Role::Owner).await;
    let second = create_support_server(&other, "second").await;
    let mut accepted = 0;
    for n in 0..200 {
        // Each call uses a new tracking ID.
        match open_ticket(&server, &format!("guess-{n}"), n).await.as_str() {
            "ok" => accepted += 1,
            code => assert_eq!(code, "rate_limited"),
        }
        if n % 10 == 0 {
            app.send_emails().await;
        }
    }
    assert_eq!((accepted, app.count("SELECT count(*) FROM tickets").await), (30, 30));
    let users = app.count("SELECT count(*) FROM end_users WHERE tracking_id LIKE 'guess-%'").await;
    assert_eq!(users, 30, "a rejected call does not create an end user");
    assert_eq!(open_ticket(&second, "guess", 0).await, "rate_limited", "the IP address is limited across all servers");
    assert_eq!(count_emails(&app, "owner@acme.example"), 1, "one email, for the first ticket");
    // Other users can still sign in.
    let browser = ConsoleBrowser::new(&app);
    browser.post("/login/code", &[("email", "owner@other.example"), ("next", "/account")]).await.assert_status(303);
    let mails = app.mails().wait_for_count(2).await;
    assert_eq!(mails[1].to, "owner@other.example");
    assert!(mails[1].subject.ends_with("is your code for Waypost"));
    // The remaining tickets are in one digest, five minutes after the first email.
    app.advance_clock(5 * MINUTE - 1).await;
    assert_eq!(app.send_emails().await, 0);
    app.advance_clock(1).await;
    app.send_emails().await;
    assert_eq!(count_emails(&app, "owner@acme.example"), 2);
    let digest = app.mails().sent().pop().unwrap();
    assert_eq!(digest.subject, "29 new tickets for “acme”");
    assert_eq!(digest.text.matches("/o/acme/tickets/tkt_").count(), 20, "{}", digest.text);
    assert!(digest.text.contains("And 9 more:\nhttp://localhost:8080/o/acme/tickets\n"), "{}", digest.text);
    assert!(app.mails().sent().iter().all(|mail| mail.text.len() < 8_000), "every email is short");
    app.advance_clock(60 * MINUTE).await;
    assert_eq!(app.send_emails().await, 0, "nothing new to send");
    // The limit refills after an hour.
    assert_eq!(open_ticket(&server, "guess-again", 0).await, "ok");
    app.finish().await;
}

/// Adding an email to an existing ticket works beyond the limit, and the team's comments are not limited.
#[tokio::test]
async fn each_server_has_its_own_ticket_limit() {
    let ticket_limits = TicketLimits { per_address: 0, per_server: 3 };
    let app = App::with(Setup { ticket_limits, can_mail: true, ..Setup::default() }).await;
    let acme = app.org("acme").await;
    let (server, second) = (create_support_server(&acme, "acme").await, create_support_server(&acme, "second").await);
    let owner = ConsoleBrowser::member(&acme, "owner@acme.example", Role::Owner).await;
    let mut arguments = json!({ "title": "First", "problem": "P" });
    let first = server.personal("ann").call("get_support", arguments.clone()).await;
    assert_eq!(first.ok()["status"], TicketStatus::NeedsEmail.as_str());
    for n in 0..2 {
        assert_eq!(open_ticket(&server, &format!("user-{n}"), n).await, "ok");
    }
    let rejected = server.personal("bob").call("get_support", json!({ "title": "More", "problem": "P" })).await;
    assert_eq!(rejected.error_code(), "rate_limited");
    assert!(rejected.text.contains("try again in an hour"), "{}", rejected.text);
    assert_eq!(open_ticket(&second, "bob", 0).await, "ok", "each server has its own limit");
    arguments["email"] = json!("ann@b.example");
    let with_email = server.personal("ann").call("get_support", arguments).await;
    assert_eq!(
        (&with_email.ok()["ticket_id"], &with_email.ok()["status"]),
        (&first.ok()["ticket_id"], &json!("pending"))
    );
    let comments = format!("/tickets/{}/comments", first.ok()["ticket_id"].as_str().unwrap());
    for n in 0..5 {
        let response = Some(json!({ "body": format!("Answer {n}") }));
        let comment = owner.api(http::Method::POST, &comments, response).await.assert_status(201).json();
        assert_eq!(comment["mailed"], true);
    }
    app.send_emails().await;
    assert_eq!(count_emails(&app, "ann@b.example"), 5);
    app.finish().await;
}

async fn two_replicas_send_a_digest_once(url: String) {
    let (one, two) = (start_with_email(&url, 1).await, start_with_email(&url, 2).await);
    let acme = one.org("acme").await;
    let server = create_support_server(&acme, "acme").await;
    for n in 0..3 {
        ConsoleBrowser::member(&acme, &format!("owner{n}@acme.example"), Role::Owner).await;
    }
    for n in 0..5 {
        assert_eq!(open_ticket(&server, "ann", n).await, "ok");
    }
    tokio::join!(one.send_emails(), two.send_emails(), one.send_emails(), two.send_emails());
    for n in 0..3 {
        let to = format!("owner{n}@acme.example");
        assert_eq!(count_emails(&one, &to) + count_emails(&two, &to), 1);
    }
    assert_eq!(one.count("SELECT count(*) FROM emails").await, 0);
    one.finish().await;
    two.skip_call_check();
    two.finish().await;
}

/// Emails queued when a process ends are sent by the next process.
async fn queued_emails_are_sent_after_a_restart(url: String) {
    let app = start_with_email(&url, 1).await;
    let acme = app.org("acme").await;
    let server = create_support_server(&acme, "acme").await;
    ConsoleBrowser::member(&acme, "owner@acme.example", Role::Owner).await;
    assert_eq!(open_ticket(&server, "ann", 1).await, "ok");
    app.finish().await;
    let app = start_with_email(&url, 2).await;
    app.skip_call_check();
    assert_eq!(app.send_emails().await, 1);
    assert_eq!(app.mails().sent()[0].subject, "[#1] New ticket: Ticket 1 of ann");
    assert!(app.mails().sent()[0].text.contains("> xxx"), "other people's text is quoted");
    app.finish().await;
}
