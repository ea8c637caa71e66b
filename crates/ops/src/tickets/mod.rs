//! Support tickets: the operations of the team. End users create tickets with [`crate::ticket_creation`].

pub(crate) mod events;
pub mod limits;

use serde_json::json;
use waypost_content::markdown::clean_line;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::email;
use waypost_core::id::{EndUserId, OrganizationId, TicketId, UserId};
use waypost_core::organization::Member;
use waypost_core::ticket::{MAX_BULK, Priority, Ticket, TicketStatus};
use waypost_core::{Code, Error, Result};
use waypost_store::ticket as store;
pub use waypost_store::ticket::{TicketDetails, TicketFilter};
use waypost_store::{Tx, organization, user};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::notifications::{Notification, NotificationKind};

/// The maximum page size.
const MAX_PAGE: u32 = 200;
/// The maximum number of tickets that are listed for one end user.
const MAX_PER_END_USER: i64 = 100;

/// The filter and the page of a list of tickets.
#[derive(Debug, Clone, Default)]
pub struct TicketListQuery {
    /// The filter.
    pub filter: TicketFilter,
    /// The page size, 1 to 200. By default 50.
    pub limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

/// A page of tickets, newest first.
#[derive(Debug, Clone)]
pub struct TicketPage {
    /// The tickets.
    pub items: Vec<TicketDetails>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// Changes to a ticket. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TicketPatch {
    /// The status.
    pub status: Option<TicketStatus>,
    /// The priority.
    pub priority: Option<Priority>,
    /// The assigned member, by ID or email address. `Some(None)` unassigns the ticket.
    pub assignee: Option<Option<String>>,
    /// The user's email address.
    pub email: Option<String>,
}

/// The result of a bulk change for one ticket.
#[derive(Debug)]
pub struct BulkResult {
    /// The ticket's ID, as in the request.
    pub id: String,
    /// The ticket, or the error that prevented the change.
    pub result: Result<TicketDetails>,
}

/// Normalises a search text for the store. Returns `None` if the result is empty.
#[must_use]
pub fn search_text(text: &str) -> Option<String> {
    let text: String = clean_line(text).to_lowercase().chars().take(200).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// Returns a page of an organisation's tickets, newest first.
///
/// # Errors
/// `not_found` if the caller is not a member; `invalid_arguments` for a limit out of range or an invalid cursor.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, list: TicketListQuery) -> Result<TicketPage> {
    authorize(&cx.caller, Operation::TicketRead, organization)?;
    let limit = list.limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    let cursor = list.cursor.as_deref().map(str::parse::<TicketId>).transpose();
    let before = cursor.map_err(|_| Error::invalid("cursor", "`cursor` is invalid. Start again without it."))?;
    let mut conn = ops.store.read().await?;
    let mut items = store::list(&mut conn, organization, &list.filter, before.as_ref(), i64::from(limit) + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|last| last.ticket.id.to_string());
    Ok(TicketPage { items, next_cursor })
}

/// Returns the number of tickets in each status. Ignores the status in `filter`.
///
/// # Errors
/// The same as for [`list`].
pub async fn count_by_status(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &TicketFilter,
) -> Result<Vec<(TicketStatus, u64)>> {
    authorize(&cx.caller, Operation::TicketRead, organization)?;
    let counts = store::count_by_status(&mut ops.store.read().await?, organization, filter).await?;
    let count = |status| counts.iter().find(|(found_status, _)| *found_status == status).map_or(0, |(_, count)| *count);
    Ok(TicketStatus::ALL.iter().map(|status| (*status, count(*status))).collect())
}

/// Returns the newest tickets of an end user, newest first.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_for_end_user(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    end_user: &EndUserId,
) -> Result<Vec<TicketDetails>> {
    authorize(&cx.caller, Operation::TicketRead, organization)?;
    Ok(store::list_for_end_user(&mut ops.store.read().await?, organization, end_user, MAX_PER_END_USER).await?)
}

/// Returns a ticket.
///
/// # Errors
/// `not_found` if the ticket does not exist or the caller cannot access it.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &TicketId) -> Result<TicketDetails> {
    authorize(&cx.caller, Operation::TicketRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(missing)
}

