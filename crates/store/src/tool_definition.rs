//! The definitions that the servers of instances list, with their approvals.

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::id::{CatalogVersionId, InstanceId, OrganizationId, ToolApprovalId};
use waypost_core::tool_definition::{ApprovalState, Class, DefinitionKind, ToolDefinition};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, in_list, to_json};

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    instance_id: String,
    catalog_version_id: Option<String>,
    kind: String,
    name: String,
    digest: String,
    definition: String,
    problem: Option<String>,
    is_current: bool,
    state: String,
    class: Option<String>,
    reason: Option<String>,
    decided_by: Option<String>,
    decided_at: Option<i64>,
    first_seen_at: i64,
}

impl TryFrom<Row> for ToolDefinition {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let at = RowRef { table: "tool_definitions", id: &row.id };
        Ok(Self {
            kind: at.parse("kind", &row.kind)?,
            state: at.parse("state", &row.state)?,
            class: row.class.as_deref().map(|class| at.parse("class", class)).transpose()?,
            id: ToolApprovalId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            instance_id: InstanceId::from_store(row.instance_id),
            catalog_version_id: row.catalog_version_id.map(CatalogVersionId::from_store),
            name: row.name,
            digest: row.digest,
            definition: row.definition,
            problem: row.problem,
            is_current: row.is_current,
            reason: row.reason,
            decided_by: row.decided_by,
            decided_at: row.decided_at.map(Timestamp),
            first_seen_at: Timestamp(row.first_seen_at),
        })
    }
}

/// Returns a query for definitions. `rest` follows the name of the table.
fn select(rest: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT id, organization_id, instance_id, catalog_version_id, kind, name, digest, definition, problem, is_current,
            state, class, reason, decided_by, decided_at, first_seen_at FROM tool_definitions {rest}"
    ))
}

/// Inserts a definition.
///
/// # Errors
/// Returns a unique violation if the instance already has it, or another error if the database fails.
pub async fn insert(conn: &mut Conn, definition: &ToolDefinition) -> Result<()> {
    const SQL: &str = "INSERT INTO tool_definitions (id, organization_id, instance_id, catalog_version_id, kind, name,
            digest, definition, problem, is_current, state, class, reason, decided_by, decided_at, first_seen_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    on!(conn, c => sqlx::query(SQL)
        .bind(definition.id.as_str()).bind(definition.organization_id.as_str()).bind(definition.instance_id.as_str())
        .bind(definition.catalog_version_id.as_ref().map(CatalogVersionId::as_str)).bind(definition.kind.as_str()).bind(&definition.name)
        .bind(&definition.digest).bind(&definition.definition).bind(&definition.problem).bind(definition.is_current)
        .bind(definition.state.as_str()).bind(definition.class.map(Class::as_str)).bind(&definition.reason)
        .bind(&definition.decided_by).bind(definition.decided_at.map(|at| at.0)).bind(definition.first_seen_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// A definition without its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// The ID of the approval.
    pub id: ToolApprovalId,
    /// The name of the kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The digest.
    pub digest: String,
    /// The catalogue version of the server that last listed it.
    pub catalog_version_id: Option<CatalogVersionId>,
    /// Whether the server listed it at the last check.
    pub is_current: bool,
    /// Whether no decision about it has been made.
    pub is_pending: bool,
    /// The time at which it was first seen.
    pub first_seen_at: Timestamp,
}

#[derive(sqlx_macros::FromRow)]
struct SeenRow {
    id: String,
    kind: String,
    name: String,
    digest: String,
    catalog_version_id: Option<String>,
    is_current: bool,
    state: String,
    first_seen_at: i64,
}

impl From<SeenRow> for Seen {
    fn from(row: SeenRow) -> Self {
        Self {
            id: ToolApprovalId::from_store(row.id),
            kind: row.kind,
            name: row.name,
            digest: row.digest,
            catalog_version_id: row.catalog_version_id.map(CatalogVersionId::from_store),
            is_current: row.is_current,
            is_pending: row.state == ApprovalState::Pending.as_str(),
            first_seen_at: Timestamp(row.first_seen_at),
        }
    }
}

/// Returns all definitions of an instance that have been seen, oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_seen(conn: &mut Conn, organization: &OrganizationId, instance: &InstanceId) -> Result<Vec<Seen>> {
    const SQL: &str = "SELECT id, kind, name, digest, catalog_version_id, is_current, state, first_seen_at
        FROM tool_definitions WHERE instance_id = $1 AND organization_id = $2 ORDER BY id";
    let rows: Vec<SeenRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(Seen::from).collect())
}

