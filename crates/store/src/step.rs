//! Steps of drafts. Each row references the next step; [`waypost_core::chain`] computes the order.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::json;
use waypost_core::chain::{Link, LinkUpdate};
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::step::{Step, StepContent};

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, to_json};

const STEP: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("walkthrough_id", Kind::Text),
    ("ordinal", Kind::Integer),
    ("key", Kind::Text),
    ("next_step_id", Kind::Text),
    ("title", Kind::Text),
    ("section_title", Kind::Text),
    ("content", Kind::Text),
    ("introduction_for_agent", Kind::Text),
    ("context_for_agent", Kind::Text),
    ("operations_for_agent", Kind::Text),
    ("metadata", Kind::Text),
];
const CONTENT: &[Column] = &[
    ("id", Kind::Text),
    ("key", Kind::Text),
    ("title", Kind::Text),
    ("section_title", Kind::Text),
    ("content", Kind::Text),
    ("introduction_for_agent", Kind::Text),
    ("context_for_agent", Kind::Text),
    ("operations_for_agent", Kind::Text),
    ("metadata", Kind::Text),
];
const LINK: &[Column] = &[("id", Kind::Text), ("next_step_id", Kind::Text)];
const ID: &[Column] = &[("id", Kind::Text)];

/// Returns the condition that restricts a statement to steps of the draft `$3` of the organisation `$2`, for statements
/// that identify the steps by their IDs.
pub(crate) fn scope_of_steps(dialect: Dialect) -> &'static str {
    match dialect {
        // `+` keeps SQLite from choosing the index on these columns, with which it would read every step of the draft
        // and compare it with the JSON document. It must search by ID.
        Dialect::Sqlite => "+steps.organization_id = $2 AND +steps.walkthrough_id = $3",
        Dialect::Postgres => "steps.organization_id = $2 AND steps.walkthrough_id = $3",
    }
}

struct Statements {
    insert: String,
    /// Clears the keys of the steps that [`Self::update`] writes next, because two steps may swap keys.
    free_keys: String,
    update: String,
    relink: String,
    store_ordinals: String,
    delete: String,
}

impl Statements {
    fn new(dialect: Dialect) -> Self {
        let scope = scope_of_steps(dialect);
        let ids = batch::rows(dialect, "steps", ID);
        Self {
            insert: batch::insert(dialect, "steps", "steps", STEP),
            free_keys: format!("UPDATE steps SET key = NULL WHERE {scope} AND id IN (SELECT id FROM {ids})"),
            update: format!("{} AND {scope}", batch::update(dialect, "steps", "steps", CONTENT)),
            relink: format!("{} AND {scope}", batch::update(dialect, "steps", "steps", LINK)),
            store_ordinals: format!(
                "INSERT INTO removed_steps (step_id, organization_id, walkthrough_id, ordinal)
                 SELECT id, organization_id, walkthrough_id, ordinal FROM steps
                 WHERE {scope} AND id IN (SELECT id FROM {ids})
                 ON CONFLICT (step_id) DO NOTHING"
            ),
            delete: format!("DELETE FROM steps WHERE {scope} AND id IN (SELECT id FROM {ids})"),
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

/// The content of a step in a row of a draft or a version.
#[derive(Serialize)]
pub(crate) struct ContentRow<'a> {
    title: &'a str,
    section_title: Option<&'a str>,
    content: &'a str,
    introduction_for_agent: Option<&'a str>,
    context_for_agent: Option<&'a str>,
    operations_for_agent: Option<&'a str>,
    metadata: String,
}

impl ContentRow<'_> {
    /// Returns the size in bytes of the content, the texts for the agent and the metadata, without the titles.
    pub(crate) fn bytes(&self) -> usize {
        let agent = [self.introduction_for_agent, self.context_for_agent, self.operations_for_agent];
        self.content.len() + agent.into_iter().flatten().map(str::len).sum::<usize>() + self.metadata.len()
    }
}

impl<'a> From<&'a StepContent> for ContentRow<'a> {
    fn from(content: &'a StepContent) -> Self {
        Self {
            title: &content.title,
            section_title: content.section_title.as_deref(),
            content: &content.content,
            introduction_for_agent: content.introduction_for_agent.as_deref(),
            context_for_agent: content.context_for_agent.as_deref(),
            operations_for_agent: content.operations_for_agent.as_deref(),
            metadata: to_json(content.metadata.clone()),
        }
    }
}

#[derive(Serialize)]
struct StepRow<'a> {
    id: &'a StepId,
    organization_id: &'a OrganizationId,
    walkthrough_id: &'a WalkthroughId,
    ordinal: u32,
    key: Option<&'a str>,
    next_step_id: Option<&'a StepId>,
    #[serde(flatten)]
    content: ContentRow<'a>,
}

