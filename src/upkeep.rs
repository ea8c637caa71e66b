//! What `serve` does beside serving: gives back memory, deletes what has expired, refreshes providers' tokens.

use std::time::Duration;

use waypost_auth::limits::Limits as SignInLimits;
use waypost_core::SystemClock;
use waypost_core::caller::Ctx;
use waypost_mcp::limits::Limits;
use waypost_ops::upstream::{self, Upstream};
use waypost_ops::walkthroughs::{revisions, trash};
use waypost_ops::{Ops, analytics, authorizations, identity};
use waypost_store::Db;
use waypost_web::limits::Limits as WebLimits;

use crate::telemetry::Metrics;

/// How often memory that nobody needs is given back.
const OFTEN: Duration = Duration::from_secs(5);
/// How often the database is looked through: every so many of these.
const SELDOM: u32 = 6;

/// What is kept up.
pub struct Upkeep {
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The limits of calls.
    pub limits: Limits,
    /// The limits of sign-in.
    pub sign_in_limits: SignInLimits,
    /// The limits of the console.
    pub web_limits: WebLimits,
    /// The ways to organisations' identity providers.
    pub upstream: Upstream,
    /// The database.
    pub db: Db,
}

impl Upkeep {
    /// Goes on until it is aborted.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(OFTEN);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0_u32.. {
            ticks.tick().await;
            self.metrics.upkeep();
            self.limits.tidy();
            self.sign_in_limits.tidy();
            self.web_limits.tidy();
            if round.is_multiple_of(SELDOM) {
                self.look_through().await;
            }
        }
    }

    async fn look_through(&self) {
        if let Err(error) = identity::delete_expired(&self.db, &SystemClock).await {
            tracing::warn!(%error, "expired sessions could not be deleted");
        }
        if let Err(error) = authorizations::delete_expired(&self.db, &SystemClock).await {
            tracing::warn!(%error, "what expired of sign-ins could not be deleted");
        }
        if let Err(error) = revisions::delete_expired(&self.db, &SystemClock).await {
            tracing::warn!(%error, "failed to delete old step revisions");
        }
        if let Err(error) = analytics::roll(&self.db, &SystemClock).await {
            tracing::warn!(%error, "the log could not be packed for analytics");
        }
        let ops = Ops::new(self.db.clone());
        if let Err(error) = trash::purge_expired(&Ctx::operator(), &ops).await {
            tracing::warn!(%error, "failed to purge the trash");
        }
        if let Err(error) = upstream::refresh_due(&Ctx::operator(), &ops, &self.upstream).await {
            tracing::warn!(%error, "tokens of identity providers could not be refreshed");
        }
    }
}
