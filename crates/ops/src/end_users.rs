//! End users, as the company sees them.

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

/// Characters of a search at most.
pub const MAX_SEARCH: usize = 254;
/// What the times in an export are called, as RFC 3339.
const TIMES: &[&str] = &[
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

/// Which end users are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndUserSearch {
    /// A part of the name, of an address or of the tracking id, or the id.
    pub text: Option<String>,
    /// With an attempt on this server.
    pub server_id: Option<ServerId>,
    /// With an attempt at this walkthrough.
    pub walkthrough_id: Option<WalkthroughId>,
    /// With such an attempt in progress, or completed.
    pub status: Option<Status>,
    /// Whether test users (the console's "Try it") are listed, too.
    pub include_test: bool,
    /// Behind this one.
    pub after: Option<EndUserId>,
    /// At most so many.
    pub limit: u32,
}

/// End users of an organisation, those who came last first.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `invalid_arguments` for a search that is too long or
/// holds a NUL.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, search: &EndUserSearch) -> Result<Vec<EndUser>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    // A user who asks for help may have sent their personal ID: it is known by its hash only.
    let text = search.text.as_deref().map(|text| personal::stored_form(text.trim())).filter(|text| !text.is_empty());
    let text = text.as_deref();
    if text.is_some_and(|text| text.chars().count() > MAX_SEARCH || text.contains('\0')) {
        return Err(Error::invalid("q", format!("A search has at most {MAX_SEARCH} characters, and no NUL.")));
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
    Ok(store::list(&mut ops.db.read().await?, organization, search).await?)
}

/// An end user.
///
/// # Errors
/// `not_found` when there is none, or in an organisation that the caller may not know of.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &EndUserId) -> Result<EndUser> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    store::find(&mut ops.db.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// The attempts of an end user, those that changed last first.
///
/// # Errors
/// As [`get`].
pub async fn list_progress(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &EndUserId,
) -> Result<Vec<EndUserAttempt>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_attempts(&mut ops.db.read().await?, organization, id).await?)
}

/// How much an erasure would destroy.
///
/// # Errors
/// As [`get`].
pub async fn get_extent(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &EndUserId,
) -> Result<EndUserDataCounts> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::count_data(&mut ops.db.read().await?, organization, id).await?)
}

/// Something on an end user's time line.
#[derive(Debug, Clone)]
pub enum TimelineEntry {
    /// A client came.
    Session(ClientSession),
    /// Something happened to an attempt.
    Event(WalkthroughEvent),
    /// A tool was called.
    Call(ToolCall),
    /// A ticket was opened.
    Ticket(Box<Ticket>),
}

impl TimelineEntry {
    /// When.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Session(it) => it.created_at,
            Self::Event(it) => it.created_at,
            Self::Call(it) => it.created_at,
            Self::Ticket(it) => it.created_at,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Session(it) => it.id.as_str(),
            Self::Event(it) => it.id.as_str(),
            Self::Call(it) => it.id.as_str(),
            Self::Ticket(it) => it.id.as_str(),
        }
    }
}

/// What stands on a time line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineKinds {
    /// Sessions.
    pub sessions: bool,
    /// Events.
    pub events: bool,
    /// Calls.
    pub calls: bool,
    /// Tickets: the newest hundred.
    pub tickets: bool,
}

/// What an end user did, newest first, at most `limit` of what was before `before`.
///
/// # Errors
/// As [`get`].
pub async fn get_timeline(
    cx: &Ctx,
    ops: &Ops,
    (organization, id): (&OrganizationId, &EndUserId),
    kinds: TimelineKinds,
    (before, limit): (Option<(Timestamp, String)>, u32),
) -> Result<Vec<TimelineEntry>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    let mut conn = ops.db.read().await?;
    if !store::exists(&mut conn, organization, id).await? {
        return Err(not_found());
    }
    let mut moments = Vec::new();
    if kinds.tickets {
        let tickets = tickets::list_for_end_user(cx, ops, organization, id).await?.into_iter();
        let is_older =
            |it: &TimelineEntry| before.as_ref().is_none_or(|(at, id)| (it.at(), it.id()) < (*at, id.as_str()));
        moments.extend(tickets.map(|named| TimelineEntry::Ticket(Box::new(named.ticket))).filter(is_older));
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
        moments.extend(activity::list_sessions(&mut conn, &query).await?.into_iter().map(TimelineEntry::Session));
    }
    if kinds.events {
        moments.extend(activity::list_events(&mut conn, &query).await?.into_iter().map(TimelineEntry::Event));
    }
    if kinds.calls {
        moments.extend(activity::list_calls(&mut conn, &query).await?.into_iter().map(TimelineEntry::Call));
    }
    moments.sort_by(|a, b| (b.at(), b.id()).cmp(&(a.at(), a.id())));
    moments.truncate(limit as usize);
    Ok(moments)
}

