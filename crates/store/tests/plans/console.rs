//! The statements of the console.

use waypost_core::id::{EmailId, UserId};
use waypost_core::organization::User;
use waypost_store::email_queue::{self, NewEmail};
use waypost_store::{sign_in_attempt, ticket_digest, user_account};

use waypost_core::Timestamp;
use waypost_core::account::CodePurpose;
use waypost_core::analytics::TimeRange;
use waypost_core::id::{InvitationId, TicketCommentId, TicketId, UserCodeId, WebhookDeliveryId, WebhookId};
use waypost_core::invitation::Invitation;
use waypost_core::organization::Role;
use waypost_core::ticket::{Ticket, TicketComment, TicketCommentEdit, TicketStatus};
use waypost_core::webhook::{NewDelivery, Webhook, WebhookEvent};
use waypost_store::analytics::{DueServer, LogQuery, PackedLog};
use waypost_store::idempotency::IdempotencyClaim;
use waypost_store::{
    Tx, activity, analytics, api_key, audit, end_user, idempotency, invitation, invitation_accept, system, ticket,
    ticket_comment, user, user_code, user_session, version, webhook, webhook_delivery,
};

use crate::fixture::{Fixture, NOW};

pub(super) async fn users(tx: &mut Tx, one: &Fixture) {
    user::find(tx, &one.user).await.unwrap();
    user_session::find(tx, "hash", NOW).await.unwrap();
    user_session::list_memberships(tx, &one.user).await.unwrap();
    for session in user_session::list(tx, &one.user, Timestamp(0)).await.unwrap() {
        user_session::record_use(tx, &session).await.unwrap();
        user_session::delete_others(tx, &one.user, Some(&session.id)).await.unwrap();
        user_session::delete(tx, &one.user, &session.id).await.unwrap();
    }
    let claim = IdempotencyClaim {
        actor: "usr_x".to_owned(),
        key: "once".to_owned(),
        organization_id: None,
        request_hash: "hash".to_owned(),
        created_at: NOW,
        expires_at: NOW,
    };
    idempotency::claim(tx, &claim).await.unwrap();
    idempotency::find(tx, "usr_x", "once").await.unwrap();
    idempotency::complete(tx, "usr_x", "once", "sealed").await.unwrap();
    idempotency::release(tx, "usr_x", "once").await.unwrap();
}

/// Invitations.
pub(super) async fn invite(tx: &mut Tx, one: &Fixture) {
    let (org, id) = (&one.organization, InvitationId::from_store("inv_new".to_owned()));
    let new = Invitation {
        id: id.clone(),
        organization_id: org.clone(),
        email: "b@x.de".to_owned(),
        role: Role::Member,
        invited_by: one.user.to_string(),
        created_at: NOW,
        expires_at: NOW.plus(1),
        accepted_at: None,
        revoked_at: None,
    };
    assert!(invitation::lock(tx, org).await.unwrap());
    invitation::insert(tx, &new, "b@x.de", "invited").await.unwrap();
    invitation::find(tx, org, &id).await.unwrap();
    invitation::list(tx, org, None, 10).await.unwrap();
    invitation::list(tx, org, Some(&id), 10).await.unwrap();
    invitation::count_pending(tx, org, NOW).await.unwrap();
    invitation::renew(tx, &new, "renewed").await.unwrap();
    invitation::mark_emailed(tx, org, &id, "renewed", NOW).await.unwrap();
    invitation::revoke_for_email(tx, org, "b@x.de", Some(&id), NOW).await.unwrap();
    invitation::revoke(tx, org, &id, NOW).await.unwrap();
}

