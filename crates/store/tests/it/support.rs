//! Tickets, comments, webhooks and their deliveries.

use waypost_core::Timestamp;
use waypost_core::id::{TicketCommentId, TicketId, UserId, WebhookDeliveryId, WebhookId};
use waypost_core::ticket::{
    Priority, Ticket, TicketComment, TicketCommentEdit, TicketOrigin, TicketStatus, TicketStep,
};
use waypost_core::webhook::{Delivery, DeliveryStatus, NewDelivery, Webhook, WebhookEvent};
use waypost_store::ticket::{Opener, TicketFilter};
use waypost_store::{Conn, Db, end_user, on, ticket, ticket_comment, webhook, webhook_delivery};

use crate::fixture::{Fixture, NOW};
use crate::open;

async fn fixtures(url: &str) -> (Db, Fixture, Fixture) {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    (db, one, two)
}

fn new_ticket(fixture: &Fixture, number: u32) -> Ticket {
    let step = TicketStep { id: fixture.step(3).to_string(), title: "Step".to_owned(), position: 4 };
    Ticket {
        id: TicketId::from_store(format!("tkt_x{number:04}")),
        organization_id: fixture.organization.clone(),
        number,
        server_id: Some(fixture.server.clone()),
        end_user_id: Some(fixture.end_user.clone()),
        origin: Some(TicketOrigin {
            walkthrough_id: Some(fixture.walkthrough.clone()),
            title: "W".to_owned(),
            version: 1,
            step: Some(step),
        }),
        title: format!("Ärger 100% {number}"),
        problem: "It_breaks".to_owned(),
        context: Some("Here".to_owned()),
        email: Some("Z@b.example".to_owned()),
        email_verified: false,
        status: TicketStatus::Pending,
        priority: Priority::High,
        assignee_id: Some(fixture.user.clone()),
        revision: 1,
        created_at: NOW,
        updated_at: NOW,
        resolved_at: None,
    }
}

async fn a_ticket_is_stored((db, one, two): (Db, Fixture, Fixture)) {
    let mut tx = db.begin().await.unwrap();
    let (org, other) = (&one.organization, &two.organization);
    let number = ticket::next_number(&mut tx, org).await.unwrap();
    assert_eq!((number, ticket::next_number(&mut tx, org).await.unwrap()), (2, 3), "numbers are unique");
    let mut mine = new_ticket(&one, number);
    ticket::insert(&mut tx, &mine).await.unwrap();
    let named = ticket::find_for_update(&mut tx, org, &mine.id).await.unwrap().unwrap();
    assert_eq!(named.ticket, mine);
    assert_eq!(named.server.as_deref(), Some("Server"));
    assert_eq!(named.assignee.as_deref(), Some("A1@x.de"));
    assert_eq!(named.end_user.as_deref(), Some("tracked"));
    assert_eq!(ticket::find(&mut tx, other, &mine.id).await.unwrap(), None, "another organisation's");
    mine.set_status(TicketStatus::Resolved, NOW.plus(1)).unwrap();
    (mine.priority, mine.assignee_id, mine.revision) = (Priority::Low, None, 2);
    ticket::update(&mut tx, &mine).await.unwrap();
    assert_eq!(ticket::find(&mut tx, org, &mine.id).await.unwrap().unwrap().ticket, mine);
    tx.commit().await.unwrap();
}

