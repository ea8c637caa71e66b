//! Tests that a panic while one email is sent does not affect other emails.

use std::sync::{Arc, Mutex};

use waypost_core::caller::Ctx;
use waypost_core::clock::ManualClock;
use waypost_core::id::EmailId;
use waypost_ops::notifications::{self, EmailText, Notification, Notifier, SendFuture, SendOutcome};
use waypost_store::email_queue::{self, NewEmail, QueuedEmail};

use crate::fixture::{Fixture, set_up};

waypost_testkit::both!(extended set_up => a_panic_counts_as_a_failed_attempt);

/// A notifier that panics for `panic@acme.de`.
#[derive(Default)]
struct PanickingNotifier {
    sent: Mutex<Vec<String>>,
    discarded: Mutex<u32>,
}

impl Notifier for PanickingNotifier {
    fn compose(&self, _: &Notification) -> EmailText {
        unreachable!("no new email is composed")
    }

    fn send<'a>(&'a self, email: &'a QueuedEmail) -> SendFuture<'a> {
        Box::pin(async move {
            assert_ne!(email.recipient, "panic@acme.de", "the notifier panics");
            self.sent.lock().unwrap().push(email.recipient.clone());
            SendOutcome::Sent
        })
    }

    fn record_discarded(&self) {
        *self.discarded.lock().unwrap() += 1;
    }
}

/// The other emails are sent, and the email that causes the panic is discarded after its last attempt.
async fn a_panic_counts_as_a_failed_attempt(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await.organization.id;
    let mut tx = fixture.ops.store().begin().await.unwrap();
    for recipient in ["anna@acme.de", "panic@acme.de", "bert@acme.de"] {
        let created_at = fixture.cx.now();
        let id = EmailId::new(created_at, &*fixture.cx.random);
        let (organization_id, subject, body) = (&acme, "Subject", "Text");
        let email = NewEmail {
            id: &id,
            organization_id,
            ticket_id: None,
            comment_id: None,
            recipient,
            subject,
            body,
            html: body,
            reply_to: None,
            created_at,
        };
        email_queue::enqueue(&mut tx, &email).await.unwrap();
    }
    tx.commit().await.unwrap();
    let notifier = Arc::new(PanickingNotifier::default());
    let ops = fixture.ops.clone().with_notifier(notifier.clone());
    let clock = Arc::new(ManualClock::new(fixture.cx.now()));
    let cx = Ctx { clock: clock.clone(), ..fixture.cx.clone() };
    assert_eq!(notifications::send_due(&cx, &ops).await.unwrap(), 3);
    let mut sent = notifier.sent.lock().unwrap().clone();
    sent.sort();
    assert_eq!(sent, ["anna@acme.de", "bert@acme.de"]);
    let mut attempts = 1;
    while email_queue::count(&mut ops.store().read().await.unwrap(), &acme).await.unwrap() > 0 {
        clock.advance(24 * 3_600_000);
        attempts += notifications::send_due(&cx, &ops).await.unwrap();
    }
    assert_eq!((attempts, *notifier.discarded.lock().unwrap()), (8, 1));
}
