//! Identities of end users: maps the claims of an issuer to an end user of the organisation.

use serde_json::json;
use url::Url;
use waypost_content::name;
use waypost_core::access::{Operation, authorize};
use waypost_core::account::ISSUER;
use waypost_core::caller::Ctx;
use waypost_core::email::{self, Email};
use waypost_core::id::{EndUserId, IdentityId, OrganizationId};
use waypost_core::oauth_config::{OauthConfig, ProviderKind};
use waypost_core::server::{AuthType, Server};
use waypost_core::{Error, Result};
use waypost_store::end_user::Profile;
use waypost_store::identity::{self as store, Identity};
use waypost_store::{Tx, end_user, oauth_config};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::tickets::{self, TicketEmail};

/// The maximum length of a picture URL, in bytes.
const MAX_PICTURE_URL: usize = 2_048;
/// The maximum length of an issuer or a subject, in bytes. A subject of OpenID Connect has at most 255 (Core 1.0,
/// section 2).
const MAX_IDENTIFIER: usize = 1_024;

/// The claims of an issuer about a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// The issuer; `waypost` for Waypost accounts.
    pub issuer: String,
    /// The issuer's permanent identifier for the user.
    pub subject: String,
    /// The email address.
    pub email: Option<String>,
    /// Whether the issuer states that it has verified the email address.
    pub email_verified: bool,
    /// The name.
    pub name: Option<String>,
    /// The URL of a picture, which is stored only if it is `https`.
    pub picture_url: Option<String>,
}

/// The result of a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUserIdentity {
    /// The end user.
    pub end_user_id: EndUserId,
    /// The identity with which the end user signed in.
    pub identity_id: IdentityId,
}

/// Returns the issuer of the end users of a server: Waypost accounts or the server's identity provider. Returns `None`
/// if the server has no sign-in. A user of another issuer is not signed in: an account that anyone can create must not
/// grant access to a server that requires the company's own sign-in.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn find_issuer(ops: &Ops, server: &Server) -> Result<Option<String>> {
    match (server.auth_type, &server.oauth_config_id) {
        (AuthType::PlatformOauth, _) => Ok(Some(ISSUER.to_owned())),
        (AuthType::CustomOauth, Some(id)) => {
            let config = oauth_config::find(&mut ops.store.read().await?, &server.organization_id, id).await?;
            Ok(config.as_ref().and_then(issuer_of))
        }
        _ => Ok(None),
    }
}

/// Returns the issuer of a provider's identities. Plain OAuth has none, so it is derived from the origin of the
/// userinfo endpoint. Returns `None` if this endpoint is missing or malformed.
#[must_use]
pub fn issuer_of(config: &OauthConfig) -> Option<String> {
    if config.kind == ProviderKind::Openid {
        return Some(config.issuer.clone());
    }
    let url = Url::parse(config.userinfo_endpoint.as_deref()?).ok()?;
    Some(format!("oauth2:{}", url.origin().ascii_serialization()))
}

/// Signs in the end user of an identity. The first sign-in creates the identity and its end user. With
/// `link_verified_email`, a new identity is linked to the end user of an identity of another issuer if both have the
/// same verified email address; nothing else links identities.
///
/// # Errors
/// `not_found` for an organisation other than the caller's; `forbidden` for members; `invalid_arguments` if the issuer
/// returns no usable subject; any error of the store.
pub async fn sign_in(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    claims: &Claims,
    link_verified_email: bool,
) -> Result<EndUserIdentity> {
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    check_identifier("issuer", &claims.issuer)?;
    check_identifier("subject", &claims.subject)?;
    let email = claims.email.as_deref().and_then(|text| email::parse(text).ok());
    let found = store::find(tx, organization, &claims.issuer, &claims.subject).await?;
    let identity = match found {
        Some(identity) => update_identity(cx, tx, identity, claims, email.as_ref()).await?,
        None => match create_identity(cx, tx, organization, claims, email.as_ref(), link_verified_email).await? {
            Some(identity) => identity,
            // The same user was signed in concurrently.
            None => {
                let identity = store::find(tx, organization, &claims.issuer, &claims.subject).await?;
                let identity = identity.ok_or_else(|| Error::internal("an identity exists but cannot be found"))?;
                update_identity(cx, tx, identity, claims, email.as_ref()).await?
            }
        },
    };
    let profile = profile(claims, email.as_ref());
    end_user::update_profile(tx, organization, &identity.end_user_id, &profile).await?;
    if let Some(address) = profile.email {
        let email = TicketEmail { address, verified: true };
        tickets::add_email_to_open_tickets(cx, tx, organization, &identity.end_user_id, &email).await?;
    }
    let detail = json!({ "identity": identity.id.as_str(), "issuer": identity.issuer });
    let entry = Entry { action: "end_user.sign_in", target: identity.end_user_id.as_str(), detail };
    record(cx, tx, organization, entry).await?;
    Ok(EndUserIdentity { end_user_id: identity.end_user_id, identity_id: identity.id })
}

