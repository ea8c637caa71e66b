//! Who signs in: what an issuer says of a person becomes an end user of the organisation.

use serde_json::json;
use url::Url;
use waypost_core::access::{Operation, authorize};
use waypost_core::account::ISSUER;
use waypost_core::caller::Ctx;
use waypost_core::email::{self, Email};
use waypost_core::id::{EndUserId, IdentityId, OrganizationId};
use waypost_core::oauth_config::{OauthConfig, ProviderKind};
use waypost_core::server::{AuthType, Server};
use waypost_core::{Error, Result, name};
use waypost_store::end_user::Profile;
use waypost_store::identity::{self as store, Identity};
use waypost_store::{Tx, end_user, oauth_config};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::tickets;

/// Bytes in the address of a picture at most.
const MAX_PICTURE_URL: usize = 2_048;
/// Bytes in an issuer or a subject at most. A subject of OpenID Connect has 255 (Core 1.0, section 2).
const MAX_IDENTIFIER: usize = 1_024;

/// What an issuer says of the person who signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who says it; `waypost` for the own accounts.
    pub issuer: String,
    /// What the issuer calls them, for ever.
    pub subject: String,
    /// Their e-mail address.
    pub email: Option<String>,
    /// Whether the issuer says that it has verified the address.
    pub email_verified: bool,
    /// Their name.
    pub name: Option<String>,
    /// Where a picture of them is; kept only when it is `https`.
    pub picture_url: Option<String>,
}

/// Who has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUserIdentity {
    /// The end user.
    pub end_user_id: EndUserId,
    /// The identity by which they signed in.
    pub identity_id: IdentityId,
}

/// Who says whom the end users of a server are: Waypost's own accounts, or the server's provider; none when nobody signs
/// in there. Somebody whom another one knows is not signed in: an account that anybody can make must not open a server
/// that asks for the company's own sign-in.
///
/// # Errors
/// `unavailable` when the database is away.
pub async fn find_issuer(ops: &Ops, server: &Server) -> Result<Option<String>> {
    match (server.auth_type, &server.oauth_config_id) {
        (AuthType::PlatformOauth, _) => Ok(Some(ISSUER.to_owned())),
        (AuthType::CustomOauth, Some(id)) => {
            let config = oauth_config::find(&mut ops.db.read().await?, &server.organization_id, id).await?;
            Ok(config.as_ref().and_then(issuer_of))
        }
        _ => Ok(None),
    }
}

/// The issuer of a provider's identities. Plain OAuth has none: its users are those of the host that tells of them.
#[must_use]
pub fn issuer_of(config: &OauthConfig) -> Option<String> {
    if config.kind == ProviderKind::Openid {
        return Some(config.issuer.clone());
    }
    let url = Url::parse(config.userinfo_endpoint.as_deref()?).ok()?;
    Some(format!("oauth2:{}", url.origin().ascii_serialization()))
}

/// The end user of an identity, made when it is seen for the first time. With `link_verified_email` a new identity joins
/// the end user of another one, of another issuer, when both have the same verified address; nothing else links.
///
/// # Errors
/// `not_found` in an organisation that is not the caller's; `forbidden` for members; `invalid_arguments` when the issuer
/// gives no usable subject; when the store fails.
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
        Some(identity) => seen_again(cx, tx, identity, claims, email.as_ref()).await?,
        None => match seen_first(cx, tx, organization, claims, (email.as_ref(), link_verified_email)).await? {
            Some(identity) => identity,
            // Somebody else has just signed the same person in.
            None => {
                let identity = store::find(tx, organization, &claims.issuer, &claims.subject).await?;
                let identity = identity.ok_or_else(|| Error::internal("an identity is there and cannot be found"))?;
                seen_again(cx, tx, identity, claims, email.as_ref()).await?
            }
        },
    };
    let profile = profile(claims, email.as_ref());
    end_user::update_profile(tx, organization, &identity.end_user_id, &profile).await?;
    if let Some(address) = &profile.email {
        tickets::add_email_to_open_tickets(cx, tx, organization, &identity.end_user_id, (address, true)).await?;
    }
    let detail = json!({ "identity": identity.id.as_str(), "issuer": identity.issuer });
    let entry = Entry { action: "end_user.sign_in", target: identity.end_user_id.as_str(), detail };
    record(cx, tx, organization, entry).await?;
    Ok(EndUserIdentity { end_user_id: identity.end_user_id, identity_id: identity.id })
}

async fn seen_again(
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

/// Makes the identity, and its end user unless it links to one; none when somebody else made it at the same moment.
async fn seen_first(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    claims: &Claims,
    (email, link_verified_email): (Option<&Email>, bool),
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

/// What of the claims is shown to people: the address only when it is verified, the picture only from `https`.
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
        return Err(Error::invalid(what, format!("The identity provider gave no usable {what}.")));
    }
    Ok(())
}
