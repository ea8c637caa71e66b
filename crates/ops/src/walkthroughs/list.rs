//! Lists of walkthroughs.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_core::transfer::identity::fold_title;
use waypost_core::walkthrough::{Walkthrough, WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_core::{Error, Result};
use waypost_store::walkthrough_list::{self, ServerAssignment, SortValue, WalkthroughSearch};

use crate::Ops;

/// Heads on a page of a list at most.
const MAX_PAGE: u32 = 200;
/// Characters of what is searched for at most.
const MAX_QUERY: usize = 200;

/// Which heads to list.
#[derive(Debug, Clone, Default)]
pub struct WalkthroughListQuery {
    /// Only those whose title, slug, description or tags hold this.
    pub query: Option<String>,
    /// Only those in this state.
    pub state: Option<WalkthroughState>,
    /// Only those of this type.
    pub kind: Option<WalkthroughType>,
    /// Only those that are placed on this server.
    pub server_id: Option<ServerId>,
    /// By what they are sorted; by title when absent.
    pub sort: Option<WalkthroughSort>,
    /// Whether the greatest comes first.
    pub descending: bool,
    /// So many at most, 1 to 200; 50 when absent.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before, from a list that was sorted in the same way.
    pub cursor: Option<String>,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedWalkthrough {
    /// The head.
    pub walkthrough: Walkthrough,
    /// Steps in the draft.
    pub step_count: u32,
    /// The number of the version that is served.
    pub current_version: Option<u32>,
    /// The servers that it is placed on, by name: id, name, and whether it is switched on there.
    pub servers: Vec<(ServerId, String, bool)>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct WalkthroughPage {
    /// The rows.
    pub items: Vec<ListedWalkthrough>,
    /// Where the next page begins; none on the last one.
    pub next_cursor: Option<String>,
}

/// The last row of a page: sort, value, id.
#[derive(Serialize, Deserialize)]
struct Cursor(WalkthroughSort, String, WalkthroughId);

/// Heads of an organisation, a page at a time.
///
/// # Errors
/// `invalid_arguments` for a limit out of range, a cursor that no such list gave, or a query that cannot be one.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    list: WalkthroughListQuery,
) -> Result<WalkthroughPage> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let limit = list.limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` is a number from 1 to {MAX_PAGE}.")));
    }
    let query = list.query.as_deref().unwrap_or_default().trim();
    if query.contains('\0') || query.chars().count() > MAX_QUERY {
        return Err(Error::invalid("q", format!("`q` has {MAX_QUERY} characters at most, and no NUL character.")));
    }
    let sort = list.sort.unwrap_or(WalkthroughSort::Title);
    let after = list.cursor.as_deref().map(|cursor| read_cursor(cursor, sort)).transpose()?;
    let mut conn = ops.db.read().await?;
    let search = WalkthroughSearch {
        title: &fold_title(query),
        plain: &query.to_ascii_lowercase(),
        state: list.state,
        kind: list.kind,
        server: list.server_id.as_ref(),
        sort,
        descending: list.descending,
        after: after.as_ref().map(|(after, id)| (after.clone(), id)),
        limit: i64::from(limit) + 1,
    };
    let mut found = walkthrough_list::search(&mut conn, organization, &search).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| cursor(sort, &last.walkthrough));
    let ids = found.iter().map(|listed| &listed.walkthrough.id);
    let placed = walkthrough_list::list_servers(&mut conn, organization, ids).await?;
    Ok(WalkthroughPage { items: found.into_iter().map(|listed| with_servers(listed, &placed)).collect(), next_cursor })
}

/// A head with what a list shows of it besides.
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
    let mut conn = ops.db.read().await?;
    let placed = walkthrough_list::list_servers(&mut conn, organization, [&walkthrough.id]).await?;
    let described = walkthrough_list::summarize(&mut conn, organization, vec![walkthrough]).await?;
    let listed = described.into_iter().next().ok_or_else(super::missing)?;
    Ok(with_servers(listed, &placed))
}

fn with_servers(listed: walkthrough_list::WalkthroughSummary, placed: &[ServerAssignment]) -> ListedWalkthrough {
    let own = placed.iter().filter(|placed| placed.walkthrough_id == listed.walkthrough.id);
    ListedWalkthrough {
        servers: own.map(|it| (it.server_id.clone(), it.server_name.clone(), it.enabled)).collect(),
        walkthrough: listed.walkthrough,
        step_count: listed.step_count,
        current_version: listed.current_version,
    }
}

fn cursor(sort: WalkthroughSort, last: &Walkthrough) -> String {
    let value = match sort {
        WalkthroughSort::Title => fold_title(&last.title),
        WalkthroughSort::UpdatedAt => last.updated_at.0.to_string(),
        WalkthroughSort::CreatedAt => last.created_at.0.to_string(),
    };
    let cursor = serde_json::to_vec(&Cursor(sort, value, last.id.clone())).unwrap_or_default();
    BASE64URL_NOPAD.encode(&cursor)
}

fn read_cursor(cursor: &str, sort: WalkthroughSort) -> Result<(SortValue, WalkthroughId)> {
    let read = || {
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
        let Cursor(own, value, id) = serde_json::from_slice(&bytes).ok()?;
        if own != sort || value.contains('\0') || id.as_str().contains('\0') {
            return None;
        }
        let after = match sort {
            WalkthroughSort::Title => SortValue::Title(value),
            WalkthroughSort::UpdatedAt | WalkthroughSort::CreatedAt => SortValue::Time(value.parse().ok()?),
        };
        Some((after, id))
    };
    let message = "`cursor` is not one that this list gave. Begin without it.";
    read().ok_or_else(|| Error::invalid("cursor", message))
}
