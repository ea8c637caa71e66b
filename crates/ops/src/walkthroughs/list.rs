//! Lists of walkthroughs.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use waypost_content::transfer::identity::fold_title;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_core::walkthrough::{Walkthrough, WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_core::{Error, Result};
use waypost_store::walkthrough_list::{self, ServerAssignment, SortValue, WalkthroughSearch};

use crate::Ops;

/// The maximum page size.
const MAX_PAGE: u32 = 200;
/// The maximum number of characters in a search text.
const MAX_QUERY: usize = 200;

/// The filter, order and page of a list of walkthroughs.
#[derive(Debug, Clone, Default)]
pub struct WalkthroughListQuery {
    /// Includes only walkthroughs whose title, slug, description or tags contain this text.
    pub query: Option<String>,
    /// Includes only walkthroughs in this state.
    pub state: Option<WalkthroughState>,
    /// Includes only walkthroughs of this type.
    pub kind: Option<WalkthroughType>,
    /// Includes only walkthroughs that are assigned to this server.
    pub server_id: Option<ServerId>,
    /// The sort key. By default the title.
    pub sort: Option<WalkthroughSort>,
    /// Whether the order is descending.
    pub descending: bool,
    /// The page size, 1 to 200. By default 50.
    pub limit: Option<u32>,
    /// The `next_cursor` of the previous page of a list with the same order.
    pub cursor: Option<String>,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedWalkthrough {
    /// The walkthrough without its steps.
    pub walkthrough: Walkthrough,
    /// The number of steps in the draft.
    pub step_count: u32,
    /// The number of the version that is served. `None` if no version is served.
    pub current_version: Option<u32>,
    /// The servers that it is assigned to, ordered by name: ID, name, and whether the assignment is enabled.
    pub servers: Vec<(ServerId, String, bool)>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct WalkthroughPage {
    /// The rows.
    pub items: Vec<ListedWalkthrough>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// The sort key, its value and the ID of the last row of a page.
#[derive(Serialize, Deserialize)]
struct Cursor(WalkthroughSort, String, WalkthroughId);

/// Returns a page of an organisation's walkthroughs.
///
/// # Errors
/// `invalid_arguments` for a limit out of range, an invalid cursor, or an invalid search text.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    list_query: WalkthroughListQuery,
) -> Result<WalkthroughPage> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let limit = list_query.limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    let query = list_query.query.as_deref().unwrap_or_default().trim();
    if query.contains('\0') || query.chars().count() > MAX_QUERY {
        return Err(Error::invalid("q", format!("`q` can have at most {MAX_QUERY} characters and no NUL.")));
    }
    let sort = list_query.sort.unwrap_or(WalkthroughSort::Title);
    let after = list_query.cursor.as_deref().map(|cursor| decode_cursor(cursor, sort)).transpose()?;
    let mut conn = ops.store.read().await?;
    let search = WalkthroughSearch {
        title: &fold_title(query),
        plain: &query.to_ascii_lowercase(),
        state: list_query.state,
        kind: list_query.kind,
        server: list_query.server_id.as_ref(),
        sort,
        descending: list_query.descending,
        after: after.as_ref().map(|(after, id)| (after.clone(), id)),
        limit: i64::from(limit) + 1,
    };
    let mut walkthroughs = walkthrough_list::search(&mut conn, organization, &search).await?;
    let more = walkthroughs.len() > limit as usize;
    walkthroughs.truncate(limit as usize);
    let next_cursor = walkthroughs.last().filter(|_| more).map(|last| encode_cursor(sort, &last.walkthrough));
    let ids = walkthroughs.iter().map(|listed| &listed.walkthrough.id);
    let assignments = walkthrough_list::list_servers(&mut conn, organization, ids).await?;
    Ok(WalkthroughPage {
        items: walkthroughs.into_iter().map(|listed| with_servers(listed, &assignments)).collect(),
        next_cursor,
    })
}

/// Returns a walkthrough with the additional data that a list shows.
///
/// # Errors
/// `not_found`.
pub async fn describe(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    walkthrough: Walkthrough,
) -> Result<ListedWalkthrough> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut conn = ops.store.read().await?;
    let assignments = walkthrough_list::list_servers(&mut conn, organization, [&walkthrough.id]).await?;
    let summaries = walkthrough_list::summarize(&mut conn, organization, vec![walkthrough]).await?;
    let listed = summaries.into_iter().next().ok_or_else(super::not_found)?;
    Ok(with_servers(listed, &assignments))
}

fn with_servers(listed: walkthrough_list::WalkthroughSummary, assignments: &[ServerAssignment]) -> ListedWalkthrough {
    let own = assignments.iter().filter(|assignment| assignment.walkthrough_id == listed.walkthrough.id);
    ListedWalkthrough {
        servers: own
            .map(|assignment| (assignment.server_id.clone(), assignment.server_name.clone(), assignment.enabled))
            .collect(),
        walkthrough: listed.walkthrough,
        step_count: listed.step_count,
        current_version: listed.current_version,
    }
}

fn encode_cursor(sort: WalkthroughSort, last: &Walkthrough) -> String {
    let value = match sort {
        WalkthroughSort::Title => fold_title(&last.title),
        WalkthroughSort::UpdatedAt => last.updated_at.0.to_string(),
        WalkthroughSort::CreatedAt => last.created_at.0.to_string(),
    };
    let cursor = serde_json::to_vec(&Cursor(sort, value, last.id.clone())).unwrap_or_default();
    BASE64URL_NOPAD.encode(&cursor)
}

fn decode_cursor(cursor: &str, sort: WalkthroughSort) -> Result<(SortValue, WalkthroughId)> {
    let decode = || {
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
        let Cursor(cursor_sort, value, id) = serde_json::from_slice(&bytes).ok()?;
        if cursor_sort != sort || value.contains('\0') || id.as_str().contains('\0') {
            return None;
        }
        let after = match sort {
            WalkthroughSort::Title => SortValue::Title(value),
            WalkthroughSort::UpdatedAt | WalkthroughSort::CreatedAt => SortValue::Time(value.parse().ok()?),
        };
        Some((after, id))
    };
    let message = "`cursor` is invalid. Start again without it.";
    decode().ok_or_else(|| Error::invalid("cursor", message))
}
