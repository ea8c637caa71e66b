//! Invitations: a link that makes the person with one address a member, once, within 48 hours.

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

/// Random bytes in a secret: 256 bits.
const SECRET_BYTES: usize = 32;

/// An invitation with its secret, which cannot be had again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationWithSecret {
    /// The invitation.
    pub invitation: Invitation,
    /// To where, for the mail.
    pub organization: Organization,
    /// What makes the link: `/invite?token=SECRET`.
    pub secret: String,
}

/// An invitation, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationView {
    /// The invitation.
    pub invitation: Invitation,
    /// The address or the name of who invited; none when they are gone.
    pub invited_by: Option<String>,
}

/// Invites the person with this address; an invitation that is open for them is replaced, and its link is dead.
///
/// # Errors
/// `forbidden` for members below admin, for a role above the caller's own, and if an invitation with such a role is open for
/// this address; `invalid_arguments`; `conflict` when they are a member, or too many invitations are open.
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
    let mut tx = ops.db.begin().await?;
    let inviting = lock(&mut tx, organization).await?;
    still_inviter(cx, &mut tx, organization, role).await?;
    not_a_member(&mut tx, organization, &email.key).await?;
    replaceable(cx, &mut tx, organization, (&email.key, None)).await?;
    let replaced = store::revoke_for_email(&mut tx, organization, (&email.key, None), now).await?;
    bounded(cx, &mut tx, organization).await?;
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

/// The invitations of an organisation, newest first, at most `limit` of those older than `before`.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `forbidden` for members below admin.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    before: Option<&InvitationId>,
    limit: u32,
) -> Result<Vec<InvitationView>> {
    authorize(&cx.caller, Operation::InvitationRead, organization)?;
    let mut conn = ops.db.read().await?;
    let found = store::list(&mut conn, organization, before, i64::from(limit)).await?;
    let actors: Vec<&str> = found.iter().map(|it| it.invited_by.as_str()).collect();
    let names = audit::find_actor_names(&mut conn, organization, &actors).await?;
    let listed = |invitation: Invitation| {
        let invited_by = names.get(&invitation.invited_by).cloned();
        InvitationView { invitation, invited_by }
    };
    Ok(found.into_iter().map(listed).collect())
}

/// One invitation.
///
/// # Errors
/// As [`list`]; `not_found` when there is none.
pub async fn show(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InvitationId) -> Result<InvitationView> {
    authorize(&cx.caller, Operation::InvitationRead, organization)?;
    let mut conn = ops.db.read().await?;
    let invitation = store::find(&mut conn, organization, id).await?.ok_or_else(not_found)?;
    let mut names = audit::find_actor_names(&mut conn, organization, &[&invitation.invited_by]).await?;
    let invited_by = names.remove(&invitation.invited_by);
    Ok(InvitationView { invitation, invited_by })
}

