//! Identification of end users. On a server with sign-in, only the subject of the token identifies the user. On other
//! servers, the user is identified by the tracking ID of the personal URL, an explicit handle, or the protocol session,
//! in this order.
//!
//! A session implies a handle, which is derived from the session's random ID with the installation's secret. A client
//! that loses its session and passes the handle is therefore recognised as the same user, and nothing is stored twice.

use waypost_content::guidance::{ToolFlow, UserIdentity};
use waypost_core::caller::Ctx;
use waypost_core::email::Email;
use waypost_core::id::{EndUserId, OauthGrantId, SessionId, base32};
use waypost_core::scope::Scopes;
use waypost_core::secret::{SecretKey, hash};
use waypost_core::server::{AuthType, Server};
use waypost_core::{Code, Error, Result};
use waypost_store::progress::NewEndUser;
use waypost_store::recorder::RecorderEntry;
use waypost_store::session::NewSession;
use waypost_store::{end_user, session};

pub use crate::caches::AnonymousKey;
use crate::caches::KnownUser;
use crate::hosting::Hosting;
use crate::tickets::{self, TicketEmail};
use crate::{sessions, try_it};

/// The prefix of every handle.
pub const HANDLE_PREFIX: &str = "wph_";
/// The number of random bytes in a handle: 128 bits.
const HANDLE_BYTES: usize = 16;
/// The minimum interval at which the use of a session is recorded.
pub(crate) const USED_EVERY_MS: i64 = 60_000;

/// The credentials of a request, by precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A valid token of this server, and the handle or session sent alongside.
    Subject(Subject, Box<Credentials>),
    /// The tracking ID of the personal URL.
    Tracking(String),
    /// A handle in the arguments.
    Handle(String),
    /// The handle of a valid session, from [`session_handle`].
    Session(String),
    /// No credentials.
    Nothing,
}

/// The subject of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The end user.
    pub end_user_id: EndUserId,
    /// The token's grant.
    pub grant_id: OauthGrantId,
    /// The token's scopes.
    pub scopes: Scopes,
}

/// A client's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The protocol revision that it uses.
    pub protocol_version: Option<String>,
}

/// The identified caller.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The end user, or the ID of `new_end_user`. `None` if the user is unknown and is not created.
    pub end_user_id: Option<EndUserId>,
    /// The session that the user's handle identifies. `None` if the user has no handle.
    pub session_id: Option<SessionId>,
    /// The handle to return, for anonymous users.
    pub handle: Option<String>,
    /// The end user to create with the first change.
    pub new_end_user: Option<NewEndUser>,
    /// The session to create with the first change.
    pub new_session: Option<NewSession>,
}

/// Returns the key of anonymous credentials. Returns `None` for a token and for no credentials.
fn key_of(server: &Server, credentials: &Credentials) -> Option<AnonymousKey> {
    match credentials {
        Credentials::Tracking(id) => Some(AnonymousKey::Tracking(server.organization_id.clone(), id.clone())),
        Credentials::Handle(handle) | Credentials::Session(handle) => {
            Some(AnonymousKey::Handle(server.id.clone(), hash(handle)))
        }
        Credentials::Nothing | Credentials::Subject(..) => None,
    }
}

/// Returns the key that a rate limit counts for a request with these credentials, and whether this process knows that
/// it has stored progress. Returns `None` if the credentials are not anonymous. Does not query the database, because it
/// decides whether a query is allowed.
#[must_use]
pub fn anonymous_key(hosting: &Hosting, server: &Server, credentials: &Credentials) -> Option<(AnonymousKey, bool)> {
    let key = key_of(server, credentials)?;
    // Test IDs are signed.
    let is_test = matches!(credentials, Credentials::Tracking(id) if try_it::is_test_id(id));
    let is_known = is_test || hosting.identities.stored.get(&key).is_some();
    Some((key, is_known))
}

/// Remembers that the new user of a call has stored progress.
pub(crate) fn remember_new(hosting: &Hosting, server: &Server, credentials: &Credentials, identity: &Identity) {
    let key = match &identity.handle {
        Some(handle) => Some(AnonymousKey::Handle(server.id.clone(), hash(handle))),
        None => key_of(server, credentials),
    };
    if let Some(key) = key {
        hosting.identities.stored.insert(key, ());
    }
}

/// Formats a handle from random bytes.
fn format_handle(bytes: &[u8]) -> String {
    format!("{HANDLE_PREFIX}{}", base32(bytes))
}

/// Returns the handle of the session with these random bytes that was signed with `secret`.
#[must_use]
pub fn session_handle(secret: &SecretKey, session: &[u8]) -> String {
    format_handle(&secret.sign("handle of a session", session)[..HANDLE_BYTES])
}

/// Returns the hash of the handle, explicit or implied by a session. Returns `None` if there is no handle.
pub(crate) fn handle_hash(credentials: &Credentials) -> Option<String> {
    match credentials {
        Credentials::Handle(handle) | Credentials::Session(handle) => Some(hash(handle)),
        Credentials::Subject(..) | Credentials::Tracking(_) | Credentials::Nothing => None,
    }
}

