//! Counts of the attempts in progress on a walkthrough, used to compute the impact of publishing and withdrawing.

use futures::TryStreamExt;
use waypost_core::id::{OrganizationId, VersionId, WalkthroughId};
use waypost_core::progress::StepSet;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// Returns the number of attempts in progress on each version of a walkthrough.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_by_version(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<(VersionId, u64)>> {
    const SQL: &str = "SELECT version_id, count(*) FROM progress
        WHERE walkthrough_id = $2 AND organization_id = $1 AND status = 'in_progress' AND closed_at IS NULL
          AND NOT (SELECT end_users.is_test FROM end_users WHERE end_users.id = progress.end_user_id)
        GROUP BY version_id";
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).fetch_all(c).await?);
    let count = |(version, count)| (VersionId::from_store(version), u64::try_from(count).unwrap_or(0));
    Ok(rows.into_iter().map(count).collect())
}

/// Calls `each` for every group of attempts in progress that are on the same version and have completed the same steps,
/// with the version, the steps and the number of attempts. Groups are streamed and not held in memory.
///
/// # Errors
/// Returns an error if the database fails or a step set cannot be read.
pub async fn for_each_group(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    mut each: impl FnMut(VersionId, &StepSet, u64),
) -> Result<()> {
    const SQL: &str = "SELECT version_id, completed_steps, count(*) FROM progress
        WHERE walkthrough_id = $2 AND organization_id = $1 AND status = 'in_progress' AND closed_at IS NULL
          AND NOT (SELECT end_users.is_test FROM end_users WHERE end_users.id = progress.end_user_id)
        GROUP BY version_id, completed_steps";
    on!(conn, c => {
        let mut rows = sqlx::query_as::<_, (String, String, i64)>(SQL)
            .bind(organization.as_str()).bind(walkthrough.as_str()).fetch(c);
        while let Some((version, steps, count)) = rows.try_next().await? {
            let steps = StepSet::from_hex(&steps).ok_or_else(|| Error::Corrupt {
                table: "progress",
                id: version.clone(),
                reason: "completed_steps: is not hexadecimal".to_owned(),
            })?;
            each(VersionId::from_store(version), &steps, u64::try_from(count).unwrap_or(0));
        }
    });
    Ok(())
}
