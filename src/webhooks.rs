//! What `serve` does for outgoing webhooks: takes messages whose time has come, and makes an attempt for each. Several
//! processes share the work: a message that one of them has taken belongs to it for a minute.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use waypost_core::caller::Ctx;
use waypost_jobs::catch;
use waypost_ops::identity_provider::IdentityProviderContext;
use waypost_ops::{Ops, webhook_deliveries};

/// The name of the job that calls [`WebhookQueue::look`].
pub const JOB: &str = "webhooks";
/// Attempts at the same time: a receiver that takes its time holds nobody else up.
const AT_ONCE: usize = 32;

/// The sender of messages.
#[derive(Clone)]
pub struct WebhookSender {
    /// What acts are done with.
    pub cx: Ctx,
    /// What acts are done on.
    pub ops: Ops,
    /// The way out, and the keys.
    pub provider_context: IdentityProviderContext,
}

/// The queue of messages with the attempts that are under way in this process.
pub struct WebhookQueue {
    deliveries: Arc<WebhookSender>,
    under_way: Mutex<JoinSet<Option<()>>>,
}

impl WebhookQueue {
    /// Nothing is under way yet.
    #[must_use]
    pub fn new(deliveries: WebhookSender) -> Self {
        Self { deliveries: Arc::new(deliveries), under_way: Mutex::default() }
    }

    /// Takes the messages that are due, and begins an attempt for each. An attempt that is cut off because the queue is
    /// dropped is made again by another process.
    ///
    /// # Errors
    /// `unavailable` when the database is away.
    pub async fn look(&self) -> waypost_core::Result<()> {
        let mut under_way = self.under_way.lock().await;
        while under_way.try_join_next().is_some() {}
        self.deliveries.take(&mut under_way).await
    }
}

impl WebhookSender {
    async fn take(self: &Arc<Self>, under_way: &mut JoinSet<Option<()>>) -> waypost_core::Result<()> {
        let room = AT_ONCE.saturating_sub(under_way.len());
        for delivery in webhook_deliveries::claim(&self.cx, &self.ops, room).await? {
            let sender = Arc::clone(self);
            // After a panic the message is due again when its claim ends.
            under_way.spawn(catch(JOB, async move {
                let id = delivery.id.clone();
                let attempted =
                    webhook_deliveries::attempt(&sender.cx, &sender.ops, &sender.provider_context, delivery).await;
                match attempted {
                    Ok(delivery) => {
                        metrics::counter!("waypost_webhook_attempts_total", "status" => delivery.status.as_str())
                            .increment(1);
                    }
                    Err(error) => tracing::warn!(%error, %id, "an attempt to send a webhook could not be written down"),
                }
            }));
        }
        Ok(())
    }

    /// Makes every attempt that is due now, and waits for all of them; says how many there were.
    ///
    /// # Errors
    /// `unavailable` when the database is away.
    pub async fn run_once(&self) -> waypost_core::Result<usize> {
        let sender = Arc::new(self.clone());
        let mut under_way = JoinSet::new();
        sender.take(&mut under_way).await?;
        let count = under_way.len();
        while under_way.join_next().await.is_some() {}
        Ok(count)
    }
}
