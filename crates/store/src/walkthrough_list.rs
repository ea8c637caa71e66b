//! Lists of walkthroughs: searched, filtered, sorted, and read a page at a time by the last row of the page before.

use std::sync::LazyLock;

use serde_json::json;
use waypost_core::id::{OrganizationId, ServerId, VersionId, WalkthroughId};
use waypost_core::walkthrough::{Walkthrough, WalkthroughSort, WalkthroughState, WalkthroughType};

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;
use crate::row::Place;
use crate::walkthrough::{COLUMNS, Row};

const ID: &[Column] = &[("id", Kind::Text)];

/// By what a page continues: the value of the sorted column in the last row of the page before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// Of a list by title: the title as titles are compared.
    Title(String),
    /// Of a list by a time.
    Time(i64),
}

/// Which heads to list.
#[derive(Debug, Clone)]
pub struct Search<'a> {
    /// Only those whose title, as titles are compared, holds this, or whose slug, description or tags hold
    /// [`Search::plain`].
    pub title: &'a str,
    /// What was searched for, with small ASCII letters.
    pub plain: &'a str,
    /// Only those in this state.
    pub state: Option<WalkthroughState>,
    /// Only those of this type.
    pub kind: Option<WalkthroughType>,
    /// Only those that are placed on this server.
    pub server: Option<&'a ServerId>,
    /// By what they are sorted.
    pub sort: WalkthroughSort,
    /// Whether the greatest comes first.
    pub descending: bool,
    /// The last row of the page before: its value in the sorted column, and its id.
    pub after: Option<(After, &'a WalkthroughId)>,
    /// So many at most.
    pub limit: i64,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The head.
    pub walkthrough: Walkthrough,
    /// Steps in the draft.
    pub step_count: u32,
    /// The number of the newest version that is not withdrawn.
    pub current_version: Option<u32>,
}

/// One statement for each way to sort, each direction, and the first page or a further one.
struct Statements {
    search: Vec<String>,
    count_steps: String,
    numbers: String,
    servers: String,
}

fn at(sort: WalkthroughSort, descending: bool, further: bool) -> usize {
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
                    search.push(statement(dialect, sort, descending, further));
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
            numbers: format!(
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

fn statement(dialect: Dialect, sort: WalkthroughSort, descending: bool, further: bool) -> String {
    let column = match (dialect, sort) {
        (Dialect::Sqlite, WalkthroughSort::Title) => "title_key",
        // Byte by byte, as SQLite does it.
        (Dialect::Postgres, WalkthroughSort::Title) => "title_key COLLATE \"C\"",
        (_, WalkthroughSort::UpdatedAt) => "updated_at",
        (_, WalkthroughSort::CreatedAt) => "created_at",
    };
    let (find, lower) = match dialect {
        Dialect::Sqlite => ("instr", ("lower(", ")")),
        Dialect::Postgres => ("strpos", ("lower(", " COLLATE \"C\")")),
    };
    let holds = |column: &str| format!("{find}({}{column}{}, $6) > 0", lower.0, lower.1);
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
        holds("slug"),
        holds("description"),
        holds("tags"),
    )
}

/// Heads in the order that was asked for, byte by byte on both databases.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn search(conn: &mut Conn, organization: &OrganizationId, search: &Search<'_>) -> Result<Vec<Listed>> {
    let statements = Statements::of(conn.dialect());
    let sql = statements.search[at(search.sort, search.descending, search.after.is_some())].as_str();
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
            Some((After::Title(title), id)) => query.bind(title).bind(id.as_str()),
            Some((After::Time(time), id)) => query.bind(*time).bind(id.as_str()),
        };
        query.fetch_all(c).await?
    });
    let heads = rows.into_iter().map(Walkthrough::try_from).collect::<Result<Vec<_>>>()?;
    describe(conn, organization, heads).await
}

/// Heads with what a list shows of them besides.
///
/// # Errors
/// As [`search`].
pub async fn describe(conn: &mut Conn, organization: &OrganizationId, heads: Vec<Walkthrough>) -> Result<Vec<Listed>> {
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let statements = Statements::of(conn.dialect());
    let ids: Vec<_> = heads.iter().map(|head| json!({ "id": head.id })).collect();
    let steps = numbers(conn, &statements.count_steps, ids, organization).await?;
    let versions = heads.iter().filter_map(|head| head.current_version_id.as_ref());
    let versions: Vec<_> = versions.map(|id| json!({ "id": id })).collect();
    let versions = numbers(conn, &statements.numbers, versions, organization).await?;
    let count = |found: &[(String, i64)], id: &str, column| {
        let found = found.iter().find(|(own, _)| own == id);
        found.map(|(_, number)| Place { table: "walkthroughs", id }.count(column, *number)).transpose()
    };
    heads
        .into_iter()
        .map(|walkthrough| {
            let step_count = count(&steps, walkthrough.id.as_str(), "steps")?.unwrap_or(0);
            let current = walkthrough.current_version_id.as_ref().map(VersionId::as_str);
            let current_version = current.map(|id| count(&versions, id, "number")).transpose()?.flatten();
            Ok(Listed { walkthrough, step_count, current_version })
        })
        .collect()
}

async fn numbers(
    conn: &mut Conn,
    sql: &'static str,
    ids: Vec<serde_json::Value>,
    organization: &OrganizationId,
) -> Result<Vec<(String, i64)>> {
    let batch = json!({ "ids": ids }).to_string();
    Ok(on!(conn, c => sqlx::query_as(sql).bind(batch).bind(organization.as_str()).fetch_all(c).await?))
}

/// A server that a walkthrough is placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The server.
    pub server_id: ServerId,
    /// Its name.
    pub server_name: String,
    /// Whether the walkthrough is switched on there.
    pub enabled: bool,
}

/// The servers that these walkthroughs are placed on, by name.
///
/// # Errors
/// When the database fails.
pub async fn servers(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthroughs: impl IntoIterator<Item = &WalkthroughId>,
) -> Result<Vec<Placed>> {
    let ids: Vec<_> = walkthroughs.into_iter().map(|id| json!({ "id": id })).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = Statements::of(conn.dialect()).servers.as_str();
    let batch = json!({ "ids": ids }).to_string();
    let rows: Vec<(String, String, String, bool)> =
        on!(conn, c => sqlx::query_as(sql).bind(batch).bind(organization.as_str()).fetch_all(c).await?);
    let placed = rows.into_iter().map(|(walkthrough, server, server_name, enabled)| Placed {
        walkthrough_id: WalkthroughId::from_store(walkthrough),
        server_id: ServerId::from_store(server),
        server_name,
        enabled,
    });
    Ok(placed.collect())
}
