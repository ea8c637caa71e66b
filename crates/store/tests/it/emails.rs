//! Digests of new tickets, and the email queue.

use waypost_core::Timestamp;
use waypost_core::id::{EmailId, OrganizationId, TicketCommentId, TicketId};
use waypost_store::email_queue::{self, NewEmail, QueuedEmail};
use waypost_store::ticket_digest::{self, DueDigest};
use waypost_store::{Db, end_user, on, system, ticket, ticket_comment};

use crate::fixture::{Fixture, NOW};
use crate::open;

async fn fixtures(url: &str) -> (Db, Fixture, Fixture) {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    let mut tx = db.begin().await.unwrap();
    for sql in ["DELETE FROM emails", "DELETE FROM ticket_notices", "DELETE FROM ticket_digests"] {
        on!(&mut tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
    }
    tx.commit().await.unwrap();
    (db, one, two)
}

fn first(fixture: &Fixture) -> TicketId {
    TicketId::from_store(fixture.organization.as_str().replace("org_", "tkt_"))
}

async fn new_ticket(db: &Db, fixture: &Fixture, id: &str) -> TicketId {
    let mut tx = db.begin().await.unwrap();
    let org = &fixture.organization;
    let named = ticket::find(&mut tx, org, &first(fixture)).await.unwrap().unwrap();
    let number = ticket::next_number(&mut tx, org).await.unwrap();
    let id = TicketId::from_store(id.to_owned());
    let new = waypost_core::ticket::Ticket { id: id.clone(), number, created_at: NOW, ..named.ticket };
    ticket::insert(&mut tx, &new).await.unwrap();
    ticket::set_client_network(&mut tx, org, &id, "network").await.unwrap();
    ticket_digest::schedule(&mut tx, org, &fixture.server, &id, NOW, 60).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// Claims a digest with its tickets.
async fn digest(db: &Db, now: Timestamp) -> Option<(DueDigest, Vec<TicketId>)> {
    let mut tx = db.begin().await.unwrap();
    let due = ticket_digest::claim(&mut tx, now).await.unwrap()?;
    let tickets = ticket_digest::consume_tickets(&mut tx, &due).await.unwrap();
    tx.commit().await.unwrap();
    Some((due, tickets))
}

async fn a_digest_is_claimed_once_and_then_paused((db, one, two): (Db, Fixture, Fixture)) {
    let is_due = async |at| ticket_digest::is_due(&mut db.read().await.unwrap(), at).await.unwrap();
    assert!(!is_due(NOW).await);
    let ids = [new_ticket(&db, &one, "tkt_a").await, new_ticket(&db, &one, "tkt_b").await];
    let other = new_ticket(&db, &two, "tkt_c").await;
    assert!(is_due(NOW).await && !is_due(NOW.plus(-1)).await, "the first digest is due immediately");
    // Concurrently, like several processes.
    let (a, b, c) = tokio::join!(digest(&db, NOW), digest(&db, NOW), digest(&db, NOW));
    let mut digests: Vec<_> = [a, b, c].into_iter().flatten().map(|(due, tickets)| (due.server_id, tickets)).collect();
    // A process may have skipped a locked row.
    digests.extend(digest(&db, NOW).await.map(|(due, tickets)| (due.server_id, tickets)));
    digests.sort();
    assert_eq!(digests, [(one.server.clone(), ids.to_vec()), (two.server.clone(), vec![other])], "each once");
    assert_eq!(digest(&db, NOW.plus(1_000)).await, None, "nothing new");
    let next = new_ticket(&db, &one, "tkt_d").await;
    assert!(!is_due(NOW.plus(59)).await && is_due(NOW.plus(60)).await, "after the pause");
    // A postponed digest keeps its tickets.
    let mut tx = db.begin().await.unwrap();
    let due = ticket_digest::claim(&mut tx, NOW.plus(60)).await.unwrap().unwrap();
    ticket_digest::postpone(&mut tx, &due, NOW.plus(90)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(digest(&db, NOW.plus(89)).await, None);
    assert_eq!(digest(&db, NOW.plus(90)).await.unwrap().1, [next]);
}

async fn tickets_are_counted((db, one, two): (Db, Fixture, Fixture)) {
    new_ticket(&db, &one, "tkt_a").await;
    new_ticket(&db, &two, "tkt_b").await;
    let mut tx = db.begin().await.unwrap();
    let (org, before) = (&one.organization, NOW.plus(-1));
    assert_eq!(
        system::lock_and_count_tickets_from_network(&mut tx, "network", before).await.unwrap(),
        2,
        "in all organisations"
    );
    assert_eq!(system::lock_and_count_tickets_from_network(&mut tx, "network", NOW).await.unwrap(), 0);
    assert_eq!(system::lock_and_count_tickets_from_network(&mut tx, "other", before).await.unwrap(), 0);
    assert_eq!(ticket::count_for_server(&mut tx, org, &one.server, before).await.unwrap(), 1);
    assert_eq!(ticket::count_for_server(&mut tx, org, &two.server, before).await.unwrap(), 0);
    let (title, problem) = ("It breaks", "When I click");
    let is_repeated = ticket::is_duplicate(&mut tx, org, &one.server, title, problem, NOW).await.unwrap();
    assert!(is_repeated && !ticket::is_duplicate(&mut tx, org, &one.server, "It breaks", "", NOW).await.unwrap());
    assert!(!ticket::is_duplicate(&mut tx, org, &one.server, title, problem, NOW.plus(1)).await.unwrap());
}

async fn enqueue(db: &Db, fixture: &Fixture, id: &str, comment_id: Option<&TicketCommentId>) {
    let email = NewEmail {
        id: &EmailId::from_store(id.to_owned()),
        organization_id: &fixture.organization,
        ticket_id: Some(&first(fixture)),
        comment_id,
        recipient: "a@b.de",
        subject: "Hi",
        body: "There",
        html: "<p>There</p>",
        reply_to: Some("team@b.de"),
        created_at: NOW,
    };
    let mut tx = db.begin().await.unwrap();
    email_queue::enqueue(&mut tx, &email).await.unwrap();
    tx.commit().await.unwrap();
}

async fn claim(db: &Db, now: Timestamp, limit: i64) -> Vec<QueuedEmail> {
    let mut tx = db.begin().await.unwrap();
    let claimed = email_queue::claim(&mut tx, now, now.plus(60), limit).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

fn ids(mut emails: Vec<QueuedEmail>) -> Vec<String> {
    emails.sort_by(|a, b| a.id.cmp(&b.id));
    emails.into_iter().map(|email| email.id.to_string()).collect()
}

async fn organisations_take_turns((db, one, two): (Db, Fixture, Fixture)) {
    for n in 0..5 {
        enqueue(&db, &one, &format!("eml_a{n}"), None).await;
    }
    enqueue(&db, &two, "eml_b0", None).await;
    let mut conn = db.read().await.unwrap();
    let count = async |conn: &mut _, org: &OrganizationId| email_queue::count(conn, org).await.unwrap();
    assert_eq!((count(&mut conn, &one.organization).await, count(&mut conn, &two.organization).await), (5, 1));
    assert!(email_queue::is_due(&mut conn, NOW).await.unwrap());
    assert!(!email_queue::is_due(&mut conn, NOW.plus(-1)).await.unwrap());
    drop(conn);
    assert_eq!(ids(claim(&db, NOW, 2).await), ["eml_a0", "eml_b0"]);
    assert_eq!(ids(claim(&db, NOW, 2).await), ["eml_a1", "eml_a2"]);
    let (a, b) = tokio::join!(claim(&db, NOW, 9), claim(&db, NOW, 9));
    assert_eq!(ids(a.into_iter().chain(b).collect()), ["eml_a3", "eml_a4"], "each once");
    assert_eq!(claim(&db, NOW.plus(59), 9).await, []);
    assert_eq!(claim(&db, NOW.plus(60), 9).await.len(), 6, "claims expire");
}

async fn only_the_newest_attempt_can_finish((db, one, _): (Db, Fixture, Fixture)) {
    let comment = TicketCommentId::from_store("tkc_1".to_owned());
    enqueue(&db, &one, "eml_a", Some(&comment)).await;
    enqueue(&db, &one, "eml_b", None).await;
    let late = claim(&db, NOW, 1).await.remove(0);
    assert_eq!((late.attempts, &late.comment_id, late.subject.as_str()), (1, &Some(comment.clone()), "Hi"));
    let again = claim(&db, NOW.plus(60), 9).await.into_iter().find(|email| email.id == late.id).unwrap();
    let mut tx = db.begin().await.unwrap();
    assert!(!email_queue::delete(&mut tx, &late).await.unwrap());
    assert!(!email_queue::postpone(&mut tx, &late, NOW).await.unwrap());
    assert!(email_queue::postpone(&mut tx, &again, NOW.plus(70)).await.unwrap());
    assert!(email_queue::is_due(&mut tx, NOW.plus(70)).await.unwrap());
    assert!(email_queue::delete(&mut tx, &again).await.unwrap());
    ticket_comment::mark_unsent(&mut tx, &one.organization, &comment).await.unwrap();
    let named = ticket_comment::find(&mut tx, &one.organization, &first(&one), &comment).await.unwrap().unwrap();
    assert_eq!(named.comment.mailed_to, None);
    // Emails are deleted with the end user that they are about.
    assert!(end_user::delete(&mut tx, &one.organization, &one.end_user).await.unwrap());
    assert_eq!(email_queue::count(&mut tx, &one.organization).await.unwrap(), 0);
}

waypost_testkit::both!(
    fixtures => a_digest_is_claimed_once_and_then_paused, tickets_are_counted, organisations_take_turns,
    only_the_newest_attempt_can_finish
);