/// The end user that `text` names, by id or by tracking id.
///
/// # Errors
/// `not_found` when there is none, or in an organisation that the caller may not know of; `forbidden` for members
/// below admin.
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<EndUserId> {
    authorize(&cx.caller, Operation::EndUserDelete, organization)?;
    let mut conn = ops.db.read().await?;
    if let Ok(id) = text.parse::<EndUserId>()
        && store::exists(&mut conn, organization, &id).await?
    {
        return Ok(id);
    }
    store::find_by_tracking_id(&mut conn, organization, &personal::stored_form(text)).await?.ok_or_else(not_found)
}

/// Everything that is known of an end user, as one JSON object; the log tells of it.
///
/// # Errors
/// `not_found` when there is none, or in an organisation that the caller may not know of; `forbidden` for members
/// below admin.
pub async fn export(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &EndUserId) -> Result<Value> {
    authorize(&cx.caller, Operation::EndUserExport, organization)?;
    let mut tx = ops.db.begin().await?;
    if !store::exists(&mut tx, organization, id).await? {
        return Err(not_found());
    }
    let mut whole = Map::new();
    whole.insert("exported_at".to_owned(), cx.now().rfc3339().into());
    for (name, rows) in store::export(&mut tx, organization, id).await? {
        let rows: Vec<Value> = rows.iter().map(|row| readable(row)).collect();
        let part = if name == "profile" { rows.into_iter().next().unwrap_or_default() } else { rows.into() };
        whole.insert(name.to_owned(), part);
    }
    record(cx, &mut tx, organization, Entry { action: "end_user.export", target: id.as_str(), detail: json!({}) })
        .await?;
    tx.commit().await?;
    Ok(Value::Object(whole))
}

/// A row for people: times as RFC 3339, and JSON as what it is.
fn readable(row: &str) -> Value {
    let mut row: Map<String, Value> = serde_json::from_str(row).unwrap_or_default();
    for (name, value) in &mut row {
        if let (true, Some(at)) = (TIMES.contains(&name.as_str()), value.as_i64()) {
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

/// Deletes an end user with all that is known of them: progress, sessions, events, recorded calls, identities, their
/// account, grants, and their share in the numbers of analytics. Of them, the log keeps the id and nothing else.
///
/// # Errors
/// As [`resolve`]; `conflict` when others were writing the same at this moment.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &EndUserId) -> Result<()> {
    authorize(&cx.caller, Operation::EndUserDelete, organization)?;
    let mut tx = ops.db.begin().await?;
    let extent = store::count_data(&mut tx, organization, id).await?;
    if !store::delete(&mut tx, organization, id).await? {
        return Err(not_found());
    }
    let EndUserDataCounts { attempts, events, calls, sessions, oauth_grants: grants, tickets } = extent;
    let detail = json!({
        "attempts": attempts, "events": events, "calls": calls, "sessions": sessions, "grants": grants, "tickets": tickets,
    });
    record(cx, &mut tx, organization, Entry { action: "end_user.delete", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes an end user when `typed` is their id: what a form has to ask for.
///
/// # Errors
/// As [`delete`]; `confirmation_required` when something else was typed.
pub async fn delete_confirmed(
    cx: &Ctx,
    ops: &Ops,
    (organization, id): (&OrganizationId, &EndUserId),
    typed: &str,
) -> Result<()> {
    authorize(&cx.caller, Operation::EndUserDelete, organization)?;
    if typed.trim() != id.as_str() {
        let message = "Nothing was erased: type the id of the end user to confirm.";
        return Err(Error::new(Code::ConfirmationRequired, message).with("field", "confirm"));
    }
    delete(cx, ops, organization, id).await
}

fn not_found() -> Error {
    Error::not_found("end user")
}