/// Records whether the server of an instance currently lists the definitions `ids`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_current(
    conn: &mut Conn,
    organization: &OrganizationId,
    ids: &[&ToolApprovalId],
    is_current: bool,
) -> Result<()> {
    let sql = format!(
        "UPDATE tool_definitions SET is_current = $3 WHERE id {} AND organization_id = $2",
        in_list(conn.dialect())
    );
    let ids = to_json(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    on!(conn, c => sqlx::query(AssertSqlSafe(sql)).bind(ids).bind(organization.as_str()).bind(is_current)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Records that a server of a catalogue version lists the definitions `ids`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_catalog_version(
    conn: &mut Conn,
    organization: &OrganizationId,
    ids: &[&ToolApprovalId],
    version: &CatalogVersionId,
) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE tool_definitions SET catalog_version_id = $3 WHERE id {} AND organization_id = $2",
        in_list(conn.dialect())
    );
    let ids = to_json(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    on!(conn, c => sqlx::query(AssertSqlSafe(sql)).bind(ids).bind(organization.as_str()).bind(version.as_str())
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes the definitions `ids`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, ids: &[&ToolApprovalId]) -> Result<()> {
    let sql = format!("DELETE FROM tool_definitions WHERE id {} AND organization_id = $2", in_list(conn.dialect()));
    let ids = to_json(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    on!(conn, c => sqlx::query(AssertSqlSafe(sql)).bind(ids).bind(organization.as_str()).execute(c).await?
        .rows_affected());
    Ok(())
}

/// Returns the definition with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ToolApprovalId,
) -> Result<Option<ToolDefinition>> {
    let sql = select("WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(ToolDefinition::try_from).transpose()
}

/// A filter for a list of definitions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Only definitions in this state.
    pub state: Option<ApprovalState>,
    /// Only definitions of this instance.
    pub instance: Option<&'a InstanceId>,
    /// Only definitions after this one.
    pub after: Option<&'a ToolApprovalId>,
}

/// Returns at most `limit` definitions, ordered by ID and therefore by the time at which they were first seen.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: Filter<'_>,
    limit: i64,
) -> Result<Vec<ToolDefinition>> {
    let sql = select(
        "WHERE organization_id = $1 AND ($2 = '' OR state = $2) AND ($3 = '' OR instance_id = $3) AND id > $4
         ORDER BY id LIMIT $5",
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(filter.state.map_or("", ApprovalState::as_str))
        .bind(filter.instance.map_or("", InstanceId::as_str)).bind(filter.after.map_or("", ToolApprovalId::as_str))
        .bind(limit).fetch_all(c).await?);
    rows.into_iter().map(ToolDefinition::try_from).collect()
}

/// Returns all definitions of an organisation that are approved and that the servers currently list, ordered by
/// instance, kind and name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_usable(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<ToolDefinition>> {
    let sql = select("WHERE organization_id = $1 AND state = $2 AND is_current = $3 ORDER BY instance_id, kind, name");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(ApprovalState::Approved.as_str()).bind(true).fetch_all(c).await?);
    rows.into_iter().map(ToolDefinition::try_from).collect()
}