async fn tickets_are_found((db, one, two): (Db, Fixture, Fixture)) {
    let mut tx = db.begin().await.unwrap();
    let org = &one.organization;
    for number in 10..15 {
        let ticket =
            Ticket { priority: if number == 12 { Priority::Low } else { Priority::High }, ..new_ticket(&one, number) };
        ticket::insert(&mut tx, &ticket).await.unwrap();
    }
    let unidentified = Ticket {
        end_user_id: None,
        assignee_id: None,
        status: TicketStatus::NeedsEmail,
        email: None,
        ..new_ticket(&one, 20)
    };
    ticket::insert(&mut tx, &unidentified).await.unwrap();
    let found = async |conn: &mut Conn, filter: TicketFilter, before: Option<&str>| {
        let before = before.map(|id| TicketId::from_store(id.to_owned()));
        let found = ticket::list(conn, org, &filter, before.as_ref(), 3).await.unwrap();
        found.into_iter().map(|named| named.ticket.number).collect::<Vec<_>>()
    };
    let text = |text: &str| TicketFilter { text: Some(text.to_owned()), ..TicketFilter::default() };
    assert_eq!(found(&mut tx, TicketFilter::default(), None).await, [20, 14, 13]);
    assert_eq!(found(&mut tx, TicketFilter::default(), Some("tkt_x0013")).await, [12, 11, 10]);
    let pending = TicketFilter { status: Some(TicketStatus::Pending), ..TicketFilter::default() };
    assert_eq!(found(&mut tx, pending.clone(), Some("tkt_x0011")).await, [10]);
    assert_eq!(
        found(&mut tx, TicketFilter { priority: Some(Priority::Low), ..TicketFilter::default() }, None).await,
        [12]
    );
    assert_eq!(found(&mut tx, TicketFilter { assignee: Some(None), ..TicketFilter::default() }, None).await, [20]);
    let mine = TicketFilter { assignee: Some(Some(one.user.clone())), ..pending };
    assert_eq!(found(&mut tx, mine, None).await, [14, 13, 12]);
    assert_eq!(found(&mut tx, text("ärger 100% 1"), None).await, [14, 13, 12]);
    assert_eq!(found(&mut tx, text("#14"), None).await, [14]);
    assert_eq!(found(&mut tx, text("100_"), None).await, [0_u32; 0], "not a pattern");
    let elsewhere = TicketFilter {
        server: Some(two.server.clone()),
        walkthrough: Some(two.walkthrough.clone()),
        ..TicketFilter::default()
    };
    assert_eq!(found(&mut tx, elsewhere, None).await, [0_u32; 0]);
    let mut counts = ticket::count_by_status(&mut tx, org, &TicketFilter::default()).await.unwrap();
    counts.sort_by_key(|(status, _)| status.as_str());
    assert_eq!(counts, [(TicketStatus::NeedsEmail, 2), (TicketStatus::Pending, 5)]);
    let since = NOW.plus(-1);
    for (opener, count) in [(Opener::EndUser(&one.end_user), 5), (Opener::Unidentified(&one.server), 1)] {
        assert_eq!(ticket::count_for_opener(&mut tx, org, opener, since).await.unwrap(), count);
    }
    let waiting = ticket::list_without_email(&mut tx, org, Opener::Unidentified(&one.server), since).await.unwrap();
    assert_eq!(waiting.iter().map(|named| named.ticket.number).collect::<Vec<_>>(), [20]);
    let of_user = ticket::list_for_end_user(&mut tx, org, &one.end_user, 2).await.unwrap();
    assert_eq!(of_user.iter().map(|named| named.ticket.number).collect::<Vec<_>>(), [14, 13]);
    assert!(end_user::delete(&mut tx, org, &one.end_user).await.unwrap());
    assert_eq!(
        found(&mut tx, TicketFilter::default(), None).await,
        [20],
        "tickets and their comments are deleted with the end user"
    );
}

async fn comments_keep_their_edit_history((db, one, two): (Db, Fixture, Fixture)) {
    let mut tx = db.begin().await.unwrap();
    let (org, id) = (&one.organization, TicketId::from_store("tkt_1".to_owned()));
    let mut comment = TicketComment {
        id: TicketCommentId::from_store("tkc_2x".to_owned()),
        organization_id: org.clone(),
        ticket_id: id.clone(),
        author: one.user.to_string(),
        body: "One".to_owned(),
        internal: true,
        mailed_to: None,
        created_at: NOW,
        updated_at: NOW,
    };
    ticket_comment::insert(&mut tx, &comment).await.unwrap();
    for body in ["Two", "Three"] {
        let edit = TicketCommentEdit {
            comment_id: comment.id.clone(),
            body: std::mem::replace(&mut comment.body, body.to_owned()),
            edited_by: "usr_2".to_owned(),
            edited_at: NOW,
        };
        ticket_comment::insert_edit(&mut tx, org, &edit).await.unwrap();
        ticket_comment::update(&mut tx, &comment).await.unwrap();
    }
    let edits = ticket_comment::list_edits(&mut tx, org, &id).await.unwrap();
    assert_eq!(edits.iter().map(|edit| edit.body.as_str()).collect::<Vec<_>>(), ["Try this", "One", "Two"]);
    let all = ticket_comment::list(&mut tx, org, &id).await.unwrap();
    assert_eq!(all.iter().map(|named| named.author.as_deref()).collect::<Vec<_>>(), [None, Some("A1@x.de")]);
    assert_eq!(ticket_comment::find(&mut tx, org, &id, &comment.id).await.unwrap().unwrap().comment, comment);
    assert_eq!(ticket_comment::count(&mut tx, org, &id).await.unwrap(), 2);
    assert!(!ticket_comment::delete(&mut tx, &two.organization, &comment.id).await.unwrap());
    assert!(ticket_comment::delete(&mut tx, org, &comment.id).await.unwrap());
}

