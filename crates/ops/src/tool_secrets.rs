//! Secrets of tool servers. A value can be written but never read back by a caller; it is opened only to start the
//! instances that use it (`toolbox_directory`), and to log in to registries.

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ToolSecretId};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::tool_secret::{MAX_SECRETS, ToolSecret, check_name, check_value, is_name};
use waypost_core::{Code, Error, Result};
use waypost_store::instance_source::{self, SealedSecret};
use waypost_store::{Conn, Tx, catalog_version, organization, replaced_secret, tool_secret as store};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;

/// The maximum page size.
const MAX_PAGE: u32 = 200;
/// The minimum time for which a replaced value is kept, in milliseconds. Longer than any call that the former container
/// still answers, so that the value can be masked in the contents of the call.
const KEPT_MS: i64 = 10 * 60 * 1_000;

/// A page of secrets, ordered by name.
#[derive(Debug, Clone)]
pub struct SecretPage {
    /// The secrets, without their values.
    pub items: Vec<ToolSecret>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// Returns the location to which a value is sealed.
fn location(id: &ToolSecretId) -> SealLocation<'_> {
    SealLocation { table: "tool_secrets", column: "value", row: id.as_str() }
}

/// Returns the location to which a replaced value is sealed. `key` is the key of its row.
pub(crate) fn replaced_location(key: &str) -> SealLocation<'_> {
    SealLocation { table: "replaced_secrets", column: "value", row: key }
}

/// Creates a secret.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments`,
/// naming the field; `conflict` if the name is taken, or the organisation has too many secrets.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    name: &str,
    value: &SecretText,
) -> Result<ToolSecret> {
    authorize(&cx.caller, Operation::ToolSecretWrite, organization)?;
    check_name(name)?;
    check_value(value.expose())?;
    let secret = ToolSecret {
        id: ToolSecretId::new(&*cx.random),
        organization_id: organization.clone(),
        name: name.to_owned(),
        version: 1,
        created_at: cx.now(),
        rotated_at: None,
        used_by: Vec::new(),
    };
    let sealed = ops.keyring()?.seal(&location(&secret.id), value.expose().as_bytes(), &*cx.random);
    let mut tx = ops.store.begin().await?;
    if !organization::lock(&mut tx, organization).await? {
        return Err(Error::not_found("organisation"));
    }
    let count = store::count(&mut tx, organization).await?;
    if usize::try_from(count).is_ok_and(|count| count >= MAX_SECRETS) {
        let message = format!("An organisation can have at most {MAX_SECRETS} secrets. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    let inserted = store::insert(&mut tx, &secret, &sealed).await;
    inserted.map_err(|error| {
        conflict_if_taken(error, || {
            format!("A secret named `{name}` already exists. Rotate it, or choose another name.")
        })
    })?;
    record_operation(cx, &mut tx, &secret, "tool_secret.create").await?;
    tx.commit().await?;
    Ok(secret)
}

/// Returns a page of the secrets of an organisation, with the instances that use them.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments` for
/// a limit out of range or an invalid cursor.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    limit: u32,
    cursor: Option<&str>,
) -> Result<SecretPage> {
    authorize(&cx.caller, Operation::ToolSecretRead, organization)?;
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    if cursor.is_some_and(|cursor| !is_name(cursor)) {
        return Err(Error::invalid("cursor", "`cursor` is invalid. Start again without it."));
    }
    let mut items = store::list(&mut ops.store.read().await?, organization, cursor, limit + 1).await?;
    let has_more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| has_more).map(|last| last.name.clone());
    Ok(SecretPage { items, next_cursor })
}

