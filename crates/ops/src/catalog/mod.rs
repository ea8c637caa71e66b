//! The catalogue: the tool servers that an organisation can deploy.

mod destination;
mod file;
mod image;
mod import;
mod members;
mod registry;
mod remote;
#[cfg(test)]
mod remote_tests;
mod runtime;
mod schema;
#[cfg(test)]
mod tests;

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::catalog::CatalogEntry;
use waypost_core::id::{CatalogEntryId, CatalogVersionId, OrganizationId};
use waypost_core::{Code, Error, Result};
use waypost_store::catalog_entry::{self as store, CatalogPage};
use waypost_store::{Conn, instance_source, organization};

use crate::Ops;
use crate::audit::{Entry, record};
pub use file::{EntryFile, MAX_FILE_BYTES, SourceReference};
pub use image::{ImageReference, ImageVersion};
pub use import::{ImportChange, ImportReport, import, import_text};
pub use registry::RegistryCredentials;
pub use schema::{MAX_CONFIG_BYTES, check_config};

/// The maximum page size.
const MAX_PAGE: u32 = 200;
/// The maximum number of characters of all versions on a page. Pages of large entries have fewer of them.
const MAX_PAGE_CHARS: i64 = 2 * 1024 * 1024;

/// A page of the catalogue, ordered by slug.
#[derive(Debug, Clone)]
pub struct EntryPage {
    /// The entries.
    pub items: Vec<CatalogEntry>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// Returns a page of the entries of an organisation. A page can have fewer than `limit` entries.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `invalid_arguments` for a limit out of range or an invalid
/// cursor.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    limit: u32,
    cursor: Option<&str>,
) -> Result<EntryPage> {
    authorize(&cx.caller, Operation::CatalogRead, organization)?;
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    if cursor.is_some_and(|cursor| !file::is_slug(cursor)) {
        return Err(Error::invalid("cursor", "`cursor` is invalid. Start again without it."));
    }
    let page = CatalogPage { after: cursor, limit, max_chars: MAX_PAGE_CHARS };
    let (items, has_more) = store::list(&mut ops.store.read().await?, organization, page).await?;
    let next_cursor = items.last().filter(|_| has_more).map(|last| last.slug.clone());
    Ok(EntryPage { items, next_cursor })
}

/// Returns an entry with its versions.
///
/// # Errors
/// `not_found` if the entry does not exist or the caller cannot access the organisation.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &CatalogEntryId) -> Result<CatalogEntry> {
    authorize(&cx.caller, Operation::CatalogRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Returns the entry to which a version belongs.
///
/// # Errors
/// `not_found` if the version does not exist or the caller cannot access the organisation.
pub async fn get_by_version(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    version: &CatalogVersionId,
) -> Result<CatalogEntry> {
    authorize(&cx.caller, Operation::CatalogRead, organization)?;
    let mut conn = ops.store.read().await?;
    let source = instance_source::find(&mut conn, organization, version).await?.ok_or_else(not_found)?;
    store::find(&mut conn, organization, &source.version.catalog_entry_id).await?.ok_or_else(not_found)
}

/// Returns the entry with the ID, the slug or the name `text`.
///
/// # Errors
/// Those of [`get`]; `conflict` if several entries have this name.
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<CatalogEntry> {
    authorize(&cx.caller, Operation::CatalogRead, organization)?;
    let mut conn = ops.store.read().await?;
    // A slug has no underscore, so it cannot be an ID.
    let found = match text.parse::<CatalogEntryId>() {
        Ok(id) => store::find(&mut conn, organization, &id).await?,
        Err(_) => store::find_by_slug(&mut conn, organization, text).await?,
    };
    match found {
        Some(entry) => Ok(entry),
        None => find_by_name(&mut conn, organization, text).await,
    }
}

async fn find_by_name(conn: &mut Conn, organization: &OrganizationId, name: &str) -> Result<CatalogEntry> {
    let (mut found, mut after) = (None, None::<String>);
    loop {
        let page = CatalogPage { after: after.as_deref(), limit: MAX_PAGE, max_chars: MAX_PAGE_CHARS };
        let (entries, has_more) = store::list(conn, organization, page).await?;
        after = entries.last().filter(|_| has_more).map(|last| last.slug.clone());
        for entry in entries.into_iter().filter(|entry| entry.name == name) {
            if found.replace(entry).is_some() {
                let message = format!("Several entries are named `{name}`. Use the slug or the ID.");
                return Err(Error::new(Code::Conflict, message));
            }
        }
        if after.is_none() {
            return found.ok_or_else(not_found);
        }
    }
}

/// Deletes an entry with its versions.
///
/// # Errors
/// `not_found` if the entry does not exist or the caller cannot access the organisation; `forbidden` for members below
/// admin; `conflict` while instances use it; the message lists them.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &CatalogEntryId) -> Result<()> {
    authorize(&cx.caller, Operation::CatalogWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    organization::lock(&mut tx, organization).await?;
    let entry = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let instances = store::list_instance_slugs(&mut tx, organization, id).await?;
    if !instances.is_empty() {
        let slugs = instances.join("`, `");
        let message = format!("These instances use this entry: `{slugs}`. Delete them first.");
        return Err(Error::new(Code::Conflict, message).with("instances", instances));
    }
    // An instance that is created at the same time makes this fail, because it refers to a version.
    store::delete(&mut tx, organization, id).await?;
    let detail = json!({ "slug": entry.slug, "versions": entry.versions.len() });
    record(cx, &mut tx, organization, Entry { action: "catalog.delete", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(())
}

fn not_found() -> Error {
    Error::not_found("catalogue entry")
}
