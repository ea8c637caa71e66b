//! Tests of tickets, comments and webhooks: permissions and separation of organisations.

use waypost_core::id::{TicketId, WebhookDeliveryId, WebhookId};
use waypost_core::organization::Role;
use waypost_core::seal::Keyring;
use waypost_core::secret::SecretKey;
use waypost_core::ticket::TicketStatus;
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Code, Result};
use waypost_ops::Ops;
use waypost_ops::ticket_comments::{self, NewComment};
use waypost_ops::tickets::{self, TicketFilter, TicketListQuery, TicketPatch};
use waypost_ops::webhooks::{self, NewWebhook};
use waypost_ops::{secret_key, webhook_deliveries};
use waypost_outbound::{Outbound, Policy};
use waypost_store::on;

use crate::fixture::{Fixture, Tenant, set_up};

waypost_testkit::both!(extended set_up =>
    members_can_only_access_tickets_of_their_organisation,
    admins_can_only_access_webhooks_of_their_organisation,
    secrets_are_resealed_with_a_new_key,
);

fn error_code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code
}

async fn insert_ticket(fixture: &Fixture, tenant: &Tenant) -> TicketId {
    let id = TicketId::from_store(format!("tkt_{:0>24}", tenant.organization.slug));
    let sql = sqlx::AssertSqlSafe(format!(
        "INSERT INTO tickets (id, organization_id, number, server_id, end_user_id, title, problem, email_verified, status,
             priority, search, revision, created_at, updated_at)
         VALUES ('{id}', '{}', 1, '{}', '{}', 'T', 'P', FALSE, 'needs_email', 'normal', 't', 1, 1, 1)",
        tenant.organization.id, tenant.server.id, tenant.end_user
    ));
    let mut tx = fixture.ops.store().begin().await.unwrap();
    on!(&mut tx, c => sqlx::raw_sql(sql).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    id
}

async fn members_can_only_access_tickets_of_their_organisation(fixture: Fixture) {
    let (acme, other) = (fixture.create_tenant("acme").await, fixture.create_tenant("other").await);
    let (id, ops, org) = (insert_ticket(&fixture, &acme).await, &fixture.ops, &acme.organization.id);
    let (cx, outsider) =
        (fixture.member_context(org, Role::Member), fixture.member_context(&other.organization.id, Role::Owner));
    let close = TicketPatch { status: Some(TicketStatus::Closed), ..TicketPatch::default() };
    let note = NewComment { body: "<b>Hi</b>".to_owned(), internal: true, resolve: false };
    // With the ID of either organisation.
    for org in [org, &other.organization.id] {
        assert_eq!(error_code(tickets::get(&outsider, ops, org, &id).await), Code::NotFound);
        assert_eq!(error_code(tickets::update(&outsider, ops, org, &id, None, &close).await), Code::NotFound);
        assert_eq!(error_code(ticket_comments::create(&outsider, ops, org, &id, &note).await), Code::NotFound);
        assert_eq!(error_code(ticket_comments::list(&outsider, ops, org, &id).await), Code::NotFound);
    }
    let own = tickets::list(&outsider, ops, &other.organization.id, TicketListQuery::default()).await.unwrap();
    assert!(own.items.is_empty());
    let added = ticket_comments::create(&cx, ops, org, &id, &note).await.unwrap();
    assert_eq!((added.named.comment.body.as_str(), &added.named.comment.mailed_to), ("Hi", &None));
    let foreign = TicketPatch { assignee: Some(Some(other.owner.user_id.to_string())), ..TicketPatch::default() };
    assert_eq!(error_code(tickets::update(&cx, ops, org, &id, None, &foreign).await), Code::InvalidArguments);
    let assign = TicketPatch { assignee: Some(Some("MEMBER@acme.de".to_owned())), ..TicketPatch::default() };
    let assigned = tickets::update(&cx, ops, org, &id, Some(1), &assign).await.unwrap();
    assert_eq!((assigned.assignee.as_deref(), assigned.ticket.revision), (Some("member@acme.de"), 2));
    assert_eq!(error_code(tickets::update(&cx, ops, org, &id, Some(1), &close).await), Code::PreconditionFailed);
    let set_email = TicketPatch { email: Some("a@b.de".to_owned()), ..TicketPatch::default() };
    assert_eq!(
        tickets::update(&cx, ops, org, &id, None, &set_email).await.unwrap().ticket.status,
        TicketStatus::Pending
    );
    let same = tickets::update(&cx, ops, org, &id, None, &set_email).await.unwrap();
    assert_eq!(same.ticket.revision, 3, "an unchanged patch does not change the revision");
    let counts = tickets::count_by_status(&cx, ops, org, &TicketFilter::default()).await.unwrap();
    assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [0, 1, 0, 0, 0]);
}