/// Returns the members to whom a ticket can be assigned, ordered by email address.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_assignees(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<Member>> {
    authorize(&cx.caller, Operation::TicketRead, organization)?;
    Ok(user::list_members(&mut ops.store.read().await?, organization).await?)
}

/// Whether this installation can send emails.
#[must_use]
pub fn can_send_email(ops: &Ops) -> bool {
    ops.notifier.is_enabled()
}

/// Changes a ticket. Sends an email to the end user if the ticket is resolved, and to a new assignee other than the
/// caller.
///
/// # Errors
/// `not_found`; `invalid_arguments` if the assignee is not a member or the email address is invalid; `conflict` if the
/// status cannot follow the current one; `precondition_failed` if `revision` is not the current one.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &TicketId,
    revision: Option<u32>,
    change: &TicketPatch,
) -> Result<TicketDetails> {
    authorize(&cx.caller, Operation::TicketWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let before = store::find_for_update(&mut tx, organization, id).await?.ok_or_else(missing)?;
    if let Some(seen) = revision.filter(|seen| *seen != before.ticket.revision) {
        let message = format!(
            "The ticket has changed: it is at revision {}, your copy is at revision {seen}. Reload it and try again.",
            before.ticket.revision
        );
        return Err(Error::new(Code::PreconditionFailed, message).with("revision", before.ticket.revision));
    }
    let mut ticket = before.ticket.clone();
    apply(cx, &mut tx, &mut ticket, change).await?;
    if ticket == before.ticket {
        return Ok(before);
    }
    ticket.revision += 1;
    ticket.updated_at = cx.now();
    store::update(&mut tx, &ticket).await?;
    let entry =
        Entry { action: "ticket.update", target: id.as_str(), detail: events::changes(&before.ticket, &ticket) };
    record(cx, &mut tx, organization, entry).await?;
    let after = store::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    events::updated(cx, &mut tx, &after).await?;
    for notification in build_notifications(cx, &mut tx, &before, &after).await? {
        ops.notifier.enqueue(cx, &mut tx, &notification).await?;
    }
    tx.commit().await?;
    Ok(after)
}

async fn apply(cx: &Ctx, tx: &mut Tx, ticket: &mut Ticket, change: &TicketPatch) -> Result<()> {
    if let Some(address) = &change.email {
        ticket.set_email(email::parse(address)?.address, false);
    }
    if let Some(status) = change.status {
        ticket.set_status(status, cx.now())?;
    }
    if let Some(priority) = change.priority {
        ticket.priority = priority;
    }
    match &change.assignee {
        None => {}
        Some(None) => ticket.assignee_id = None,
        Some(Some(text)) => ticket.assignee_id = Some(find_member_id(tx, &ticket.organization_id, text).await?),
    }
    Ok(())
}

async fn find_member_id(tx: &mut Tx, organization: &OrganizationId, text: &str) -> Result<UserId> {
    let member = match text.parse::<UserId>() {
        Ok(id) => user::find_member(tx, organization, &id).await?,
        Err(_) if text.contains('\0') => None,
        Err(_) => user::find_member_by_email(tx, organization, &email::key(text)).await?,
    };
    let not_a_member = || Error::invalid("assignee_id", "`assignee_id` is not a member of this organisation.");
    Ok(member.ok_or_else(not_a_member)?.user_id)
}

async fn build_notifications(
    cx: &Ctx,
    tx: &mut Tx,
    before: &TicketDetails,
    after: &TicketDetails,
) -> Result<Vec<Notification>> {
    let mut all = Vec::new();
    let Some(owner) = organization::find(tx, &after.ticket.organization_id).await? else { return Ok(all) };
    let replier = find_caller_email(cx, tx, &after.ticket.organization_id).await?;
    let notification = |kind, to: Vec<String>, reply_to: &Option<String>| Notification {
        kind,
        to,
        reply_to: reply_to.clone(),
        organization: owner.clone(),
        product: after.server.clone().unwrap_or_else(|| owner.name.clone()),
        ticket: after.ticket.clone(),
    };
    let resolved = TicketStatus::Resolved;
    if before.ticket.status != resolved && after.ticket.status == resolved {
        let email = after.ticket.email.clone();
        all.extend(email.map(|email| notification(NotificationKind::Resolved, vec![email], &replier)));
    }
    let new_assignee = after.ticket.assignee_id.as_ref().filter(|id| before.ticket.assignee_id.as_ref() != Some(id));
    if new_assignee.is_some_and(|id| id.as_str() != cx.caller.actor()) {
        let (email, user) = (after.assignee_email.clone(), &after.ticket.email);
        all.extend(email.map(|email| notification(NotificationKind::Assigned, vec![email], user)));
    }
    Ok(all)
}

/// Returns the verified email address of the calling member, to which end users can reply. Returns `None` for
/// unverified members, API keys and the operator.
pub(crate) async fn find_caller_email(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId) -> Result<Option<String>> {
    let Ok(id) = cx.caller.actor().parse::<UserId>() else { return Ok(None) };
    let member = user::find_member(tx, organization, &id).await?;
    Ok(member.filter(|member| member.is_verified).map(|member| member.email))
}

/// Applies the same change to several tickets, each in its own transaction.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `invalid_arguments` for no tickets or more than 100. The
/// error of a single ticket is in its result.
pub async fn update_many(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    ids: &[String],
    change: &TicketPatch,
) -> Result<Vec<BulkResult>> {
    authorize(&cx.caller, Operation::TicketWrite, organization)?;
    if !(1..=MAX_BULK).contains(&ids.len()) {
        return Err(Error::invalid("ids", format!("`ids` must contain 1 to {MAX_BULK} ticket IDs.")));
    }
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let result = match id.parse::<TicketId>() {
            Ok(parsed) => update(cx, ops, organization, &parsed, None, change).await,
            Err(_) => Err(missing()),
        };
        results.push(BulkResult { id: id.clone(), result });
    }
    Ok(results)
}