/// Logs, end users and analytics.
pub(super) async fn read_logs(tx: &mut Tx, one: &Fixture) {
    let (org, server, user) = (&one.organization, &one.server, &one.end_user);
    let range = TimeRange { from: Timestamp(0), to: NOW.plus(1) };
    let query = activity::ActivityQuery {
        organization: org,
        server: None,
        end_user: None,
        walkthrough: None,
        range,
        after: None,
        oldest_first: false,
        limit: 10,
    };
    let one_user = activity::ActivityQuery { end_user: Some(user), ..query.clone() };
    let one_walkthrough =
        activity::ActivityQuery { walkthrough: Some(&one.walkthrough), oldest_first: true, ..query.clone() };
    for query in [query, one_user, one_walkthrough] {
        activity::list_events(tx, &query).await.unwrap();
        activity::list_calls(tx, &query).await.unwrap();
        activity::list_sessions(tx, &query).await.unwrap();
    }
    let log_query = LogQuery { organization: org, server: Some(server), walkthrough: Some(&one.walkthrough), range };
    let mut packed = PackedLog::default();
    analytics::read_events(tx, log_query, &mut packed).await.unwrap();
    analytics::read_calls(tx, log_query, &mut packed).await.unwrap();
    let later = NOW.plus(10_000_000);
    assert!(!analytics::list_due(tx, later).await.unwrap().is_empty());
    let due = DueServer { organization_id: org.clone(), server_id: server.clone() };
    while analytics::roll_up(tx, &due, later).await.unwrap() {}
    version::list_step_titles(tx, org, &one.walkthrough).await.unwrap();
    end_user::find(tx, org, user).await.unwrap().unwrap();
    let search = end_user::EndUserSearch {
        text: Some("a"),
        server: Some(server),
        limit: 10,
        ..end_user::EndUserSearch::default()
    };
    end_user::list(tx, org, search).await.unwrap();
    end_user::list_attempts(tx, org, user).await.unwrap();
    end_user::count_data(tx, org, user).await.unwrap();
    end_user::export(tx, org, user).await.unwrap();
}

/// Sign-in of console users.
pub(super) async fn console_sign_in(tx: &mut Tx, one: &Fixture) {
    let (org, id) = (&one.organization, &one.user);
    system::has_account(tx).await.unwrap();
    system::list_organizations_without_owner(tx).await.unwrap();
    system::lock_accounts(tx, "a1@x.de").await.unwrap();
    system::find_verified_user(tx, "a1@x.de").await.unwrap();
    system::record_failed_sign_in(tx, "a1@x.de", NOW).await.unwrap();
    system::list_organizations_by_email(tx, "a1@x.de").await.unwrap();
    sign_in_attempt::count(tx, "p00000", NOW).await.unwrap();
    sign_in_attempt::increment(tx, "p00000", NOW).await.unwrap();
    audit::insert_all(tx, &[]).await.unwrap();
    system::find_invitation(tx, "token-1", NOW).await.unwrap();
    invitation_accept::accept(tx, org, &InvitationId::from_store("inv_1".to_owned()), NOW).await.unwrap();
    user::find(tx, id).await.unwrap();
    user::find_credentials(tx, id).await.unwrap();
    user::mark_verified(tx, id, NOW).await.unwrap();
    user::set_name(tx, id, "Anna").await.unwrap();
    user::set_password(tx, id, "argon").await.unwrap();
    let code_id = UserCodeId::from_store("uco_x".to_owned());
    let code = user_code::NewUserCode {
        id: &code_id,
        email: "a@x.de",
        email_key: "a@x.de",
        purpose: CodePurpose::SignIn,
        browser_hash: "browser",
        code_hash: "hash",
        password_hash: None,
        created_at: NOW,
        expires_at: NOW,
    };
    user_code::insert(tx, &code).await.unwrap();
    user_code::find_email_key(tx, &code_id).await.unwrap();
    let key = user_code::UserCodeKey { id: &code_id, browser_hash: "browser" };
    user_code::find_pending(tx, key, NOW).await.unwrap();
    user_code::verify(tx, key, "hash", NOW).await.unwrap();
    let link_id = UserCodeId::from_store("uco_y".to_owned());
    let link = user_code::NewUserLink {
        id: &link_id,
        user: id,
        email: "a@x.de",
        email_key: "a@x.de",
        token_hash: "link",
        created_at: NOW,
        expires_at: NOW,
    };
    user_code::insert_link(tx, &link).await.unwrap();
    user_code::find_link(tx, "link", NOW).await.unwrap();
    user_code::consume_link(tx, "link", NOW).await.unwrap();
    user_session::find(tx, "session-1", NOW).await.unwrap();
    user_session::list(tx, id, NOW).await.unwrap();
    user_session::list_memberships(tx, id).await.unwrap();
    user_session::delete_others(tx, id, None).await.unwrap();
    user_session::delete_by_token(tx, "session-1").await.unwrap();
    user_account::revoke_access(tx, id, NOW).await.unwrap();
    user_account::delete_api_keys(tx, id.as_str()).await.unwrap();
    api_key::list_created_by(tx, org, &waypost_core::id::ApiKeyId::from_store("key_1".to_owned())).await.unwrap();
    invitation::find_highest_pending_role(tx, org, "a1@x.de", None, NOW).await.unwrap();
    invitation::revoke_by_inviter(tx, org, "usr_1", None, NOW).await.unwrap();
    user_account::revoke_invitations(tx, id.as_str(), NOW).await.unwrap();
    let into = User {
        id: UserId::from_store("usr_x".to_owned()),
        email: "x@x.de".to_owned(),
        name: None,
        verified_at: None,
        organization_id: Some(org.clone()),
        created_at: NOW,
    };
    user::insert(tx, &into, "x@x.de").await.unwrap();
    user_account::merge(tx, &into.id, &one.user).await.unwrap();
}

