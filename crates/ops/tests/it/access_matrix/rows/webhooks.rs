//! The rows of webhooks.

use waypost_core::id::{WebhookDeliveryId, WebhookId};
use waypost_ops::webhooks::{NewWebhook, WebhookPatch};
use waypost_ops::{webhook_deliveries, webhooks};

use super::super::Access;
use super::{Call, Row, row};

pub(super) async fn webhooks(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let org = &t.organization.id;
    let (id, delivery) = (&WebhookId::from_store("whk_0".into()), &WebhookDeliveryId::from_store("whd_0".into()));
    let new = NewWebhook { url: "https://hook.example".into(), description: String::new(), events: Vec::new() };
    rows! {
        Admin webhooks::create(cx, ops, org, &new);
        Admin webhooks::list(cx, ops, org);
        Admin webhooks::get(cx, ops, org, id);
        Admin webhooks::update(cx, ops, org, id, &WebhookPatch::default());
        Admin webhooks::rotate_secret(cx, ops, org, id);
        Admin webhooks::send_test(cx, ops, org, id);
        Admin webhooks::delete(cx, ops, org, id);
        Admin webhook_deliveries::list(cx, ops, org, id, None, None);
        Admin webhook_deliveries::get(cx, ops, org, delivery);
        Admin webhook_deliveries::replay(cx, ops, org, delivery);
    }
}
