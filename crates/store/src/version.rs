//! Published versions. They are immutable, except that they can be withdrawn.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::json;
use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::StepSet;
use waypost_core::step::Step;
use waypost_core::version::{StoredVersion, VersionInfo, VersionStep, Withdrawal};
use waypost_core::walkthrough::WalkthroughFields;

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, to_json};
use crate::step::{ContentColumns, ContentRow};

const STEP: &[Column] = &[
    ("version_id", Kind::Text),
    ("position", Kind::Integer),
    ("step_id", Kind::Text),
    ("ordinal", Kind::Integer),
    ("key", Kind::Text),
    ("title", Kind::Text),
    ("section_title", Kind::Text),
    ("content", Kind::Text),
    ("introduction_for_agent", Kind::Text),
    ("context_for_agent", Kind::Text),
    ("operations_for_agent", Kind::Text),
    ("metadata", Kind::Text),
];

/// The query shared by all lookups of versions.
macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, walkthrough_id, number, title, description, type AS kind, estimated_duration_minutes, tags,
                metadata, step_count, created_at, withdrawn_at, withdrawn_reason
             FROM versions WHERE organization_id = $1 ",
            $tail
        )
    };
}

fn insert_steps(dialect: Dialect) -> &'static str {
    static SQLITE: LazyLock<String> = LazyLock::new(|| batch::insert(Dialect::Sqlite, "version_steps", "steps", STEP));
    static POSTGRES: LazyLock<String> =
        LazyLock::new(|| batch::insert(Dialect::Postgres, "version_steps", "steps", STEP));
    match dialect {
        Dialect::Sqlite => &SQLITE,
        Dialect::Postgres => &POSTGRES,
    }
}

#[derive(Serialize)]
struct StepRow<'a> {
    version_id: &'a VersionId,
    position: usize,
    step_id: &'a StepId,
    ordinal: u32,
    key: Option<&'a str>,
    #[serde(flatten)]
    content: ContentRow<'a>,
}

/// Inserts a version with its steps in order. Positions start at 1. `version.step_count` must be the number of steps.
///
/// # Errors
/// Returns a unique violation if the number is taken, or another error if the database fails.
pub async fn insert(
    conn: &mut Conn,
    organization: &OrganizationId,
    version: &VersionInfo,
    steps: &[Step],
) -> Result<()> {
    const SQL: &str = "INSERT INTO versions (id, organization_id, walkthrough_id, number, title, description, type,
            estimated_duration_minutes, tags, metadata, step_count, created_at, withdrawn_at, withdrawn_reason, step_set)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, NULL, NULL, $13)";
    let fields = &version.fields;
    let step_set: StepSet = steps.iter().map(|step| step.ordinal).collect();
    on!(conn, c => sqlx::query(SQL)
        .bind(version.id.as_str())
        .bind(organization.as_str())
        .bind(version.walkthrough_id.as_str())
        .bind(i64::from(version.number))
        .bind(&fields.title)
        .bind(&fields.description)
        .bind(fields.kind.as_str())
        .bind(fields.estimated_duration_minutes.map(i64::from))
        .bind(to_json(fields.tags.clone()))
        .bind(to_json(fields.metadata.clone()))
        .bind(i64::from(version.step_count))
        .bind(version.created_at.0)
        .bind(step_set.to_hex())
        .execute(c).await?.rows_affected());
    let rows: Vec<_> = steps
        .iter()
        .zip(1..)
        .map(|(step, position)| StepRow {
            version_id: &version.id,
            position,
            step_id: &step.id,
            ordinal: step.ordinal,
            key: step.key.as_deref(),
            content: ContentRow::from(&step.content),
        })
        .collect();
    let sql = insert_steps(conn.dialect());
    let batch = json!({ "steps": rows }).to_string();
    on!(conn, c => sqlx::query(sql).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    walkthrough_id: String,
    number: i64,
    title: String,
    description: String,
    kind: String,
    estimated_duration_minutes: Option<i64>,
    tags: String,
    metadata: String,
    step_count: i64,
    created_at: i64,
    withdrawn_at: Option<i64>,
    withdrawn_reason: Option<String>,
}

