//! Members: the users of an organisation.

use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_role};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, UserId};
use waypost_core::organization::{Member, Role, User};
use waypost_core::{Code, Error, Result, email};
use waypost_store::{Conn, organization, system, user as store};

use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;
use crate::remote_tokens::revoke;
use crate::{Ops, agents, invitations};

/// Makes the user with this verified email address a member. If there is none, creates an account that is valid for
/// this organisation only, because accounts of the same address in other organisations must not affect this one.
///
/// # Errors
/// `forbidden` for members below admin, and for a role above the caller's own; `invalid_arguments`; `conflict` if the
/// user is already a member.
pub async fn create(cx: &Ctx, ops: &Ops, organization: &OrganizationId, address: &str, role: Role) -> Result<Member> {
    authorize(&cx.caller, Operation::MemberWrite, organization)?;
    authorize_role(&cx.caller, role)?;
    let email = email::parse(address)?;
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    let message = || format!("{} is already a member. Change the role with `user update`.", email.address);
    if store::find_member_by_email(&mut tx, organization, &email.key).await?.is_some() {
        return Err(Error::new(Code::Conflict, message()));
    }
    let user = match system::find_verified_user(&mut tx, &email.key).await? {
        Some(user) => user,
        None => {
            let user = User {
                id: UserId::new(&*cx.random),
                email: email.address.clone(),
                name: None,
                verified_at: None,
                organization_id: Some(organization.clone()),
                created_at: now,
            };
            store::insert(&mut tx, &user, &email.key).await.map_err(|error| conflict_if_taken(error, message))?;
            user
        }
    };
    store::add_member(&mut tx, organization, &user.id, role, now)
        .await
        .map_err(|error| conflict_if_taken(error, message))?;
    let detail = json!({ "email": user.email, "role": role.as_str() });
    record(cx, &mut tx, organization, Entry { action: "member.create", target: user.id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(Member {
        user_id: user.id,
        email: user.email,
        name: user.name,
        role,
        is_verified: user.verified_at.is_some(),
        created_at: now,
    })
}

/// Returns the members, ordered by email address.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<Member>> {
    authorize(&cx.caller, Operation::MemberRead, organization)?;
    Ok(store::list_members(&mut ops.store.read().await?, organization).await?)
}

/// Returns the member with the email address or the ID `text`.
///
/// # Errors
/// `not_found` if there is none, or for an organisation that the caller cannot access.
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<Member> {
    authorize(&cx.caller, Operation::MemberRead, organization)?;
    let mut conn = ops.store.read().await?;
    let member = match text.parse::<UserId>() {
        Ok(id) => store::find_member(&mut conn, organization, &id).await?,
        Err(_) => store::find_member_by_email(&mut conn, organization, &email::key(text)).await?,
    };
    member.ok_or_else(not_found)
}

/// Changes the role of a member, and revokes the invitations by the member that the new role could not create.
///
/// # Errors
/// The same as for [`create`]; `not_found` if there is no such member; `conflict` if the organisation would have no
/// owner left.
pub async fn update(cx: &Ctx, ops: &Ops, organization: &OrganizationId, user: &UserId, role: Role) -> Result<Member> {
    authorize(&cx.caller, Operation::MemberWrite, organization)?;
    authorize_role(&cx.caller, role)?;
    let mut tx = ops.store.begin().await?;
    let member = get_changeable(cx, &mut tx, organization, user, role).await?;
    if member.role == role {
        return Ok(member);
    }
    store::set_role(&mut tx, organization, user, role).await?;
    // Invitations that the member could no longer create are revoked.
    match role {
        Role::Owner => {}
        Role::Admin => {
            invitations::revoke_by_inviter(cx, &mut tx, organization, user.as_str(), Some(Role::Owner)).await?
        }
        Role::Member => invitations::revoke_by_inviter(cx, &mut tx, organization, user.as_str(), None).await?,
    }
    let detail = json!({ "email": member.email, "role": role.as_str(), "from": member.role.as_str() });
    record(cx, &mut tx, organization, Entry { action: "member.update", target: user.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(Member { role, ..member })
}

/// Ends a membership and revokes the member's pending invitations. An unverified user without another membership is
/// deleted.
///
/// # Errors
/// The same as for [`update`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, user: &UserId) -> Result<()> {
    authorize(&cx.caller, Operation::MemberWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    // A removal follows the same rules as a demotion to the lowest role.
    let member = get_changeable(cx, &mut tx, organization, user, Role::Member).await?;
    store::remove_member(&mut tx, organization, user).await?;
    let connections = agents::delete_for_user(cx, &mut tx, organization, user).await?;
    invitations::revoke_by_inviter(cx, &mut tx, organization, user.as_str(), None).await?;
    store::delete_without_membership(&mut tx, user).await?;
    let detail = json!({ "email": member.email, "role": member.role.as_str() });
    record(cx, &mut tx, organization, Entry { action: "member.delete", target: user.as_str(), detail }).await?;
    tx.commit().await?;
    revoke(ops, connections).await;
    Ok(())
}

/// Returns the member if the caller may change their role to `role` and an owner remains.
async fn get_changeable(
    cx: &Ctx,
    conn: &mut Conn,
    organization: &OrganizationId,
    user: &UserId,
    role: Role,
) -> Result<Member> {
    let owners = store::lock_owners(conn, organization).await?;
    let member = store::find_member(conn, organization, user).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, member.role)?;
    if role != Role::Owner && owners.as_slice() == [user.clone()] {
        let message = "This is the last owner. Make another member an owner first, or delete the organisation.";
        return Err(Error::new(Code::Conflict, message));
    }
    Ok(member)
}

fn not_found() -> Error {
    Error::not_found("member")
}
