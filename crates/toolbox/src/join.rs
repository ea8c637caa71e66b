//! Joining: registers the key of this machine with the single-use token.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use url::{Host, Url};
use waypost_outbound::{Limits, Route};
use waypost_toolbox_proto::handshake::{JOIN_PATH, JoinRequest, JoinResponse, Versions};

use crate::files;
use crate::identity::{Identity, IdentityError, SigningKey};

/// The name of the file with the key of a join that has not succeeded. A repeated join sends the same key: if only the
/// response was lost, the control plane can recognise it.
const PENDING_FILE: &str = "join.json";
const LIMITS: Limits = Limits { max_bytes: 64 * 1024, timeout: Duration::from_secs(30), redirects: 0 };

/// The parameters with which a machine joins.
pub struct Join {
    /// The URL of the control plane, as the operator entered it.
    pub url: String,
    /// The token (`wpt_…`).
    pub token: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Additional root certificates in PEM.
    pub ca_pem: Option<Vec<u8>>,
}

/// Does not show the token.
impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join").field("url", &self.url).field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// Why joining failed. The message is for the operator of the machine.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The URL cannot be used.
    #[error("The URL of the control plane cannot be used: {0}.")]
    Url(&'static str),
    /// The machine has already joined.
    #[error(
        "This machine has already joined {url} as toolbox `{name}` ({toolbox_id}). To join again, revoke that toolbox, remove `{path}`, and use a new token. To run two toolboxes on one machine, use another data directory."
    )]
    AlreadyJoined {
        /// The URL of the control plane.
        url: Url,
        /// The name of the toolbox.
        name: String,
        /// The ID of the toolbox.
        toolbox_id: String,
        /// The file of the identity.
        path: PathBuf,
    },
    /// The identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The request failed.
    #[error(transparent)]
    Request(#[from] waypost_outbound::Error),
    /// The control plane rejected the token.
    #[error("The control plane rejected the request with status {status}: {message}")]
    Rejected {
        /// The status.
        status: u16,
        /// The message of the control plane.
        message: String,
    },
    /// The response does not come from a control plane.
    #[error("The response is not the one of a Waypost server. Check the URL.")]
    Response,
}

/// Registers this machine, and stores its identity.
///
/// # Errors
/// Returns a [`JoinError`]. The machine may be registered nevertheless if the response was lost or could not be stored;
/// a repeated join then sends the same key.
pub async fn join(join: Join) -> Result<Identity, JoinError> {
    let url = parse_url(&join.url)?;
    match Identity::load(&join.data_dir) {
        Err(IdentityError::NotJoined) => {}
        Err(error) => return Err(error.into()),
        Ok(Identity { url, name, toolbox_id, .. }) => {
            let path = join.data_dir.join("identity.json");
            return Err(JoinError::AlreadyJoined { url, name, toolbox_id, path });
        }
    }
    let key = pending_key(&join.data_dir)?;
    let request = JoinRequest {
        token: join.token.trim().to_owned(),
        public_key: key.public_key().to_owned(),
        protocol: Versions::OWN,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let joined = send(&url, &request, join.ca_pem.as_deref()).await?;
    let identity = Identity::new(joined.toolbox_id, joined.name, url, key);
    identity.save(&join.data_dir)?;
    // The key is now stored in the identity.
    let _ = std::fs::remove_file(join.data_dir.join(PENDING_FILE));
    Ok(identity)
}

async fn send(url: &Url, request: &JoinRequest, ca_pem: Option<&[u8]>) -> Result<JoinResponse, JoinError> {
    #[expect(clippy::disallowed_methods, reason = "the operator of the machine typed the URL")]
    let route = match ca_pem {
        Some(pem) => Route::unguarded_with_roots(url, pem)?,
        None => Route::unguarded(url)?,
    };
    let target = url.join(JOIN_PATH).map_err(|_| JoinError::Url("it has no host"))?;
    let body = serde_json::to_vec(request).map_err(|_| JoinError::Response)?;
    let request = Request::post(target.as_str()).header(CONTENT_TYPE, "application/json").body(body);
    let response = route.send(request.map_err(|_| JoinError::Url("it is not valid"))?, LIMITS).await?;
    let status = response.status();
    if status.is_success() {
        return serde_json::from_slice(response.body()).map_err(|_| JoinError::Response);
    }
    if status.is_redirection() {
        return Err(JoinError::Url("the server redirects to another address, which is probably the one to use"));
    }
    let message = serde_json::from_slice::<Problem>(response.body()).map(|problem| problem.detail).unwrap_or_default();
    let message = if message.is_empty() { "The token may be invalid, used or expired.".to_owned() } else { message };
    Err(JoinError::Rejected { status: status.as_u16(), message: message.chars().take(1_000).collect() })
}

/// Problem details (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
}

/// Returns the key of a previous attempt, or generates and stores a new one.
fn pending_key(data_dir: &Path) -> Result<SigningKey, IdentityError> {
    let path = data_dir.join(PENDING_FILE);
    if let Some(key) = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok(key);
    }
    let key = SigningKey::generate()?;
    let content = serde_json::to_vec(&key).map_err(io::Error::from);
    let saved = files::create_folder(data_dir).and(content).and_then(|content| files::replace(&path, &content));
    saved.map_err(|error| IdentityError::File { path, error })?;
    Ok(key)
}

/// Parses the URL of a control plane, which must not have a path. Plain HTTP is accepted for loopback only.
fn parse_url(text: &str) -> Result<Url, JoinError> {
    let url = Url::parse(text.trim()).map_err(|_| JoinError::Url("it is not a URL"))?;
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(JoinError::Url("it has no host")),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        "http" => return Err(JoinError::Url("it must begin with https://, except for a server on this machine")),
        _ => return Err(JoinError::Url("it must begin with https://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(JoinError::Url("it contains a user name or password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(JoinError::Url(
            "it must not have a path. Enter only the scheme, the host and, if needed, the port",
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_accepted_for_loopback_only() {
        for url in ["https://waypost.example", "http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:80"] {
            assert!(parse_url(url).is_ok(), "{url}");
        }
        for url in [
            "http://waypost.example",
            "http://10.0.0.1",
            "https://waypost.example/path",
            "https://user:password@waypost.example",
            "https://waypost.example/?a=b",
            "ws://localhost",
            "waypost.example",
            "data:text/plain,x",
        ] {
            assert!(matches!(parse_url(url), Err(JoinError::Url(_))), "{url}");
        }
    }

    #[test]
    fn the_token_is_not_shown() {
        let join = Join { url: "u".into(), token: "wpt_secret".into(), data_dir: "d".into(), ca_pem: None };
        assert!(!format!("{join:?}").contains("wpt_"));
    }
}