impl TryFrom<Row> for VersionInfo {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let row_ref = RowRef { table: "versions", id: &row.id };
        let withdrawal = match (row.withdrawn_at, row.withdrawn_reason) {
            (None, None) => None,
            (Some(at), Some(reason)) => Some(Withdrawal { at: Timestamp(at), reason }),
            _ => return Err(row_ref.corrupt("withdrawn_at", "time and reason of the withdrawal must be set together")),
        };
        let minutes = row.estimated_duration_minutes;
        let fields = WalkthroughFields {
            kind: row_ref.parse("type", &row.kind)?,
            estimated_duration_minutes: minutes.map(|n| row_ref.to_u32("estimated_duration_minutes", n)).transpose()?,
            tags: row_ref.parse_json("tags", &row.tags)?,
            metadata: row_ref.parse_json("metadata", &row.metadata)?,
            title: row.title,
            description: row.description,
        };
        Ok(Self {
            number: row_ref.to_u32("number", row.number)?,
            step_count: row_ref.to_u32("step_count", row.step_count)?,
            walkthrough_id: WalkthroughId::from_store(row.walkthrough_id),
            fields,
            created_at: Timestamp(row.created_at),
            withdrawal,
            id: VersionId::from_store(row.id),
        })
    }
}

/// Returns the versions of a walkthrough, newest first, including withdrawn ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<VersionInfo>> {
    const SQL: &str = select!("AND walkthrough_id = $2 ORDER BY number DESC");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).fetch_all(c).await?);
    rows.into_iter().map(VersionInfo::try_from).collect()
}

/// Returns the steps of every version of a walkthrough as version, step and title, ordered by version and position.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_step_titles(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<(VersionId, StepId, String)>> {
    const SQL: &str = "SELECT version_steps.version_id, version_steps.step_id, version_steps.title
        FROM versions JOIN version_steps ON version_steps.version_id = versions.id
        WHERE versions.walkthrough_id = $1 AND versions.organization_id = $2
        ORDER BY version_steps.version_id, version_steps.position";
    let rows: Vec<(String, String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(walkthrough.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    let row = |(version, step, title)| (VersionId::from_store(version), StepId::from_store(step), title);
    Ok(rows.into_iter().map(row).collect())
}

/// Returns a version without its steps.
///
/// # Errors
/// The same as for [`list`].
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &VersionId) -> Result<Option<VersionInfo>> {
    const SQL: &str = select!("AND id = $2");
    let row: Option<Row> =
        on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(VersionInfo::try_from).transpose()
}

/// Returns the version with this number, without its steps.
///
/// # Errors
/// The same as for [`list`].
pub async fn find_by_number(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    number: u32,
) -> Result<Option<VersionInfo>> {
    const SQL: &str = select!("AND walkthrough_id = $2 AND number = $3");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).bind(i64::from(number)).fetch_optional(c).await?);
    row.map(VersionInfo::try_from).transpose()
}

/// Returns the newest version that is not withdrawn, without its steps. Its ID is the walkthrough's
/// `current_version_id`.
///
/// # Errors
/// The same as for [`list`].
pub async fn find_newest(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Option<VersionInfo>> {
    const SQL: &str = select!("AND walkthrough_id = $2 AND withdrawn_at IS NULL ORDER BY number DESC LIMIT 1");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).fetch_optional(c).await?);
    row.map(VersionInfo::try_from).transpose()
}

/// Returns the highest version number, including withdrawn versions; 0 if there are none.
///
/// # Errors
/// The same as for [`list`].
pub async fn max_number(conn: &mut Conn, organization: &OrganizationId, walkthrough: &WalkthroughId) -> Result<u32> {
    const SQL: &str = "SELECT max(number) FROM versions WHERE organization_id = $1 AND walkthrough_id = $2";
    let number: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).fetch_one(c).await?);
    RowRef { table: "versions", id: walkthrough.as_str() }.to_u32("number", number.unwrap_or(0))
}

/// Marks a version as withdrawn. Returns `false` if it does not exist or is already withdrawn.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn withdraw(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &VersionId,
    withdrawal: &Withdrawal,
) -> Result<bool> {
    const SQL: &str = "UPDATE versions SET withdrawn_at = $3, withdrawn_reason = $4
        WHERE organization_id = $1 AND id = $2 AND withdrawn_at IS NULL";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(id.as_str()).bind(withdrawal.at.0).bind(&withdrawal.reason)
        .execute(c).await?.rows_affected());
    Ok(rows > 0)
}

