//! Organisations: the tenants.

use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_operator, authorize_user};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Organization, Role};
use waypost_core::{Code, Error, Result, name, slug};
use waypost_store::{organization as store, system, user, user_session};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;
use crate::user_accounts::verification::is_verified;

/// What can be changed of an organisation; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrganizationPatch {
    /// A new slug.
    pub slug: Option<String>,
    /// A new name.
    pub name: Option<String>,
}

/// Makes an organisation; without a name it is called by its slug.
///
/// A user who makes one owns it.
///
/// # Errors
/// `forbidden` for everybody but the operator and users with a verified address who act for themselves; `invalid_arguments`; `conflict` when the
/// slug is taken.
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
        created_at: cx.now(),
    };
    let mut tx = ops.db.begin().await?;
    if let Some(owner) = owner
        && !is_verified(&mut tx, owner).await?
    {
        let message = "Your e-mail address is not verified, so your account is valid for the organisation that invited you \
                       only. Sign in with a code by e-mail or with a provider first.";
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

/// The organisations that the caller can see, by slug: all for the operator, those that they are a member of for a user,
/// the own one for a member.
///
/// # Errors
/// `forbidden` for an MCP client.
pub async fn list(cx: &Ctx, ops: &Ops) -> Result<Vec<Organization>> {
    let mut conn = ops.db.read().await?;
    match &cx.caller {
        Caller::Operator => Ok(system::list_organizations(&mut conn).await?),
        Caller::User { user_id } => {
            let mine = user_session::list_memberships(&mut conn, user_id).await?;
            Ok(mine.into_iter().map(|membership| membership.organization).collect())
        }
        Caller::Visitor => Err(Error::new(Code::Forbidden, "Sign in first.")),
        Caller::Member { organization_id, .. } | Caller::Client { organization_id, .. } => {
            authorize(&cx.caller, Operation::OrganizationRead, organization_id)?;
            Ok(store::find(&mut conn, organization_id).await?.into_iter().collect())
        }
    }
}

/// The organisation that `text` names, by slug or by id.
///
/// # Errors
/// `not_found` when there is none that the caller may know of.
pub async fn find(cx: &Ctx, ops: &Ops, text: &str) -> Result<Organization> {
    let mut conn = ops.db.read().await?;
    let found = match text.parse::<OrganizationId>() {
        Ok(id) => store::find(&mut conn, &id).await?,
        Err(_) => system::find_organization_by_slug(&mut conn, text).await?,
    };
    let organization = found.ok_or_else(not_found)?;
    authorize(&cx.caller, Operation::OrganizationRead, &organization.id)?;
    Ok(organization)
}

/// One organisation.
///
/// # Errors
/// `not_found` when there is none that the caller may know of.
pub async fn show(cx: &Ctx, ops: &Ops, id: &OrganizationId) -> Result<Organization> {
    authorize(&cx.caller, Operation::OrganizationRead, id)?;
    store::find(&mut ops.db.read().await?, id).await?.ok_or_else(not_found)
}

/// Changes slug and name.
///
/// # Errors
/// As [`show`]; `invalid_arguments`; `conflict` when the slug is taken.
pub async fn update(cx: &Ctx, ops: &Ops, id: &OrganizationId, changes: &OrganizationPatch) -> Result<Organization> {
    authorize(&cx.caller, Operation::OrganizationUpdate, id)?;
    let mut tx = ops.db.begin().await?;
    let old = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    let mut new = old.clone();
    if let Some(slug) = changes.slug.as_ref().filter(|slug| **slug != old.slug) {
        slug::check_organization_slug(slug)?;
        new.slug.clone_from(slug);
    }
    if let Some(text) = &changes.name {
        new.name = name::check("name", text)?;
    }
    if new == old {
        return Ok(old);
    }
    store::update(&mut tx, &new, cx.now()).await.map_err(|error| slug_taken(error, &new.slug))?;
    let detail = json!({ "slug": new.slug, "name": new.name });
    record(cx, &mut tx, id, Entry { action: "organization.update", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(new)
}

/// Deletes an organisation and all that it owns; its audit log stays. Users who are members of nothing
/// else, and cannot sign in, go too.
///
/// # Errors
/// As [`show`]; `forbidden` for members below owner.
pub async fn delete(cx: &Ctx, ops: &Ops, id: &OrganizationId) -> Result<()> {
    authorize(&cx.caller, Operation::OrganizationDelete, id)?;
    let mut tx = ops.db.begin().await?;
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

/// Says whether a new organisation can have this slug.
///
/// # Errors
/// `forbidden` for everybody but users who act for themselves; `invalid_arguments` when it is no slug; `conflict` when it
/// is taken.
pub async fn check_slug(cx: &Ctx, ops: &Ops, slug: &str) -> Result<()> {
    authorize_user(&cx.caller)?;
    slug::check_organization_slug(slug)?;
    match system::find_organization_by_slug(&mut ops.db.read().await?, slug).await? {
        None => Ok(()),
        Some(_) => Err(Error::new(Code::Conflict, taken_message(slug))),
    }
}

/// A slug for an organisation of this name that is free at the moment; empty when the name has nothing to make one of.
///
/// # Errors
/// As [`check_slug`].
pub async fn suggest_slug(cx: &Ctx, ops: &Ops, name: &str) -> Result<String> {
    /// Numbers that are tried; then somebody has to think.
    const TRIES: u32 = 20;
    authorize_user(&cx.caller)?;
    if !name.chars().any(char::is_alphanumeric) {
        return Ok(String::new());
    }
    let base: String = slug::from_title(name).chars().take(slug::MAX_LABEL - 3).collect();
    let mut conn = ops.db.read().await?;
    for number in 1..=TRIES {
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
