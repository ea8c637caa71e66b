//! Revisions of draft steps. A step's content in the draft equals that of its revision that is not superseded.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::json;
use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::revision::{RevisionInfo, StepRevision, StepRevisionOperation};
use waypost_core::step::Step;

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;
use crate::step::{ContentColumns, ContentRow, scope_of_steps};

const ID: &[Column] = &[("id", Kind::Text)];
const REVISION: &[Column] = &[
    ("step_id", Kind::Text),
    ("number", Kind::Integer),
    ("organization_id", Kind::Text),
    ("walkthrough_id", Kind::Text),
    ("act", Kind::Text),
    ("actor", Kind::Text),
    ("restored_from", Kind::Integer),
    ("after_step_id", Kind::Text),
    ("ordinal", Kind::Integer),
    ("bytes", Kind::Integer),
    ("created_at", Kind::Integer),
    ("updated_at", Kind::Integer),
    ("superseded_at", Kind::Integer),
    ("key", Kind::Text),
    ("title", Kind::Text),
    ("section_title", Kind::Text),
    ("content", Kind::Text),
    ("introduction_for_agent", Kind::Text),
    ("context_for_agent", Kind::Text),
    ("operations_for_agent", Kind::Text),
    ("metadata", Kind::Text),
];
/// The columns that an edit replaces if it is merged into the current revision.
const REPLACED: &[&str] = &[
    "bytes",
    "updated_at",
    "key",
    "title",
    "section_title",
    "content",
    "introduction_for_agent",
    "context_for_agent",
    "operations_for_agent",
    "metadata",
];

struct Statements {
    baseline: String,
    supersede: String,
    append: String,
    replace: String,
    trim: String,
}

impl Statements {
    fn new(dialect: Dialect) -> Self {
        // For `+`, see `scope_of_steps`.
        let (scope, is_current) = match dialect {
            Dialect::Sqlite => (
                "+step_revisions.organization_id = $2 AND +step_revisions.walkthrough_id = $3",
                "+superseded_at IS NULL",
            ),
            Dialect::Postgres => {
                ("step_revisions.organization_id = $2 AND step_revisions.walkthrough_id = $3", "superseded_at IS NULL")
            }
        };
        const NEXT: &str = "(SELECT coalesce(max(past.number), 0) + 1 FROM step_revisions AS past
            WHERE past.step_id = source.step_id)";
        let (ids, steps) = (batch::rows(dialect, "steps", ID), scope_of_steps(dialect));
        let names: Vec<_> = REVISION.iter().map(|(name, _)| *name).collect();
        let values: Vec<_> = names.iter().map(|name| if *name == "number" { NEXT } else { name }).collect();
        let rows = batch::rows(dialect, "steps", REVISION);
        let replaced: Vec<_> = REPLACED.iter().map(|name| format!("{name} = source.{name}")).collect();
        let content = "key, title, section_title, content, introduction_for_agent, context_for_agent,
            operations_for_agent, metadata";
        let sizes = ["content", "introduction_for_agent", "context_for_agent", "operations_for_agent", "metadata"]
            .map(|name| format!("octet_length(coalesce({name}, ''))"))
            .join(" + ");
        Self {
            baseline: format!(
                "INSERT INTO step_revisions (step_id, number, organization_id, walkthrough_id, act, actor, ordinal, bytes,
                    created_at, updated_at, {content})
                 SELECT step_id, {NEXT}, organization_id, walkthrough_id, 'baseline', '', ordinal, {sizes},
                    at, at, {content}
                 FROM (SELECT steps.*, steps.id AS step_id, CAST($4 AS BIGINT) AS at FROM steps
                    WHERE {steps} AND id IN (SELECT id FROM {ids})) AS source
                 WHERE NOT EXISTS (SELECT 1 FROM step_revisions AS present
                    WHERE present.step_id = source.step_id AND present.superseded_at IS NULL)"
            ),
            supersede: format!(
                "UPDATE step_revisions SET superseded_at = $4
                 WHERE {scope} AND {is_current} AND step_id IN (SELECT id FROM {ids})"
            ),
            append: format!(
                "INSERT INTO step_revisions ({}) SELECT {} FROM (SELECT * FROM {rows}) AS source WHERE true",
                names.join(", "),
                values.join(", ")
            ),
            replace: format!(
                "UPDATE step_revisions SET {} FROM (SELECT * FROM {rows}) AS source
                 WHERE {scope}
                    AND step_revisions.step_id = source.step_id AND step_revisions.number = source.number",
                replaced.join(", ")
            ),
            trim: format!(
                "DELETE FROM step_revisions WHERE {scope} AND (step_id, number) IN (
                    SELECT step_id, number FROM (
                        SELECT step_id, number, row_number() OVER newest AS place, sum(bytes) OVER newest AS total
                        FROM step_revisions WHERE {scope} AND step_id IN (SELECT id FROM {ids})
                        WINDOW newest AS (PARTITION BY step_id ORDER BY number DESC)) AS ranked
                    WHERE place > 1 AND (place > CAST($4 AS BIGINT) OR total > CAST($5 AS BIGINT)))"
            ),
        }
    }

    fn of(dialect: Dialect) -> &'static Self {
        static SQLITE: LazyLock<Statements> = LazyLock::new(|| Statements::new(Dialect::Sqlite));
        static POSTGRES: LazyLock<Statements> = LazyLock::new(|| Statements::new(Dialect::Postgres));
        match dialect {
            Dialect::Sqlite => &SQLITE,
            Dialect::Postgres => &POSTGRES,
        }
    }
}

