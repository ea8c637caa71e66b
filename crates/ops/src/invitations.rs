//! Invitations. Each contains a link that makes the owner of an email address a member of an organisation. The link
//! works once and expires after 48 hours.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_role};
use waypost_core::caller::Ctx;
use waypost_core::id::{ApiKeyId, InvitationId, OrganizationId, UserId};
use waypost_core::invitation::{Invitation, InvitationState, LIFETIME_MS, MAX_PENDING};
use waypost_core::organization::{Organization, Role};
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, email};
use waypost_store::{Tx, api_key, audit, invitation as store, organization, user};

use crate::Ops;
use crate::audit::{Entry, record};

/// The number of random bytes in a secret: 256 bits.
const SECRET_BYTES: usize = 32;

/// A new invitation with its secret, which cannot be retrieved again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationWithSecret {
    /// The invitation.
    pub invitation: Invitation,
    /// The organisation, for the email.
    pub organization: Organization,
    /// The secret of the link `/invite?token=SECRET`.
    pub secret: String,
}

/// An invitation and its inviter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationView {
    /// The invitation.
    pub invitation: Invitation,
    /// The email address of the inviting user, or the name of the API key. `None` if it was deleted.
    pub invited_by: Option<String>,
}

/// Invites the owner of an email address. Replaces a pending invitation for the same address, whose link stops working.
///
/// # Errors
/// `forbidden` for members below admin, for a role above the caller's own, and if an invitation with such a role is
/// pending for this email address; `invalid_arguments`; `conflict` if the email address belongs to a member, or too
/// many invitations are pending.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    address: &str,
    role: Role,
) -> Result<InvitationWithSecret> {
    authorize(&cx.caller, Operation::InvitationWrite, organization)?;
    authorize_role(&cx.caller, role)?;
    let email = email::parse(address)?;
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    let inviting = lock(&mut tx, organization).await?;
    check_inviter(cx, &mut tx, organization, role).await?;
    check_not_member(&mut tx, organization, &email.key).await?;
    check_replaceable(cx, &mut tx, organization, &email.key, None).await?;
    let replaced = store::revoke_for_email(&mut tx, organization, &email.key, None, now).await?;
    check_pending_limit(cx, &mut tx, organization).await?;
    let invitation = Invitation {
        id: InvitationId::new(now, &*cx.random),
        organization_id: organization.clone(),
        email: email.address,
        role,
        invited_by: cx.caller.actor().to_owned(),
        created_at: now,
        expires_at: now.plus(LIFETIME_MS),
        accepted_at: None,
        revoked_at: None,
    };
    let secret = new_secret(cx);
    store::insert(&mut tx, &invitation, &email.key, &hash(&secret)).await?;
    let replaced: Vec<&str> = replaced.iter().map(InvitationId::as_str).collect();
    let mut detail = json!({ "email": invitation.email, "role": role.as_str() });
    if !replaced.is_empty() {
        detail["replaced"] = json!(replaced);
    }
    let entry = Entry { action: "invitation.create", target: invitation.id.as_str(), detail };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(InvitationWithSecret { invitation, organization: inviting, secret })
}

/// Returns at most `limit` invitations of an organisation, newest first. With `before`, returns only older ones.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access; `forbidden` for members below admin.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    before: Option<&InvitationId>,
    limit: u32,
) -> Result<Vec<InvitationView>> {
    authorize(&cx.caller, Operation::InvitationRead, organization)?;
    let mut conn = ops.store.read().await?;
    let invitations = store::list(&mut conn, organization, before, i64::from(limit)).await?;
    let actors: Vec<&str> = invitations.iter().map(|invitation| invitation.invited_by.as_str()).collect();
    let names = audit::find_actor_names(&mut conn, organization, &actors).await?;
    let view = |invitation: Invitation| {
        let invited_by = names.get(&invitation.invited_by).cloned();
        InvitationView { invitation, invited_by }
    };
    Ok(invitations.into_iter().map(view).collect())
}

/// Returns an invitation.
///
/// # Errors
/// The same as for [`list`]; `not_found` if there is none.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InvitationId) -> Result<InvitationView> {
    authorize(&cx.caller, Operation::InvitationRead, organization)?;
    let mut conn = ops.store.read().await?;
    let invitation = store::find(&mut conn, organization, id).await?.ok_or_else(not_found)?;
    let mut names = audit::find_actor_names(&mut conn, organization, &[&invitation.invited_by]).await?;
    let invited_by = names.remove(&invitation.invited_by);
    Ok(InvitationView { invitation, invited_by })
}

/// Revokes an invitation: its link stops working. Succeeds for an expired or revoked invitation, too.
///
/// # Errors
/// The same as for [`get`]; `forbidden` for an invitation with a role above the caller's own; `conflict` if it was
/// accepted.
pub async fn revoke(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InvitationId) -> Result<()> {
    authorize(&cx.caller, Operation::InvitationWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let invitation = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, invitation.role)?;
    // The statement decides, because the invitation may have been accepted since it was read.
    if store::revoke(&mut tx, organization, id, cx.now()).await? {
        let detail = json!({ "email": invitation.email, "role": invitation.role.as_str() });
        record(cx, &mut tx, organization, Entry { action: "invitation.revoke", target: id.as_str(), detail }).await?;
        tx.commit().await?;
        return Ok(());
    }
    let now = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    if now.state(cx.now()) == InvitationState::Accepted {
        let message = format!("{} has accepted the invitation. Remove the member instead.", now.email);
        return Err(Error::new(Code::Conflict, message));
    }
    Ok(())
}

