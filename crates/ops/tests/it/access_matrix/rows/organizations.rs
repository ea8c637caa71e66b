//! The rows of organisations and their reports, and of the operator.

use waypost_core::Timestamp;
use waypost_core::analytics::TimeRange;
use waypost_core::id::{WebhookDeliveryId, WebhookId};
use waypost_core::seal::Keyring;
use waypost_core::secret::SecretKey;
use waypost_core::webhook::{Delivery, DeliveryStatus, WebhookEvent};
use waypost_ops::analytics::{AnalyticsQuery, ReportParts};
use waypost_ops::audit_events::AuditFilter;
use waypost_ops::audit_export::AuditExportFormat;
use waypost_ops::end_users::{EndUserSearch, TimelineKinds};
use waypost_ops::organizations::OrganizationPatch;
use waypost_ops::{
    activity, analytics, audit_events, audit_export, claim_links, end_users, identity_provider, joins, logos,
    notifications, organizations, overview, secret_key, servers, try_it, user_accounts, users, walkthroughs,
    webhook_deliveries,
};

use super::super::Access;
use super::super::content::target;
use super::{Call, Row, row};

pub(super) async fn operator(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, user) = (&t.organization.id, &t.member.user_id);
    let keyring = Keyring::new(&SecretKey::new([7; 32]), None);
    let delivery = Delivery {
        id: WebhookDeliveryId::from_store("whd_0".into()),
        organization_id: org.clone(),
        webhook_id: WebhookId::from_store("whk_0".into()),
        event: WebhookEvent::Test,
        payload: "{}".into(),
        status: DeliveryStatus::Pending,
        attempts: 0,
        next_attempt_at: None,
        last_attempt_at: None,
        response_status: None,
        response_body: None,
        error: None,
        duration_ms: None,
        created_at: Timestamp(1),
        delivered_at: None,
    };
    rows! {
        Operator notifications::send_due(cx, ops);
        Operator secret_key::reseal(cx, ops, &keyring);
        Operator identity_provider::refresh_due_tokens(cx, ops);
        Operator webhook_deliveries::claim(cx, ops, 1);
        Operator webhook_deliveries::attempt(cx, ops, delivery);
        Operator user_accounts::create_account_link(cx, ops, org, user);
        Operator user_accounts::create_first_account_link(cx, ops, org, user);
    }
}

pub(super) async fn organization(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let org = &t.organization.id;
    let rename = OrganizationPatch { name: Some(new.to_owned()), ..OrganizationPatch::default() };
    let filter = &AuditFilter::default();
    let key = SecretKey::new([1; 32]);
    rows! {
        Member organizations::resolve(cx, ops, &t.organization.slug);
        Member organizations::get(cx, ops, org);
        Admin organizations::update(cx, ops, org, &rename);
        Member overview::get(cx, ops, org);
        Owner overview::get_contents(cx, ops, org);
        Admin audit_events::list(cx, ops, org, filter, None, 10);
        Admin audit_events::export(cx, ops, org, filter, "csv");
        Admin audit_export::render(cx, ops, org, filter, AuditExportFormat::Csv);
        Member logos::find(cx, ops, org);
        Member logos::find_updated_at(cx, ops, org);
        Admin logos::set(cx, ops, org, Vec::new());
        Admin logos::delete(cx, ops, org);
        Admin joins::list(cx, ops, org);
        Admin joins::list_page(cx, ops, org, None, 1);
        Admin joins::count_recent_claims(cx, ops, org);
        Admin joins::get(cx, ops, org, &t.join);
        Admin joins::undo(cx, ops, org, &t.join);
        Admin claim_links::create(cx, ops, &key, org, &t.server.id, "ann", 1);
        Member try_it::reset(cx, ops, org);
    }
}

pub(super) async fn reports(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, user) = (&t.organization.id, &t.end_user);
    let range = TimeRange { from: Timestamp(0), to: Timestamp(1) };
    let filter = &activity::ActivityFilter {
        server_id: None,
        end_user_id: None,
        walkthrough_id: None,
        range,
        after: None,
        oldest_first: true,
        limit: 1,
    };
    let query = &AnalyticsQuery { range, server_id: None, walkthrough_id: None, version: None, client: None };
    let parts = ReportParts { events: true, calls: true, previous: true };
    let kinds = TimelineKinds { sessions: true, events: true, calls: true, tickets: true };
    let search = &EndUserSearch { limit: 1, ..EndUserSearch::default() };
    rows! {
        Member activity::list_events(cx, ops, org, filter);
        Member activity::list_calls(cx, ops, org, filter);
        Member activity::list_sessions(cx, ops, org, filter);
        Member analytics::run(cx, ops, org, query, parts, |report| report.overview());
        Member analytics::export::export(cx, ops, org, query, "overview", true);
        Member end_users::list(cx, ops, org, search);
        Member end_users::get(cx, ops, org, user);
        Member end_users::list_progress(cx, ops, org, user);
        Member end_users::count_data(cx, ops, org, user);
        Member end_users::get_timeline(cx, ops, org, user, kinds, None, 1);
        Admin end_users::resolve(cx, ops, org, "tracked");
        Admin end_users::export(cx, ops, org, user);
    }
}

pub(super) async fn removals(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, id) = (&t.organization.id, &t.walkthrough);
    rows! {
        Member walkthroughs::trash::delete(cx, ops, target(t));
        Member walkthroughs::trash::list_deleted(cx, ops, org);
        Member walkthroughs::trash::restore(cx, ops, org, id);
        Admin walkthroughs::trash::purge(cx, ops, org, id);
        Admin end_users::delete_confirmed(cx, ops, org, &t.end_user, "no");
        Admin end_users::delete(cx, ops, org, &t.end_user);
        Admin users::delete(cx, ops, org, &t.member.user_id);
        Owner users::delete(cx, ops, org, &t.owner.user_id);
        Admin servers::delete(cx, ops, org, &t.server.id);
        Owner organizations::delete(cx, ops, org);
    }
}
