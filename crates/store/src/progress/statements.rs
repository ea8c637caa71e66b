//! The statements for progress, built once.

use std::sync::LazyLock;

use crate::batch::{self, Column, Kind};
use crate::db::Dialect;
use crate::session::{self, NewSession};
use crate::tool_call::{self, ToolCall};
use crate::values::{insert, update};
use crate::webhook_delivery;

use super::sqlite::FinalState;
use super::{CompletionRow, EventRow, NewEndUser, ProgressRow};

/// The statements for SQLite. All of them except the last bind the values of one row or key.
pub(super) struct SqliteStatements {
    pub(super) find: String,
    /// Changes an attempt if it has the remembered state.
    pub(super) in_place: String,
    pub(super) update: String,
    pub(super) end_users: String,
    pub(super) sessions: String,
    pub(super) open: String,
    pub(super) completions: String,
    pub(super) events: String,
    pub(super) tool_calls: String,
    /// Takes its rows from a JSON document.
    pub(super) deliveries: String,
}

/// The statements for PostgreSQL, with rows from a JSON document.
pub(super) struct PostgresStatements {
    pub(super) find: String,
    pub(super) end_users: String,
    pub(super) sessions: String,
    pub(super) close: String,
    pub(super) open: String,
    pub(super) deliveries: String,
    /// The four writes of an advance. They are one statement, because a round trip costs more than a longer text.
    pub(super) advance: String,
    /// A statement of [`super::unread`]. Its parameters are the changes, completions, events and tool calls, each as a
    /// JSON document, and the number of changes. Returns whether they were written.
    pub(super) in_place: String,
    /// The same, with three more JSON documents: new end users, new sessions and first attempts.
    pub(super) unread: String,
}

/// Copies the completions of the attempt `$2` to the attempt `$1`.
pub(super) const COPY: &str = "INSERT INTO step_completions (progress_id, step_id, version_id, completed_at)
    SELECT $1, step_id, version_id, completed_at FROM step_completions WHERE progress_id = $2";

/// The columns of an attempt.
pub(super) const ATTEMPT: &str = "progress.id, progress.end_user_id, progress.server_id, progress.walkthrough_id,
    progress.version_id, progress.status, progress.completed_steps, progress.started_at, progress.completed_at,
    progress.last_activity_at, progress.closed_at, progress.metadata";

