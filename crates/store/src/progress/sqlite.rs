//! The writer's transactions on SQLite. Each runs as one job on the writer's thread ([`crate::sqlite`]).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, Row, TransactionBehavior};
use waypost_core::progress::Attempt;

use super::attempts::AttemptRow;
use super::statements::{self, COMPLETION, END_USER, EVENT, IN_PLACE, PROGRESS, PROGRESS_END};
use super::unread::{ChangeRow, UnreadBatch};
use super::{Batch, CompletionRow, EventRow, NewEndUser, ProgressKey, ProgressRow, unserializable};
use crate::batch::Column;
use crate::error::Result;
use crate::session::{self, NewSession};
use crate::sqlite::prepare;
use crate::tool_call::{self, ToolCall};
use crate::values::{Parameters, Values, execute};

/// Returns the open attempts of all `keys`.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub(crate) fn find_open<'k>(
    conn: &Connection,
    keys: impl Iterator<Item = &'k ProgressKey>,
) -> Result<HashMap<ProgressKey, Attempt>> {
    let mut statement = prepare(conn, &statements::sqlite().find)?;
    let mut found = HashMap::new();
    for key in keys {
        if let Entry::Vacant(entry) = found.entry(key.clone()) {
            let values = [key.end_user_id.as_str(), key.server_id.as_str(), key.walkthrough_id.as_str()];
            if let Some(row) = statement.query(values)?.next()? {
                entry.insert(AttemptRow::try_from(row)?.try_into()?);
            }
        }
    }
    Ok(found)
}

/// Writes a batch. Returns the number of statements.
///
/// # Errors
/// Returns an error if the database fails. The transaction must then be rolled back.
pub(crate) fn write(conn: &Connection, batch: &Batch) -> Result<u64> {
    let statements = statements::sqlite();
    let mut count = execute(conn, &statements.end_users, &batch.end_users)?;
    count += execute(conn, &statements.sessions, &batch.sessions)?;
    // Attempts are closed before others are opened, so that the unique index on open attempts holds after every
    // statement.
    count += update(conn, &batch.closed)?;
    count += execute(conn, &statements.open, &batch.opened)?;
    count += update(conn, &batch.updated)?;
    count += write_log(conn, batch)?;
    if !batch.deliveries.is_empty() {
        let document = serde_json::to_string(&HashMap::from([("deliveries", &batch.deliveries)]));
        prepare(conn, &statements.deliveries)?.execute([document.map_err(unserializable)?])?;
        count += 1;
    }
    for (from, to) in &batch.copies {
        prepare(conn, statements::COPY)?.execute([to.as_str(), from.as_str()])?;
        count += 1;
    }
    Ok(count)
}

/// Updates attempts in their final state within the group.
fn update(conn: &Connection, rows: &[ProgressRow]) -> Result<u64> {
    for row in rows {
        execute(conn, &statements::sqlite().update, [&FinalState(row)])?;
    }
    Ok(rows.len() as u64)
}

/// Inserts the rows that accompany changes of attempts. Returns the number of statements.
fn write_log(conn: &Connection, batch: &Batch) -> Result<u64> {
    let statements = statements::sqlite();
    Ok(execute(conn, &statements.completions, &batch.completions)?
        + execute(conn, &statements.events, &batch.events)?
        + execute(conn, &statements.tool_calls, &batch.tool_calls)?)
}

/// Runs the transaction of [`super::write_unread`].
///
/// # Errors
/// Returns an error if the database fails or rejects a row. Nothing is written in that case.
pub(super) fn write_unread(conn: &mut Connection, batch: &UnreadBatch) -> Result<Option<u64>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let changes: Vec<_> = batch.change_rows().collect();
    let changed = execute(&tx, &statements::sqlite().in_place, &changes)?;
    if changed < changes.len() as u64 {
        tx.rollback()?;
        return Ok(None);
    }
    let written = write_log(&tx, batch.rows())?;
    tx.commit()?;
    // BEGIN and COMMIT, in addition to the statements of the rows.
    Ok(Some(changed + written + 2))
}

impl TryFrom<&Row<'_>> for AttemptRow {
    type Error = rusqlite::Error;

    fn try_from(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            end_user_id: row.get("end_user_id")?,
            server_id: row.get("server_id")?,
            walkthrough_id: row.get("walkthrough_id")?,
            version_id: row.get("version_id")?,
            status: row.get("status")?,
            completed_steps: row.get("completed_steps")?,
            started_at: row.get("started_at")?,
            completed_at: row.get("completed_at")?,
            last_activity_at: row.get("last_activity_at")?,
            closed_at: row.get("closed_at")?,
            metadata: row.get("metadata")?,
        })
    }
}

