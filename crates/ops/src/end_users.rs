//! End users, as seen by the organisation.

use serde_json::{Map, Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::analytics::TimeRange;
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::personal;
use waypost_core::progress::Status;
use waypost_core::ticket::Ticket;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::activity::{self, ActivityQuery, ClientSession, WalkthroughEvent};
use waypost_store::end_user as store;
pub use waypost_store::end_user::{EndUser, EndUserAttempt, EndUserDataCounts};
use waypost_store::tool_call::ToolCall;

use crate::audit::{Entry, record};
use crate::{Ops, tickets};

/// The maximum number of characters in a search text.
pub const MAX_SEARCH: usize = 254;
/// The columns of an export that contain times, which are written in RFC 3339 format.
const TIME_COLUMNS: &[&str] = &[
    "created_at",
    "last_sign_in_at",
    "last_used_at",
    "joined_at",
    "started_at",
    "completed_at",
    "last_activity_at",
    "closed_at",
    "expires_at",
    "revoked_at",
    "updated_at",
    "undone_at",
    "resolved_at",
    "delivered_at",
];

/// The filter and the page of a search for end users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndUserSearch {
    /// A part of the name, an email address or the tracking ID, or the whole ID.
    pub text: Option<String>,
    /// Includes only end users with an attempt on this server.
    pub server_id: Option<ServerId>,
    /// Includes only end users with an attempt at this walkthrough.
    pub walkthrough_id: Option<WalkthroughId>,
    /// Includes only end users with such an attempt in this status.
    pub status: Option<Status>,
    /// Whether test users (the console's "Try it") are included.
    pub include_test: bool,
    /// The end user after whom the page begins.
    pub after: Option<EndUserId>,
    /// The page size.
    pub limit: u32,
}

/// Returns end users of an organisation, the most recently created first.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `invalid_arguments` if the search text is too long or
/// contains U+0000.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, search: &EndUserSearch) -> Result<Vec<EndUser>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    // The text may be the personal ID of an end user who asked for help. Only its hash is stored.
    let text = search.text.as_deref().map(|text| personal::stored_form(text.trim())).filter(|text| !text.is_empty());
    let text = text.as_deref();
    if text.is_some_and(|text| text.chars().count() > MAX_SEARCH || text.contains('\0')) {
        return Err(Error::invalid("q", format!("`q` can have at most {MAX_SEARCH} characters and no NUL.")));
    }
    let search = store::EndUserSearch {
        text,
        server: search.server_id.as_ref(),
        walkthrough: search.walkthrough_id.as_ref(),
        status: search.status,
        include_test: search.include_test,
        after: search.after.as_ref(),
        limit: i64::from(search.limit),
    };
    Ok(store::list(&mut ops.store.read().await?, organization, search).await?)
}

/// Returns an end user.
///
/// # Errors
/// `not_found` if the end user does not exist or the caller cannot access the organisation.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &EndUserId) -> Result<EndUser> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Returns the attempts of an end user, the most recently active first. Empty if the end user does not exist.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn list_progress(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &EndUserId,
) -> Result<Vec<EndUserAttempt>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_attempts(&mut ops.store.read().await?, organization, id).await?)
}

/// Returns the numbers of rows that would be deleted with an end user. All numbers are 0 if the end user does not
/// exist.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn count_data(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &EndUserId,
) -> Result<EndUserDataCounts> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::count_data(&mut ops.store.read().await?, organization, id).await?)
}

/// An entry of an end user's timeline.
#[derive(Debug, Clone)]
pub enum TimelineEntry {
    /// A client session.
    Session(ClientSession),
    /// An event of an attempt.
    Event(WalkthroughEvent),
    /// A tool call.
    Call(ToolCall),
    /// A created ticket.
    Ticket(Box<Ticket>),
}

impl TimelineEntry {
    /// Returns the time of the entry.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Session(entry) => entry.created_at,
            Self::Event(entry) => entry.created_at,
            Self::Call(entry) => entry.created_at,
            Self::Ticket(entry) => entry.created_at,
        }
    }

    /// Returns the ID of the session, event, call or ticket.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Session(entry) => entry.id.as_str(),
            Self::Event(entry) => entry.id.as_str(),
            Self::Call(entry) => entry.id.as_str(),
            Self::Ticket(entry) => entry.id.as_str(),
        }
    }
}

/// The kinds of entries that a timeline includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineKinds {
    /// Client sessions.
    pub sessions: bool,
    /// Walkthrough events.
    pub events: bool,
    /// Tool calls.
    pub calls: bool,
    /// Tickets, at most the newest 100.
    pub tickets: bool,
}

