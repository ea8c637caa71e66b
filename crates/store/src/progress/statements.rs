//! The statements of progress, made once.

use std::sync::LazyLock;

use crate::batch::{self, Column, Kind};
use crate::db::Dialect;
use crate::values::Sized;
use crate::webhook_delivery;
use crate::{session, tool_call};

/// What few calls need, the same way for both databases: rows of a JSON document.
pub(super) struct Rare {
    pub(super) end_users: String,
    pub(super) sessions: String,
    pub(super) close: String,
    pub(super) open: String,
    pub(super) deliveries: String,
}

/// What every advance needs on SQLite: bound values, five statements.
pub(super) struct Sqlite {
    pub(super) rare: Rare,
    pub(super) find: Sized,
    pub(super) progress: Sized,
    pub(super) completions: Sized,
    pub(super) events: Sized,
    pub(super) tool_calls: Sized,
}

/// What every advance needs on PostgreSQL: rows of a JSON document; the four writes are one statement, because a round
/// trip costs more than a longer text.
pub(super) struct Postgres {
    pub(super) rare: Rare,
    pub(super) find: String,
    pub(super) advance: String,
}

/// The columns of an attempt as it is read.
pub(super) const ATTEMPT: &str = "progress.id, progress.end_user_id, progress.server_id, progress.walkthrough_id,
    progress.version_id, progress.status, progress.completed_steps, progress.started_at, progress.completed_at,
    progress.last_activity_at, progress.closed_at, progress.metadata";

const KEY: &[Column] = &[("end_user_id", Kind::Text), ("server_id", Kind::Text), ("walkthrough_id", Kind::Text)];
const END_USER: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("tracking_id", Kind::Text),
    ("claimed_email", Kind::Text),
    ("is_test", Kind::Boolean),
    ("created_at", Kind::Integer),
];
const PROGRESS: &[Column] = &[
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
const PROGRESS_END: &[Column] = &[
    ("id", Kind::Text),
    // An attempt may have moved to another version earlier in the same group.
    ("version_id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
    ("closed_at", Kind::Integer),
];
const COMPLETION: &[Column] = &[
    ("progress_id", Kind::Text),
    ("step_id", Kind::Text),
    ("version_id", Kind::Text),
    ("completed_at", Kind::Integer),
];
const EVENT: &[Column] = &[
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

impl Rare {
    fn new(dialect: Dialect) -> Self {
        Self {
            end_users: batch::insert(dialect, "end_users", "end_users", END_USER),
            sessions: batch::insert(dialect, "client_sessions", "sessions", session::COLUMNS),
            close: batch::update(dialect, "progress", "closed", PROGRESS_END),
            open: batch::insert(dialect, "progress", "opened", PROGRESS),
            deliveries: webhook_delivery::insert_statement(dialect),
        }
    }
}

/// The statements of SQLite.
pub(super) fn sqlite() -> &'static Sqlite {
    static STATEMENTS: LazyLock<Sqlite> = LazyLock::new(|| Sqlite {
        rare: Rare::new(Dialect::Sqlite),
        // CROSS JOIN keeps SQLite from reading all of progress and looking each row up among the keys.
        find: Sized::new(KEY.len(), |values| {
            format!(
                "SELECT {ATTEMPT} FROM {values} AS batch CROSS JOIN progress
                 WHERE progress.end_user_id = batch.column1 AND progress.server_id = batch.column2
                   AND progress.walkthrough_id = batch.column3 AND progress.closed_at IS NULL"
            )
        }),
        progress: Sized::update("progress", &names(PROGRESS_CHANGES)),
        completions: Sized::insert("step_completions", &names(COMPLETION)),
        events: Sized::insert("walkthrough_events", &names(EVENT)),
        tool_calls: Sized::insert("tool_calls", &names(tool_call::COLUMNS)),
    });
    &STATEMENTS
}

/// The statements of PostgreSQL.
pub(super) fn postgres() -> &'static Postgres {
    static STATEMENTS: LazyLock<Postgres> = LazyLock::new(|| {
        let dialect = Dialect::Postgres;
        // A look-up per key, whatever the planner thinks of the size of the batch; the rows are locked in the order of
        // the keys, so that two groups cannot wait for each other.
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
            batch::update(dialect, "progress", "moved", PROGRESS_CHANGES),
            batch::insert(dialect, "step_completions", "completions", COMPLETION),
            batch::insert(dialect, "walkthrough_events", "events", EVENT),
            batch::insert(dialect, "tool_calls", "tool_calls", tool_call::COLUMNS),
        );
        Postgres { rare: Rare::new(dialect), find, advance }
    });
    &STATEMENTS
}
