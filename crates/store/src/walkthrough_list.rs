//! Paginated lists of walkthroughs with search, filters and sorting. A page continues after the last row of the
//! previous page.

use std::sync::LazyLock;

use serde_json::json;
use waypost_core::id::{OrganizationId, ServerId, VersionId, WalkthroughId};
use waypost_core::walkthrough::{Walkthrough, WalkthroughSort, WalkthroughState, WalkthroughType};

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;
use crate::row::RowRef;
use crate::walkthrough::{COLUMNS, Row};

const ID: &[Column] = &[("id", Kind::Text)];

/// The value of the sorted column in the last row of the previous page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SortValue {
    /// The folded title, in a list sorted by title.
    Title(String),
    /// The time, in a list sorted by a time.
    Time(i64),
}

/// A search for walkthroughs. Empty texts and absent filters match any walkthrough.
#[derive(Debug, Clone)]
pub struct WalkthroughSearch<'a> {
    /// The search text folded like titles. Matches if the folded title contains it, or if the slug, description or tags
    /// contain [`WalkthroughSearch::plain`].
    pub title: &'a str,
    /// The search text with ASCII letters in lowercase.
    pub plain: &'a str,
    /// The state.
    pub state: Option<WalkthroughState>,
    /// The type.
    pub kind: Option<WalkthroughType>,
    /// The server to which they are assigned.
    pub server: Option<&'a ServerId>,
    /// The sort column.
    pub sort: WalkthroughSort,
    /// Whether to sort in descending order.
    pub descending: bool,
    /// The last row of the previous page: its value in the sorted column, and its ID.
    pub after: Option<(SortValue, &'a WalkthroughId)>,
    /// The maximum number of rows.
    pub limit: i64,
}

/// A walkthrough in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkthroughSummary {
    /// The walkthrough without its steps.
    pub walkthrough: Walkthrough,
    /// The number of steps in the draft.
    pub step_count: u32,
    /// The number of the newest version that is not withdrawn.
    pub current_version: Option<u32>,
}

/// The statements. There is a search statement per sort column, direction, and first or further page.
struct Statements {
    search: Vec<String>,
    count_steps: String,
    version_numbers: String,
    servers: String,
}

fn search_index(sort: WalkthroughSort, descending: bool, further: bool) -> usize {
    let sort = match sort {
        WalkthroughSort::Title => 0,
        WalkthroughSort::UpdatedAt => 1,
        WalkthroughSort::CreatedAt => 2,
    };
    sort * 4 + usize::from(descending) * 2 + usize::from(further)
}

