//! Outgoing webhooks: events, signatures (Standard Webhooks, <https://www.standardwebhooks.com>), and when to try again.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::id::{EndUserId, OrganizationId, WebhookDeliveryId, WebhookId};
use crate::random::Random;
use crate::seal::SecretText;
use crate::walkthrough::names;

/// What every secret begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// Random bytes in a secret; the standard has 24 to 64.
const SECRET_BYTES: usize = 32;
/// Receivers of an organisation at most.
pub const MAX_WEBHOOKS: usize = 20;
/// Characters of an address at most.
pub const MAX_URL: usize = 2_000;
/// How long a former secret signs beside the new one.
pub const ROTATION_MS: i64 = 24 * HOUR;
/// A receiver that has failed for so long is switched off.
pub const MAX_FAILING_MS: i64 = 5 * 24 * HOUR;
/// How long one attempt belongs to whoever makes it: longer than it may take.
pub const LEASE_MS: i64 = MINUTE;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// How long to wait after each failed attempt; after the last one there is no other.
const RETRY_DELAYS: [i64; 6] = [MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 8 * HOUR, 24 * HOUR];

names! {
    /// What a receiver is told of.
    WebhookEvent {
        /// An end user opened a support ticket.
        TicketCreated = "ticket.created",
        /// A ticket changed: status, priority, assignee or address.
        TicketUpdated = "ticket.updated",
        /// Somebody of the team wrote on a ticket.
        TicketCommented = "ticket.commented",
        /// An end user completed a walkthrough.
        WalkthroughCompleted = "walkthrough.completed",
        /// A walkthrough was published.
        WalkthroughPublished = "walkthrough.published",
        /// A signed-in end user claimed progress recorded under a tracking ID.
        ProgressClaimed = "progress.claimed",
        /// Somebody tried the receiver out; every receiver is told.
        Test = "webhook.test",
    }
}

impl WebhookEvent {
    /// What a receiver can ask for.
    pub const SUBSCRIBABLE: [Self; 6] = [
        Self::TicketCreated,
        Self::TicketUpdated,
        Self::TicketCommented,
        Self::WalkthroughCompleted,
        Self::WalkthroughPublished,
        Self::ProgressClaimed,
    ];
}

names! {
    /// How far a message is.
    DeliveryStatus {
        /// Waits for its next attempt.
        Pending = "pending",
        /// Taken by the receiver.
        Delivered = "delivered",
        /// Given up.
        Failed = "failed",
    }
}

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The receiver.
    pub id: WebhookId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Where it is.
    pub url: String,
    /// What it is for, for people.
    pub description: String,
    /// The secret, sealed.
    pub secret: String,
    /// The secret before it, sealed, while it still signs as well.
    pub previous_secret: Option<String>,
    /// Until when.
    pub previous_until: Option<Timestamp>,
    /// What it is told of, in the order of [`WebhookEvent::SUBSCRIBABLE`].
    pub events: Vec<WebhookEvent>,
    /// Whether anything is sent to it.
    pub enabled: bool,
    /// Since when every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// When it was switched off because it had failed for too long.
    pub disabled_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A message to a receiver, as it is queued.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NewDelivery {
    /// The message; the receiver tells repetitions by it.
    pub id: WebhookDeliveryId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// To which receiver.
    pub webhook_id: WebhookId,
    /// Of whom it tells: it goes when they go.
    pub end_user_id: Option<EndUserId>,
    /// What happened.
    pub event: WebhookEvent,
    /// The body, as it is sent.
    pub payload: String,
    /// When it happened.
    pub created_at: Timestamp,
    /// When it is sent first.
    pub next_attempt_at: Timestamp,
}

/// A message with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub id: WebhookDeliveryId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// To which receiver.
    pub webhook_id: WebhookId,
    /// What happened.
    pub event: WebhookEvent,
    /// The body, as it is sent.
    pub payload: String,
    /// How far it is.
    pub status: DeliveryStatus,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was tried last.
    pub last_attempt_at: Option<Timestamp>,
    /// What the receiver answered last: the status.
    pub response_status: Option<u32>,
    /// And the beginning of the body.
    pub response_body: Option<String>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// How long the last attempt took.
    pub duration_ms: Option<i64>,
    /// When it happened.
    pub created_at: Timestamp,
    /// When the receiver took it.
    pub delivered_at: Option<Timestamp>,
}

/// A new secret: `whsec_` and base 64.
#[must_use]
pub fn new_secret(random: &dyn Random) -> SecretText {
    let mut bytes = [0_u8; SECRET_BYTES];
    random.fill(&mut bytes);
    SecretText::new(format!("{SECRET_PREFIX}{}", BASE64.encode(&bytes)))
}

/// The signature of a message: `v1,` and the base 64 of HMAC-SHA256 over `id.seconds.body`; none when the secret is none.
#[must_use]
pub fn sign(secret: &SecretText, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    let key = BASE64.decode(secret.expose().strip_prefix(SECRET_PREFIX)?.as_bytes()).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes())))
}

/// When to try again after `attempts` of which the last failed at `now`; none when that was the last one.
#[must_use]
pub fn next_attempt(attempts: u32, now: Timestamp) -> Option<Timestamp> {
    let failed = usize::try_from(attempts).ok()?.checked_sub(1)?;
    RETRY_DELAYS.get(failed).map(|pause| now.plus(*pause))
}

/// The body of a message: `{type, timestamp, data, text}`. `text` is for people, and makes a message that chat programs
/// such as Slack show as it is.
#[must_use]
pub fn payload(event: WebhookEvent, now: Timestamp, text: &str, data: &Value) -> String {
    json!({ "type": event.as_str(), "timestamp": now.rfc3339(), "text": plain(text), "data": data }).to_string()
}

/// Text in which chat programs find no link, no mention and no markup of theirs: they ask for these three to be escaped.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    /// The example that the libraries of Standard Webhooks are tested with.
    #[test]
    fn signs_as_the_standard_says() {
        let secret = SecretText::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(sign(&SecretText::new("other"), "a", 1, b""), None);
        let own = new_secret(&SeededRandom::new(1));
        assert!(own.expose().starts_with("whsec_") && sign(&own, "a", 1, b"").is_some());
    }

    #[test]
    fn tries_seven_times() {
        let minutes: Vec<_> = (1..9).map(|n| next_attempt(n, Timestamp(0)).map(|at| at.0 / MINUTE)).collect();
        let expected = [Some(1), Some(5), Some(30), Some(120), Some(480), Some(1_440), None, None];
        assert_eq!(minutes, expected);
        assert_eq!(next_attempt(0, Timestamp(0)), None);
    }

    #[test]
    fn a_text_of_others_is_no_markup_of_chat_programs() {
        let body = payload(WebhookEvent::Test, Timestamp(0), "<!channel> & <https://evil.example|here>", &json!({}));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["text"], "&lt;!channel&gt; &amp; &lt;https://evil.example|here&gt;");
        assert_eq!(
            (body["type"].as_str(), body["timestamp"].as_str()),
            (Some("webhook.test"), Some("1970-01-01T00:00:00.000Z"))
        );
    }
}