/// Tickets and comments.
pub(super) async fn use_tickets(tx: &mut Tx, one: &Fixture) {
    let (org, id) = (&one.organization, TicketId::from_store("tkt_1".to_owned()));
    let named = ticket::find(tx, org, &id).await.unwrap().unwrap();
    ticket::find_for_update(tx, org, &id).await.unwrap();
    let number = ticket::next_number(tx, org).await.unwrap();
    let other = Ticket { id: TicketId::from_store("tkt_other".to_owned()), number, ..named.ticket };
    ticket::insert(tx, &other).await.unwrap();
    ticket::update(tx, &other).await.unwrap();
    for status in [None, Some(TicketStatus::Pending)] {
        let filter = ticket::TicketFilter { status, text: Some("a".to_owned()), ..ticket::TicketFilter::default() };
        ticket::list(tx, org, &filter, None, 10).await.unwrap();
        ticket::count_by_status(tx, org, &filter).await.unwrap();
    }
    ticket::list_for_end_user(tx, org, &one.end_user, 10).await.unwrap();
    for opener in [ticket::Opener::EndUser(&one.end_user), ticket::Opener::Unidentified(&one.server)] {
        ticket::count_for_opener(tx, org, opener, NOW).await.unwrap();
        ticket::list_without_email(tx, org, opener, NOW).await.unwrap();
    }
    let comment = ticket_comment::list(tx, org, &id).await.unwrap().remove(0).comment;
    ticket_comment::list_replies(tx, org, &id, 20).await.unwrap();
    ticket_comment::find(tx, org, &id, &comment.id).await.unwrap().unwrap();
    ticket_comment::count(tx, org, &id).await.unwrap();
    let (comment_id, edited_by) = (comment.id.clone(), "usr_1".to_owned());
    let edit = TicketCommentEdit { comment_id, body: comment.body.clone(), edited_by, edited_at: NOW };
    ticket_comment::insert_edit(tx, org, &edit).await.unwrap();
    ticket_comment::list_edits(tx, org, &id).await.unwrap();
    ticket_comment::update(tx, &comment).await.unwrap();
    let again = TicketComment { id: TicketCommentId::from_store("tkc_again".to_owned()), ..comment };
    ticket_comment::insert(tx, &again).await.unwrap();
    ticket_comment::mark_unsent(tx, org, &again.id).await.unwrap();
    ticket_comment::delete(tx, org, &again.id).await.unwrap();
    notify(tx, one).await;
}

