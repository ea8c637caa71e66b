//! Queries for attempts and their completions.

use std::collections::HashMap;

use sqlx_macros::FromRow;
use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId, ProgressId, ServerId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::{Attempt, AttemptState, AttemptSummary, Status, StepSet};

use super::ProgressKey;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

#[derive(FromRow)]
pub(super) struct AttemptRow {
    pub(super) id: String,
    pub(super) end_user_id: String,
    pub(super) server_id: String,
    pub(super) walkthrough_id: String,
    pub(super) version_id: String,
    pub(super) status: String,
    pub(super) completed_steps: String,
    pub(super) started_at: i64,
    pub(super) completed_at: Option<i64>,
    pub(super) last_activity_at: i64,
    pub(super) closed_at: Option<i64>,
    pub(super) metadata: String,
}

impl TryFrom<AttemptRow> for Attempt {
    type Error = Error;

    fn try_from(row: AttemptRow) -> Result<Self> {
        let corrupt = |reason: String| Error::Corrupt { table: "progress", id: row.id.clone(), reason };
        let state = match (row.status.as_str(), row.completed_at) {
            ("in_progress", None) => AttemptState::InProgress,
            ("completed", Some(at)) => AttemptState::Completed { at: Timestamp(at) },
            (status, at) => return Err(corrupt(format!("status {status} with completed_at {at:?}"))),
        };
        let completed = StepSet::from_hex(&row.completed_steps)
            .ok_or_else(|| corrupt("completed_steps is not hexadecimal".to_owned()))?;
        let metadata = serde_json::from_str(&row.metadata).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self {
            id: ProgressId::from_store(row.id),
            version_id: VersionId::from_store(row.version_id),
            completed,
            state,
            started_at: Timestamp(row.started_at),
            last_activity_at: Timestamp(row.last_activity_at),
            closed_at: row.closed_at.map(Timestamp),
            metadata,
        })
    }
}

/// Returns the open attempts of an end user on a server, by walkthrough.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_open(
    conn: &mut Conn,
    organization: &OrganizationId,
    end_user: &EndUserId,
    server: &ServerId,
) -> Result<HashMap<WalkthroughId, Attempt>> {
    const SQL: &str = "SELECT id, end_user_id, server_id, walkthrough_id, version_id, status, completed_steps,
               started_at, completed_at, last_activity_at, closed_at, metadata
        FROM progress WHERE end_user_id = $1 AND server_id = $2 AND organization_id = $3 AND closed_at IS NULL";
    let rows: Vec<AttemptRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(end_user.as_str()).bind(server.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(|row| Ok((WalkthroughId::from_store(row.walkthrough_id.clone()), row.try_into()?))).collect()
}

/// The summary of an open attempt, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAttempt {
    /// The pinned version.
    pub version_id: VersionId,
    /// The data from which its progress is computed.
    pub summary: AttemptSummary,
}

/// Returns the open attempts of an end user on a server, by walkthrough, with the steps of their pinned versions. Reads
/// no content: one query, a few dozen bytes per attempt.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn summarize_open(
    conn: &mut Conn,
    organization: &OrganizationId,
    end_user: &EndUserId,
    server: &ServerId,
) -> Result<HashMap<WalkthroughId, OpenAttempt>> {
    const SQL: &str = "SELECT progress.walkthrough_id, progress.version_id, progress.status, progress.completed_steps,
               versions.step_set
        FROM progress JOIN versions ON versions.id = progress.version_id
        WHERE progress.end_user_id = $1 AND progress.server_id = $2 AND progress.organization_id = $3
          AND progress.closed_at IS NULL";
    let rows: Vec<(String, String, String, String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(end_user.as_str()).bind(server.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    let attempt = |(walkthrough, version, status, completed, steps): (String, String, String, String, String)| {
        let set = |column: &str, text: &str| {
            StepSet::from_hex(text).ok_or_else(|| {
                let reason = format!("{column} of the attempt at {walkthrough} is not hexadecimal");
                Error::Corrupt { table: "progress", id: end_user.to_string(), reason }
            })
        };
        let summary = AttemptSummary {
            is_completed: status == Status::Completed.as_str(),
            completed: set("completed_steps", &completed)?,
            steps: set("step_set", &steps)?,
        };
        let version_id = VersionId::from_store(version);
        Ok((WalkthroughId::from_store(walkthrough), OpenAttempt { version_id, summary }))
    };
    rows.into_iter().map(attempt).collect()
}

/// Returns the walkthrough whose open attempt is pinned to a version with `step`. Reads no content.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_open_with_step(
    conn: &mut Conn,
    organization: &OrganizationId,
    end_user: &EndUserId,
    server: &ServerId,
    step: &StepId,
) -> Result<Option<WalkthroughId>> {
    const SQL: &str = "SELECT progress.walkthrough_id
        FROM progress JOIN version_steps ON version_steps.version_id = progress.version_id
        WHERE progress.end_user_id = $1 AND progress.server_id = $2 AND progress.organization_id = $3
          AND progress.closed_at IS NULL AND version_steps.step_id = $4
        LIMIT 1";
    let found: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(end_user.as_str()).bind(server.as_str()).bind(organization.as_str()).bind(step.as_str())
        .fetch_optional(c).await?);
    Ok(found.map(WalkthroughId::from_store))
}

/// Returns the open attempt of an end user at a walkthrough on a server.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_open(conn: &mut Conn, key: &ProgressKey) -> Result<Option<Attempt>> {
    const SQL: &str = "SELECT id, end_user_id, server_id, walkthrough_id, version_id, status, completed_steps,
               started_at, completed_at, last_activity_at, closed_at, metadata
        FROM progress WHERE end_user_id = $1 AND server_id = $2 AND walkthrough_id = $3 AND organization_id = $4
          AND closed_at IS NULL";
    let row: Option<AttemptRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.end_user_id.as_str()).bind(key.server_id.as_str()).bind(key.walkthrough_id.as_str())
        .bind(key.organization_id.as_str()).fetch_optional(c).await?);
    row.map(Attempt::try_from).transpose()
}

/// Returns the completed steps of an attempt with the times of completion, ordered by step ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_completions(
    conn: &mut Conn,
    organization: &OrganizationId,
    attempt: &ProgressId,
) -> Result<Vec<(StepId, Timestamp)>> {
    const SQL: &str = "SELECT step_completions.step_id, step_completions.completed_at
        FROM step_completions JOIN progress ON progress.id = step_completions.progress_id
        WHERE step_completions.progress_id = $1 AND progress.organization_id = $2 ORDER BY step_completions.step_id";
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(attempt.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(step, at)| (StepId::from_store(step), Timestamp(at))).collect())
}

/// Returns every attempt of an end user at a walkthrough on a server, oldest first, including closed ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_attempts(conn: &mut Conn, key: &ProgressKey) -> Result<Vec<Attempt>> {
    const SQL: &str = "SELECT id, end_user_id, server_id, walkthrough_id, version_id, status, completed_steps,
               started_at, completed_at, last_activity_at, closed_at, metadata
        FROM progress WHERE organization_id = $1 AND end_user_id = $2 AND server_id = $3 AND walkthrough_id = $4
        ORDER BY id";
    let rows: Vec<AttemptRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.organization_id.as_str()).bind(key.end_user_id.as_str())
        .bind(key.server_id.as_str()).bind(key.walkthrough_id.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Attempt::try_from).collect()
}