const KEY: &[Column] = &[("end_user_id", Kind::Text), ("server_id", Kind::Text), ("walkthrough_id", Kind::Text)];
pub(super) const END_USER: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("tracking_id", Kind::Text),
    ("claimed_email", Kind::Text),
    ("is_test", Kind::Boolean),
    ("created_at", Kind::Integer),
];
pub(super) const PROGRESS: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("server_id", Kind::Text),
    ("walkthrough_id", Kind::Text),
    ("version_id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("started_at", Kind::Integer),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
    ("closed_at", Kind::Integer),
    ("metadata", Kind::Text),
];
const PROGRESS_CHANGES: &[Column] = &[
    ("id", Kind::Text),
    ("version_id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
];
/// The new values of an attempt, and the state that it must have.
pub(super) const IN_PLACE: &[Column] = &[
    ("id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
    ("version_id", Kind::Text),
    ("seen_completed_steps", Kind::Text),
    ("seen_started_at", Kind::Integer),
    ("seen_last_activity_at", Kind::Integer),
];
pub(super) const PROGRESS_END: &[Column] = &[
    ("id", Kind::Text),
    // An attempt may have moved to another version earlier in the same group.
    ("version_id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
    ("closed_at", Kind::Integer),
];
pub(super) const COMPLETION: &[Column] = &[
    ("progress_id", Kind::Text),
    ("step_id", Kind::Text),
    ("version_id", Kind::Text),
    ("completed_at", Kind::Integer),
];
pub(super) const EVENT: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("server_id", Kind::Text),
    ("walkthrough_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("progress_id", Kind::Text),
    ("version_id", Kind::Text),
    ("step_id", Kind::Text),
    ("kind", Kind::Text),
    ("created_at", Kind::Integer),
    ("client_name", Kind::Text),
    ("elapsed_ms", Kind::Integer),
    ("took_ms", Kind::Integer),
];

fn names(columns: &[Column]) -> Vec<&'static str> {
    columns.iter().map(|(name, _)| *name).collect()
}

/// Returns the assignments of the new values of [`IN_PLACE`], and the condition that an attempt has the remembered
/// state. `column` returns the name of a column in the statement from its position in `IN_PLACE`.
fn in_place_clauses(column: impl Fn(usize) -> String) -> (String, String) {
    let of = |name: &str| column(IN_PLACE.iter().position(|(column, _)| *column == name).unwrap_or_default());
    // Indexed columns are not assigned: SQLite would rewrite their index entries, even with the same values.
    let assigned = ["status", "completed_steps", "completed_at", "last_activity_at"];
    let assignments = assigned.map(|name| format!("{name} = {}", of(name)));
    let seen = ["completed_steps", "started_at", "last_activity_at"];
    let seen = seen.map(|name| format!("progress.{name} = {}", of(&format!("seen_{name}"))));
    let condition = format!(
        "progress.id = {} AND progress.version_id = {} AND {} AND progress.status = 'in_progress'
             AND progress.closed_at IS NULL",
        of("id"),
        of("version_id"),
        seen.join(" AND ")
    );
    (assignments.join(", "), condition)
}

fn sqlite_in_place() -> String {
    let (assignments, condition) = in_place_clauses(|position| format!("?{}", position + 1));
    format!("UPDATE progress SET {assignments} WHERE {condition}")
}

/// Returns the statement of [`super::unread`], with the inserts of new end users and their attempts if `can_open`.
fn postgres_unread(can_open: bool) -> String {
    let (assignments, condition) = in_place_clauses(|position| format!("source.{}", IN_PLACE[position].0));
    let insert = |table: &str, parameter: &str, columns: &[Column]| {
        let list = names(columns).join(", ");
        let rows = batch::recordset(&format!("{parameter}::json"), columns);
        format!("INSERT INTO {table} ({list}) SELECT {list} FROM {rows} WHERE (SELECT is_current FROM checked)")
    };
    let first_attempts = if can_open {
        format!(
            ", u AS ({}), s AS ({}), o AS ({})",
            insert("end_users", "$6", END_USER),
            insert("client_sessions", "$7", session::COLUMNS),
            insert("progress", "$8", PROGRESS),
        )
    } else {
        String::new()
    };
    // The attempts are locked in the order of the rows. Nothing is written unless all of them have the remembered
    // state, which cannot change while they are locked.
    format!(
        "WITH source AS MATERIALIZED (SELECT * FROM {}),
            locked AS MATERIALIZED (SELECT found.id FROM source, LATERAL
                (SELECT progress.id FROM progress WHERE {condition} FOR UPDATE) AS found),
            checked AS MATERIALIZED (SELECT count(*) = $5 AS is_current FROM locked),
            p AS (UPDATE progress SET {assignments} FROM source
                WHERE progress.id = source.id AND (SELECT is_current FROM checked)),
            c AS ({}), e AS ({}), t AS ({}){first_attempts}
         SELECT is_current FROM checked",
        batch::recordset("$1::json", IN_PLACE),
        insert("step_completions", "$2", COMPLETION),
        insert("walkthrough_events", "$3", EVENT),
        insert("tool_calls", "$4", tool_call::COLUMNS),
    )
}

/// Returns the statements for SQLite.
pub(super) fn sqlite() -> &'static SqliteStatements {
    static STATEMENTS: LazyLock<SqliteStatements> = LazyLock::new(|| SqliteStatements {
        find: format!(
            "SELECT {ATTEMPT} FROM progress
             WHERE end_user_id = $1 AND server_id = $2 AND walkthrough_id = $3 AND closed_at IS NULL"
        ),
        in_place: sqlite_in_place(),
        update: update::<FinalState<'_>>("progress"),
        end_users: insert::<NewEndUser>("end_users"),
        sessions: insert::<NewSession>("client_sessions"),
        open: insert::<ProgressRow>("progress"),
        completions: insert::<CompletionRow>("step_completions"),
        events: insert::<EventRow>("walkthrough_events"),
        tool_calls: insert::<ToolCall>("tool_calls"),
        deliveries: webhook_delivery::insert_statement(Dialect::Sqlite),
    });
    &STATEMENTS
}

/// Returns the statements for PostgreSQL.
pub(super) fn postgres() -> &'static PostgresStatements {
    static STATEMENTS: LazyLock<PostgresStatements> = LazyLock::new(|| {
        let dialect = Dialect::Postgres;
        // LATERAL forces a lookup per key, regardless of the planner's estimate of the batch size. Rows are locked in
        // the order of the keys, so that two groups cannot deadlock.
        let find = format!(
            "SELECT found.* FROM {},
                LATERAL (SELECT {ATTEMPT} FROM progress
                    WHERE progress.end_user_id = batch.end_user_id AND progress.server_id = batch.server_id
                      AND progress.walkthrough_id = batch.walkthrough_id AND progress.closed_at IS NULL
                    FOR UPDATE) AS found",
            batch::rows(dialect, "keys", KEY)
        );
        let advance = format!(
            "WITH p AS ({}), c AS ({}), e AS ({}) {}",
            batch::update(dialect, "progress", "updated", PROGRESS_CHANGES),
            batch::insert(dialect, "step_completions", "completions", COMPLETION),
            batch::insert(dialect, "walkthrough_events", "events", EVENT),
            batch::insert(dialect, "tool_calls", "tool_calls", tool_call::COLUMNS),
        );
        PostgresStatements {
            find,
            end_users: batch::insert(dialect, "end_users", "end_users", END_USER),
            sessions: batch::insert(dialect, "client_sessions", "sessions", session::COLUMNS),
            close: batch::update(dialect, "progress", "closed", PROGRESS_END),
            open: batch::insert(dialect, "progress", "opened", PROGRESS),
            deliveries: webhook_delivery::insert_statement(dialect),
            advance,
            in_place: postgres_unread(false),
            unread: postgres_unread(true),
        }
    });
    &STATEMENTS
}
