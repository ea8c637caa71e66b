//! Tokens that lack a scope (MCP 2025-11-25 and 2026-07-28, "Scope Challenge Handling"; RFC 6750, section 3.1).
//!
//! Only a user can authorize another scope. Therefore, the scope that a server requires is stored with the connection, and the
//! next connection asks for it, in addition to the scope that the last one asked for. Users are told to connect again only if
//! this asks for something new, so a server that rejects whatever its authorization server grants does not make them connect
//! again and again.

use http::StatusCode;
use waypost_core::id::{AgentId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::{Code, Error, Result};
use waypost_store::Conn;
use waypost_store::remote_connection::{self as store, ConnectionKey};
use waypost_upstream::Error as UpstreamError;

use super::challenge::Challenge;
use super::open;
use super::scope::{contains, union};
use crate::Ops;

/// The `reason` of an error if the credentials of a request lack a scope.
pub(crate) const INSUFFICIENT_SCOPE: &str = "insufficient_scope";
/// The message if no more is known about the missing scope.
pub(crate) const LACKS_SCOPE: &str = "The server rejected the request, because the credentials lack a scope.";

/// Returns the scope that a request requires, if the server has rejected it because the token lacks a scope (RFC 6750, section
/// 3.1), and has not processed it. Empty if the server does not state the scope.
pub(crate) fn find_required_scope(error: &UpstreamError) -> Option<String> {
    let UpstreamError::Status { status: StatusCode::FORBIDDEN, challenge: Some(challenge), .. } = error else {
        return None;
    };
    let challenge = Challenge::parse(challenge);
    let is_insufficient = challenge.error.as_deref() == Some(INSUFFICIENT_SCOPE);
    is_insufficient.then(|| union(&[challenge.scope.as_deref()]).unwrap_or_default())
}

/// Returns the error for a request whose token, which has this revision, lacks the scope `required`. The scope is empty
/// if the server does not state it. If connecting again can help, the error contains the scope as `required_scope`, and
/// the next connection of `agent`, or of the organisation, asks for it.
pub(crate) async fn require_scope(
    ops: &Ops,
    instance: &Instance,
    agent: Option<&AgentId>,
    (revision, required): (i64, &str),
) -> Error {
    if required.is_empty() {
        return insufficient(format!("{LACKS_SCOPE} The server does not state which one."));
    }
    match store_required_scope(ops, instance, agent, (revision, required)).await {
        Ok(true) => {
            let message = format!(
                "The server requires the scope `{required}`, which the connection does not have. It must be connected again to \
                 get it."
            );
            insufficient(message).with("required_scope", required)
        }
        Ok(false) => insufficient(format!(
            "The server requires the scope `{required}`. The connection has asked for it already, so the account may not be \
             allowed to have it."
        )),
        Err(error) => error,
    }
}

pub(crate) fn insufficient(message: impl Into<String>) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", INSUFFICIENT_SCOPE)
}

/// Stores that the server requires a scope. Returns `false` if the connection has asked for it already.
async fn store_required_scope(
    ops: &Ops,
    instance: &Instance,
    agent: Option<&AgentId>,
    (revision, required): (i64, &str),
) -> Result<bool> {
    let (organization, key) = (&instance.organization_id, (&instance.id, agent));
    let found = store::find(&mut ops.store.read().await?, organization, key).await?;
    // The rejection says nothing about tokens that have since replaced the one of the request.
    let Some(current) = found.filter(|current| current.revision == revision) else { return Ok(true) };
    if open(ops, &current)?.scope.is_some_and(|requested| contains(&requested, required)) {
        return Ok(false);
    }
    let known = current.required_scope.as_deref();
    // Most calls change nothing.
    if known.is_some_and(|known| contains(known, required)) {
        return Ok(true);
    }
    if let Some(wanted) = union(&[Some(required), known]) {
        let mut tx = ops.store.begin().await?;
        store::require_scope(&mut tx, (organization, key), revision, &wanted).await?;
        tx.commit().await?;
    }
    Ok(true)
}

/// Returns the scope that the next connection asks for in addition to that of the server: the scope that the last one
/// has asked for, and the one that the server has required since. `None` if there is none.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn find_wanted_scope(
    ops: &Ops,
    conn: &mut Conn,
    organization: &OrganizationId,
    key: ConnectionKey<'_>,
) -> Result<Option<String>> {
    let Some(last) = store::find(conn, organization, key).await? else { return Ok(None) };
    // Credentials that cannot be opened are about to be replaced.
    let requested = open(ops, &last).ok().and_then(|credentials| credentials.scope);
    Ok(union(&[last.required_scope.as_deref(), requested.as_deref()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_403_with_a_challenge_states_a_required_scope() {
        let stated = r#"Bearer error="insufficient_scope", scope="read  write read""#;
        for (code, challenge, expected) in [
            (403, stated, Some("read write")),
            (403, "Bearer error=insufficient_scope", Some("")),
            (403, r#"Bearer error="invalid_token", scope="read""#, None),
            (403, r#"Bearer scope="read""#, None),
            (401, stated, None),
            (500, stated, None),
        ] {
            let status = StatusCode::from_u16(code).unwrap();
            let error = UpstreamError::Status { status, retry_after: None, challenge: Some(challenge.to_owned()) };
            assert_eq!(find_required_scope(&error).as_deref(), expected, "{code} {challenge}");
        }
    }
}
