//! OAuth clients that register with an issuer (RFC 7591).

use serde_json::json;
use waypost_content::name;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::base32;
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_client::{ApplicationType, ClientAuthMethod, OauthClient};
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::secret::hash;
use waypost_store::row_limits::{self, LimitedTable, RowLimits};
use waypost_store::{Tx, oauth_client as store};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::redirect_uri;

/// The maximum number of redirect URIs of a client.
const MAX_REDIRECT_URIS: usize = 20;
/// The maximum total length of a client's redirect URIs, in bytes.
const MAX_REDIRECT_BYTES: usize = 4_096;
/// The maximum length of a client's name, in characters.
const MAX_NAME: usize = 200;
/// The lifetime of an unused registration.
pub const UNUSED_LIFETIME_MS: i64 = 24 * 60 * 60 * 1_000;
/// The limits of unused registrations. A class of 300 people behind one address can register three clients each.
pub const BOUNDS: RowLimits = RowLimits { per_network: 1_000, per_scope: 5_000, share: 100 };
/// The number of registrations per server and hour that are recorded in the audit log, whose entries are deleted only
/// by retention.
const RECORDED: u32 = 10;
const HOUR_MS: i64 = 60 * 60 * 1_000;

/// The metadata that a client registers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRegistration {
    /// Its name.
    pub client_name: Option<String>,
    /// Its redirect URIs.
    pub redirect_uris: Vec<String>,
    /// `native` or `web`. Derived from the redirect URIs if absent.
    pub application_type: Option<String>,
    /// Its authentication method. `client_secret_basic` if absent (RFC 7591, section 2).
    pub token_endpoint_auth_method: Option<String>,
    /// Its grant types. `authorization_code` if absent.
    pub grant_types: Option<Vec<String>>,
    /// Its response types. `code` if absent.
    pub response_types: Option<Vec<String>>,
}

/// Registers a client from `network`. Returns its secret unless it is a public client. If [`BOUNDS`] is reached,
/// replaces an older unused registration.
///
/// # Errors
/// `invalid_redirect_uri`, `invalid_client_metadata` (RFC 7591, section 3.2.2); `temporarily_unavailable`.
pub async fn register(
    cx: &Ctx,
    ops: &Ops,
    issuer: &IssuerId,
    network: &str,
    registration: &ClientRegistration,
) -> Result<(OauthClient, Option<String>), OauthError> {
    // Anyone can register a client at the gateway, which belongs to no organisation.
    if let Some(organization) = issuer.organization_id() {
        authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    }
    let (application_type, auth_method) = check(registration)?;
    let random = || {
        let mut bytes = [0_u8; 20];
        cx.random.fill(&mut bytes);
        base32(&bytes)
    };
    let secret = (auth_method != ClientAuthMethod::None).then(|| format!("wps_{}", random()));
    let name = registration.client_name.as_deref().map(name::clean).unwrap_or_default();
    let name: String = name.chars().take(MAX_NAME).collect();
    let now = cx.now();
    let client = OauthClient {
        issuer_id: issuer.clone(),
        client_id: format!("client_{}", random()),
        name: if name.is_empty() { "An unnamed application".to_owned() } else { name },
        redirect_uris: registration.redirect_uris.clone(),
        application_type,
        auth_method,
        secret_hash: secret.as_deref().map(hash),
        created_at: now,
        last_used_at: now,
        used_at: None,
    };
    let mut tx = ops.store.begin().await.map_err(waypost_core::Error::from)?;
    row_limits::evict_excess(&mut tx, LimitedTable::OauthClients, issuer.as_str(), network, BOUNDS)
        .await
        .map_err(waypost_core::Error::from)?;
    store::insert(&mut tx, &client, network).await.map_err(waypost_core::Error::from)?;
    record_registration(cx, &mut tx, &client).await?;
    tx.commit().await.map_err(waypost_core::Error::from)?;
    Ok((client, secret))
}

/// Records a registration, with IDs and lengths only, because the client is not authenticated and audit events are
/// deleted only by retention. For the same reason, only the first [`RECORDED`] registrations of an hour are recorded;
/// using a client is always recorded (`grant.create`). A registration at the gateway belongs to no organisation, so no
/// audit log contains it.
async fn record_registration(cx: &Ctx, tx: &mut Tx, client: &OauthClient) -> waypost_core::Result<()> {
    let IssuerId::Server { organization_id, server_id } = &client.issuer_id else { return Ok(()) };
    let before = store::find_nth_newest_unused(tx, server_id, RECORDED + 1).await?;
    if before.is_some_and(|at| cx.now().since(at) < HOUR_MS) {
        return Ok(());
    }
    let detail = json!({
        "server_id": server_id.as_str(),
        "name_length": client.name.chars().count(),
        "redirect_uri_lengths": client.redirect_uris.iter().map(String::len).collect::<Vec<_>>(),
    });
    let entry = Entry { action: "client.register", target: &client.client_id, detail };
    record(cx, tx, organization_id, entry).await
}

/// Returns the registered client `client_id` of an issuer. Returns `None` if it does not exist or has expired unused.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn find(
    cx: &Ctx,
    ops: &Ops,
    issuer: &IssuerId,
    client_id: &str,
) -> waypost_core::Result<Option<OauthClient>> {
    let unused_before = cx.now().plus(1 - UNUSED_LIFETIME_MS);
    let mut conn = ops.store.read().await?;
    Ok(store::find(&mut conn, issuer, client_id, unused_before).await?)
}

fn check(registration: &ClientRegistration) -> Result<(ApplicationType, ClientAuthMethod), OauthError> {
    let uris = &registration.redirect_uris;
    let invalid = |code, description: String| Err(OauthError::new(code, description));
    if uris.is_empty() || uris.len() > MAX_REDIRECT_URIS {
        let reason = format!("redirect_uris must have 1 to {MAX_REDIRECT_URIS} entries, but has {}", uris.len());
        return invalid(OauthCode::InvalidRedirectUri, reason);
    }
    if uris.iter().map(String::len).sum::<usize>() > MAX_REDIRECT_BYTES {
        let reason = format!("redirect_uris must not exceed {MAX_REDIRECT_BYTES} bytes in total");
        return invalid(OauthCode::InvalidRedirectUri, reason);
    }
    for uri in uris {
        if let Err(reason) = redirect_uri::check(uri) {
            return invalid(OauthCode::InvalidRedirectUri, reason);
        }
    }
    let has = |list: &Option<Vec<String>>, name: &str| list.as_ref().is_none_or(|list| list.iter().any(|n| n == name));
    if !has(&registration.grant_types, "authorization_code") || !has(&registration.response_types, "code") {
        let reason = "grant_types must contain authorization_code, and response_types must contain code";
        return invalid(OauthCode::InvalidClientMetadata, reason.to_owned());
    }
    let native = || uris.iter().any(|uri| !uri.starts_with("https:"));
    let application_type = match registration.application_type.as_deref().map(str::parse) {
        None if native() => ApplicationType::Native,
        None => ApplicationType::Web,
        Some(Ok(kind)) => kind,
        Some(Err(_)) => {
            return invalid(OauthCode::InvalidClientMetadata, "application_type must be native or web".to_owned());
        }
    };
    let auth_method = match registration.token_endpoint_auth_method.as_deref().map(str::parse) {
        None => ClientAuthMethod::Basic,
        Some(Ok(method)) => method,
        Some(Err(_)) => {
            let reason = "token_endpoint_auth_method must be none, client_secret_basic or client_secret_post";
            return invalid(OauthCode::InvalidClientMetadata, reason.to_owned());
        }
    };
    Ok((application_type, auth_method))
}