#[derive(sqlx_macros::FromRow)]
struct VersionStepRow {
    walkthrough_id: String,
    number: i64,
    version_title: String,
    step_count: i64,
    step_id: String,
    ordinal: i64,
    #[sqlx(flatten)]
    content: ContentColumns,
}

/// Returns a version, withdrawn or not, with its steps in order.
///
/// This is one query, so that a version that is deleted concurrently is found completely or not at all.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find_with_steps(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &VersionId,
) -> Result<Option<StoredVersion>> {
    const SQL: &str = "SELECT versions.walkthrough_id, versions.number, versions.title AS version_title,
            versions.step_count, version_steps.step_id, version_steps.ordinal, version_steps.title,
            version_steps.section_title, version_steps.content, version_steps.introduction_for_agent,
            version_steps.context_for_agent, version_steps.operations_for_agent, version_steps.metadata
        FROM versions JOIN version_steps ON version_steps.version_id = versions.id
        WHERE versions.organization_id = $1 AND versions.id = $2 ORDER BY version_steps.position";
    let rows: Vec<VersionStepRow> =
        on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).bind(id.as_str()).fetch_all(c).await?);
    let row_ref = RowRef { table: "versions", id: id.as_str() };
    let Some(first) = rows.first() else { return Ok(None) };
    if i64::try_from(rows.len()) != Ok(first.step_count) {
        return Err(row_ref.corrupt("step_count", format_args!("{} instead of {}", first.step_count, rows.len())));
    }
    let walkthrough_id = WalkthroughId::from_store(first.walkthrough_id.clone());
    let number = row_ref.to_u32("number", first.number)?;
    let title = first.version_title.clone();
    let steps = rows.into_iter().map(|row| {
        let ordinal = row_ref.to_u32("ordinal", row.ordinal)?;
        Ok(VersionStep { id: StepId::from_store(row.step_id), ordinal, content: row.content.content(row_ref)? })
    });
    let steps = steps.collect::<Result<Vec<_>>>()?;
    Ok(Some(StoredVersion { id: id.clone(), walkthrough_id, number, title, steps }))
}

#[derive(sqlx_macros::FromRow)]
struct StepColumns {
    step_id: String,
    ordinal: i64,
    key: Option<String>,
    #[sqlx(flatten)]
    content: ContentColumns,
}

/// Returns the steps of a version as draft steps: in order, with keys and links to the next step.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_steps(conn: &mut Conn, organization: &OrganizationId, id: &VersionId) -> Result<Vec<Step>> {
    const SQL: &str = "SELECT version_steps.step_id, version_steps.ordinal, version_steps.key, version_steps.title,
            version_steps.section_title, version_steps.content, version_steps.introduction_for_agent,
            version_steps.context_for_agent, version_steps.operations_for_agent, version_steps.metadata
        FROM versions JOIN version_steps ON version_steps.version_id = versions.id
        WHERE versions.organization_id = $1 AND versions.id = $2 ORDER BY version_steps.position";
    let rows: Vec<StepColumns> =
        on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).bind(id.as_str()).fetch_all(c).await?);
    let row_ref = RowRef { table: "versions", id: id.as_str() };
    let next: Vec<_> = rows.iter().skip(1).map(|row| StepId::from_store(row.step_id.clone())).collect();
    let steps = rows.into_iter().enumerate().map(|(index, row)| {
        Ok(Step {
            id: StepId::from_store(row.step_id),
            ordinal: row_ref.to_u32("ordinal", row.ordinal)?,
            key: row.key,
            next_step_id: next.get(index).cloned(),
            content: row.content.content(row_ref)?,
        })
    });
    steps.collect()
}

/// Returns the ordinals of a version's steps, in order.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_ordinals(conn: &mut Conn, organization: &OrganizationId, id: &VersionId) -> Result<Vec<u32>> {
    const SQL: &str = "SELECT version_steps.ordinal
        FROM versions JOIN version_steps ON version_steps.version_id = versions.id
        WHERE versions.organization_id = $1 AND versions.id = $2 ORDER BY version_steps.position";
    let rows: Vec<i64> =
        on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(id.as_str()).fetch_all(c).await?);
    let row_ref = RowRef { table: "versions", id: id.as_str() };
    rows.into_iter().map(|ordinal| row_ref.to_u32("ordinal", ordinal)).collect()
}
