//! Users as members of an organisation.

use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_role};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, UserId};
use waypost_core::organization::{Member, Role, User};
use waypost_core::{Code, Error, Result, email};
use waypost_store::{Conn, organization, system, user as store};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;
use crate::invitations;

/// Makes the user with this address a member. If the address is not verified, a new account is created that is valid for
/// this organisation only: what another organisation did with the address must not matter here.
///
/// # Errors
/// `forbidden` for members below admin, and for a role above the caller's own; `invalid_arguments`; `conflict` when
/// they are a member.
pub async fn create(cx: &Ctx, ops: &Ops, organization: &OrganizationId, address: &str, role: Role) -> Result<Member> {
    authorize(&cx.caller, Operation::MemberWrite, organization)?;
    authorize_role(&cx.caller, role)?;
    let email = email::parse(address)?;
    let now = cx.now();
    let mut tx = ops.db.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    let message = || format!("{} is a member already. Change the role with `user update`.", email.address);
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
    Ok(Member { user_id: user.id, email: user.email, role, is_verified: user.verified_at.is_some(), created_at: now })
}

/// The members, by address.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<Member>> {
    authorize(&cx.caller, Operation::MemberRead, organization)?;
    Ok(store::list_members(&mut ops.db.read().await?, organization).await?)
}

/// The member that `text` names, by address or by id.
///
/// # Errors
/// `not_found` when there is none, or in an organisation that the caller may not know of.
pub async fn find(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<Member> {
    authorize(&cx.caller, Operation::MemberRead, organization)?;
    let mut conn = ops.db.read().await?;
    let found = match text.parse::<UserId>() {
        Ok(id) => store::find_member(&mut conn, organization, &id).await?,
        Err(_) => store::find_member_by_email(&mut conn, organization, &email::key(text)).await?,
    };
    found.ok_or_else(not_found)
}

/// Gives a member another role, and revokes the open invitations that are above it.
///
/// # Errors
/// As [`create`]; `not_found` when they are no member; `conflict` when the organisation would have no owner left.
pub async fn update(cx: &Ctx, ops: &Ops, organization: &OrganizationId, user: &UserId, role: Role) -> Result<Member> {
    authorize(&cx.caller, Operation::MemberWrite, organization)?;
    authorize_role(&cx.caller, role)?;
    let mut tx = ops.db.begin().await?;
    let member = changeable(cx, &mut tx, organization, user, role).await?;
    if member.role == role {
        return Ok(member);
    }
    store::set_role(&mut tx, organization, user, role).await?;
    // What they could no longer invite to is revoked.
    match role {
        Role::Owner => {}
        Role::Admin => invitations::revoke_of(cx, &mut tx, organization, (user.as_str(), Some(Role::Owner))).await?,
        Role::Member => invitations::revoke_of(cx, &mut tx, organization, (user.as_str(), None)).await?,
    }
    let detail = json!({ "email": member.email, "role": role.as_str(), "from": member.role.as_str() });
    record(cx, &mut tx, organization, Entry { action: "member.update", target: user.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(Member { role, ..member })
}

/// Ends a membership, and revokes the member's open invitations. A user who is a member of nothing else, and cannot sign in, is deleted.
///
/// # Errors
/// As [`update`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, user: &UserId) -> Result<()> {
    authorize(&cx.caller, Operation::MemberWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    // Being nobody is the least of roles: what holds for a demotion holds for this.
    let member = changeable(cx, &mut tx, organization, user, Role::Member).await?;
    store::remove_member(&mut tx, organization, user).await?;
    invitations::revoke_of(cx, &mut tx, organization, (user.as_str(), None)).await?;
    store::delete_without_membership(&mut tx, user).await?;
    let detail = json!({ "email": member.email, "role": member.role.as_str() });
    record(cx, &mut tx, organization, Entry { action: "member.delete", target: user.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(())
}

/// The member, when the caller may change them to `role` and an owner is left then.
async fn changeable(
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
        let message = "This is the last owner. Make another member the owner first, or delete the organisation.";
        return Err(Error::new(Code::Conflict, message));
    }
    Ok(member)
}

fn not_found() -> Error {
    Error::not_found("member")
}