impl Statements {
    fn new(dialect: Dialect) -> Self {
        let mut search = Vec::with_capacity(12);
        for sort in [WalkthroughSort::Title, WalkthroughSort::UpdatedAt, WalkthroughSort::CreatedAt] {
            for descending in [false, true] {
                for further in [false, true] {
                    search.push(search_statement(dialect, sort, descending, further));
                }
            }
        }
        let ids = batch::rows(dialect, "ids", ID);
        Self {
            search,
            count_steps: format!(
                "SELECT walkthrough_id, count(*) FROM steps
                 WHERE organization_id = $2 AND walkthrough_id IN (SELECT id FROM {ids}) GROUP BY walkthrough_id"
            ),
            version_numbers: format!(
                "SELECT id, number FROM versions WHERE organization_id = $2 AND id IN (SELECT id FROM {ids})"
            ),
            servers: format!(
                "SELECT assignments.walkthrough_id, servers.id, servers.name, assignments.enabled
                 FROM assignments JOIN servers ON servers.id = assignments.server_id
                 WHERE assignments.organization_id = $2 AND assignments.walkthrough_id IN (SELECT id FROM {ids})
                 ORDER BY servers.name, servers.id"
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

fn search_statement(dialect: Dialect, sort: WalkthroughSort, descending: bool, further: bool) -> String {
    let column = match (dialect, sort) {
        (Dialect::Sqlite, WalkthroughSort::Title) => "title_key",
        // Compares bytes, like SQLite.
        (Dialect::Postgres, WalkthroughSort::Title) => "title_key COLLATE \"C\"",
        (_, WalkthroughSort::UpdatedAt) => "updated_at",
        (_, WalkthroughSort::CreatedAt) => "created_at",
    };
    let (find, lower) = match dialect {
        Dialect::Sqlite => ("instr", ("lower(", ")")),
        Dialect::Postgres => ("strpos", ("lower(", " COLLATE \"C\")")),
    };
    let contains = |column: &str| format!("{find}({}{column}{}, $6) > 0", lower.0, lower.1);
    let id = if dialect == Dialect::Sqlite { "id" } else { "id COLLATE \"C\"" };
    let (compare, order) = if descending { ("<", "DESC") } else { (">", "ASC") };
    let after = if further { format!("AND ({column}, {id}) {compare} ($8, $9)") } else { String::new() };
    format!(
        "SELECT {COLUMNS} FROM walkthroughs
         WHERE organization_id = $1 AND deleted_at IS NULL AND ($2 = '' OR state = $2) AND ($3 = '' OR type = $3)
           AND ($4 = '' OR EXISTS (SELECT 1 FROM assignments
                    WHERE assignments.server_id = $4 AND assignments.walkthrough_id = walkthroughs.id))
           AND ($6 = '' OR {find}(title_key, $5) > 0 OR {} OR {} OR {})
           {after}
         ORDER BY {column} {order}, {id} {order} LIMIT $7",
        contains("slug"),
        contains("description"),
        contains("tags"),
    )
}

/// Returns one page of matching walkthroughs in the requested order. Both databases compare text by bytes.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn search(
    conn: &mut Conn,
    organization: &OrganizationId,
    search: &WalkthroughSearch<'_>,
) -> Result<Vec<WalkthroughSummary>> {
    let statements = Statements::of(conn.dialect());
    let sql = statements.search[search_index(search.sort, search.descending, search.after.is_some())].as_str();
    let rows: Vec<Row> = on!(conn, c => {
        let query = sqlx::query_as(sql)
            .bind(organization.as_str())
            .bind(search.state.map_or("", WalkthroughState::as_str))
            .bind(search.kind.map_or("", WalkthroughType::as_str))
            .bind(search.server.map_or("", ServerId::as_str))
            .bind(search.title)
            .bind(search.plain)
            .bind(search.limit);
        let query = match &search.after {
            None => query,
            Some((SortValue::Title(title), id)) => query.bind(title).bind(id.as_str()),
            Some((SortValue::Time(time), id)) => query.bind(*time).bind(id.as_str()),
        };
        query.fetch_all(c).await?
    });
    let walkthroughs = rows.into_iter().map(Walkthrough::try_from).collect::<Result<Vec<_>>>()?;
    summarize(conn, organization, walkthroughs).await
}

/// Adds step counts and current version numbers to walkthroughs.
///
/// # Errors
/// The same as for [`search`].
pub async fn summarize(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthroughs: Vec<Walkthrough>,
) -> Result<Vec<WalkthroughSummary>> {
    if walkthroughs.is_empty() {
        return Ok(Vec::new());
    }
    let statements = Statements::of(conn.dialect());
    let ids: Vec<_> = walkthroughs.iter().map(|walkthrough| json!({ "id": walkthrough.id })).collect();
    let steps = find_counts(conn, &statements.count_steps, ids, organization).await?;
    let versions = walkthroughs.iter().filter_map(|walkthrough| walkthrough.current_version_id.as_ref());
    let versions: Vec<_> = versions.map(|id| json!({ "id": id })).collect();
    let versions = find_counts(conn, &statements.version_numbers, versions, organization).await?;
    let count = |found: &[(String, i64)], id: &str, column| {
        let found = found.iter().find(|(own, _)| own == id);
        found.map(|(_, number)| RowRef { table: "walkthroughs", id }.to_u32(column, *number)).transpose()
    };
    walkthroughs
        .into_iter()
        .map(|walkthrough| {
            let step_count = count(&steps, walkthrough.id.as_str(), "steps")?.unwrap_or(0);
            let current = walkthrough.current_version_id.as_ref().map(VersionId::as_str);
            let current_version = current.map(|id| count(&versions, id, "number")).transpose()?.flatten();
            Ok(WalkthroughSummary { walkthrough, step_count, current_version })
        })
        .collect()
}

async fn find_counts(
    conn: &mut Conn,
    sql: &'static str,
    ids: Vec<serde_json::Value>,
    organization: &OrganizationId,
) -> Result<Vec<(String, i64)>> {
    let batch = json!({ "ids": ids }).to_string();
    Ok(on!(conn, c => sqlx::query_as(sql).bind(batch).bind(organization.as_str()).fetch_all(c).await?))
}

/// A server to which a walkthrough is assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAssignment {
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The server.
    pub server_id: ServerId,
    /// The name of the server.
    pub server_name: String,
    /// Whether the assignment is enabled.
    pub enabled: bool,
}

/// Returns the servers to which the walkthroughs are assigned, ordered by name.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_servers(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthroughs: impl IntoIterator<Item = &WalkthroughId>,
) -> Result<Vec<ServerAssignment>> {
    let ids: Vec<_> = walkthroughs.into_iter().map(|id| json!({ "id": id })).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = Statements::of(conn.dialect()).servers.as_str();
    let batch = json!({ "ids": ids }).to_string();
    let rows: Vec<(String, String, String, bool)> =
        on!(conn, c => sqlx::query_as(sql).bind(batch).bind(organization.as_str()).fetch_all(c).await?);
    let assignments = rows.into_iter().map(|(walkthrough, server, server_name, enabled)| ServerAssignment {
        walkthrough_id: WalkthroughId::from_store(walkthrough),
        server_id: ServerId::from_store(server),
        server_name,
        enabled,
    });
    Ok(assignments.collect())
}