impl Values for ChangeRow<'_> {
    const COLUMNS: &'static [Column] = IN_PLACE;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.id.as_str())?
            .add(self.status)?
            .add(&self.completed_steps)?
            .add(self.completed_at.map(|at| at.0))?
            .add(self.last_activity_at.0)?
            .add(self.version_id.as_str())?
            .add(&self.seen_completed_steps)?
            .add(self.seen_started_at.0)?
            .add(self.seen_last_activity_at.0)?;
        Ok(())
    }
}

impl Values for NewEndUser {
    const COLUMNS: &'static [Column] = END_USER;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.id.as_str())?
            .add(self.organization_id.as_str())?
            .add(&self.tracking_id)?
            .add(&self.claimed_email)?
            .add(self.is_test)?
            .add(self.created_at.0)?;
        Ok(())
    }
}

impl Values for NewSession {
    const COLUMNS: &'static [Column] = session::COLUMNS;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.id.as_str())?
            .add(self.organization_id.as_str())?
            .add(self.server_id.as_str())?
            .add(self.end_user_id.as_str())?
            .add(&self.handle_hash)?
            .add(&self.client_name)?
            .add(&self.client_version)?
            .add(&self.protocol_version)?
            .add(self.created_at.0)?
            .add(self.last_used_at.0)?;
        Ok(())
    }
}

impl Values for ProgressRow {
    const COLUMNS: &'static [Column] = PROGRESS;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.id.as_str())?
            .add(self.organization_id.as_str())?
            .add(self.end_user_id.as_str())?
            .add(self.server_id.as_str())?
            .add(self.walkthrough_id.as_str())?
            .add(self.version_id.as_str())?
            .add(self.status)?
            .add(&self.completed_steps)?
            .add(self.started_at.0)?
            .add(self.completed_at.map(|at| at.0))?
            .add(self.last_activity_at.0)?
            .add(self.closed_at.map(|at| at.0))?
            .add(&self.metadata)?;
        Ok(())
    }
}

/// The columns of an attempt that change.
pub(super) struct FinalState<'a>(&'a ProgressRow);

impl Values for FinalState<'_> {
    const COLUMNS: &'static [Column] = PROGRESS_END;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.0.id.as_str())?
            .add(self.0.version_id.as_str())?
            .add(self.0.status)?
            .add(&self.0.completed_steps)?
            .add(self.0.completed_at.map(|at| at.0))?
            .add(self.0.last_activity_at.0)?
            .add(self.0.closed_at.map(|at| at.0))?;
        Ok(())
    }
}

impl Values for CompletionRow {
    const COLUMNS: &'static [Column] = COMPLETION;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.progress_id.as_str())?
            .add(self.step_id.as_str())?
            .add(self.version_id.as_str())?
            .add(self.completed_at.0)?;
        Ok(())
    }
}

impl Values for EventRow {
    const COLUMNS: &'static [Column] = EVENT;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.id.as_str())?
            .add(self.organization_id.as_str())?
            .add(self.server_id.as_str())?
            .add(self.walkthrough_id.as_str())?
            .add(self.end_user_id.as_str())?
            .add(self.progress_id.as_str())?
            .add(self.version_id.as_str())?
            .add(self.step_id.as_ref().map(|step| step.as_str()))?
            .add(self.kind)?
            .add(self.created_at.0)?
            .add(&self.client_name)?
            .add(self.elapsed_ms)?
            .add(self.took_ms)?;
        Ok(())
    }
}

impl Values for ToolCall {
    const COLUMNS: &'static [Column] = tool_call::COLUMNS;

    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()> {
        parameters
            .add(self.id.as_str())?
            .add(self.organization_id.as_str())?
            .add(self.server_id.as_str())?
            .add(self.end_user_id.as_ref().map(|user| user.as_str()))?
            .add(&self.tool)?
            .add(&self.arguments)?
            .add(&self.outcome)?
            .add(self.duration_us)?
            .add(&self.client_name)?
            .add(&self.protocol_version)?
            .add(&self.request_id)?
            .add(self.created_at.0)?
            .add(self.session_id.as_ref().map(|session| session.as_str()))?
            .add(self.is_test)?;
        Ok(())
    }
}
