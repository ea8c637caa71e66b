//! Tool sets with their members.

use std::collections::HashMap;

use serde_json::json;
use sqlx::AssertSqlSafe;
use waypost_core::id::{InstanceId, OrganizationId, ToolSetId};
use waypost_core::tool_set::{ToolSet, ToolSetMember};

use crate::batch::{self, Column, Kind};
use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::{RowRef, in_list, to_json};

/// The columns of `tool_set_members`.
const MEMBER_COLUMNS: &[Column] = &[
    ("tool_set_id", Kind::Text),
    ("instance_id", Kind::Text),
    ("organization_id", Kind::Text),
    ("position", Kind::Integer),
    ("tools", Kind::Text),
];

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT id, organization_id, slug, name, prefix FROM tool_sets WHERE organization_id = $1 ", $rest)
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    slug: String,
    name: String,
    prefix: bool,
}

#[derive(sqlx_macros::FromRow)]
struct MemberRow {
    tool_set_id: String,
    instance_id: String,
    tools: Option<String>,
}

/// Inserts a tool set with its members. `skeleton` is the skeleton of the slug (UTS 39).
///
/// # Errors
/// Returns a unique violation if the slug or its skeleton is taken, a foreign key violation if an instance does not
/// exist, or another error if the database fails.
pub async fn insert(conn: &mut Conn, tool_set: &ToolSet, skeleton: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO tool_sets (id, organization_id, slug, slug_skeleton, name, prefix)
        VALUES ($1, $2, $3, $4, $5, $6)";
    conn.bump_config_version(&tool_set.organization_id).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(tool_set.id.as_str()).bind(tool_set.organization_id.as_str()).bind(&tool_set.slug).bind(skeleton)
        .bind(&tool_set.name).bind(tool_set.prefix).execute(c).await?.rows_affected());
    insert_members(conn, tool_set).await
}

async fn insert_members(conn: &mut Conn, tool_set: &ToolSet) -> Result<()> {
    let member = |(position, member): (usize, &ToolSetMember)| {
        json!({
            "tool_set_id": tool_set.id,
            "instance_id": member.instance_id,
            "organization_id": tool_set.organization_id,
            "position": position,
            "tools": member.tools.clone().map(to_json),
        })
    };
    let members: Vec<_> = tool_set.members.iter().enumerate().map(member).collect();
    let sql = AssertSqlSafe(batch::insert(conn.dialect(), "tool_set_members", "members", MEMBER_COLUMNS));
    let batch = json!({ "members": members }).to_string();
    on!(conn, c => sqlx::query(sql).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the tool set with this ID.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &ToolSetId) -> Result<Option<ToolSet>> {
    const SQL: &str = select!("AND id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    Ok(with_members(conn, organization, row.into_iter().collect()).await?.pop())
}

/// Returns the tool set with this slug.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find_by_slug(conn: &mut Conn, organization: &OrganizationId, slug: &str) -> Result<Option<ToolSet>> {
    const SQL: &str = select!("AND slug = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(slug).fetch_optional(c).await?);
    Ok(with_members(conn, organization, row.into_iter().collect()).await?.pop())
}

/// Returns the ID and the slug of the tool set whose slug has this skeleton.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_by_skeleton(
    conn: &mut Conn,
    organization: &OrganizationId,
    skeleton: &str,
) -> Result<Option<(ToolSetId, String)>> {
    const SQL: &str = "SELECT id, slug FROM tool_sets WHERE organization_id = $1 AND slug_skeleton = $2";
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(skeleton).fetch_optional(c).await?);
    Ok(row.map(|(id, slug)| (ToolSetId::from_store(id), slug)))
}

/// Returns at most `limit` tool sets whose slug sorts after `after`, ordered by slug.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ToolSet>> {
    // A slug is never empty, so every slug sorts after the empty string.
    const SQL: &str = select!("AND slug > $2 ORDER BY slug LIMIT $3");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(after.unwrap_or_default()).bind(i64::from(limit)).fetch_all(c).await?);
    with_members(conn, organization, rows).await
}

async fn with_members(conn: &mut Conn, organization: &OrganizationId, rows: Vec<Row>) -> Result<Vec<ToolSet>> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let sql = AssertSqlSafe(format!(
        "SELECT tool_set_id, instance_id, tools FROM tool_set_members
         WHERE tool_set_id {} AND organization_id = $2 ORDER BY tool_set_id, position",
        in_list(conn.dialect())
    ));
    let found: Vec<MemberRow> = on!(conn, c => sqlx::query_as(sql)
        .bind(to_json(ids)).bind(organization.as_str()).fetch_all(c).await?);
    let mut members: HashMap<String, Vec<ToolSetMember>> = HashMap::new();
    for row in found {
        let at = RowRef { table: "tool_set_members", id: &row.tool_set_id };
        let tools = row.tools.as_deref().map(|text| at.parse_json("tools", text)).transpose()?;
        let member = ToolSetMember { instance_id: InstanceId::from_store(row.instance_id), tools };
        members.entry(row.tool_set_id).or_default().push(member);
    }
    let tool_set = |row: Row| ToolSet {
        members: members.remove(&row.id).unwrap_or_default(),
        id: ToolSetId::from_store(row.id),
        organization_id: OrganizationId::from_store(row.organization_id),
        slug: row.slug,
        name: row.name,
        prefix: row.prefix,
    };
    Ok(rows.into_iter().map(tool_set).collect())
}

/// Returns the number of tool sets of an organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM tool_sets WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Updates a tool set and replaces its members. Returns `false` if it does not exist.
///
/// # Errors
/// The same as for [`insert`].
pub async fn update(conn: &mut Conn, tool_set: &ToolSet, skeleton: &str) -> Result<bool> {
    const SQL: &str = "UPDATE tool_sets SET slug = $3, slug_skeleton = $4, name = $5, prefix = $6
        WHERE id = $1 AND organization_id = $2";
    const DELETE: &str = "DELETE FROM tool_set_members WHERE tool_set_id = $1 AND organization_id = $2";
    let (id, organization) = (tool_set.id.as_str(), tool_set.organization_id.as_str());
    conn.bump_config_version(&tool_set.organization_id).await?;
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id).bind(organization).bind(&tool_set.slug).bind(skeleton).bind(&tool_set.name).bind(tool_set.prefix)
        .execute(c).await?.rows_affected());
    if changed == 0 {
        return Ok(false);
    }
    on!(conn, c => sqlx::query(DELETE).bind(id).bind(organization).execute(c).await?.rows_affected());
    insert_members(conn, tool_set).await?;
    Ok(true)
}

/// Deletes a tool set. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &ToolSetId) -> Result<bool> {
    const SQL: &str = "DELETE FROM tool_sets WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
