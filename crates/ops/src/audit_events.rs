//! Reads the audit log.

use serde_json::{Value, json};
use waypost_content::name;
use waypost_core::access::{Operation, authorize};
use waypost_core::audit::AuditEvent;
use waypost_core::caller::Ctx;
use waypost_core::id::{AuditEventId, OrganizationId};
use waypost_core::{Error, Result, Timestamp, email};
use waypost_store::{Conn, api_key, audit as store, user};

use crate::Ops;
use crate::audit::{Entry, record};

/// The maximum number of events in an export.
pub const MAX_EXPORT: usize = 100_000;
/// The number of events per batch of an export.
const BATCH_SIZE: u32 = 1_000;
/// The maximum length of a filter value, in characters: that of an email address.
const MAX_TEXT: usize = 254;

/// A filter for events. Fields that are `None` match any value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The prefix of the action, such as `member.`.
    pub action: Option<String>,
    /// The actor: an ID, the email address of a member, the name of an API key, `operator`, or `visitor`.
    pub actor: Option<String>,
    /// The ID of the target.
    pub target: Option<String>,
    /// The earliest time.
    pub from: Option<Timestamp>,
    /// The end of the period, exclusive.
    pub to: Option<Timestamp>,
}

/// An event and its actor.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEventView {
    /// The event.
    pub event: AuditEvent,
    /// The email address of the user or the name of the API key. `None` if the actor is neither, or was deleted.
    pub actor_name: Option<String>,
}

/// Returns at most `limit` events that match `filter`, newest first. With `before`, returns only older ones.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access; `forbidden` for members below admin;
/// `invalid_arguments` for a filter that cannot match.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &AuditFilter,
    before: Option<&AuditEventId>,
    limit: u32,
) -> Result<Vec<AuditEventView>> {
    authorize(&cx.caller, Operation::AuditRead, organization)?;
    let mut conn = ops.store.read().await?;
    let filter = resolve(&mut conn, organization, filter).await?;
    read(&mut conn, organization, &filter, before, limit).await
}

/// An export in progress.
#[derive(Debug)]
pub struct AuditExport {
    organization_id: OrganizationId,
    filter: store::AuditFilter,
    last: Option<AuditEventId>,
    read: usize,
    done: bool,
}

/// Starts an export of the events that match `filter`. `format` is recorded in the event of the export.
///
/// # Errors
/// The same as for [`list`].
pub async fn export(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &AuditFilter,
    format: &'static str,
) -> Result<AuditExport> {
    authorize(&cx.caller, Operation::AuditRead, organization)?;
    let mut tx = ops.store.begin().await?;
    // The period ends now, so that the export excludes its own event and does not depend on its duration.
    let filter = AuditFilter { to: Some(filter.to.map_or(cx.now(), |to| to.min(cx.now()))), ..filter.clone() };
    let filter = resolve(&mut tx, organization, &filter).await?;
    let mut detail = json!({ "format": format });
    for (name, text) in [("act", &filter.act), ("actor", &filter.actor), ("target", &filter.target)] {
        if !text.is_empty() {
            detail[name] = Value::from(text.as_str());
        }
    }
    for (name, at) in [("from", filter.from), ("to", filter.to)] {
        detail[name] = Value::from(at.map(Timestamp::rfc3339));
    }
    record(cx, &mut tx, organization, Entry { action: "audit.export", target: organization.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(AuditExport { organization_id: organization.clone(), filter, last: None, read: 0, done: false })
}

impl AuditExport {
    /// Returns the next batch of events, newest first. The batch is empty at the end.
    ///
    /// # Errors
    /// `invalid_arguments` beyond [`MAX_EXPORT`] events; any error of the store.
    pub async fn next(&mut self, ops: &Ops) -> Result<Vec<AuditEventView>> {
        if self.done {
            return Ok(Vec::new());
        }
        let mut conn = ops.store.read().await?;
        let events = read(&mut conn, &self.organization_id, &self.filter, self.last.as_ref(), BATCH_SIZE).await?;
        self.done = events.len() < BATCH_SIZE as usize;
        self.last = events.last().map(|listed| listed.event.id.clone());
        self.read += events.len();
        if self.read > MAX_EXPORT {
            let message =
                format!("The export has more than {MAX_EXPORT} entries. Choose a shorter period and export in parts.");
            return Err(Error::invalid("from", message));
        }
        Ok(events)
    }
}

async fn read(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: &store::AuditFilter,
    before: Option<&AuditEventId>,
    limit: u32,
) -> Result<Vec<AuditEventView>> {
    let events = store::search(conn, organization, filter, before, i64::from(limit)).await?;
    let mut actors: Vec<&str> = events.iter().map(|event| event.actor.as_str()).collect();
    actors.sort_unstable();
    actors.dedup();
    let names = store::find_actor_names(conn, organization, &actors).await?;
    let listed = |event: AuditEvent| {
        let actor_name = names.get(&event.actor).cloned();
        AuditEventView { event, actor_name }
    };
    Ok(events.into_iter().map(listed).collect())
}

/// Returns the filter for the store, with the ID of an actor that is specified by email address or name.
async fn resolve(conn: &mut Conn, organization: &OrganizationId, filter: &AuditFilter) -> Result<store::AuditFilter> {
    if let (Some(from), Some(to)) = (filter.from, filter.to)
        && from > to
    {
        return Err(Error::invalid("from", "`from` must not be later than `to`."));
    }
    let actor = text("actor", filter.actor.as_deref())?;
    let is_id = ["usr_", "key_", "srv_"].iter().any(|prefix| actor.starts_with(prefix));
    let actor = if actor.is_empty() || is_id || matches!(actor.as_str(), "operator" | "visitor") {
        actor
    } else if let Some(member) = user::find_member_by_email(conn, organization, &email::key(&actor)).await? {
        member.user_id.to_string()
    } else if let Some(key) = api_key::find_by_name(conn, organization, &name::clean(&actor)).await? {
        key.id.to_string()
    } else {
        let message =
            "There is no member with this email and no API key with this name. Use the ID of a deleted actor.";
        return Err(Error::invalid("actor", message));
    };
    Ok(store::AuditFilter {
        act: text("act", filter.action.as_deref())?,
        actor,
        target: text("target", filter.target.as_deref())?,
        from: filter.from,
        to: filter.to,
    })
}

fn text(field: &str, text: Option<&str>) -> Result<String> {
    let text = text.unwrap_or_default().trim();
    if text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(Error::invalid(
            field,
            format!("`{field}` must have at most {MAX_TEXT} characters and no control characters."),
        ));
    }
    Ok(text.to_owned())
}