fn new_delivery(fixture: &Fixture, id: &str) -> NewDelivery {
    NewDelivery {
        id: WebhookDeliveryId::from_store(id.to_owned()),
        organization_id: fixture.organization.clone(),
        webhook_id: WebhookId::from_store("whk_1".to_owned()),
        end_user_id: None,
        event: WebhookEvent::TicketUpdated,
        payload: "{\"a\":\"ü\"}".to_owned(),
        created_at: NOW,
        next_attempt_at: NOW,
    }
}

async fn webhooks_are_stored((db, one, two): (Db, Fixture, Fixture)) {
    let mut tx = db.begin().await.unwrap();
    let org = &one.organization;
    let mut new = Webhook {
        id: WebhookId::from_store("whk_x".to_owned()),
        organization_id: org.clone(),
        url: "https://a.example/hook?x=y".to_owned(),
        description: "Ours".to_owned(),
        secret: "sealed".to_owned(),
        previous_secret: Some("before".to_owned()),
        previous_until: Some(NOW),
        events: vec![WebhookEvent::WalkthroughCompleted, WebhookEvent::TicketCreated],
        enabled: true,
        failing_since: None,
        disabled_at: None,
        created_at: NOW,
        updated_at: NOW,
    };
    let version = tx.config_version().await.unwrap().version;
    webhook::insert(&mut tx, &new).await.unwrap();
    assert!(tx.config_version().await.unwrap().version > version, "other processes are notified");
    assert_eq!(webhook::find(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    assert_eq!(webhook::find(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    let receivers = webhook::list_receivers(&mut tx, org, WebhookEvent::TicketCreated).await.unwrap();
    assert_eq!(receivers.iter().map(WebhookId::as_str).collect::<Vec<_>>(), ["whk_1", "whk_x"]);
    assert_eq!(webhook::list_receivers(&mut tx, org, WebhookEvent::TicketUpdated).await.unwrap(), []);
    (new.enabled, new.disabled_at, new.failing_since) = (false, Some(NOW), Some(NOW));
    assert!(webhook::update(&mut tx, &new).await.unwrap());
    assert_eq!(webhook::list(&mut tx, org).await.unwrap().pop(), Some(new.clone()));
    assert_eq!(webhook::list_receivers(&mut tx, org, WebhookEvent::TicketCreated).await.unwrap().len(), 1);
    let late = [NewDelivery { webhook_id: new.id.clone(), ..new_delivery(&one, "whd_late") }];
    webhook_delivery::enqueue(&mut tx, &late).await.unwrap();
    assert_eq!(
        webhook_delivery::list(&mut tx, org, &new.id, None, 9).await.unwrap(),
        [],
        "deliveries to a disabled webhook are skipped"
    );
    assert!(!webhook::delete(&mut tx, &two.organization, &new.id).await.unwrap());
    assert!(webhook::delete(&mut tx, org, &new.id).await.unwrap());
    webhook_delivery::enqueue(&mut tx, &late).await.unwrap();
    tx.commit().await.unwrap();
}

async fn a_delivery_is_claimed_once((db, one, _): (Db, Fixture, Fixture)) {
    let mut tx = db.begin().await.unwrap();
    let org = &one.organization;
    on!(&mut tx, c => sqlx::query("DELETE FROM webhook_deliveries").execute(c).await.unwrap().rows_affected());
    let new = ["whd_a", "whd_b", "whd_c"].map(|id| new_delivery(&one, id));
    webhook_delivery::enqueue(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    // Concurrently, like several processes.
    let claim = async |limit| {
        let mut tx = db.begin().await.unwrap();
        let taken = webhook_delivery::claim(&mut tx, NOW, NOW.plus(60), limit).await.unwrap();
        tx.commit().await.unwrap();
        taken
    };
    let (a, b, c) = tokio::join!(claim(2), claim(2), claim(2));
    let mut ids: Vec<_> = a.iter().chain(&b).chain(&c).map(|delivery| delivery.id.as_str().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["whd_a", "whd_b", "whd_c"], "each once");
    let mut tx = db.begin().await.unwrap();
    assert!(!webhook_delivery::is_due(&mut tx, NOW.plus(59)).await.unwrap());
    let mut all: Vec<Delivery> = a.into_iter().chain(b).chain(c).collect();
    let mut first = all.remove(0);
    assert_eq!((first.attempts, first.payload.as_str(), first.last_attempt_at), (1, "{\"a\":\"ü\"}", Some(NOW)));
    // After its lease has expired, an attempt cannot record its result.
    let again = webhook_delivery::claim(&mut tx, NOW.plus(60), NOW.plus(120), 9).await.unwrap();
    assert_eq!(again.len(), 3);
    (first.status, first.next_attempt_at) = (DeliveryStatus::Delivered, None);
    assert!(!webhook_delivery::record_attempt(&mut tx, &first).await.unwrap());
    first.attempts = 2;
    (first.delivered_at, first.response_status, first.duration_ms) = (Some(NOW), Some(204), Some(7));
    assert!(!webhook_delivery::replay(&mut tx, org, &first.id, NOW).await.unwrap(), "it is still pending");
    assert!(webhook_delivery::record_attempt(&mut tx, &first).await.unwrap());
    first.last_attempt_at = Some(NOW.plus(60));
    assert_eq!(webhook_delivery::find(&mut tx, org, &first.id).await.unwrap(), Some(first.clone()));
    assert!(webhook_delivery::replay(&mut tx, org, &first.id, NOW).await.unwrap());
    assert_eq!(webhook_delivery::claim(&mut tx, NOW, NOW.plus(1), 9).await.unwrap()[0].attempts, 1);
    webhook_delivery::fail_pending(&mut tx, org, &first.webhook_id, "off").await.unwrap();
    let listed = webhook_delivery::list(&mut tx, org, &first.webhook_id, None, 2).await.unwrap();
    assert_eq!(
        listed.iter().map(|ticket| (ticket.id.as_str(), ticket.status)).collect::<Vec<_>>(),
        [("whd_c", DeliveryStatus::Failed), ("whd_b", DeliveryStatus::Failed)]
    );
    let rest = webhook_delivery::list(&mut tx, org, &first.webhook_id, Some(&listed[1].id), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(webhook_delivery::delete_old(&mut tx, NOW, 9).await.unwrap(), 0);
    assert_eq!(webhook_delivery::delete_old(&mut tx, Timestamp(NOW.0 + 1), 2).await.unwrap(), 2);
}

async fn a_deleted_assignee_is_removed_from_tickets((db, one, _): (Db, Fixture, Fixture)) {
    let mut tx = db.begin().await.unwrap();
    let sql = "DELETE FROM users WHERE id = 'usr_1'";
    on!(&mut tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
    let id = TicketId::from_store("tkt_1".to_owned());
    let named = ticket::find(&mut tx, &one.organization, &id).await.unwrap().unwrap();
    assert_eq!(named.ticket.assignee_id, None::<UserId>);
}

waypost_testkit::both!(
    fixtures => a_ticket_is_stored, tickets_are_found, comments_keep_their_edit_history, webhooks_are_stored,
    a_delivery_is_claimed_once, a_deleted_assignee_is_removed_from_tickets
);