fn rows<'a>(
    organization: &'a OrganizationId,
    walkthrough: &'a WalkthroughId,
    steps: impl IntoIterator<Item = &'a Step>,
) -> String {
    let rows: Vec<_> = steps
        .into_iter()
        .map(|step| StepRow {
            id: &step.id,
            organization_id: organization,
            walkthrough_id: walkthrough,
            ordinal: step.ordinal,
            key: step.key.as_deref(),
            next_step_id: step.next_step_id.as_ref(),
            content: ContentRow::from(&step.content),
        })
        .collect();
    json!({ "steps": rows }).to_string()
}

async fn run(
    conn: &mut Conn,
    sql: &'static str,
    batch: &str,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<()> {
    on!(conn, c => sqlx::query(sql)
        .bind(batch).bind(organization.as_str()).bind(walkthrough.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Inserts steps with their links to the next steps.
///
/// # Errors
/// Returns a unique violation if an ordinal or a key is taken, or another error if the database fails.
pub async fn insert<'a>(
    conn: &mut Conn,
    organization: &'a OrganizationId,
    walkthrough: &'a WalkthroughId,
    steps: impl IntoIterator<Item = &'a Step>,
) -> Result<()> {
    let batch = rows(organization, walkthrough, steps);
    let sql = Statements::of(conn.dialect()).insert.as_str();
    on!(conn, c => sqlx::query(sql).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// Updates keys and contents of steps. Ordinals and links are kept.
///
/// # Errors
/// The same as for [`insert`].
pub async fn update<'a>(
    conn: &mut Conn,
    organization: &'a OrganizationId,
    walkthrough: &'a WalkthroughId,
    steps: impl IntoIterator<Item = &'a Step>,
) -> Result<()> {
    let steps: Vec<_> = steps.into_iter().collect();
    let batch = rows(organization, walkthrough, steps.iter().copied());
    let statements = Statements::of(conn.dialect());
    // A single step has no other to swap keys with.
    if steps.len() > 1 {
        run(conn, &statements.free_keys, &batch, organization, walkthrough).await?;
    }
    run(conn, &statements.update, &batch, organization, walkthrough).await
}

/// Updates links between steps. The link to the first step is written with the walkthrough.
///
/// # Errors
/// Returns an error if the database fails. Whether every link references a step is checked at the commit.
pub async fn relink(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    links: &[LinkUpdate],
) -> Result<()> {
    // If `links` contains several links of a step, the last one applies.
    let mut last: Vec<(&StepId, Option<&StepId>)> = Vec::with_capacity(links.len());
    for link in links {
        let Some(from) = &link.from else { continue };
        last.retain(|(step, _)| *step != from);
        last.push((from, link.to.as_ref()));
    }
    if last.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = last.iter().map(|(step, next)| json!({ "id": step, "next_step_id": next })).collect();
    let sql = Statements::of(conn.dialect()).relink.as_str();
    run(conn, sql, &json!({ "steps": rows }).to_string(), organization, walkthrough).await
}

/// Deletes steps from the draft. Versions keep them, and their ordinals are stored so that they can be restored.
///
/// # Errors
/// Returns an error if the database fails. Whether links still reference the steps is checked at the commit.
pub async fn delete<'a>(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    steps: impl IntoIterator<Item = &'a StepId>,
) -> Result<()> {
    let rows: Vec<_> = steps.into_iter().map(|step| json!({ "id": step })).collect();
    let (statements, batch) = (Statements::of(conn.dialect()), json!({ "steps": rows }).to_string());
    run(conn, &statements.store_ordinals, &batch, organization, walkthrough).await?;
    run(conn, &statements.delete, &batch, organization, walkthrough).await
}

/// Deletes and returns the stored ordinal of a step that was deleted from the walkthrough's draft, so that the caller
/// can restore the step. Returns `None` if no such step was deleted.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn consume_removed(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    step: &StepId,
) -> Result<Option<u32>> {
    const SQL: &str = "DELETE FROM removed_steps
        WHERE step_id = $3 AND organization_id = $1 AND walkthrough_id = $2 RETURNING ordinal";
    let ordinal: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).bind(step.as_str()).fetch_optional(c).await?);
    ordinal.map(|ordinal| RowRef { table: "removed_steps", id: step.as_str() }.to_u32("ordinal", ordinal)).transpose()
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    ordinal: i64,
    key: Option<String>,
    next_step_id: Option<String>,
    #[sqlx(flatten)]
    content: ContentColumns,
}