/// Returns the error of a call that requires sign-in.
pub(crate) fn sign_in_required() -> Error {
    Error::new(Code::SignInRequired, "Sign in to this server, then call again.")
}

/// Stores the email address that the user claims to have, on a server that asks for one: for a new user together with
/// the user, for an existing user immediately. A claimed email address never identifies, links or authenticates a user.
///
/// # Errors
/// `email_required` if `email` is `None` and the user has not claimed one; `unavailable` if the database cannot be
/// reached.
pub(crate) async fn claim_email(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    identity: &mut Identity,
    email: Option<&Email>,
) -> Result<()> {
    if server.auth_type != AuthType::CollectEmail {
        return Ok(());
    }
    let required = || {
        let message = "This server requires the user's email address before a walkthrough starts. Ask the user for it, \
                       then call again with `email`.";
        Error::new(Code::EmailRequired, message).with("field", "email")
    };
    if let Some(new) = &mut identity.new_end_user {
        new.claimed_email = Some(email.ok_or_else(required)?.address.clone());
        return Ok(());
    }
    let (Some(id), organization) = (&identity.end_user_id, &server.organization_id) else { return Ok(()) };
    let known = end_user::find_claimed_email(&mut hosting.read().await?, organization, id).await?;
    match email {
        None if known.is_none() => Err(required()),
        Some(email) if known.as_ref() != Some(&email.address) => {
            let mut tx = hosting.ops.store.begin().await?;
            end_user::set_claimed_email(&mut tx, organization, id, &email.address).await?;
            let email = TicketEmail { address: email.address.clone(), verified: false };
            tickets::add_email_to_open_tickets(cx, &mut tx, organization, id, &email).await?;
            Ok(tx.commit().await?)
        }
        _ => Ok(()),
    }
}

/// Checks that the user of a token still exists: token lookups are cached for a second, and the user may have been
/// deleted in the meantime.
///
/// # Errors
/// `sign_in_required` if the user does not exist; `unavailable` if the database cannot be reached.
pub(crate) async fn check_subject(hosting: &Hosting, server: &Server, credentials: &Credentials) -> Result<()> {
    let Credentials::Subject(subject, _) = credentials else { return Ok(()) };
    let mut conn = hosting.read().await?;
    if end_user::exists(&mut conn, &server.organization_id, &subject.end_user_id).await? {
        Ok(())
    } else {
        Err(sign_in_required())
    }
}

/// Identifies the caller. Changes nothing.
///
/// # Errors
/// `handle_unknown` if the handle is unknown on this server or has expired; `unavailable` if the database cannot be
/// reached.
pub(crate) async fn resolve(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    credentials: &Credentials,
) -> Result<Identity> {
    let known = |end_user_id| Identity { end_user_id, ..Identity::default() };
    let handle = match credentials {
        Credentials::Subject(subject, _) => return Ok(known(Some(subject.end_user_id.clone()))),
        _ if server.auth_type.has_sign_in() => return Ok(known(None)),
        Credentials::Nothing => None,
        Credentials::Tracking(tracking_id) => {
            let end_user_id = find_tracked(hosting, server, tracking_id).await?;
            return Ok(known(end_user_id));
        }
        Credentials::Handle(handle) | Credentials::Session(handle) => Some(handle.clone()),
    };
    let (end_user_id, session_id) = match &handle {
        Some(handle) => find_by_handle(cx, hosting, server, handle).await?.unzip(),
        None => (None, None),
    };
    if end_user_id.is_none() && matches!(credentials, Credentials::Handle(_)) {
        let start = match server.toolset.into() {
            ToolFlow::Guided => "select_walkthrough",
            ToolFlow::Stepwise => "complete_step",
        };
        let message = format!(
            "This progress_handle is unknown on this server or has expired, which happens 90 days after its last use. \
             Check it for typos; to start again, call {start} without progress_handle, which returns a new one."
        );
        return Err(Error::new(Code::HandleUnknown, message));
    }
    Ok(Identity { end_user_id, session_id: session_id.flatten(), handle, ..Identity::default() })
}

/// Returns how the user was identified, for the part of a tool result that explains the handle. `identity` must have
/// been resolved from `credentials`.
#[must_use]
pub(crate) fn describe_user(server: &Server, credentials: &Credentials, identity: &Identity) -> UserIdentity {
    let by_handle = !server.auth_type.has_sign_in() && !matches!(credentials, Credentials::Tracking(_));
    match (&identity.end_user_id, &identity.handle) {
        _ if !by_handle => UserIdentity::Known,
        (Some(_), Some(handle)) => UserIdentity::Handle(handle.clone()),
        _ => UserIdentity::Unknown,
    }
}