async fn update_identity(
    cx: &Ctx,
    tx: &mut Tx,
    found: Identity,
    claims: &Claims,
    email: Option<&Email>,
) -> Result<Identity> {
    let identity = Identity {
        email: email.map(|email| email.address.clone()),
        email_verified: claims.email_verified && email.is_some(),
        last_sign_in_at: cx.now(),
        ..found
    };
    store::record_sign_in(tx, &identity, email.map(|email| email.key.as_str())).await?;
    Ok(identity)
}

/// Creates the identity, and its end user unless it is linked to an existing one. Returns `None` if it was created
/// concurrently.
async fn create_identity(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    claims: &Claims,
    email: Option<&Email>,
    link_verified_email: bool,
) -> Result<Option<Identity>> {
    let now = cx.now();
    let other = match email {
        Some(email) if link_verified_email && claims.email_verified => {
            store::find_linkable(tx, organization, &claims.issuer, &email.key).await?
        }
        _ => None,
    };
    let end_user_id = match &other {
        Some(other) => other.end_user_id.clone(),
        None => {
            let id = EndUserId::new(now, &*cx.random);
            end_user::insert(tx, organization, &id, now).await?;
            id
        }
    };
    let identity = Identity {
        id: IdentityId::new(now, &*cx.random),
        organization_id: organization.clone(),
        end_user_id,
        issuer: claims.issuer.clone(),
        subject: claims.subject.clone(),
        email: email.map(|email| email.address.clone()),
        email_verified: claims.email_verified && email.is_some(),
        created_at: now,
        last_sign_in_at: now,
    };
    if !store::insert(tx, &identity, email.map(|email| email.key.as_str())).await? {
        if other.is_none() {
            end_user::delete(tx, organization, &identity.end_user_id).await?;
        }
        return Ok(None);
    }
    if let Some(other) = other {
        let detail = json!({
            "identity": identity.id.as_str(),
            "issuer": identity.issuer,
            "linked_to": other.id.as_str(),
        });
        let entry = Entry { action: "end_user.link", target: identity.end_user_id.as_str(), detail };
        record(cx, tx, organization, entry).await?;
    }
    Ok(Some(identity))
}

/// Returns the claims to show to users: the email address only if it is verified, the picture only if it is `https`.
fn profile(claims: &Claims, email: Option<&Email>) -> Profile {
    let cleaned = claims.name.as_deref().map(name::clean).unwrap_or_default();
    let kept: String = cleaned.chars().take(name::MAX_NAME_CHARS).collect();
    let picture = claims.picture_url.as_deref().filter(|text| text.len() <= MAX_PICTURE_URL);
    let picture = picture.and_then(|text| Url::parse(text).ok()).filter(|url| url.scheme() == "https");
    Profile {
        name: Some(kept).filter(|name| !name.is_empty()),
        picture_url: picture.map(String::from),
        email: email.filter(|_| claims.email_verified).map(|email| email.address.clone()),
    }
}

fn check_identifier(what: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > MAX_IDENTIFIER || text.contains('\0') {
        return Err(Error::invalid(what, format!("The identity provider returned no usable {what}.")));
    }
    Ok(())
}
