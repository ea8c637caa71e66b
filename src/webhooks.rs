//! Sends outgoing webhooks: claims due deliveries and makes one attempt for each. Several processes share the work; a
//! claim lasts one minute.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use waypost_core::caller::Ctx;
use waypost_jobs::catch;
use waypost_ops::{Ops, webhook_deliveries};

/// Name of the job that calls [`WebhookQueue::start_due`].
pub const JOB: &str = "webhooks";
/// Maximum number of concurrent attempts. Attempts run concurrently so that a slow receiver does not delay others.
const MAX_CONCURRENT: usize = 32;

/// Sends webhook deliveries.
#[derive(Clone)]
pub struct WebhookSender {
    /// The context of operations.
    pub cx: Ctx,
    /// The resources that operations use.
    pub ops: Ops,
}

/// The queue of deliveries, with the attempts in progress in this process.
pub struct WebhookQueue {
    sender: Arc<WebhookSender>,
    in_progress: Mutex<JoinSet<Option<()>>>,
}

impl WebhookQueue {
    /// Creates a queue without attempts in progress.
    #[must_use]
    pub fn new(sender: WebhookSender) -> Self {
        Self { sender: Arc::new(sender), in_progress: Mutex::default() }
    }

    /// Claims the deliveries that are due and starts an attempt for each. An attempt that is aborted because the queue is
    /// dropped is repeated by another process.
    ///
    /// # Errors
    /// `unavailable` if the database is unavailable.
    pub async fn start_due(&self) -> waypost_core::Result<()> {
        let mut in_progress = self.in_progress.lock().await;
        while in_progress.try_join_next().is_some() {}
        self.sender.start_attempts(&mut in_progress).await
    }
}

impl WebhookSender {
    async fn start_attempts(self: &Arc<Self>, in_progress: &mut JoinSet<Option<()>>) -> waypost_core::Result<()> {
        let capacity = MAX_CONCURRENT.saturating_sub(in_progress.len());
        for delivery in webhook_deliveries::claim(&self.cx, &self.ops, capacity).await? {
            let sender = Arc::clone(self);
            // After a panic, the delivery is due again when its claim expires.
            in_progress.spawn(catch(JOB, async move {
                let id = delivery.id.clone();
                let attempted = webhook_deliveries::attempt(&sender.cx, &sender.ops, delivery).await;
                match attempted {
                    Ok(delivery) => {
                        metrics::counter!("waypost_webhook_attempts_total", "status" => delivery.status.as_str())
                            .increment(1);
                    }
                    Err(error) => tracing::warn!(%error, %id, "failed to record a webhook delivery attempt"),
                }
            }));
        }
        Ok(())
    }

    /// Makes at most 32 attempts that are due now, waits for them, and returns their number.
    ///
    /// # Errors
    /// `unavailable` if the database is unavailable.
    pub async fn run_once(&self) -> waypost_core::Result<usize> {
        let sender = Arc::new(self.clone());
        let mut in_progress = JoinSet::new();
        sender.start_attempts(&mut in_progress).await?;
        let count = in_progress.len();
        while in_progress.join_next().await.is_some() {}
        Ok(count)
    }
}
