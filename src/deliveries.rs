//! What `serve` does for outgoing webhooks: takes messages whose time has come, and makes an attempt for each. Several
//! processes share the work: a message that one of them has taken belongs to it for a minute.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use waypost_core::caller::Ctx;
use waypost_ops::upstream::Upstream;
use waypost_ops::{Ops, webhook_deliveries};

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Attempts at the same time: a receiver that takes its time holds nobody else up.
const AT_ONCE: usize = 32;
/// How often old messages are deleted: every so many looks.
const SELDOM: u32 = 60;

/// The sender of messages.
#[derive(Clone)]
pub struct Deliveries {
    /// What acts are done with.
    pub cx: Ctx,
    /// What acts are done on.
    pub ops: Ops,
    /// The way out, and the keys.
    pub upstream: Upstream,
}

impl Deliveries {
    /// Goes on until it is aborted.
    pub async fn run(self) {
        let sender = Arc::new(self);
        let mut under_way = JoinSet::new();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0_u32.. {
            looks.tick().await;
            while let Some(ended) = under_way.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "an attempt to send a webhook panicked");
                }
            }
            if let Err(error) = sender.take(&mut under_way).await {
                tracing::warn!(%error, "the queue of webhooks cannot be read");
            }
            if round.is_multiple_of(SELDOM)
                && let Err(error) = webhook_deliveries::delete_old(&sender.cx, &sender.ops).await
            {
                tracing::warn!(%error, "old messages of webhooks could not be deleted");
            }
        }
    }

    async fn take(self: &Arc<Self>, under_way: &mut JoinSet<()>) -> waypost_core::Result<()> {
        let room = AT_ONCE.saturating_sub(under_way.len());
        for delivery in webhook_deliveries::claim(&self.cx, &self.ops, room).await? {
            let sender = Arc::clone(self);
            under_way.spawn(async move {
                let id = delivery.id.clone();
                let attempted = webhook_deliveries::attempt(&sender.cx, &sender.ops, &sender.upstream, delivery).await;
                match attempted {
                    Ok(delivery) => {
                        metrics::counter!("waypost_webhook_attempts_total", "status" => delivery.status.as_str())
                            .increment(1);
                    }
                    Err(error) => tracing::warn!(%error, %id, "an attempt to send a webhook could not be written down"),
                }
            });
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
