//! OAuth clients that register themselves at a server (RFC 7591).

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::base32;
use waypost_core::name;
use waypost_core::oauth_client::{ApplicationType, ClientAuthMethod, OauthClient};
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::secret::hash;
use waypost_core::server::Server;
use waypost_store::open_rows::{self, LimitedTable, RowLimits};
use waypost_store::{Tx, oauth_client as store};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::redirect_uri;

/// Redirect URIs of a client at most.
const MAX_REDIRECT_URIS: usize = 20;
/// Bytes of all redirect URIs of a client at most.
const MAX_REDIRECT_BYTES: usize = 4_096;
/// Characters of a client's name at most.
const MAX_NAME: usize = 200;
/// A registration that was not used expires after this long.
pub const UNUSED_LIFETIME_MS: i64 = 24 * 60 * 60 * 1_000;
/// Registrations that are kept while they are not used. A class of 300 people behind one address has room for three each.
pub const BOUNDS: RowLimits = RowLimits { per_network: 1_000, per_scope: 5_000, share: 100 };
/// Registrations of a server within an hour that have an entry in the audit log, which nobody may delete.
const RECORDED: u32 = 10;
const HOUR_MS: i64 = 60 * 60 * 1_000;

/// What a client says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRegistration {
    /// Its name.
    pub client_name: Option<String>,
    /// Where it may have browsers sent.
    pub redirect_uris: Vec<String>,
    /// `native` or `web`.
    pub application_type: Option<String>,
    /// How it proves who it is; `client_secret_basic` when it does not say (RFC 7591, section 2).
    pub token_endpoint_auth_method: Option<String>,
    /// The grants that it uses; `authorization_code` when it does not say.
    pub grant_types: Option<Vec<String>>,
    /// The response types that it uses; `code` when it does not say.
    pub response_types: Option<Vec<String>>,
}

/// Registers a client from `network`; gives it a secret unless it is a public one. If there are as many unused registrations as
/// [`BOUNDS`] allows, it replaces an older one.
///
/// # Errors
/// `invalid_redirect_uri`, `invalid_client_metadata` (RFC 7591, section 3.2.2); `temporarily_unavailable`.
pub async fn register(
    cx: &Ctx,
    ops: &Ops,
    server: &Server,
    network: &str,
    registration: &ClientRegistration,
) -> Result<(OauthClient, Option<String>), OauthError> {
    authorize(&cx.caller, Operation::EndUserSignIn, &server.organization_id)?;
    let (application_type, auth_method) = check(registration)?;
    let random = || {
        let mut bytes = [0_u8; 20];
        cx.random.fill(&mut bytes);
        base32(&bytes)
    };
    let secret = (auth_method != ClientAuthMethod::None).then(|| format!("wps_{}", random()));
    let shown = registration.client_name.as_deref().map(name::clean).unwrap_or_default();
    let shown: String = shown.chars().take(MAX_NAME).collect();
    let now = cx.now();
    let client = OauthClient {
        server_id: server.id.clone(),
        client_id: format!("client_{}", random()),
        organization_id: server.organization_id.clone(),
        name: if shown.is_empty() { "An application without a name".to_owned() } else { shown },
        redirect_uris: registration.redirect_uris.clone(),
        application_type,
        auth_method,
        secret_hash: secret.as_deref().map(hash),
        created_at: now,
        last_used_at: now,
        used_at: None,
    };
    let mut tx = ops.db.begin().await.map_err(waypost_core::Error::from)?;
    let key = (server.id.as_str(), network);
    open_rows::evict_excess(&mut tx, LimitedTable::OauthClients, key, BOUNDS)
        .await
        .map_err(waypost_core::Error::from)?;
    store::insert(&mut tx, &client, network).await.map_err(waypost_core::Error::from)?;
    record_registration(cx, &mut tx, &client).await?;
    tx.commit().await.map_err(waypost_core::Error::from)?;
    Ok((client, secret))
}

/// Records a registration, with IDs and lengths only: whoever registers has not signed in, and nobody may delete from the audit
/// log. For the same reason only the first [`RECORDED`] of an hour have an entry; using a client is always recorded
/// (`grant.create`).
async fn record_registration(cx: &Ctx, tx: &mut Tx, client: &OauthClient) -> waypost_core::Result<()> {
    let before = store::find_nth_newest_unused(tx, &client.server_id, RECORDED + 1).await?;
    if before.is_some_and(|at| cx.now().since(at) < HOUR_MS) {
        return Ok(());
    }
    let detail = json!({
        "server_id": client.server_id.as_str(),
        "name_length": client.name.chars().count(),
        "redirect_uri_lengths": client.redirect_uris.iter().map(String::len).collect::<Vec<_>>(),
    });
    let entry = Entry { action: "client.register", target: &client.client_id, detail };
    record(cx, tx, &client.organization_id, entry).await
}

/// The registered client `client_id` of a server; `None` if there is none, or it was not used within a day.
///
/// # Errors
/// `unavailable` if the database is away.
pub async fn find(cx: &Ctx, ops: &Ops, server: &Server, client_id: &str) -> waypost_core::Result<Option<OauthClient>> {
    let unused_before = cx.now().plus(1 - UNUSED_LIFETIME_MS);
    let mut conn = ops.db.read().await?;
    Ok(store::find(&mut conn, &server.organization_id, &server.id, client_id, unused_before).await?)
}

fn check(registration: &ClientRegistration) -> Result<(ApplicationType, ClientAuthMethod), OauthError> {
    let uris = &registration.redirect_uris;
    let refused = |code, description: String| Err(OauthError::new(code, description));
    if uris.is_empty() || uris.len() > MAX_REDIRECT_URIS {
        let why = format!("redirect_uris has {} entries, it needs 1 to {MAX_REDIRECT_URIS}", uris.len());
        return refused(OauthCode::InvalidRedirectUri, why);
    }
    if uris.iter().map(String::len).sum::<usize>() > MAX_REDIRECT_BYTES {
        let why = format!("redirect_uris has more than {MAX_REDIRECT_BYTES} bytes");
        return refused(OauthCode::InvalidRedirectUri, why);
    }
    for uri in uris {
        if let Err(why) = redirect_uri::check(uri) {
            return refused(OauthCode::InvalidRedirectUri, why);
        }
    }
    let has = |list: &Option<Vec<String>>, name: &str| list.as_ref().is_none_or(|list| list.iter().any(|n| n == name));
    if !has(&registration.grant_types, "authorization_code") || !has(&registration.response_types, "code") {
        let why =
            "this server gives out authorization codes: grant_types has authorization_code, response_types has code";
        return refused(OauthCode::InvalidClientMetadata, why.to_owned());
    }
    let native = || uris.iter().any(|uri| !uri.starts_with("https:"));
    let application_type = match registration.application_type.as_deref().map(str::parse) {
        None if native() => ApplicationType::Native,
        None => ApplicationType::Web,
        Some(Ok(kind)) => kind,
        Some(Err(_)) => {
            return refused(OauthCode::InvalidClientMetadata, "application_type is native or web".to_owned());
        }
    };
    let auth_method = match registration.token_endpoint_auth_method.as_deref().map(str::parse) {
        None => ClientAuthMethod::Basic,
        Some(Ok(method)) => method,
        Some(Err(_)) => {
            let why = "token_endpoint_auth_method is none, client_secret_basic or client_secret_post";
            return refused(OauthCode::InvalidClientMetadata, why.to_owned());
        }
    };
    Ok((application_type, auth_method))
}