/// Takes an invitation back: its link opens nothing any more. Taking one back that is expired or taken back already is
/// fine.
///
/// # Errors
/// As [`show`]; `forbidden` for one with a role above the caller's own; `conflict` when it was accepted.
pub async fn revoke(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InvitationId) -> Result<()> {
    authorize(&cx.caller, Operation::InvitationWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let invitation = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, invitation.role)?;
    // The statement decides, not what was read before: somebody may be accepting it at this moment.
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

/// Gives an open or expired invitation a new link and 48 hours; the old link is dead.
///
/// # Errors
/// As [`revoke`]; `conflict` when it was accepted or taken back, they are a member by now, or too many are open.
pub async fn resend(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InvitationId,
) -> Result<InvitationWithSecret> {
    authorize(&cx.caller, Operation::InvitationWrite, organization)?;
    let now = cx.now();
    let mut tx = ops.db.begin().await?;
    let inviting = lock(&mut tx, organization).await?;
    let old = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    authorize_role(&cx.caller, old.role)?;
    still_inviter(cx, &mut tx, organization, old.role).await?;
    let key = email::key(&old.email);
    not_a_member(&mut tx, organization, &key).await?;
    replaceable(cx, &mut tx, organization, (&key, Some(id))).await?;
    store::revoke_for_email(&mut tx, organization, (&key, Some(id)), now).await?;
    if old.state(now) != InvitationState::Pending {
        bounded(cx, &mut tx, organization).await?;
    }
    let invitation = Invitation { expires_at: now.plus(LIFETIME_MS), ..old };
    let secret = new_secret(cx);
    if !store::renew(&mut tx, &invitation, &hash(&secret)).await? {
        let message = format!("This invitation was accepted or taken back. Invite {} anew.", invitation.email);
        return Err(Error::new(Code::Conflict, message));
    }
    let detail = json!({ "email": invitation.email, "role": invitation.role.as_str() });
    record(cx, &mut tx, organization, Entry { action: "invitation.resend", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(InvitationWithSecret { invitation, organization: inviting, secret })
}

/// Notes that the link of an invitation is sent to the invited address by email and shown to nobody. Only then does accepting
/// it verify the address. Whoever calls this must not show the secret.
///
/// # Errors
/// As [`create`]; `conflict` if the invitation was accepted, revoked or sent again meanwhile.
pub async fn mark_emailed(cx: &Ctx, ops: &Ops, invited: &InvitationWithSecret) -> Result<()> {
    let organization = &invited.organization.id;
    authorize(&cx.caller, Operation::InvitationWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let key = (&invited.invitation.id, hash(&invited.secret));
    if !store::mark_emailed(&mut tx, organization, (key.0, &key.1), cx.now()).await? {
        let message = "The invitation was accepted, revoked or sent again at the same time.";
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

/// Revokes the open invitations of an actor whose membership ends, whose role changes, or whose key is deleted; with `only`,
/// those with that role. Takes the lock of [`lock`]: after it, the actor cannot invite any more.
pub(crate) async fn revoke_of(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    (inviter, only): (&str, Option<Role>),
) -> Result<()> {
    store::lock(tx, organization).await?;
    for id in store::revoke_by_inviter(tx, organization, (inviter, only), cx.now()).await? {
        let entry =
            Entry { action: "invitation.revoke", target: id.as_str(), detail: json!({ "invited_by": inviter }) };
        record(cx, tx, organization, entry).await?;
    }
    Ok(())
}

/// Checks under the lock that the caller can still invite with `role`: the membership or the key may have ended, or the role
/// may have changed, since the request was authenticated.
async fn still_inviter(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, role: Role) -> Result<()> {
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
    Err(Error::new(
        Code::Forbidden,
        format!("Your role is `{own}` by now, which cannot invite with the role `{role}`."),
    ))
}

/// Refuses to replace an open invitation that the caller could not revoke.
async fn replaceable(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    of: (&str, Option<&InvitationId>),
) -> Result<()> {
    let Some(role) = store::find_highest_pending_role(tx, organization, of, cx.now()).await? else { return Ok(()) };
    authorize_role(&cx.caller, role).map_err(|_| {
        let message = format!(
            "This address is invited with the role `{role}`, which is above yours. Ask an `{role}` to revoke that \
             invitation first."
        );
        Error::new(Code::Forbidden, message).with("field", "email")
    })
}

async fn not_a_member(tx: &mut Tx, organization: &OrganizationId, email_key: &str) -> Result<()> {
    match user::find_member_by_email(tx, organization, email_key).await? {
        None => Ok(()),
        Some(member) => {
            let message = format!("{} is a member already. Change the role in the list of members.", member.email);
            Err(Error::new(Code::Conflict, message).with("field", "email"))
        }
    }
}

async fn bounded(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId) -> Result<()> {
    if store::count_pending(tx, organization, cx.now()).await? < MAX_PENDING {
        return Ok(());
    }
    let message = format!("{MAX_PENDING} invitations are open, which is the most. Take some back first.");
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
