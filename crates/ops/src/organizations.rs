//! Organisations, the tenants.

use serde_json::json;
use waypost_content::name;
use waypost_core::access::{Operation, authorize, authorize_operator, authorize_user};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Organization, Role};
use waypost_core::{Code, Error, Result, slug};
use waypost_store::{organization as store, system, user, user_session};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;
use crate::user_accounts::verification::is_verified;

/// The changes to an organisation. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrganizationPatch {
    /// The new slug.
    pub slug: Option<String>,
    /// The new name.
    pub name: Option<String>,
    /// Whether toolboxes are on.
    pub toolboxes_enabled: Option<bool>,
    /// Whether its agents can use the gateway.
    pub gateway_enabled: Option<bool>,
}

/// Creates an organisation. The name defaults to the slug.
///
/// A user who creates an organisation becomes its owner.
///
/// # Errors
/// `forbidden` unless the caller is the operator or a user with a verified email address; `invalid_arguments`;
/// `conflict` if the slug is taken.
pub async fn create(cx: &Ctx, ops: &Ops, slug: &str, name: Option<&str>) -> Result<Organization> {
    let owner = match &cx.caller {
        Caller::User { user_id } => Some(user_id),
        caller => {
            authorize_operator(caller)?;
            None
        }
    };
    slug::check_organization_slug(slug)?;
    let organization = Organization {
        id: OrganizationId::new(&*cx.random),
        slug: slug.to_owned(),
        name: name::check("name", name.unwrap_or(slug))?,
        toolboxes_enabled: true,
        gateway_enabled: true,
        created_at: cx.now(),
    };
    let mut tx = ops.store.begin().await?;
    if let Some(owner) = owner
        && !is_verified(&mut tx, owner).await?
    {
        let message = "Your email is not verified, so your account is valid only for the organisation that invited \
                       you. Sign in with a code by email or with an identity provider first.";
        return Err(Error::new(Code::Forbidden, message));
    }
    store::insert(&mut tx, &organization).await.map_err(|error| slug_taken(error, slug))?;
    if let Some(owner) = owner {
        user::add_member(&mut tx, &organization.id, owner, Role::Owner, organization.created_at).await?;
    }
    let detail = json!({ "slug": organization.slug, "name": organization.name });
    let entry = Entry { action: "organization.create", target: organization.id.as_str(), detail };
    record(cx, &mut tx, &organization.id, entry).await?;
    tx.commit().await?;
    Ok(organization)
}

/// Returns the organisations that the caller can access, ordered by slug: all organisations for the operator, those
/// with a membership for a user, and the organisation itself for a member.
///
/// # Errors
/// `forbidden` for an MCP client or a visitor.
pub async fn list(cx: &Ctx, ops: &Ops) -> Result<Vec<Organization>> {
    let mut conn = ops.store.read().await?;
    match &cx.caller {
        Caller::Operator => Ok(system::list_organizations(&mut conn).await?),
        Caller::User { user_id } => {
            let memberships = user_session::list_memberships(&mut conn, user_id).await?;
            Ok(memberships.into_iter().map(|membership| membership.organization).collect())
        }
        Caller::Visitor => Err(Error::new(Code::Forbidden, "Sign in first.")),
        Caller::Member { organization_id, .. } | Caller::Client { organization_id, .. } => {
            authorize(&cx.caller, Operation::OrganizationRead, organization_id)?;
            Ok(store::find(&mut conn, organization_id).await?.into_iter().collect())
        }
    }
}

/// Returns the organisation with the slug or the ID `text`.
///
/// # Errors
/// `not_found` if there is none that the caller can access.
pub async fn resolve(cx: &Ctx, ops: &Ops, text: &str) -> Result<Organization> {
    let mut conn = ops.store.read().await?;
    let found = match text.parse::<OrganizationId>() {
        Ok(id) => store::find(&mut conn, &id).await?,
        Err(_) => system::find_organization_by_slug(&mut conn, text).await?,
    };
    let organization = found.ok_or_else(not_found)?;
    authorize(&cx.caller, Operation::OrganizationRead, &organization.id)?;
    Ok(organization)
}

/// Returns an organisation.
///
/// # Errors
/// `not_found` if there is none that the caller can access.
pub async fn get(cx: &Ctx, ops: &Ops, id: &OrganizationId) -> Result<Organization> {
    authorize(&cx.caller, Operation::OrganizationRead, id)?;
    store::find(&mut ops.store.read().await?, id).await?.ok_or_else(not_found)
}