/// Returns the definitions of an instance that its server currently lists or that are approved, ordered by kind, name
/// and the time at which they were first seen.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_relevant(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Vec<ToolDefinition>> {
    let sql = select(
        "WHERE instance_id = $1 AND organization_id = $2 AND (is_current = $3 OR state = $4) ORDER BY kind, name, id",
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(instance.as_str()).bind(organization.as_str()).bind(true).bind(ApprovalState::Approved.as_str())
        .fetch_all(c).await?);
    rows.into_iter().map(ToolDefinition::try_from).collect()
}

/// Returns the instance and URI of each resource that a server currently lists and that is not approved.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_quarantined_resources(
    conn: &mut Conn,
    organization: &OrganizationId,
) -> Result<Vec<(InstanceId, String)>> {
    const SQL: &str = "SELECT instance_id, name FROM tool_definitions
        WHERE organization_id = $1 AND kind = $2 AND state <> $3 AND is_current = $4";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(DefinitionKind::Resource.as_str()).bind(ApprovalState::Approved.as_str())
        .bind(true).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(instance, uri)| (InstanceId::from_store(instance), uri)).collect())
}

/// The content of a definition. Definitions of different instances with the same content are considered identical.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The catalogue version.
    pub catalog_version: &'a CatalogVersionId,
    /// The kind.
    pub kind: DefinitionKind,
    /// The name.
    pub name: &'a str,
    /// The digest.
    pub digest: &'a str,
}

/// Returns the definitions of all instances with this content.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_by_content(
    conn: &mut Conn,
    organization: &OrganizationId,
    content: Content<'_>,
) -> Result<Vec<ToolDefinition>> {
    let sql = select(
        "WHERE catalog_version_id = $1 AND digest = $2 AND kind = $3 AND name = $4 AND organization_id = $5 ORDER BY id",
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(content.catalog_version.as_str()).bind(content.digest).bind(content.kind.as_str()).bind(content.name)
        .bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(ToolDefinition::try_from).collect()
}

/// A definition of an instance, without its text but with its approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The kind.
    pub kind: DefinitionKind,
    /// The name.
    pub name: String,
    /// The digest.
    pub digest: String,
    /// The reason why it cannot be approved, if any.
    pub problem: Option<String>,
    /// Whether the server currently lists it.
    pub is_current: bool,
    /// The state of the approval.
    pub state: ApprovalState,
    /// The effect, if it was approved.
    pub class: Option<Class>,
}

/// Returns at most `limit` definitions of all instances of a catalogue version, ordered by kind, name, digest and ID.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_by_version(
    conn: &mut Conn,
    organization: &OrganizationId,
    version: &CatalogVersionId,
    limit: i64,
) -> Result<Vec<Decision>> {
    const SQL: &str = "SELECT id, kind, name, digest, problem, is_current, state, class FROM tool_definitions
        WHERE catalog_version_id = $1 AND organization_id = $2 ORDER BY kind, name, digest, id LIMIT $3";
    let rows: Vec<DecisionRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(version.as_str()).bind(organization.as_str()).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Decision::try_from).collect()
}

#[derive(sqlx_macros::FromRow)]
struct DecisionRow {
    id: String,
    kind: String,
    name: String,
    digest: String,
    problem: Option<String>,
    is_current: bool,
    state: String,
    class: Option<String>,
}

impl TryFrom<DecisionRow> for Decision {
    type Error = Error;

    fn try_from(row: DecisionRow) -> Result<Self> {
        let at = RowRef { table: "tool_definitions", id: &row.id };
        Ok(Self {
            kind: at.parse("kind", &row.kind)?,
            state: at.parse("state", &row.state)?,
            class: row.class.as_deref().map(|class| at.parse("class", class)).transpose()?,
            name: row.name,
            digest: row.digest,
            problem: row.problem,
            is_current: row.is_current,
        })
    }
}

