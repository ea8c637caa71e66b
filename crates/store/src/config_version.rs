//! The configuration version: a number that every change to organisations, servers, walkthroughs, assignments,
//! webhooks, agents, grants or tool sets increments, so that every process can detect changes with one cheap query and
//! evict outdated cache entries.
//!
//! Invariants:
//! 1. A change increments the number in its own transaction, and stores the new number for its organisation. The row of
//!    the number stays locked until that transaction ends. Numbers therefore become visible in the order in which their
//!    transactions commit: a reader that sees a number also sees every change up to this number.
//! 2. `version - recorded_changes` is the number of changes that are not stored for an organisation. If it has
//!    increased, there were changes that may concern every organisation.
//! 3. An organisation's number is kept when the organisation is deleted.

use waypost_core::id::OrganizationId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The configuration version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx_macros::FromRow)]
pub struct ConfigVersion {
    /// The number of the last change.
    pub version: i64,
    /// The number of changes that are recorded for an organisation.
    pub recorded_changes: i64,
}

impl ConfigVersion {
    /// Returns the number of changes that may concern every organisation.
    #[must_use]
    pub fn unrecorded_changes(self) -> i64 {
        self.version - self.recorded_changes
    }
}

impl Conn {
    /// Records a change to an organisation or to its servers, walkthroughs, assignments, webhooks, agents, grants or
    /// tool sets in this transaction, so that every process notices it. Locks a single row until the transaction ends,
    /// so changes are serialised.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn bump_config_version(&mut self, organization: &OrganizationId) -> Result<()> {
        const BUMP: &str = "UPDATE config_version SET version = version + 1, recorded_changes = recorded_changes + 1
            WHERE id = 1 RETURNING version";
        const RECORD: &str = "INSERT INTO organization_changes (organization_id, version) VALUES ($1, $2)
            ON CONFLICT (organization_id) DO UPDATE SET version = excluded.version";
        let version: i64 = on!(self, c => sqlx::query_scalar(BUMP).fetch_one(c).await?);
        on!(self, c => sqlx::query(RECORD)
            .bind(organization.as_str()).bind(version).execute(c).await?.rows_affected());
        Ok(())
    }

    /// Records a change that may concern every organisation. Runs on every schema version, because backups are restored
    /// at the schema version at which they were written.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn bump_config_version_for_all(&mut self) -> Result<()> {
        const SQL: &str = "UPDATE config_version SET version = version + 1 WHERE id = 1";
        on!(self, c => sqlx::query(SQL).execute(c).await?.rows_affected());
        Ok(())
    }

    /// Returns the configuration version.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn config_version(&mut self) -> Result<ConfigVersion> {
        const SQL: &str = "SELECT version, recorded_changes FROM config_version WHERE id = 1";
        Ok(on!(self, c => sqlx::query_as(SQL).fetch_one(c).await?))
    }

    /// Returns the number of the last change that is recorded for an organisation, and the number of changes that may
    /// concern every organisation. Data that was read after these numbers is current as long as neither number changes.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn organization_version(&mut self, organization: &OrganizationId) -> Result<(i64, i64)> {
        const SQL: &str = "SELECT coalesce((SELECT version FROM organization_changes WHERE organization_id = $1), 0),
            version - recorded_changes FROM config_version WHERE id = 1";
        Ok(on!(self, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_one(c).await?))
    }

    /// Returns at most `limit` organisations with a change after `version`, each with the number of its last change. If
    /// there are `limit` entries, there may be more.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn list_changed_organizations(&mut self, version: i64, limit: u32) -> Result<Vec<(OrganizationId, i64)>> {
        const SQL: &str = "SELECT organization_id, version FROM organization_changes WHERE version > $1
            ORDER BY version LIMIT $2";
        let rows: Vec<(String, i64)> =
            on!(self, c => sqlx::query_as(SQL).bind(version).bind(i64::from(limit)).fetch_all(c).await?);
        Ok(rows.into_iter().map(|(id, version)| (OrganizationId::from_store(id), version)).collect())
    }
}