/// Identifies a draft.
#[derive(Debug, Clone, Copy)]
pub struct DraftScope<'a> {
    /// The organisation.
    pub organization_id: &'a OrganizationId,
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
}

/// A revision to write.
#[derive(Debug, Clone, Copy)]
pub struct NewRevision<'a> {
    /// The operation.
    pub operation: StepRevisionOperation,
    /// The actor.
    pub actor: &'a str,
    /// The number of the restored revision, if any.
    pub restored_from: Option<u32>,
    /// The time.
    pub at: Timestamp,
}

#[derive(Serialize)]
struct RevisionRow<'a> {
    step_id: &'a StepId,
    number: Option<u32>,
    organization_id: &'a OrganizationId,
    walkthrough_id: &'a WalkthroughId,
    act: StepRevisionOperation,
    actor: &'a str,
    restored_from: Option<u32>,
    after_step_id: Option<&'a StepId>,
    ordinal: u32,
    bytes: usize,
    created_at: i64,
    updated_at: i64,
    superseded_at: Option<i64>,
    key: Option<&'a str>,
    #[serde(flatten)]
    content: ContentRow<'a>,
}

impl<'a> RevisionRow<'a> {
    fn new(scope: DraftScope<'a>, new: NewRevision<'a>, step: &'a Step, after: Option<&'a StepId>) -> Self {
        let content = ContentRow::from(&step.content);
        Self {
            step_id: &step.id,
            number: None,
            organization_id: scope.organization_id,
            walkthrough_id: scope.walkthrough_id,
            act: new.operation,
            actor: new.actor,
            restored_from: new.restored_from,
            after_step_id: after,
            ordinal: step.ordinal,
            bytes: content.bytes(),
            created_at: new.at.0,
            updated_at: new.at.0,
            superseded_at: (new.operation == StepRevisionOperation::Delete).then_some(new.at.0),
            key: step.key.as_deref(),
            content,
        }
    }
}

fn ids<'a>(steps: impl IntoIterator<Item = &'a StepId>) -> String {
    let rows: Vec<_> = steps.into_iter().map(|step| json!({ "id": step })).collect();
    json!({ "steps": rows }).to_string()
}

