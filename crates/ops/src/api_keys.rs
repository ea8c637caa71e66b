//! API keys: made once, shown once, kept as a hash.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_role};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{ApiKeyId, OrganizationId};
use waypost_core::organization::{ApiKey, Role};
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, Timestamp, name};
use waypost_store::{Tx, api_key as store, organization, system, user_account};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;
use crate::invitations;

/// What every secret begins with, so that scanners for leaked secrets can know it.
const PREFIX: &str = "wpk_";
/// Random bytes in a secret.
const SECRET_BYTES: usize = 32;

/// A key lives for this long at most, when it is to end at all: ten years of 365.25 days.
const MAX_LIFETIME_MS: i64 = 3_652 * 24 * 60 * 60 * 1_000 + 12 * 60 * 60 * 1_000;
/// The last use of a key is written this often at most.
const USED_EVERY_MS: i64 = 60 * 1_000;

/// A key that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateApiKey<'a> {
    /// Name for people, unique in the organisation.
    pub name: &'a str,
    /// The role that it acts as.
    pub scope: Role,
    /// When it stops working; none when it works until it is deleted.
    pub expires_at: Option<Timestamp>,
}

/// What can be changed of a key; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeyPatch {
    /// A new name.
    pub name: Option<String>,
    /// Another role to act as.
    pub scope: Option<Role>,
    /// Another end; inside, none means that it has no end.
    pub expires_at: Option<Option<Timestamp>>,
}

