//! The offers of a server: its enabled assignments of published walkthroughs with at least one step.

use std::collections::HashMap;

use waypost_core::id::{OrganizationId, ServerId, VersionId, WalkthroughId};
use waypost_core::progress::StepSet;
use waypost_core::walkthrough::WalkthroughType;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// A walkthrough offered on a server, at its newest version that is not withdrawn. Its text is as the author typed it:
/// it must be cleaned before it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// Its slug, also the name of its prompt.
    pub slug: String,
    /// The version.
    pub version_id: VersionId,
    /// The number of the version.
    pub version: u32,
    /// The title as published.
    pub title: String,
    /// The description as published.
    pub description: String,
    /// The type as published.
    pub kind: WalkthroughType,
    /// The estimated duration in minutes as published.
    pub estimated_duration_minutes: Option<u32>,
    /// The tags as published.
    pub tags: Vec<String>,
    /// The number of steps.
    pub step_count: u32,
    /// The ordinals of the steps.
    pub step_set: StepSet,
    /// The withdrawn versions of the walkthrough, with the reasons.
    pub withdrawn: HashMap<VersionId, String>,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    walkthrough_id: String,
    slug: String,
    version_id: String,
    number: i64,
    title: String,
    description: String,
    r#type: String,
    estimated_duration_minutes: Option<i64>,
    tags: String,
    step_count: i64,
    step_set: String,
}

impl TryFrom<Row> for Offer {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = |reason: String| Error::Corrupt { table: "versions", id: row.version_id.clone(), reason };
        Ok(Self {
            kind: row.r#type.parse().map_err(corrupt)?,
            tags: serde_json::from_str(&row.tags).map_err(|error| corrupt(error.to_string()))?,
            version: u32::try_from(row.number).map_err(|error| corrupt(error.to_string()))?,
            step_count: u32::try_from(row.step_count).map_err(|error| corrupt(error.to_string()))?,
            step_set: StepSet::from_hex(&row.step_set)
                .ok_or_else(|| corrupt("step_set is not hexadecimal".to_owned()))?,
            estimated_duration_minutes: row
                .estimated_duration_minutes
                .map(|minutes| u32::try_from(minutes).map_err(|error| corrupt(error.to_string())))
                .transpose()?,
            walkthrough_id: WalkthroughId::from_store(row.walkthrough_id),
            slug: row.slug,
            version_id: VersionId::from_store(row.version_id),
            title: row.title,
            description: row.description,
            withdrawn: HashMap::new(),
        })
    }
}

/// Returns the offers of `server` in display order.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId, server: &ServerId) -> Result<Vec<Offer>> {
    const SQL: &str = "SELECT walkthroughs.id AS walkthrough_id, walkthroughs.slug, versions.id AS version_id,
               versions.number, versions.title, versions.description, versions.type,
               versions.estimated_duration_minutes, versions.tags, versions.step_count, versions.step_set
        FROM assignments
        JOIN walkthroughs ON walkthroughs.id = assignments.walkthrough_id
        JOIN versions ON versions.id = walkthroughs.current_version_id
        WHERE assignments.server_id = $1 AND assignments.organization_id = $2 AND assignments.enabled = $3
          AND walkthroughs.state = 'published' AND walkthroughs.deleted_at IS NULL AND versions.step_count > 0
        ORDER BY assignments.display_order, assignments.id";
    const WITHDRAWN: &str = "SELECT versions.walkthrough_id, versions.id, versions.withdrawn_reason
        FROM assignments JOIN versions ON versions.walkthrough_id = assignments.walkthrough_id
        WHERE assignments.server_id = $1 AND assignments.organization_id = $2 AND versions.withdrawn_at IS NOT NULL";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(server.as_str()).bind(organization.as_str()).bind(true).fetch_all(c).await?);
    let mut offers = rows.into_iter().map(Offer::try_from).collect::<Result<Vec<_>>>()?;
    let withdrawn: Vec<(String, String, Option<String>)> = on!(conn, c => sqlx::query_as(WITHDRAWN)
        .bind(server.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    for (walkthrough, version, reason) in withdrawn {
        if let Some(offer) = offers.iter_mut().find(|offer| offer.walkthrough_id.as_str() == walkthrough) {
            offer.withdrawn.insert(VersionId::from_store(version), reason.unwrap_or_default());
        }
    }
    Ok(offers)
}

/// Returns the step titles of all offers of `server`, in order, by version. Reads no content.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_step_titles(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
) -> Result<HashMap<VersionId, Vec<String>>> {
    const SQL: &str = "SELECT version_steps.version_id, version_steps.title
        FROM assignments
        JOIN walkthroughs ON walkthroughs.id = assignments.walkthrough_id
        JOIN version_steps ON version_steps.version_id = walkthroughs.current_version_id
        WHERE assignments.server_id = $1 AND assignments.organization_id = $2 AND assignments.enabled = $3
          AND walkthroughs.state = 'published'
        ORDER BY version_steps.version_id, version_steps.position";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(server.as_str()).bind(organization.as_str()).bind(true).fetch_all(c).await?);
    let mut titles: HashMap<VersionId, Vec<String>> = HashMap::new();
    for (version, title) in rows {
        titles.entry(VersionId::from_store(version)).or_default().push(title);
    }
    Ok(titles)
}
