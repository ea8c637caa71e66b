//! Outgoing webhooks: events, signatures (Standard Webhooks, <https://www.standardwebhooks.com>), and the retry
//! schedule.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::id::{EndUserId, OrganizationId, WebhookDeliveryId, WebhookId};
use crate::random::Random;
use crate::seal::SecretText;
use crate::walkthrough::names;

/// The prefix of every secret.
pub const SECRET_PREFIX: &str = "whsec_";
/// Random bytes in a secret; the standard requires 24 to 64.
const SECRET_BYTES: usize = 32;
/// Maximum number of webhooks per organisation.
pub const MAX_WEBHOOKS: usize = 20;
/// Maximum length of a URL in characters.
pub const MAX_URL: usize = 2_000;
/// The time for which the previous secret signs alongside the new one after a rotation, in milliseconds.
pub const ROTATION_MS: i64 = 24 * HOUR;
/// A webhook whose deliveries have failed for this long is disabled.
pub const MAX_FAILING_MS: i64 = 5 * 24 * HOUR;
/// Lease of a delivery attempt, in milliseconds. Longer than any attempt can take.
pub const LEASE_MS: i64 = MINUTE;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// The delays after failed attempts, in milliseconds. A delivery has one more attempt than there are delays.
const RETRY_DELAYS: [i64; 6] = [MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 8 * HOUR, 24 * HOUR];

names! {
    /// An event that webhooks can receive.
    WebhookEvent {
        /// An end user opened a support ticket.
        TicketCreated = "ticket.created",
        /// The status, priority, assignee or email of a ticket changed.
        TicketUpdated = "ticket.updated",
        /// A team member commented on a ticket.
        TicketCommented = "ticket.commented",
        /// An end user completed a walkthrough.
        WalkthroughCompleted = "walkthrough.completed",
        /// A walkthrough was published.
        WalkthroughPublished = "walkthrough.published",
        /// A signed-in end user claimed progress recorded under a tracking ID.
        ProgressClaimed = "progress.claimed",
        /// An instance became unhealthy.
        InstanceUnhealthy = "instance.unhealthy",
        /// An instance failed, or crashes repeatedly.
        InstanceFailed = "instance.failed",
        /// Three heartbeats of a toolbox are missing.
        ToolboxUnresponsive = "toolbox.unresponsive",
        /// A deployment has ended successfully.
        DeploymentComplete = "deployment.complete",
        /// A tool server has a new or changed definition that waits for an approval.
        DefinitionChanged = "definition.changed",
        /// An agent was granted access to an instance.
        GrantCreated = "grant.created",
        /// A tool server that served calls became unhealthy, or failed.
        UpstreamDown = "upstream.down",
        /// A test event, which every webhook can receive.
        Test = "webhook.test",
    }
}

impl WebhookEvent {
    /// The events that a webhook can subscribe to.
    pub const SUBSCRIBABLE: [Self; 13] = [
        Self::TicketCreated,
        Self::TicketUpdated,
        Self::TicketCommented,
        Self::WalkthroughCompleted,
        Self::WalkthroughPublished,
        Self::ProgressClaimed,
        Self::InstanceUnhealthy,
        Self::InstanceFailed,
        Self::ToolboxUnresponsive,
        Self::DeploymentComplete,
        Self::DefinitionChanged,
        Self::GrantCreated,
        Self::UpstreamDown,
    ];
}

names! {
    /// The status of a delivery.
    DeliveryStatus {
        /// Waiting for the next attempt.
        Pending = "pending",
        /// Accepted by the receiver.
        Delivered = "delivered",
        /// All attempts failed.
        Failed = "failed",
    }
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The webhook's ID.
    pub id: WebhookId,
    /// The organisation that owns the webhook.
    pub organization_id: OrganizationId,
    /// The URL that events are sent to.
    pub url: String,
    /// A description for users.
    pub description: String,
    /// The signing secret, sealed.
    pub secret: String,
    /// The previous signing secret, sealed, while it still signs alongside the new one.
    pub previous_secret: Option<String>,
    /// When the previous secret expires.
    pub previous_until: Option<Timestamp>,
    /// The subscribed events, in the order of [`WebhookEvent::SUBSCRIBABLE`].
    pub events: Vec<WebhookEvent>,
    /// Whether events are sent.
    pub enabled: bool,
    /// The time since which every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// When the webhook was disabled because its deliveries had failed for too long.
    pub disabled_at: Option<Timestamp>,
    /// When the webhook was created.
    pub created_at: Timestamp,
    /// When the webhook was last changed.
    pub updated_at: Timestamp,
}