/// Limits of tickets, digests, and emails.
async fn notify(tx: &mut Tx, one: &Fixture) {
    let (org, server, id) = (&one.organization, &one.server, TicketId::from_store("tkt_other".to_owned()));
    ticket::set_client_network(tx, org, &id, "network").await.unwrap();
    ticket::is_duplicate(tx, org, server, "T", "P", NOW).await.unwrap();
    ticket::count_for_server(tx, org, server, NOW).await.unwrap();
    system::lock_and_count_tickets_from_network(tx, "network", NOW).await.unwrap();
    ticket_digest::schedule(tx, org, server, &id, NOW, 60).await.unwrap();
    ticket_digest::is_due(tx, NOW).await.unwrap();
    let due = ticket_digest::claim(tx, NOW).await.unwrap().unwrap();
    ticket_digest::postpone(tx, &due, NOW).await.unwrap();
    ticket_digest::consume_tickets(tx, &due).await.unwrap();
    let email = NewEmail {
        id: &EmailId::from_store("eml_other".to_owned()),
        organization_id: org,
        ticket_id: Some(&id),
        comment_id: None,
        recipient: "a@b.de",
        subject: "S",
        body: "B",
        html: "<p>B</p>",
        reply_to: None,
        created_at: NOW,
    };
    email_queue::enqueue(tx, &email).await.unwrap();
    email_queue::count(tx, org).await.unwrap();
    email_queue::is_due(tx, NOW).await.unwrap();
    for email in email_queue::claim(tx, NOW, NOW.plus(60), 9).await.unwrap() {
        email_queue::postpone(tx, &email, NOW).await.unwrap();
        email_queue::delete(tx, &email).await.unwrap();
    }
}

/// A delivery to the webhook of a fixture.
pub(super) fn delivery(id: &str) -> NewDelivery {
    let one = Fixture::new(1);
    NewDelivery {
        id: WebhookDeliveryId::from_store(id.to_owned()),
        organization_id: one.organization,
        webhook_id: WebhookId::from_store("whk_1".to_owned()),
        end_user_id: Some(one.end_user),
        event: WebhookEvent::WalkthroughCompleted,
        payload: "{}".to_owned(),
        created_at: NOW,
        next_attempt_at: NOW,
    }
}

/// Webhooks and their deliveries.
pub(super) async fn use_webhooks(tx: &mut Tx, one: &Fixture) {
    let org = &one.organization;
    let webhook = webhook::list(tx, org).await.unwrap().remove(0);
    let id = webhook.id.clone();
    webhook::find(tx, org, &id).await.unwrap().unwrap();
    webhook::update(tx, &webhook).await.unwrap();
    webhook::set_failing_since(tx, org, &id, None).await.unwrap();
    webhook::list_receivers(tx, org, WebhookEvent::TicketCreated).await.unwrap();
    let other = Webhook { id: WebhookId::from_store("whk_other".to_owned()), ..webhook };
    webhook::insert(tx, &other).await.unwrap();
    webhook::delete(tx, org, &other.id).await.unwrap();
    webhook_delivery::enqueue(tx, &[delivery("whd_sent")]).await.unwrap();
    assert!(webhook_delivery::is_due(tx, NOW).await.unwrap());
    let claimed = webhook_delivery::claim(tx, NOW, NOW.plus(1), 10).await.unwrap().remove(0);
    webhook_delivery::record_attempt(tx, &claimed).await.unwrap();
    webhook_delivery::fail_pending(tx, org, &id, "off").await.unwrap();
    webhook_delivery::replay(tx, org, &claimed.id, NOW).await.unwrap();
    webhook_delivery::find(tx, org, &claimed.id).await.unwrap();
    webhook_delivery::list(tx, org, &id, None, 10).await.unwrap();
    webhook_delivery::delete_old(tx, NOW, 10).await.unwrap();
}