/// Identifies the caller, and prepares a new end user if the caller is unknown.
///
/// # Errors
/// The same as for [`resolve`]; `sign_in_required` if the server requires sign-in and the user is not signed in.
pub(crate) async fn resolve_or_prepare(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    credentials: &Credentials,
    client: &ClientInfo,
) -> Result<Identity> {
    let mut identity = resolve(cx, hosting, server, credentials).await?;
    if identity.end_user_id.is_some() {
        return Ok(identity);
    }
    if server.auth_type.has_sign_in() {
        return Err(sign_in_required());
    }
    if let (Credentials::Session(_), Some(handle)) = (credentials, &identity.handle)
        && session::is_joined(&mut hosting.read().await?, &server.organization_id, &hash(handle)).await?
    {
        // The user of this session has signed in since, so the session no longer identifies them. A new user gets a new
        // handle.
        identity.handle = None;
    }
    let now = cx.now();
    let id = EndUserId::new(now, &*cx.random);
    let tracking_id = match credentials {
        Credentials::Tracking(tracking_id) => Some(tracking_id.clone()),
        _ => None,
    };
    if tracking_id.is_none() {
        let handle = identity.handle.take().unwrap_or_else(|| {
            let mut bytes = [0_u8; HANDLE_BYTES];
            cx.random.fill(&mut bytes);
            format_handle(&bytes)
        });
        let session_id = sessions::id_for_handle(&server.id, &handle);
        identity.session_id = Some(session_id.clone());
        identity.new_session = Some(NewSession {
            id: session_id,
            organization_id: server.organization_id.clone(),
            server_id: server.id.clone(),
            end_user_id: id.clone(),
            handle_hash: Some(hash(&handle)),
            client_name: client.name.clone(),
            client_version: client.version.clone(),
            protocol_version: client.protocol_version.clone(),
            created_at: now,
            last_used_at: now,
        });
        identity.handle = Some(handle);
    }
    let is_test = tracking_id.as_deref().is_some_and(try_it::is_test_id);
    identity.new_end_user = Some(NewEndUser {
        is_test,
        id: id.clone(),
        organization_id: server.organization_id.clone(),
        tracking_id,
        claimed_email: None,
        created_at: now,
    });
    identity.end_user_id = Some(id);
    Ok(identity)
}

/// Removes a cached lookup, so that the next call queries the database.
pub(crate) fn forget(hosting: &Hosting, server: &Server, credentials: &Credentials) {
    if let Some(key) = key_of(server, credentials) {
        hosting.identities.fresh.invalidate(&key);
    }
}

async fn find_tracked(hosting: &Hosting, server: &Server, tracking_id: &str) -> Result<Option<EndUserId>> {
    let key = AnonymousKey::Tracking(server.organization_id.clone(), tracking_id.to_owned());
    if let Some(known) = hosting.identities.fresh.get(&key) {
        return Ok(Some(known.end_user_id));
    }
    let mut conn = hosting.read().await?;
    let end_user = end_user::find_by_tracking_id(&mut conn, &server.organization_id, tracking_id).await?;
    if let Some(end_user_id) = &end_user {
        let known = KnownUser { end_user_id: end_user_id.clone(), session_id: None, last_used_at: hosting.clock.now() };
        hosting.identities.insert(key, known);
    }
    Ok(end_user)
}

/// Returns the end user and the session that a handle identifies.
async fn find_by_handle(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    handle: &str,
) -> Result<Option<(EndUserId, Option<SessionId>)>> {
    let handle_hash = hash(handle);
    let key = AnonymousKey::Handle(server.id.clone(), handle_hash.clone());
    let now = cx.now();
    let found = match hosting.identities.fresh.get(&key) {
        Some(known) if now.since(known.last_used_at) < session::LIFETIME_MS => Some(known),
        _ => {
            let mut conn = hosting.read().await?;
            session::find(&mut conn, &server.organization_id, &server.id, &handle_hash, now).await?.map(|session| {
                let session::Session { id, end_user_id, last_used_at } = session;
                KnownUser { end_user_id, session_id: Some(id), last_used_at }
            })
        }
    };
    let Some(mut known) = found else { return Ok(None) };
    if now.since(known.last_used_at) >= USED_EVERY_MS {
        hosting.recorder.record(RecorderEntry::HandleUse { handle_hash, at: now }).await;
        known.last_used_at = now;
    }
    hosting.identities.insert(key, known.clone());
    Ok(Some((known.end_user_id, known.session_id)))
}

/// Returns the end user of a failed call, for its record: the first existing user that one of `candidates` identifies.
/// Creates no user and never fails.
pub async fn identify_failed_call(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    candidates: impl IntoIterator<Item = Credentials>,
) -> Option<Identity> {
    for credentials in candidates {
        match resolve(cx, hosting, server, &credentials).await {
            Ok(identity) if identity.end_user_id.is_some() => return Some(identity),
            // Do not wait for an unavailable database again.
            Err(error) if error.code == Code::Unavailable => return None,
            _ => {}
        }
    }
    None
}

/// Deletes expired sessions, a limited number per call so that the writer is blocked only briefly. Returns the number
/// of deleted sessions.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn delete_expired(db: &waypost_store::Db, clock: &dyn waypost_core::Clock) -> Result<u64> {
    const BATCH: i64 = 500;
    let mut tx = db.begin().await?;
    let deleted = session::delete_expired(&mut tx, clock.now(), BATCH).await?;
    tx.commit().await?;
    Ok(deleted)
}