/// Renews a pending or expired invitation with a new link for 48 hours. The old link stops working.
///
/// # Errors
/// The same as for [`revoke`]; `conflict` if it was accepted or revoked, the email address now belongs to a member, or
/// too many invitations are pending.
pub async fn resend(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InvitationId,
) -> Result<InvitationWithSecret> {
    authorize(&cx.caller, Operation::InvitationWrite, organization)?;
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    let inviting = lock(&mut tx, organization).await?;
    let old = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, old.role)?;
    check_inviter(cx, &mut tx, organization, old.role).await?;
    let key = email::key(&old.email);
    check_not_member(&mut tx, organization, &key).await?;
    check_replaceable(cx, &mut tx, organization, &key, Some(id)).await?;
    store::revoke_for_email(&mut tx, organization, &key, Some(id), now).await?;
    if old.state(now) != InvitationState::Pending {
        check_pending_limit(cx, &mut tx, organization).await?;
    }
    let invitation = Invitation { expires_at: now.plus(LIFETIME_MS), ..old };
    let secret = new_secret(cx);
    if !store::renew(&mut tx, &invitation, &hash(&secret)).await? {
        let message =
            format!("This invitation was accepted or revoked. Create a new invitation for {}.", invitation.email);
        return Err(Error::new(Code::Conflict, message));
    }
    let detail = json!({ "email": invitation.email, "role": invitation.role.as_str() });
    record(cx, &mut tx, organization, Entry { action: "invitation.resend", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(InvitationWithSecret { invitation, organization: inviting, secret })
}

/// Records that the link of an invitation is sent by email to the invited address and shown to no one. Only then does
/// accepting it verify the email address. The caller must not show the secret.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access; `forbidden` for members below admin; `conflict` if
/// the invitation was accepted, revoked or resent in the meantime.
pub async fn mark_emailed(cx: &Ctx, ops: &Ops, invited: &InvitationWithSecret) -> Result<()> {
    let organization = &invited.organization.id;
    authorize(&cx.caller, Operation::InvitationWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let key = (&invited.invitation.id, hash(&invited.secret));
    if !store::mark_emailed(&mut tx, organization, key.0, &key.1, cx.now()).await? {
        let message = "The invitation was accepted, revoked or resent at the same time.";
        return Err(Error::new(Code::Conflict, message));
    }
    tx.commit().await?;
    Ok(())
}

async fn lock(tx: &mut Tx, organization: &OrganizationId) -> Result<Organization> {
    if !store::lock(tx, organization).await? {
        return Err(Error::not_found("organisation"));
    }
    organization::find(tx, organization).await?.ok_or_else(|| Error::not_found("organisation"))
}

/// Revokes the invitations of an actor whose membership ends, whose role changes, or whose key is deleted, unless they
/// are accepted or already revoked. With `only`, revokes only those with that role. Acquires the same lock as [`lock`],
/// so a concurrent invitation by the actor is either revoked here or rejected.
pub(crate) async fn revoke_by_inviter(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    inviter: &str,
    only: Option<Role>,
) -> Result<()> {
    store::lock(tx, organization).await?;
    for id in store::revoke_by_inviter(tx, organization, inviter, only, cx.now()).await? {
        let entry =
            Entry { action: "invitation.revoke", target: id.as_str(), detail: json!({ "invited_by": inviter }) };
        record(cx, tx, organization, entry).await?;
    }
    Ok(())
}

/// Checks with the lock held that the caller can still invite with `role`: the membership or the key may have ended, or
/// the role may have changed, since the request was authenticated.
async fn check_inviter(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, role: Role) -> Result<()> {
    let own = if let Ok(user) = cx.caller.actor().parse::<UserId>() {
        user::find_member(tx, organization, &user).await?.map(|member| member.role)
    } else if let Ok(key) = cx.caller.actor().parse::<ApiKeyId>() {
        api_key::find(tx, organization, &key).await?.map(|key| key.scope)
    } else {
        return Ok(());
    };
    let own = own.ok_or_else(|| Error::not_found("organisation"))?;
    if own != Role::Member && own.covers(role) {
        return Ok(());
    }
    Err(Error::new(Code::Forbidden, format!("Your role is now `{own}`, which cannot invite with the role `{role}`.")))
}

/// Rejects replacing a pending invitation that the caller could not revoke.
async fn check_replaceable(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    email_key: &str,
    except: Option<&InvitationId>,
) -> Result<()> {
    let Some(role) = store::find_highest_pending_role(tx, organization, email_key, except, cx.now()).await? else {
        return Ok(());
    };
    authorize_role(&cx.caller, role).map_err(|_| {
        let message = format!(
            "This email has a pending invitation with the role `{role}`, which is above yours. Ask an `{role}` to \
             revoke that invitation first."
        );
        Error::new(Code::Forbidden, message).with("field", "email")
    })
}

async fn check_not_member(tx: &mut Tx, organization: &OrganizationId, email_key: &str) -> Result<()> {
    match user::find_member_by_email(tx, organization, email_key).await? {
        None => Ok(()),
        Some(member) => {
            let message = format!("{} is already a member. Change the role in the list of members.", member.email);
            Err(Error::new(Code::Conflict, message).with("field", "email"))
        }
    }
}

async fn check_pending_limit(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId) -> Result<()> {
    if store::count_pending(tx, organization, cx.now()).await? < MAX_PENDING {
        return Ok(());
    }
    let message = format!("{MAX_PENDING} invitations are pending, which is the maximum. Revoke some of them first.");
    Err(Error::new(Code::Conflict, message))
}

fn new_secret(cx: &Ctx) -> String {
    let mut bytes = [0_u8; SECRET_BYTES];
    cx.random.fill(&mut bytes);
    BASE64URL_NOPAD.encode(&bytes)
}

fn not_found() -> Error {
    Error::not_found("invitation")
}
