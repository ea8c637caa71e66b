//! Reading the audit log.

use serde_json::{Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::audit::AuditEvent;
use waypost_core::caller::Ctx;
use waypost_core::id::{AuditEventId, OrganizationId};
use waypost_core::{Error, Result, Timestamp, email, name};
use waypost_store::{Conn, api_key, audit as store, user};

use crate::Ops;
use crate::audit::{Entry, record};

/// Entries of an export at most.
pub const MAX_EXPORT: usize = 100_000;
/// Entries that an export reads at once.
const AT_ONCE: u32 = 1_000;
/// Characters of a filter at most: an address has 254.
const MAX_TEXT: usize = 254;

/// Which entries are looked for; what is absent means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// What an act begins with, such as `member.`.
    pub act: Option<String>,
    /// Who did it: an id, the address of a member, the name of a key, or `operator`.
    pub actor: Option<String>,
    /// The id of what it was done to.
    pub target: Option<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
}

/// An entry, and who made it.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEventView {
    /// The entry.
    pub event: AuditEvent,
    /// The address of the user or the name of the key; none when it is neither, or gone.
    pub actor_name: Option<String>,
}

/// The entries that `filter` lets through, newest first, at most `limit` of those older than `before`.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `forbidden` for members below admin;
/// `invalid_arguments` for a filter that nothing can match.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &Filter,
    (before, limit): (Option<&AuditEventId>, u32),
) -> Result<Vec<AuditEventView>> {
    authorize(&cx.caller, Operation::AuditRead, organization)?;
    let mut conn = ops.db.read().await?;
    let filter = resolve(&mut conn, organization, filter).await?;
    read(&mut conn, organization, &filter, (before, limit)).await
}

/// An export at work.
#[derive(Debug)]
pub struct Export {
    organization_id: OrganizationId,
    filter: store::AuditFilter,
    last: Option<AuditEventId>,
    read: usize,
    done: bool,
}

/// Begins to take out the entries that `filter` lets through; `format` is for the log, which tells of every export.
///
/// # Errors
/// As [`list`].
pub async fn export(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &Filter,
    format: &'static str,
) -> Result<Export> {
    authorize(&cx.caller, Operation::AuditRead, organization)?;
    let mut tx = ops.db.begin().await?;
    // Up to the present: not with the entry that tells of it, and the same however long it takes.
    let filter = Filter { to: Some(filter.to.map_or(cx.now(), |to| to.min(cx.now()))), ..filter.clone() };
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
    Ok(Export { organization_id: organization.clone(), filter, last: None, read: 0, done: false })
}

impl Export {
    /// The next entries, newest first; none when all were given.
    ///
    /// # Errors
    /// `invalid_arguments` beyond [`MAX_EXPORT`] entries; when the store fails.
    pub async fn next(&mut self, ops: &Ops) -> Result<Vec<AuditEventView>> {
        if self.done {
            return Ok(Vec::new());
        }
        let mut conn = ops.db.read().await?;
        let page = (self.last.as_ref(), AT_ONCE);
        let found = read(&mut conn, &self.organization_id, &self.filter, page).await?;
        self.done = found.len() < AT_ONCE as usize;
        self.last = found.last().map(|listed| listed.event.id.clone());
        self.read += found.len();
        if self.read > MAX_EXPORT {
            let message =
                format!("These are more than {MAX_EXPORT} entries. Choose a shorter time, and export in parts.");
            return Err(Error::invalid("from", message));
        }
        Ok(found)
    }
}

async fn read(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: &store::AuditFilter,
    (before, limit): (Option<&AuditEventId>, u32),
) -> Result<Vec<AuditEventView>> {
    let events = store::search(conn, organization, filter, (before, i64::from(limit))).await?;
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

/// The filter as the store takes it: who is named by an address or a name is found.
async fn resolve(conn: &mut Conn, organization: &OrganizationId, filter: &Filter) -> Result<store::AuditFilter> {
    if let (Some(from), Some(to)) = (filter.from, filter.to)
        && from > to
    {
        return Err(Error::invalid("from", "`from` is later than `to`. Exchange them."));
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
        let message = "There is no member with this address and no key with this name. Who is gone is found by id.";
        return Err(Error::invalid("actor", message));
    };
    Ok(store::AuditFilter {
        act: text("act", filter.act.as_deref())?,
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
            format!("`{field}` has {MAX_TEXT} characters at most, and no control characters."),
        ));
    }
    Ok(text.to_owned())
}