/// Updates the slug, the name, and whether toolboxes and the gateway are on. Switching toolboxes off closes their
/// links; containers keep running on the machines. Switching the gateway off rejects the requests of all agents and
/// ends their streams; running calls may finish.
///
/// # Errors
/// The same as for [`get`]; `invalid_arguments`; `conflict` if the slug is taken.
pub async fn update(cx: &Ctx, ops: &Ops, id: &OrganizationId, changes: &OrganizationPatch) -> Result<Organization> {
    authorize(&cx.caller, Operation::OrganizationUpdate, id)?;
    let mut tx = ops.store.begin().await?;
    let old = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    let mut new = old.clone();
    if let Some(slug) = changes.slug.as_ref().filter(|slug| **slug != old.slug) {
        slug::check_organization_slug(slug)?;
        new.slug.clone_from(slug);
    }
    if let Some(text) = &changes.name {
        new.name = name::check("name", text)?;
    }
    new.toolboxes_enabled = changes.toolboxes_enabled.unwrap_or(old.toolboxes_enabled);
    new.gateway_enabled = changes.gateway_enabled.unwrap_or(old.gateway_enabled);
    if new == old {
        return Ok(old);
    }
    store::update(&mut tx, &new, cx.now()).await.map_err(|error| slug_taken(error, &new.slug))?;
    let detail = json!({
        "slug": new.slug,
        "name": new.name,
        "toolboxes_enabled": new.toolboxes_enabled,
        "gateway_enabled": new.gateway_enabled,
    });
    record(cx, &mut tx, id, Entry { action: "organization.update", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(new)
}

/// Deletes an organisation with everything that it owns, except its audit log. Unverified users without another
/// membership are deleted, too.
///
/// # Errors
/// The same as for [`get`]; `forbidden` for members below owner.
pub async fn delete(cx: &Ctx, ops: &Ops, id: &OrganizationId) -> Result<()> {
    authorize(&cx.caller, Operation::OrganizationDelete, id)?;
    let mut tx = ops.store.begin().await?;
    let organization = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    let members = user::list_members(&mut tx, id).await?;
    store::delete(&mut tx, id).await?;
    for member in members {
        user::delete_without_membership(&mut tx, &member.user_id).await?;
    }
    let detail = json!({ "slug": organization.slug, "name": organization.name });
    record(cx, &mut tx, id, Entry { action: "organization.delete", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(())
}

/// Checks that a new organisation can use this slug.
///
/// # Errors
/// `forbidden` if the caller is not a user; `invalid_arguments` if the slug is malformed; `conflict` if it is taken.
pub async fn check_slug(cx: &Ctx, ops: &Ops, slug: &str) -> Result<()> {
    authorize_user(&cx.caller)?;
    slug::check_organization_slug(slug)?;
    match system::find_organization_by_slug(&mut ops.store.read().await?, slug).await? {
        None => Ok(()),
        Some(_) => Err(Error::new(Code::Conflict, taken_message(slug))),
    }
}

/// Suggests a free slug for an organisation with this name. Returns an empty string if the name contains no usable
/// characters or no free slug was found.
///
/// # Errors
/// The same as for [`check_slug`].
pub async fn suggest_slug(cx: &Ctx, ops: &Ops, name: &str) -> Result<String> {
    /// The maximum number of slugs to try.
    const MAX_SUFFIXES: u32 = 20;
    authorize_user(&cx.caller)?;
    if !name.chars().any(char::is_alphanumeric) {
        return Ok(String::new());
    }
    let base: String = waypost_content::slug::from_title(name).chars().take(slug::MAX_LABEL - 3).collect();
    let mut conn = ops.store.read().await?;
    for number in 1..=MAX_SUFFIXES {
        let base = base.trim_end_matches('-');
        let slug = if number == 1 { base.to_owned() } else { format!("{base}-{number}") };
        if slug::check_organization_slug(&slug).is_ok()
            && system::find_organization_by_slug(&mut conn, &slug).await?.is_none()
        {
            return Ok(slug);
        }
    }
    Ok(String::new())
}

fn not_found() -> Error {
    Error::not_found("organisation")
}

fn slug_taken(error: waypost_store::Error, slug: &str) -> Error {
    conflict_if_taken(error, || taken_message(slug))
}

fn taken_message(slug: &str) -> String {
    format!("The slug `{slug}` is taken by another organisation. Choose another one.")
}