/// Returns at most `limit` entries of an end user's timeline that are older than `before`, newest first.
///
/// # Errors
/// The same as for [`get`].
pub async fn get_timeline(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &EndUserId,
    kinds: TimelineKinds,
    before: Option<(Timestamp, String)>,
    limit: u32,
) -> Result<Vec<TimelineEntry>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    let mut conn = ops.store.read().await?;
    if !store::exists(&mut conn, organization, id).await? {
        return Err(not_found());
    }
    let mut entries = Vec::new();
    if kinds.tickets {
        let tickets = tickets::list_for_end_user(cx, ops, organization, id).await?.into_iter();
        let is_older = |entry: &TimelineEntry| {
            before.as_ref().is_none_or(|(at, id)| (entry.at(), entry.id()) < (*at, id.as_str()))
        };
        entries.extend(tickets.map(|details| TimelineEntry::Ticket(Box::new(details.ticket))).filter(is_older));
    }
    let query = ActivityQuery {
        organization,
        server: None,
        end_user: Some(id),
        walkthrough: None,
        range: TimeRange { from: Timestamp(i64::MIN), to: Timestamp(i64::MAX) },
        after: before,
        oldest_first: false,
        limit: i64::from(limit),
    };
    if kinds.sessions {
        entries.extend(activity::list_sessions(&mut conn, &query).await?.into_iter().map(TimelineEntry::Session));
    }
    if kinds.events {
        entries.extend(activity::list_events(&mut conn, &query).await?.into_iter().map(TimelineEntry::Event));
    }
    if kinds.calls {
        entries.extend(activity::list_calls(&mut conn, &query).await?.into_iter().map(TimelineEntry::Call));
    }
    entries.sort_by(|a, b| (b.at(), b.id()).cmp(&(a.at(), a.id())));
    entries.truncate(limit as usize);
    Ok(entries)
}

/// Returns the end user with this ID or tracking ID.
///
/// # Errors
/// `not_found` if the end user does not exist or the caller cannot access the organisation; `forbidden` for members
/// below admin.
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<EndUserId> {
    authorize(&cx.caller, Operation::EndUserDelete, organization)?;
    let mut conn = ops.store.read().await?;
    if let Ok(id) = text.parse::<EndUserId>()
        && store::exists(&mut conn, organization, &id).await?
    {
        return Ok(id);
    }
    store::find_by_tracking_id(&mut conn, organization, &personal::stored_form(text)).await?.ok_or_else(not_found)
}

/// Returns all data about an end user as one JSON object. The export is recorded in the audit log.
///
/// # Errors
/// `not_found` if the end user does not exist or the caller cannot access the organisation; `forbidden` for members
/// below admin.
pub async fn export(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &EndUserId) -> Result<Value> {
    authorize(&cx.caller, Operation::EndUserExport, organization)?;
    let mut tx = ops.store.begin().await?;
    if !store::exists(&mut tx, organization, id).await? {
        return Err(not_found());
    }
    let mut export = Map::new();
    export.insert("exported_at".to_owned(), cx.now().rfc3339().into());
    for (name, rows) in store::export(&mut tx, organization, id).await? {
        let rows: Vec<Value> = rows.iter().map(|row| format_row(row)).collect();
        let part = if name == "profile" { rows.into_iter().next().unwrap_or_default() } else { rows.into() };
        export.insert(name.to_owned(), part);
    }
    record(cx, &mut tx, organization, Entry { action: "end_user.export", target: id.as_str(), detail: json!({}) })
        .await?;
    tx.commit().await?;
    Ok(Value::Object(export))
}

/// Formats a row for the export: times in RFC 3339 format, and JSON columns as JSON.
fn format_row(row: &str) -> Value {
    let mut row: Map<String, Value> = serde_json::from_str(row).unwrap_or_default();
    for (name, value) in &mut row {
        if let (true, Some(at)) = (TIME_COLUMNS.contains(&name.as_str()), value.as_i64()) {
            *value = Timestamp(at).rfc3339().into();
        } else if matches!(name.as_str(), "arguments" | "metadata" | "payload") {
            let text = value.as_str().unwrap_or_default();
            *value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        } else if matches!(name.as_str(), "email_verified" | "internal") {
            *value = (value.as_i64().unwrap_or(0) != 0 || value.as_bool() == Some(true)).into();
        }
    }
    Value::Object(row)
}

/// Deletes an end user with all their data: progress, sessions, events, recorded calls, identities, account, OAuth
/// grants, tickets, and their part of the analytics. The audit log keeps only their ID.
///
/// # Errors
/// The same as for [`resolve`]; `conflict` if the same rows are being written concurrently.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &EndUserId) -> Result<()> {
    authorize(&cx.caller, Operation::EndUserDelete, organization)?;
    let mut tx = ops.store.begin().await?;
    let counts = store::count_data(&mut tx, organization, id).await?;
    if !store::delete(&mut tx, organization, id).await? {
        return Err(not_found());
    }
    let EndUserDataCounts { attempts, events, calls, sessions, oauth_grants, tickets } = counts;
    let detail = json!({
        "attempts": attempts, "events": events, "calls": calls, "sessions": sessions, "grants": oauth_grants,
        "tickets": tickets,
    });
    record(cx, &mut tx, organization, Entry { action: "end_user.delete", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes an end user if `confirmation` is their ID. Used by forms that ask for confirmation.
///
/// # Errors
/// The same as for [`delete`]; `confirmation_required` if `confirmation` is not the ID.
pub async fn delete_confirmed(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &EndUserId,
    confirmation: &str,
) -> Result<()> {
    authorize(&cx.caller, Operation::EndUserDelete, organization)?;
    if confirmation.trim() != id.as_str() {
        let message = "Nothing was erased. Enter the ID of the end user to confirm.";
        return Err(Error::new(Code::ConfirmationRequired, message).with("field", "confirm"));
    }
    delete(cx, ops, organization, id).await
}

fn not_found() -> Error {
    Error::not_found("end user")
}