/// The columns of [`ContentRow`] as read from the database.
#[derive(sqlx_macros::FromRow)]
pub(crate) struct ContentColumns {
    title: String,
    section_title: Option<String>,
    content: String,
    introduction_for_agent: Option<String>,
    context_for_agent: Option<String>,
    operations_for_agent: Option<String>,
    metadata: String,
}

impl ContentColumns {
    pub(crate) fn content(self, row_ref: RowRef<'_>) -> Result<StepContent> {
        Ok(StepContent {
            metadata: row_ref.parse_json("metadata", &self.metadata)?,
            title: self.title,
            section_title: self.section_title,
            content: self.content,
            introduction_for_agent: self.introduction_for_agent,
            context_for_agent: self.context_for_agent,
            operations_for_agent: self.operations_for_agent,
        })
    }
}

impl TryFrom<Row> for Step {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let row_ref = RowRef { table: "steps", id: &row.id };
        Ok(Self {
            ordinal: row_ref.to_u32("ordinal", row.ordinal)?,
            content: row.content.content(row_ref)?,
            key: row.key,
            next_step_id: row.next_step_id.map(StepId::from_store),
            id: StepId::from_store(row.id),
        })
    }
}

/// Returns the steps of a draft in order of creation. [`waypost_core::chain::order`] sorts them.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId, walkthrough: &WalkthroughId) -> Result<Vec<Step>> {
    const SQL: &str = "SELECT id, ordinal, key, next_step_id, title, section_title, content, introduction_for_agent,
            context_for_agent, operations_for_agent, metadata
        FROM steps WHERE organization_id = $1 AND walkthrough_id = $2 ORDER BY ordinal";
    read(conn, SQL, organization, walkthrough).await
}

/// Returns the links between the steps of a draft, in no particular order. [`waypost_core::chain::order`] sorts them.
///
/// Reads only the index `steps_chain`, so the cost does not depend on the steps' contents. The database joins the links
/// into one row, because in the driver a row costs several times as much as reading its index entry.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_links(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<Link>> {
    let sql = links_sql(conn.dialect());
    let links: Option<String> = on!(conn, c => sqlx::query_scalar(sql)
        .bind(organization.as_str()).bind(walkthrough.as_str()).fetch_one(c).await?);
    let parse = |line: &str| {
        let (id, next) = line.split_once(' ').unwrap_or((line, ""));
        let next_step_id = (!next.is_empty()).then(|| StepId::from_store(next.to_owned()));
        Link { id: StepId::from_store(id.to_owned()), next_step_id }
    };
    Ok(links.unwrap_or_default().lines().map(parse).collect())
}

/// Returns the statement of [`list_links`]. Public for a test of its query plan.
#[must_use]
pub fn links_sql(dialect: Dialect) -> &'static str {
    // IDs contain neither spaces nor line breaks.
    match dialect {
        Dialect::Sqlite => {
            "SELECT group_concat(id || ' ' || coalesce(next_step_id, ''), char(10))
             FROM steps WHERE organization_id = $1 AND walkthrough_id = $2"
        }
        Dialect::Postgres => {
            "SELECT string_agg(id || ' ' || coalesce(next_step_id, ''), chr(10))
             FROM steps WHERE organization_id = $1 AND walkthrough_id = $2"
        }
    }
}

/// Like [`list`], but without any content except the titles.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_outline(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<Step>> {
    const SQL: &str = "SELECT id, ordinal, key, next_step_id, title, section_title, '' AS content,
            NULL AS introduction_for_agent, NULL AS context_for_agent, NULL AS operations_for_agent, '{}' AS metadata
        FROM steps WHERE organization_id = $1 AND walkthrough_id = $2 ORDER BY ordinal";
    read(conn, SQL, organization, walkthrough).await
}

async fn read(
    conn: &mut Conn,
    sql: &'static str,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<Step>> {
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(walkthrough.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Step::try_from).collect()
}

/// Returns the ID and title of the step of a draft with this key.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_by_key(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    key: &str,
) -> Result<Option<(StepId, String)>> {
    const SQL: &str = "SELECT id, title FROM steps WHERE organization_id = $1 AND walkthrough_id = $2 AND key = $3";
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).bind(key).fetch_optional(c).await?);
    Ok(row.map(|(id, title)| (StepId::from_store(id), title)))
}

/// Returns a step of a draft.
///
/// # Errors
/// The same as for [`list`].
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    step: &StepId,
) -> Result<Option<Step>> {
    const SQL: &str = "SELECT id, ordinal, key, next_step_id, title, section_title, content, introduction_for_agent,
            context_for_agent, operations_for_agent, metadata
        FROM steps WHERE organization_id = $1 AND walkthrough_id = $2 AND id = $3";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).bind(step.as_str()).fetch_optional(c).await?);
    row.map(Step::try_from).transpose()
}