/// Makes a key; gives it with its secret, which cannot be had again.
///
/// # Errors
/// `forbidden` for members below admin, for a scope above the caller's own role, and for an API key that would create a key
/// that is not weaker than itself ([`is_weaker`]); `invalid_arguments`; `conflict` when the name is taken.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    new: CreateApiKey<'_>,
) -> Result<(ApiKey, String)> {
    authorize(&cx.caller, Operation::KeyWrite, organization)?;
    authorize_role(&cx.caller, new.scope)?;
    check_expiry(cx.now(), new.expires_at)?;
    let key = ApiKey {
        id: ApiKeyId::new(&*cx.random),
        organization_id: organization.clone(),
        name: name::check("name", new.name)?,
        scope: new.scope,
        created_at: cx.now(),
        expires_at: new.expires_at,
        last_used_at: None,
    };
    let mut bytes = [0_u8; SECRET_BYTES];
    cx.random.fill(&mut bytes);
    let secret = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
    let mut tx = ops.db.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    if let Some(own) = own_key(cx, &mut tx, organization).await?
        && !is_weaker(&key, &own)
    {
        return Err(not_weaker());
    }
    let inserted = store::insert(&mut tx, &key, &hash(&secret), cx.caller.actor()).await;
    inserted.map_err(|error| name_taken(error, &key.name))?;
    let detail = described(&key);
    record(cx, &mut tx, organization, Entry { action: "key.create", target: key.id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok((key, secret))
}

/// Who makes a call with `secret`; none when no key has it, or the key has ended. Notes the use, once a minute at most.
///
/// # Errors
/// When the store fails.
pub async fn authenticate(cx: &Ctx, ops: &Ops, secret: &str) -> Result<Option<Caller>> {
    if !secret.starts_with(PREFIX) {
        return Ok(None);
    }
    // Looked up by a hash of 256 random bits: how long the comparison takes tells nothing of the secret.
    let found = system::find_api_key(&mut ops.db.read().await?, &hash(secret)).await?;
    let Some(key) = found.filter(|key| !key.is_expired(cx.now())) else { return Ok(None) };
    let before = cx.now().plus(-USED_EVERY_MS);
    if key.last_used_at.is_none_or(|at| at <= before)
        && let Err(error) = note_use(cx, ops, &key, before).await
    {
        tracing::warn!(%error, "the last use of an API key could not be written");
    }
    Ok(Some(Caller::Member {
        organization_id: key.organization_id,
        role: key.scope,
        actor: key.id.as_str().to_owned(),
    }))
}

async fn note_use(cx: &Ctx, ops: &Ops, key: &ApiKey, before: Timestamp) -> Result<()> {
    let mut tx = ops.db.begin().await?;
    store::record_use(&mut tx, &key.organization_id, &key.id, (cx.now(), before)).await?;
    Ok(tx.commit().await?)
}

/// The keys, by name, without their secrets.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `forbidden` for members below admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<ApiKey>> {
    authorize(&cx.caller, Operation::KeyRead, organization)?;
    Ok(store::list(&mut ops.db.read().await?, organization).await?)
}

/// One key.
///
/// # Errors
/// As [`list`]; `not_found` when there is none.
pub async fn show(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ApiKeyId) -> Result<ApiKey> {
    authorize(&cx.caller, Operation::KeyRead, organization)?;
    store::find(&mut ops.db.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// The key that `text` names, by id or by name.
///
/// # Errors
/// As [`list`]; `not_found` when there is none.
pub async fn find(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<ApiKey> {
    authorize(&cx.caller, Operation::KeyRead, organization)?;
    let mut conn = ops.db.read().await?;
    if let Ok(id) = text.parse::<ApiKeyId>()
        && let Some(key) = store::find(&mut conn, organization, &id).await?
    {
        return Ok(key);
    }
    store::find_by_name(&mut conn, organization, &name::clean(text)).await?.ok_or_else(not_found)
}

/// Changes name, scope and end; the secret stays. A key that has ended works again when it gets a later end. If the key loses
/// rights or time, so do the keys that were created with it.
///
/// # Errors
/// As [`create`]; `forbidden` also for an API key that gives itself more rights or time; `not_found` when there is no such key.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ApiKeyId,
    changes: &ApiKeyPatch,
) -> Result<ApiKey> {
    authorize(&cx.caller, Operation::KeyWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let old = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let mut new = old.clone();
    if let Some(text) = &changes.name {
        new.name = name::check("name", text)?;
    }
    new.scope = changes.scope.unwrap_or(old.scope);
    if let Some(expires_at) = changes.expires_at.filter(|expires_at| *expires_at != old.expires_at) {
        check_expiry(cx.now(), expires_at)?;
        new.expires_at = expires_at;
    }
    authorize_role(&cx.caller, old.scope)?;
    authorize_role(&cx.caller, new.scope)?;
    if new == old {
        return Ok(old);
    }
    let gains = !old.scope.covers(new.scope) || is_later(new.expires_at, old.expires_at);
    if gains
        && let Some(own) = own_key(cx, &mut tx, organization).await?
        && (own.id == new.id || !is_weaker(&new, &own))
    {
        return Err(not_weaker());
    }
    store::update(&mut tx, &new).await.map_err(|error| name_taken(error, &new.name))?;
    let detail = described(&new);
    record(cx, &mut tx, organization, Entry { action: "key.update", target: id.as_str(), detail }).await?;
    limit_created_by(cx, &mut tx, &new).await?;
    tx.commit().await?;
    Ok(new)
}

/// Deletes a key, the keys that were created with it, and their open invitations: calls with their secrets are refused from
/// now on.
///
/// # Errors
/// As [`update`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ApiKeyId) -> Result<()> {
    authorize(&cx.caller, Operation::KeyWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let key = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, key.scope)?;
    store::delete(&mut tx, organization, id).await?;
    let detail = described(&key);
    record(cx, &mut tx, organization, Entry { action: "key.delete", target: id.as_str(), detail }).await?;
    invitations::revoke_of(cx, &mut tx, organization, (id.as_str(), None)).await?;
    for created in user_account::delete_api_keys(&mut tx, id.as_str()).await? {
        let detail = json!({ "name": created.name, "created_by": id });
        record(cx, &mut tx, organization, Entry { action: "key.delete", target: created.id.as_str(), detail }).await?;
        invitations::revoke_of(cx, &mut tx, organization, (created.id.as_str(), None)).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The key that calls; `None` for other callers.
///
/// # Errors
/// `not_found` if the key was deleted since the request was authenticated.
async fn own_key(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId) -> Result<Option<ApiKey>> {
    let Ok(id) = cx.caller.actor().parse::<ApiKeyId>() else { return Ok(None) };
    store::find(tx, organization, &id).await?.map(Some).ok_or_else(not_found)
}

/// Whether `key` has at most the rights and the time of `own`, and less of one of them: a leaked key must not become one that
/// outlives it, nor a second one like it.
fn is_weaker(key: &ApiKey, own: &ApiKey) -> bool {
    own.scope.covers(key.scope)
        && !is_later(key.expires_at, own.expires_at)
        && (key.scope != own.scope || is_later(own.expires_at, key.expires_at))
}

/// Whether `a` is later than `b`; `None` never comes.
fn is_later(a: Option<Timestamp>, b: Option<Timestamp>) -> bool {
    match (a, b) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b,
    }
}

fn not_weaker() -> Error {
    let message = "An API key can only create keys with fewer rights or an earlier end than its own, and cannot extend \
                   itself. Sign in to the console for this.";
    Error::new(Code::Forbidden, message)
}

/// Takes from the keys that were created with `creator` the rights and the time that it does not have itself.
async fn limit_created_by(cx: &Ctx, tx: &mut Tx, creator: &ApiKey) -> Result<()> {
    let organization = &creator.organization_id;
    let mut creators = vec![creator.clone()];
    while let Some(creator) = creators.pop() {
        for key in store::list_created_by(tx, organization, &creator.id).await? {
            let mut limited = key.clone();
            if !creator.scope.covers(key.scope) {
                limited.scope = creator.scope;
            }
            if is_later(key.expires_at, creator.expires_at) {
                limited.expires_at = creator.expires_at;
            }
            if limited == key {
                continue;
            }
            store::update(tx, &limited).await?;
            let mut detail = described(&limited);
            detail["created_by"] = creator.id.as_str().into();
            record(cx, tx, organization, Entry { action: "key.update", target: key.id.as_str(), detail }).await?;
            creators.push(limited);
        }
    }
    Ok(())
}

fn check_expiry(now: Timestamp, expires_at: Option<Timestamp>) -> Result<()> {
    match expires_at {
        Some(at) if at <= now => Err(Error::invalid("expires_at", "`expires_at` must be in the future.")),
        Some(at) if at.since(now) > MAX_LIFETIME_MS => Err(Error::invalid(
            "expires_at",
            "`expires_at` may be ten years from now at most. Leave it out for no end.",
        )),
        _ => Ok(()),
    }
}

fn described(key: &ApiKey) -> serde_json::Value {
    json!({
        "name": key.name,
        "scope": key.scope.as_str(),
        "expires_at": key.expires_at.map(Timestamp::rfc3339),
    })
}

fn not_found() -> Error {
    Error::not_found("API key")
}

fn name_taken(error: waypost_store::Error, name: &str) -> Error {
    conflict_if_taken(error, || {
        format!("An API key named `{name}` exists. Choose another name, or delete that key first.")
    })
}