/// The email address of a ticket's user, and whether it is verified.
pub(crate) struct TicketEmail {
    pub(crate) address: String,
    pub(crate) verified: bool,
}

/// Adds a new email address of an end user to their tickets that lack one.
pub(crate) async fn add_email_to_open_tickets(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    end_user: &EndUserId,
    email: &TicketEmail,
) -> Result<()> {
    let opener = store::Opener::EndUser(end_user);
    for details in store::list_without_email(tx, organization, opener, waypost_core::Timestamp(0)).await? {
        add_email(cx, tx, details, email).await?;
    }
    Ok(())
}

/// Adds an email address to a ticket that lacks one.
pub(crate) async fn add_email(
    cx: &Ctx,
    tx: &mut Tx,
    details: TicketDetails,
    email: &TicketEmail,
) -> Result<TicketDetails> {
    let mut ticket = details.ticket.clone();
    ticket.set_email(email.address.clone(), email.verified);
    save(cx, tx, details, ticket).await
}

/// Stores a changed ticket as the next revision, and records the change.
pub(crate) async fn save(cx: &Ctx, tx: &mut Tx, before: TicketDetails, mut ticket: Ticket) -> Result<TicketDetails> {
    ticket.revision += 1;
    ticket.updated_at = cx.now();
    store::update(tx, &ticket).await?;
    let detail = events::changes(&before.ticket, &ticket);
    let entry = Entry { action: "ticket.update", target: ticket.id.as_str(), detail };
    record(cx, tx, &ticket.organization_id, entry).await?;
    let details = TicketDetails { ticket, ..before };
    events::updated(cx, tx, &details).await?;
    Ok(details)
}

/// Returns the audit log entry for a created ticket.
pub(crate) fn opened_entry(ticket: &Ticket) -> Entry<'_> {
    let detail = json!({ "number": ticket.number, "status": ticket.status.as_str() });
    Entry { action: "ticket.open", target: ticket.id.as_str(), detail }
}

fn missing() -> Error {
    Error::not_found("ticket")
}
