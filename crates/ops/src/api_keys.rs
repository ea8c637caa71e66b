//! API keys. The secret is shown once and stored as a hash.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_content::name;
use waypost_core::access::{Operation, authorize, authorize_role};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{ApiKeyId, OrganizationId};
use waypost_core::organization::{ApiKey, Role};
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::{Tx, api_key as store, organization, system, user_account};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::{check_expiry, conflict_if_taken};
use crate::invitations;

/// The prefix of every secret, so that scanners can recognise leaked secrets.
const PREFIX: &str = "wpk_";
/// The number of random bytes in a secret.
const SECRET_BYTES: usize = 32;

/// The minimum time between two writes of a key's last use.
const USED_EVERY_MS: i64 = 60 * 1_000;

/// A key to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateApiKey<'a> {
    /// The display name, unique in the organisation.
    pub name: &'a str,
    /// The role of the key.
    pub scope: Role,
    /// The expiry. `None` if the key does not expire.
    pub expires_at: Option<Timestamp>,
}

/// The changes to a key. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeyPatch {
    /// The new name.
    pub name: Option<String>,
    /// The new role.
    pub scope: Option<Role>,
    /// The new expiry. `Some(None)` removes the expiry.
    pub expires_at: Option<Option<Timestamp>>,
}

/// Creates a key. Returns it with its secret, which cannot be retrieved again.
///
/// # Errors
/// `forbidden` for members below admin, for a scope above the caller's own role, and for an API key that would create a
/// key that is not weaker than itself ([`is_weaker`]); `invalid_arguments`; `conflict` if the name is taken.
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
    let mut tx = ops.store.begin().await?;
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
    let detail = audit_detail(&key);
    record(cx, &mut tx, organization, Entry { action: "key.create", target: key.id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok((key, secret))
}

/// Returns the caller that the API key `secret` authenticates. Returns `None` if the key is unknown or has expired.
/// Records the use of the key, at most once a minute.
///
/// # Errors
/// Any error of the store.
pub async fn authenticate(cx: &Ctx, ops: &Ops, secret: &str) -> Result<Option<Caller>> {
    if !secret.starts_with(PREFIX) {
        return Ok(None);
    }
    // The lookup uses a hash of 256 random bits, so its timing reveals nothing about the secret.
    let api_key = system::find_api_key(&mut ops.store.read().await?, &hash(secret)).await?;
    let Some(key) = api_key.filter(|key| !key.is_expired(cx.now())) else { return Ok(None) };
    let before = cx.now().plus(-USED_EVERY_MS);
    if key.last_used_at.is_none_or(|at| at <= before)
        && let Err(error) = record_use(cx, ops, &key, before).await
    {
        tracing::warn!(%error, "failed to record last use of API key");
    }
    Ok(Some(Caller::Member {
        organization_id: key.organization_id,
        role: key.scope,
        actor: key.id.as_str().to_owned(),
    }))
}

async fn record_use(cx: &Ctx, ops: &Ops, key: &ApiKey, before: Timestamp) -> Result<()> {
    let mut tx = ops.store.begin().await?;
    store::record_use(&mut tx, &key.organization_id, &key.id, cx.now(), before).await?;
    Ok(tx.commit().await?)
}

/// Returns the keys without their secrets, ordered by name.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access; `forbidden` for members below admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<ApiKey>> {
    authorize(&cx.caller, Operation::KeyRead, organization)?;
    Ok(store::list(&mut ops.store.read().await?, organization).await?)
}