/// Creates baseline revisions of steps that have no current revision, with the content of the draft. Must be called
/// before the steps are changed or deleted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert_baseline<'a>(
    conn: &mut Conn,
    scope: DraftScope<'_>,
    at: Timestamp,
    steps: impl IntoIterator<Item = &'a StepId>,
) -> Result<()> {
    let sql = Statements::of(conn.dialect()).baseline.as_str();
    let (organization, walkthrough) = (scope.organization_id.as_str(), scope.walkthrough_id.as_str());
    on!(conn, c => sqlx::query(sql).bind(ids(steps)).bind(organization).bind(walkthrough).bind(at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Appends a revision to the history of each step and supersedes the current ones. For deletions, each step is
/// accompanied by its predecessor.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn append<'a>(
    conn: &mut Conn,
    scope: DraftScope<'_>,
    new: NewRevision<'_>,
    steps: impl IntoIterator<Item = (&'a Step, Option<&'a StepId>)>,
) -> Result<()> {
    let steps: Vec<_> = steps.into_iter().collect();
    let statements = Statements::of(conn.dialect());
    let (organization, walkthrough) = (scope.organization_id.as_str(), scope.walkthrough_id.as_str());
    let (ids, at) = (ids(steps.iter().map(|(step, _)| &step.id)), new.at.0);
    let sql = statements.supersede.as_str();
    on!(conn, c => sqlx::query(sql).bind(&ids).bind(organization).bind(walkthrough).bind(at)
        .execute(c).await?.rows_affected());
    let rows: Vec<_> = steps.iter().map(|(step, after)| RevisionRow::new(scope, new, step, *after)).collect();
    let sql = statements.append.as_str();
    let batch = json!({ "steps": rows }).to_string();
    on!(conn, c => sqlx::query(sql).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// Replaces the content of an existing revision.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn replace(
    conn: &mut Conn,
    scope: DraftScope<'_>,
    number: u32,
    new: NewRevision<'_>,
    step: &Step,
) -> Result<()> {
    let sql = Statements::of(conn.dialect()).replace.as_str();
    let row = RevisionRow { number: Some(number), ..RevisionRow::new(scope, new, step, None) };
    let batch = json!({ "steps": [row] }).to_string();
    let (organization, walkthrough) = (scope.organization_id.as_str(), scope.walkthrough_id.as_str());
    on!(conn, c => sqlx::query(sql).bind(batch).bind(organization).bind(walkthrough).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes the oldest revisions of the steps until each step has at most `count` revisions with at most `bytes` in
/// total. The newest revision is always kept. Returns the number of deleted revisions.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn trim<'a>(
    conn: &mut Conn,
    scope: DraftScope<'_>,
    count: u32,
    bytes: u64,
    steps: impl IntoIterator<Item = &'a StepId>,
) -> Result<u64> {
    let sql = Statements::of(conn.dialect()).trim.as_str();
    let (organization, walkthrough) = (scope.organization_id.as_str(), scope.walkthrough_id.as_str());
    let (ids, bytes) = (ids(steps), i64::try_from(bytes).unwrap_or(i64::MAX));
    Ok(
        on!(conn, c => sqlx::query(sql).bind(ids).bind(organization).bind(walkthrough).bind(i64::from(count)).bind(bytes)
        .execute(c).await?.rows_affected()),
    )
}

/// Deletes at most `limit` revisions that were superseded before `before`. Returns the number of deleted rows.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_superseded(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM step_revisions WHERE (step_id, number) IN
        (SELECT step_id, number FROM step_revisions WHERE superseded_at < $1 ORDER BY superseded_at LIMIT $2)";
    Ok(on!(conn, c => sqlx::query(SQL).bind(before.0).bind(limit).execute(c).await?.rows_affected()))
}

#[derive(sqlx_macros::FromRow)]
struct InfoColumns {
    step_id: String,
    number: i64,
    act: String,
    actor: String,
    restored_from: Option<i64>,
    revision_title: String,
    created_at: i64,
    updated_at: i64,
    superseded_at: Option<i64>,
}

impl TryFrom<InfoColumns> for (StepId, RevisionInfo) {
    type Error = Error;

    fn try_from(row: InfoColumns) -> Result<Self> {
        let row_ref = RowRef { table: "step_revisions", id: &row.step_id };
        let info = RevisionInfo {
            number: row_ref.to_u32("number", row.number)?,
            operation: row_ref.parse("act", &row.act)?,
            restored_from: row.restored_from.map(|number| row_ref.to_u32("restored_from", number)).transpose()?,
            actor: row.actor,
            title: row.revision_title,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            is_current: row.superseded_at.is_none(),
        };
        Ok((StepId::from_store(row.step_id), info))
    }
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    #[sqlx(flatten)]
    info: InfoColumns,
    after_step_id: Option<String>,
    key: Option<String>,
    #[sqlx(flatten)]
    content: ContentColumns,
}

macro_rules! select {
    ($more:literal, $tail:literal) => {
        concat!(
            "SELECT step_id, number, act, actor, restored_from, title AS revision_title, created_at, updated_at,
                superseded_at",
            $more,
            " FROM step_revisions WHERE organization_id = $1 AND walkthrough_id = $2 ",
            $tail
        )
    };
}

/// Returns at most `limit` revisions of a step with numbers lower than `before`, newest first, without content.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    scope: DraftScope<'_>,
    step: &StepId,
    before: Option<u32>,
    limit: i64,
) -> Result<Vec<RevisionInfo>> {
    const SQL: &str = select!("", "AND step_id = $3 AND number < $4 ORDER BY number DESC LIMIT $5");
    let before = before.map_or(i64::MAX, i64::from);
    let rows: Vec<InfoColumns> = on!(conn, c => sqlx::query_as(SQL)
        .bind(scope.organization_id.as_str()).bind(scope.walkthrough_id.as_str()).bind(step.as_str())
        .bind(before).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(|row| Ok(<(StepId, RevisionInfo)>::try_from(row)?.1)).collect()
}

/// Returns a revision with its content.
///
/// # Errors
/// The same as for [`list`].
pub async fn find(conn: &mut Conn, scope: DraftScope<'_>, step: &StepId, number: u32) -> Result<Option<StepRevision>> {
    const SQL: &str = select!(
        ", after_step_id, key, title, section_title, content, introduction_for_agent, context_for_agent,
            operations_for_agent, metadata",
        "AND step_id = $3 AND number = $4"
    );
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(scope.organization_id.as_str()).bind(scope.walkthrough_id.as_str()).bind(step.as_str())
        .bind(i64::from(number)).fetch_optional(c).await?);
    let Some(row) = row else { return Ok(None) };
    let content = row.content.content(RowRef { table: "step_revisions", id: &row.info.step_id })?;
    let (_, info) = row.info.try_into()?;
    Ok(Some(StepRevision { info, key: row.key, after_step_id: row.after_step_id.map(StepId::from_store), content }))
}

/// Returns at most `limit` deletions of steps that are no longer in the draft, latest first.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_deleted(conn: &mut Conn, scope: DraftScope<'_>, limit: i64) -> Result<Vec<(StepId, RevisionInfo)>> {
    const SQL: &str = select!(
        "",
        "AND act = 'delete'
            AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.id = step_revisions.step_id)
            AND NOT EXISTS (SELECT 1 FROM step_revisions AS later
                WHERE later.walkthrough_id = $2 AND later.step_id = step_revisions.step_id AND later.number > step_revisions.number)
         ORDER BY created_at DESC, step_id LIMIT $3"
    );
    let rows: Vec<InfoColumns> = on!(conn, c => sqlx::query_as(SQL)
        .bind(scope.organization_id.as_str()).bind(scope.walkthrough_id.as_str()).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(TryFrom::try_from).collect()
}