/// A delivery to enqueue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NewDelivery {
    /// The delivery's ID, by which the receiver detects duplicates.
    pub id: WebhookDeliveryId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The end user that the event is about. The delivery is deleted with the user.
    pub end_user_id: Option<EndUserId>,
    /// The event.
    pub event: WebhookEvent,
    /// The request body.
    pub payload: String,
    /// When the event occurred.
    pub created_at: Timestamp,
    /// When the first attempt is due.
    pub next_attempt_at: Timestamp,
}

/// A delivery with the result of its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The delivery's ID.
    pub id: WebhookDeliveryId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The event.
    pub event: WebhookEvent,
    /// The request body.
    pub payload: String,
    /// The status.
    pub status: DeliveryStatus,
    /// Number of attempts so far.
    pub attempts: u32,
    /// When the next attempt is due.
    pub next_attempt_at: Option<Timestamp>,
    /// When the last attempt was made.
    pub last_attempt_at: Option<Timestamp>,
    /// The HTTP status of the last response.
    pub response_status: Option<u32>,
    /// The beginning of the body of the last response.
    pub response_body: Option<String>,
    /// The reason why the last attempt failed.
    pub error: Option<String>,
    /// The duration of the last attempt.
    pub duration_ms: Option<i64>,
    /// When the event occurred.
    pub created_at: Timestamp,
    /// When the receiver accepted the delivery.
    pub delivered_at: Option<Timestamp>,
}

/// Generates a secret: `whsec_` followed by base 64.
#[must_use]
pub fn new_secret(random: &dyn Random) -> SecretText {
    let mut bytes = [0_u8; SECRET_BYTES];
    random.fill(&mut bytes);
    SecretText::new(format!("{SECRET_PREFIX}{}", BASE64.encode(&bytes)))
}

/// Signs a delivery: `v1,` followed by the base 64 of HMAC-SHA256 over `id.seconds.body`. Returns `None` if the secret
/// is malformed.
#[must_use]
pub fn sign(secret: &SecretText, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    let key = BASE64.decode(secret.expose().strip_prefix(SECRET_PREFIX)?.as_bytes()).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes())))
}

/// Returns the time of the next attempt after `attempts` attempts, the last of which failed at `now`. Returns `None` if
/// there are no more attempts.
#[must_use]
pub fn next_attempt(attempts: u32, now: Timestamp) -> Option<Timestamp> {
    let failed = usize::try_from(attempts).ok()?.checked_sub(1)?;
    RETRY_DELAYS.get(failed).map(|pause| now.plus(*pause))
}

/// Returns the body of a delivery: `{type, timestamp, data, text}`. `text` is human-readable, so that chat programs
/// such as Slack can display the message directly.
#[must_use]
pub fn payload(event: WebhookEvent, now: Timestamp, text: &str, data: &Value) -> String {
    json!({ "type": event.as_str(), "timestamp": now.rfc3339(), "text": escape(text), "data": data }).to_string()
}

/// Escapes the characters that start links and mentions in chat programs.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    /// The test vector of the Standard Webhooks libraries.
    #[test]
    fn signatures_match_the_standard() {
        let secret = SecretText::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(sign(&SecretText::new("other"), "a", 1, b""), None);
        let own = new_secret(&SeededRandom::new(1));
        assert!(own.expose().starts_with("whsec_") && sign(&own, "a", 1, b"").is_some());
    }

    #[test]
    fn a_delivery_is_attempted_seven_times() {
        let minutes: Vec<_> = (1..9).map(|n| next_attempt(n, Timestamp(0)).map(|at| at.0 / MINUTE)).collect();
        let expected = [Some(1), Some(5), Some(30), Some(120), Some(480), Some(1_440), None, None];
        assert_eq!(minutes, expected);
        assert_eq!(next_attempt(0, Timestamp(0)), None);
    }

    #[test]
    fn chat_markup_is_escaped() {
        let body = payload(WebhookEvent::Test, Timestamp(0), "<!channel> & <https://evil.example|here>", &json!({}));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["text"], "&lt;!channel&gt; &amp; &lt;https://evil.example|here&gt;");
        assert_eq!(
            (body["type"].as_str(), body["timestamp"].as_str()),
            (Some("webhook.test"), Some("1970-01-01T00:00:00.000Z"))
        );
    }
}
