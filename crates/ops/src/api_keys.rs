//! API keys: made once, shown once, kept as a hash.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::json;
use sha2::{Digest, Sha256};
use waypost_core::access::{Act, authorize, authorize_role};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{ApiKeyId, OrganizationId};
use waypost_core::organization::{ApiKey, Role};
use waypost_core::{Error, Result, name};
use waypost_store::{api_key as store, organization, system};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::taken;

/// What every secret begins with, so that scanners for leaked secrets can know it.
const PREFIX: &str = "wpk_";
/// Random bytes in a secret.
const SECRET_BYTES: usize = 32;

/// What can be changed of a key; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// A new name.
    pub name: Option<String>,
    /// Another role to act as.
    pub scope: Option<Role>,
}

/// Makes a key; gives it with its secret, which cannot be had again.
///
/// # Errors
/// `forbidden` for members below admin, and for a scope above the caller's own role; `invalid_arguments`; `conflict`
/// when the name is taken.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    name: &str,
    scope: Role,
) -> Result<(ApiKey, String)> {
    authorize(&cx.caller, Act::KeyWrite, organization)?;
    authorize_role(&cx.caller, scope)?;
    let key = ApiKey {
        id: ApiKeyId::new(&*cx.random),
        organization_id: organization.clone(),
        name: name::check("name", name)?,
        scope,
        created_at: cx.now(),
    };
    let mut bytes = [0_u8; SECRET_BYTES];
    cx.random.fill(&mut bytes);
    let secret = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
    let mut tx = ops.db.begin().await?;
    if organization::get(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    store::insert(&mut tx, &key, &hash(&secret)).await.map_err(|error| name_taken(error, &key.name))?;
    let detail = json!({ "name": key.name, "scope": key.scope.as_str() });
    record(cx, &mut tx, organization, Entry { act: "key.create", target: key.id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok((key, secret))
}

/// Who makes a call with `secret`; none when no key has it.
///
/// # Errors
/// When the store fails.
pub async fn authenticate(ops: &Ops, secret: &str) -> Result<Option<Caller>> {
    if !secret.starts_with(PREFIX) {
        return Ok(None);
    }
    // Looked up by a hash of 256 random bits: how long the comparison takes tells nothing of the secret.
    let key = system::find_api_key(&mut ops.db.read().await?, &hash(secret)).await?;
    Ok(key.map(|key| Caller::Member {
        organization_id: key.organization_id,
        role: key.scope,
        actor: key.id.as_str().to_owned(),
    }))
}

/// The keys, by name, without their secrets.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `forbidden` for members below admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<ApiKey>> {
    authorize(&cx.caller, Act::KeyRead, organization)?;
    Ok(store::list(&mut ops.db.read().await?, organization).await?)
}

/// The key that `text` names, by id or by name.
///
/// # Errors
/// As [`list`]; `not_found` when there is none.
pub async fn find(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<ApiKey> {
    authorize(&cx.caller, Act::KeyRead, organization)?;
    let mut conn = ops.db.read().await?;
    if let Ok(id) = text.parse::<ApiKeyId>()
        && let Some(key) = store::get(&mut conn, organization, &id).await?
    {
        return Ok(key);
    }
    store::find_by_name(&mut conn, organization, &name::clean(text)).await?.ok_or_else(not_found)
}

/// Changes name and scope; the secret stays.
///
/// # Errors
/// As [`create`]; `not_found` when there is no such key.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ApiKeyId,
    changes: &Changes,
) -> Result<ApiKey> {
    authorize(&cx.caller, Act::KeyWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let old = store::get(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let mut new = old.clone();
    if let Some(text) = &changes.name {
        new.name = name::check("name", text)?;
    }
    new.scope = changes.scope.unwrap_or(old.scope);
    authorize_role(&cx.caller, old.scope)?;
    authorize_role(&cx.caller, new.scope)?;
    if new == old {
        return Ok(old);
    }
    store::update(&mut tx, &new).await.map_err(|error| name_taken(error, &new.name))?;
    let detail = json!({ "name": new.name, "scope": new.scope.as_str() });
    record(cx, &mut tx, organization, Entry { act: "key.update", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(new)
}

/// Deletes a key: calls with its secret are refused from now on.
///
/// # Errors
/// As [`update`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ApiKeyId) -> Result<()> {
    authorize(&cx.caller, Act::KeyWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let key = store::get(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, key.scope)?;
    store::delete(&mut tx, organization, id).await?;
    let detail = json!({ "name": key.name, "scope": key.scope.as_str() });
    record(cx, &mut tx, organization, Entry { act: "key.delete", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(())
}

fn hash(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret.as_bytes()))
}

fn not_found() -> Error {
    Error::not_found("API key")
}

fn name_taken(error: waypost_store::Error, name: &str) -> Error {
    taken(error, || format!("An API key named `{name}` exists. Choose another name, or delete that key first."))
}