/// Returns the definition of the same kind and name that an admin approved last; otherwise the one that was seen last
/// before `definition`.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_previous(conn: &mut Conn, definition: &ToolDefinition) -> Result<Option<ToolDefinition>> {
    let sql = select(
        "WHERE instance_id = $1 AND organization_id = $2 AND kind = $3 AND name = $4 AND id <> $5
            AND (state = $6 OR id < $5)
         ORDER BY CASE WHEN state = $6 THEN 0 ELSE 1 END, decided_at DESC, id DESC LIMIT 1",
    );
    let row: Option<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(definition.instance_id.as_str()).bind(definition.organization_id.as_str())
        .bind(definition.kind.as_str()).bind(&definition.name).bind(definition.id.as_str())
        .bind(ApprovalState::Approved.as_str()).fetch_optional(c).await?);
    row.map(ToolDefinition::try_from).transpose()
}

/// Whether an admin has rejected definitions of the same instance, kind and name, and has approved none of them. In
/// that case, no approval for another instance applies to `definition`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_barred(conn: &mut Conn, definition: &ToolDefinition) -> Result<bool> {
    const SQL: &str = "SELECT state FROM tool_definitions
        WHERE instance_id = $1 AND organization_id = $2 AND kind = $3 AND name = $4";
    let states: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(definition.instance_id.as_str()).bind(definition.organization_id.as_str())
        .bind(definition.kind.as_str()).bind(&definition.name).fetch_all(c).await?);
    let has = |state: ApprovalState| states.iter().any(|one| one == state.as_str());
    Ok(has(ApprovalState::Rejected) && !has(ApprovalState::Approved))
}

/// Updates the approval of a definition. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update_approval(conn: &mut Conn, definition: &ToolDefinition) -> Result<bool> {
    const SQL: &str =
        "UPDATE tool_definitions SET state = $3, class = $4, reason = $5, decided_by = $6, decided_at = $7
        WHERE id = $1 AND organization_id = $2";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(definition.id.as_str()).bind(definition.organization_id.as_str()).bind(definition.state.as_str())
        .bind(definition.class.map(Class::as_str)).bind(&definition.reason).bind(&definition.decided_by)
        .bind(definition.decided_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Rejects the other approved definitions of the same instance, kind and name, with the decision made for `rejected`.
/// Returns their digests, sorted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn reject_others(conn: &mut Conn, rejected: &ToolDefinition) -> Result<Vec<String>> {
    const SQL: &str =
        "UPDATE tool_definitions SET state = $6, class = NULL, reason = $7, decided_by = $8, decided_at = $9
        WHERE instance_id = $1 AND organization_id = $2 AND kind = $3 AND name = $4 AND id <> $5 AND state = $10
        RETURNING digest";
    let mut digests: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(rejected.instance_id.as_str()).bind(rejected.organization_id.as_str()).bind(rejected.kind.as_str())
        .bind(&rejected.name).bind(rejected.id.as_str()).bind(ApprovalState::Rejected.as_str()).bind(&rejected.reason)
        .bind(&rejected.decided_by).bind(rejected.decided_at.map(|at| at.0)).bind(ApprovalState::Approved.as_str())
        .fetch_all(c).await?);
    digests.sort_unstable();
    Ok(digests)
}

/// Returns the definitions of an instance with this digest that its server currently lists.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_by_digest(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    digest: &str,
) -> Result<Vec<ToolDefinition>> {
    let sql = select("WHERE instance_id = $1 AND organization_id = $2 AND digest = $3 AND is_current = $4 ORDER BY id");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(instance.as_str()).bind(organization.as_str()).bind(digest).bind(true).fetch_all(c).await?);
    rows.into_iter().map(ToolDefinition::try_from).collect()
}

/// Returns the IDs of the definitions of an instance that an admin has approved or rejected.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_decided_ids(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Vec<ToolApprovalId>> {
    const SQL: &str = "SELECT id FROM tool_definitions WHERE instance_id = $1 AND organization_id = $2 AND state <> $3";
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(ApprovalState::Pending.as_str())
        .fetch_all(c).await?);
    Ok(ids.into_iter().map(ToolApprovalId::from_store).collect())
}