/// Returns a secret with the instances that use it.
///
/// # Errors
/// `not_found` if the secret does not exist or the caller cannot access the organisation; `forbidden` for members below
/// admin.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolSecretId) -> Result<ToolSecret> {
    authorize(&cx.caller, Operation::ToolSecretRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Returns the secret with the ID or the name `text`.
///
/// # Errors
/// Those of [`get`].
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<ToolSecret> {
    authorize(&cx.caller, Operation::ToolSecretRead, organization)?;
    let mut conn = ops.store.read().await?;
    // No name has the form of an ID.
    let found = match text.parse::<ToolSecretId>() {
        Ok(id) => store::find(&mut conn, organization, &id).await?,
        Err(_) => store::find_by_name(&mut conn, organization, text).await?,
    };
    found.ok_or_else(not_found)
}

/// Replaces the value of a secret, and increments its version. The result lists the instances that use the secret:
/// their containers get the new value one after another, and the previous value is kept until then. The secret of an OAuth client
/// is used at once, without a restart.
///
/// # Errors
/// Those of [`get`]; `invalid_arguments` for the value.
pub async fn rotate(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ToolSecretId,
    value: &SecretText,
) -> Result<ToolSecret> {
    authorize(&cx.caller, Operation::ToolSecretWrite, organization)?;
    check_value(value.expose())?;
    let sealed = ops.keyring()?.seal(&location(id), value.expose().as_bytes(), &*cx.random);
    let mut tx = ops.store.begin().await?;
    // Locked, so that concurrent rotations replace different versions.
    organization::lock(&mut tx, organization).await?;
    let current = instance_source::list_secrets(&mut tx, organization, &[id]).await?.pop().ok_or_else(not_found)?;
    keep(cx, ops, &mut tx, (organization, id), &current).await?;
    store::rotate(&mut tx, organization, id, &sealed, cx.now()).await?;
    replaced_secret::delete_unused(&mut tx, organization, cx.now().plus(-KEPT_MS)).await?;
    let secret = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    record_operation(cx, &mut tx, &secret, "tool_secret.rotate").await?;
    tx.commit().await?;
    Ok(secret)
}

/// Keeps the value of a secret that is about to be replaced. A value that cannot be decrypted is not kept.
async fn keep(
    cx: &Ctx,
    ops: &Ops,
    tx: &mut Tx,
    (organization, id): (&OrganizationId, &ToolSecretId),
    current: &SealedSecret,
) -> Result<()> {
    let Ok(value) = open(ops, id, &current.value) else {
        tracing::warn!(secret = %id, "the value that is replaced cannot be decrypted");
        return Ok(());
    };
    let key = replaced_secret::key(id, current.version);
    let sealed = ops.keyring()?.seal(&replaced_location(&key), value.expose().as_bytes(), &*cx.random);
    Ok(replaced_secret::insert(tx, organization, id, (current.version, &sealed), cx.now()).await?)
}

/// Deletes the replaced values of all organisations that no deployment uses, once ten minutes have passed since they
/// were replaced. A failure for one organisation does not prevent the others.
///
/// # Errors
/// Any error of the store before the first deletion.
pub(crate) async fn delete_replaced(cx: &Ctx, ops: &Ops) -> Result<()> {
    let organizations = replaced_secret::list_organizations(&mut ops.store.read().await?).await?;
    for organization in organizations {
        if let Err(error) = delete_replaced_of(cx, ops, &organization).await {
            tracing::warn!(%organization, %error, "failed to delete replaced values of secrets");
        }
    }
    Ok(())
}

async fn delete_replaced_of(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<()> {
    let mut tx = ops.store.begin().await?;
    replaced_secret::delete_unused(&mut tx, organization, cx.now().plus(-KEPT_MS)).await?;
    Ok(tx.commit().await?)
}

/// Deletes a secret.
///
/// # Errors
/// Those of [`get`]; `conflict` while instances or catalogue entries use it; the message lists them.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ToolSecretId) -> Result<()> {
    authorize(&cx.caller, Operation::ToolSecretWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    // An import that names the secret waits. An instance that is created at the same time makes the deletion fail,
    // because it refers to the secret.
    organization::lock(&mut tx, organization).await?;
    let secret = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let instances: Vec<&str> = secret.used_by.iter().map(|user| user.slug.as_str()).collect();
    let entries = catalog_version::list_entries_with_registry_secret(&mut tx, organization, &secret.name).await?;
    if !instances.is_empty() || !entries.is_empty() {
        return Err(in_use(&instances, &entries));
    }
    store::delete(&mut tx, organization, id).await?;
    record_operation(cx, &mut tx, &secret, "tool_secret.delete").await?;
    tx.commit().await?;
    Ok(())
}

fn in_use(instances: &[&str], entries: &[String]) -> Error {
    let mut message = String::new();
    if !instances.is_empty() {
        message.push_str(&format!("These instances use this secret: `{}`. ", instances.join("`, `")));
    }
    if !entries.is_empty() {
        let entries = entries.join("`, `");
        message.push_str(&format!("These catalogue entries use it as `registry_secret`: `{entries}`. "));
    }
    message.push_str("Change or delete them first.");
    Error::new(Code::Conflict, message).with("instances", instances.to_vec()).with("catalog", entries.to_vec())
}

/// Returns the value of the secret with this name. Returns `None` if there is no such secret.
///
/// # Errors
/// Any error of the store; `internal` if the value cannot be decrypted.
pub(crate) async fn open_by_name(
    ops: &Ops,
    conn: &mut Conn,
    organization: &OrganizationId,
    name: &str,
) -> Result<Option<SecretText>> {
    match store::find_value(conn, organization, name).await? {
        Some((id, sealed)) => open(ops, &id, &sealed).map(Some),
        None => Ok(None),
    }
}

fn open(ops: &Ops, id: &ToolSecretId, sealed: &str) -> Result<SecretText> {
    ops.keyring()?.open_text(&location(id), sealed).map_err(|error| {
        let message = format!("The secret `{id}` cannot be decrypted. Rotate it: `waypost secret rotate {id}`.");
        Error::new(Code::Internal, message).caused_by(error)
    })
}

/// Records an operation without the value.
async fn record_operation(cx: &Ctx, tx: &mut Tx, secret: &ToolSecret, action: &'static str) -> Result<()> {
    let users: Vec<&str> = secret.used_by.iter().map(|user| user.slug.as_str()).collect();
    let detail = json!({ "name": secret.name, "version": secret.version, "used_by": users });
    record(cx, tx, &secret.organization_id, Entry { action, target: secret.id.as_str(), detail }).await
}

fn not_found() -> Error {
    Error::not_found("secret")
}
