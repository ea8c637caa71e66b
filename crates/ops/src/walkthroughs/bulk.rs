//! Actions on several walkthroughs.

use serde::Deserialize;
use utoipa::ToSchema;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_core::{Code, Error, Result};

use super::{EditTarget, publish};
use crate::Ops;
use crate::assignments::{self, AssignmentPatch};

/// The maximum number of walkthroughs per action.
pub const MAX_IDS: usize = 100;

/// A bulk action. `assign` assigns the walkthroughs to `server_id`; `delete` moves them to the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WalkthroughBulkAction {
    /// Publishes the drafts.
    Publish,
    /// Archives the walkthroughs.
    Archive,
    /// Unarchives the walkthroughs.
    Unarchive,
    /// Assigns the walkthroughs to a server.
    Assign,
    /// Moves the walkthroughs to the trash.
    Delete,
}

/// A bulk action with the server that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkAction {
    action: WalkthroughBulkAction,
    server: Option<ServerId>,
}

impl BulkAction {
    /// Creates an action.
    ///
    /// # Errors
    /// `invalid_arguments` for `assign` without a server.
    pub fn new(action: WalkthroughBulkAction, server: Option<ServerId>) -> Result<Self> {
        if action == WalkthroughBulkAction::Assign && server.is_none() {
            return Err(Error::invalid("server_id", "`server_id` is required for `assign`. Specify the server."));
        }
        Ok(Self { action, server })
    }
}

/// The result of an action for one walkthrough.
#[derive(Debug)]
pub struct BulkResult {
    /// The ID, as given.
    pub id: String,
    /// The result, as if the action had been called for this walkthrough alone.
    pub result: Result<()>,
}

/// Checks the number of walkthroughs.
///
/// # Errors
/// `invalid_arguments` if there are none or too many.
pub fn check_count<T>(ids: &[T]) -> Result<()> {
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(Error::invalid("ids", format!("`ids` must contain 1 to {MAX_IDS} walkthrough IDs.")));
    }
    Ok(())
}

/// Applies `action` to each of `ids`. Except for `assign`, an ID with a revision fails if the draft has another
/// revision. The results are independent of each other.
///
/// # Errors
/// The same as for [`check_count`].
pub async fn run(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    action: &BulkAction,
    ids: Vec<(String, Option<u32>)>,
) -> Result<Vec<BulkResult>> {
    check_count(&ids)?;
    let mut results = Vec::with_capacity(ids.len());
    for (id, revision) in ids {
        let result = match id.parse::<WalkthroughId>() {
            Ok(walkthrough_id) => {
                let target = EditTarget { organization_id: organization, walkthrough_id: &walkthrough_id, revision };
                apply(cx, ops, action, target).await
            }
            Err(_) => Err(Error::not_found("walkthrough")),
        };
        results.push(BulkResult { id, result });
    }
    Ok(results)
}

async fn apply(cx: &Ctx, ops: &Ops, action: &BulkAction, target: EditTarget<'_>) -> Result<()> {
    match action.action {
        WalkthroughBulkAction::Publish => publish::publish(cx, ops, target, false).await.map(drop),
        WalkthroughBulkAction::Archive => publish::archive(cx, ops, target).await.map(drop),
        WalkthroughBulkAction::Unarchive => publish::unarchive(cx, ops, target).await.map(drop),
        WalkthroughBulkAction::Delete => super::delete(cx, ops, target).await,
        WalkthroughBulkAction::Assign => match &action.server {
            Some(server) => {
                let (organization, walkthrough) = (target.organization_id, target.walkthrough_id);
                assignments::assign(cx, ops, organization, server, walkthrough, AssignmentPatch::default())
                    .await
                    .map(drop)
            }
            None => Err(Error::new(Code::NotFound, "The server does not exist.")),
        },
    }
}