/// Returns `ops` with outbound requests and sealing enabled.
fn complete(ops: &Ops, keyring: Keyring) -> Ops {
    ops.clone().with_outbound(Outbound::new(Policy::default()).unwrap()).with_keyring(keyring)
}

async fn admins_can_only_access_webhooks_of_their_organisation(fixture: Fixture) {
    let (acme, other) = (fixture.create_tenant("acme").await, fixture.create_tenant("other").await);
    let org = &acme.organization.id;
    let ops = &complete(&fixture.ops, Keyring::new(&SecretKey::new([1; 32]), None));
    let new = NewWebhook {
        url: "https://hook.example/secret-path".to_owned(),
        description: String::new(),
        events: vec![WebhookEvent::TicketCreated],
    };
    let member = fixture.member_context(org, Role::Member);
    assert_eq!(error_code(webhooks::create(&member, ops, org, &new).await), Code::Forbidden);
    assert_eq!(error_code(webhooks::list(&member, ops, org).await), Code::Forbidden);
    let admin = fixture.member_context(org, Role::Admin);
    let (webhook, _) = webhooks::create(&admin, ops, org, &new).await.unwrap();
    let outsider = fixture.member_context(&other.organization.id, Role::Owner);
    for org in [org, &other.organization.id] {
        assert_eq!(error_code(webhooks::get(&outsider, ops, org, &webhook.id).await), Code::NotFound);
        assert_eq!(error_code(webhooks::delete(&outsider, ops, org, &webhook.id).await), Code::NotFound);
        assert_eq!(error_code(webhooks::send_test(&outsider, ops, org, &webhook.id).await), Code::NotFound);
        assert_eq!(error_code(webhooks::rotate_secret(&outsider, ops, org, &webhook.id).await), Code::NotFound);
    }
    let sent = webhooks::send_test(&admin, ops, org, &webhook.id).await.unwrap();
    let unknown = WebhookDeliveryId::from_store("whd_unknown".to_owned());
    assert_eq!(error_code(webhook_deliveries::replay(&admin, ops, org, &unknown).await), Code::NotFound);
    assert_eq!(
        error_code(webhook_deliveries::replay(&admin, ops, org, &sent.id).await),
        Code::Conflict,
        "the delivery is pending"
    );
    assert_eq!(
        error_code(webhook_deliveries::claim(&admin, ops, 1).await),
        Code::Forbidden,
        "only the server process can claim deliveries"
    );
    let unknown = WebhookId::from_store("whk_none".to_owned());
    assert_eq!(error_code(webhook_deliveries::list(&admin, ops, org, &unknown, None, None).await), Code::NotFound);
}

async fn secrets_are_resealed_with_a_new_key(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, cx) = (&acme.organization.id, &fixture.cx);
    let (old_key, new_key) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]));
    let ops = &complete(&fixture.ops, Keyring::new(&old_key, None));
    let events = vec![WebhookEvent::TicketCreated];
    let new_webhook = NewWebhook { url: "https://hook.example/".to_owned(), description: String::new(), events };
    let (webhook, _) = webhooks::create(cx, ops, org, &new_webhook).await.unwrap();
    webhooks::rotate_secret(cx, ops, org, &webhook.id).await.unwrap();
    let keyring = Keyring::new(&new_key, Some(&old_key));
    assert_eq!(secret_key::reseal(cx, ops, &keyring).await.unwrap().resealed, 2, "the current and the previous secret");
    assert!(keyring.is_current(&webhooks::get(cx, ops, org, &webhook.id).await.unwrap().secret));
}