/// Returns a key.
///
/// # Errors
/// The same as for [`list`]; `not_found` if there is none.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ApiKeyId) -> Result<ApiKey> {
    authorize(&cx.caller, Operation::KeyRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Returns the key with the ID or the name `text`.
///
/// # Errors
/// The same as for [`list`]; `not_found` if there is none.
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<ApiKey> {
    authorize(&cx.caller, Operation::KeyRead, organization)?;
    let mut conn = ops.store.read().await?;
    if let Ok(id) = text.parse::<ApiKeyId>()
        && let Some(key) = store::find(&mut conn, organization, &id).await?
    {
        return Ok(key);
    }
    store::find_by_name(&mut conn, organization, &name::clean(text)).await?.ok_or_else(not_found)
}

/// Updates the name, scope and expiry of a key. Its secret does not change. An expired key works again if it gets a
/// later expiry. If the key loses rights or lifetime, so do the keys that were created with it.
///
/// # Errors
/// The same as for [`create`]; `forbidden` also for an API key that extends its own rights or lifetime; `not_found` if
/// there is no such key.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ApiKeyId,
    changes: &ApiKeyPatch,
) -> Result<ApiKey> {
    authorize(&cx.caller, Operation::KeyWrite, organization)?;
    let mut tx = ops.store.begin().await?;
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
    let detail = audit_detail(&new);
    record(cx, &mut tx, organization, Entry { action: "key.update", target: id.as_str(), detail }).await?;
    limit_created_by(cx, &mut tx, &new).await?;
    tx.commit().await?;
    Ok(new)
}

/// Deletes a key, the keys that were created with it, and their pending invitations. Requests with their secrets are
/// rejected from then on.
///
/// # Errors
/// `forbidden` for members below admin, and for a key with a scope above the caller's own role; `not_found` if there is
/// no such key.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &ApiKeyId) -> Result<()> {
    authorize(&cx.caller, Operation::KeyWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let key = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, key.scope)?;
    store::delete(&mut tx, organization, id).await?;
    let detail = audit_detail(&key);
    record(cx, &mut tx, organization, Entry { action: "key.delete", target: id.as_str(), detail }).await?;
    invitations::revoke_by_inviter(cx, &mut tx, organization, id.as_str(), None).await?;
    for created in user_account::delete_api_keys(&mut tx, id.as_str()).await? {
        let detail = json!({ "name": created.name, "created_by": id });
        record(cx, &mut tx, organization, Entry { action: "key.delete", target: created.id.as_str(), detail }).await?;
        invitations::revoke_by_inviter(cx, &mut tx, organization, created.id.as_str(), None).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Returns the API key of the caller. Returns `None` for other callers.
///
/// # Errors
/// `not_found` if the key was deleted since the request was authenticated.
async fn own_key(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId) -> Result<Option<ApiKey>> {
    let Ok(id) = cx.caller.actor().parse::<ApiKeyId>() else { return Ok(None) };
    store::find(tx, organization, &id).await?.map(Some).ok_or_else(not_found)
}

/// Whether `key` has no more rights and no later expiry than `own`, and fewer rights or an earlier expiry. A leaked key
/// must not be able to create a key that equals or outlives it.
fn is_weaker(key: &ApiKey, own: &ApiKey) -> bool {
    own.scope.covers(key.scope)
        && !is_later(key.expires_at, own.expires_at)
        && (key.scope != own.scope || is_later(own.expires_at, key.expires_at))
}

/// Whether `a` is later than `b`. `None` means never.
fn is_later(a: Option<Timestamp>, b: Option<Timestamp>) -> bool {
    match (a, b) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b,
    }
}

fn not_weaker() -> Error {
    let message = "A key created with an API key can have neither more rights nor a later expiry than that key, and \
                   must have fewer rights or an earlier expiry. An API key cannot extend itself. Sign in to the \
                   console for this.";
    Error::new(Code::Forbidden, message)
}

/// Limits the keys that were created with `creator` to the rights and the lifetime of `creator`.
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
            let mut detail = audit_detail(&limited);
            detail["created_by"] = creator.id.as_str().into();
            record(cx, tx, organization, Entry { action: "key.update", target: key.id.as_str(), detail }).await?;
            creators.push(limited);
        }
    }
    Ok(())
}

fn audit_detail(key: &ApiKey) -> serde_json::Value {
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
        format!("An API key named `{name}` already exists. Choose another name, or delete that key first.")
    })
}
