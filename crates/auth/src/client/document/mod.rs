//! Client ID metadata documents: the ID of the client is the URL of a document that describes it
//! (draft-ietf-oauth-client-id-metadata-document-01, AS-7; section numbers are those of that revision).
//!
//! This file validates URLs and documents; [`ClientDocuments`] fetches and caches them.

pub mod availability;
mod fetch;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Map, Value};
use url::Url;
use waypost_content::name;
use waypost_ops::redirect_uri;

pub use fetch::ClientDocuments;

/// The maximum length of a URL, in bytes: of the client ID, which is stored in the database, and of URLs in its
/// document.
const MAX_URL: usize = 1024;
/// The maximum number of redirect URIs of a client.
const MAX_REDIRECT_URIS: usize = 32;

/// The metadata of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientDocument {
    /// The URL of the document, byte for byte.
    pub client_id: String,
    /// The client's self-reported name: cleaned, 1 to 200 characters. Not verified, so it is never shown without the
    /// host.
    pub client_name: String,
    /// The client's home page. `None` if it has none, or if the URL does not start with https://.
    pub client_uri: Option<String>,
    /// The redirect URIs; at least one.
    pub redirect_uris: Vec<String>,
    /// `native` or `web`, if specified.
    pub application_type: Option<String>,
}

/// The reason why a client ID metadata document cannot be used, for the log. Users see [`DocumentError::message`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The client ID is not the URL of a document.
    #[error("The client ID is not a valid URL of a metadata document: {reason}.")]
    Url {
        /// The problem.
        reason: &'static str,
    },
    /// This server does not accept documents.
    #[error(
        "This server does not accept client metadata documents. The application must register with this server instead. Start the sign-in again."
    )]
    Off,
    /// The request failed.
    #[error("{0}")]
    Fetch(Arc<waypost_outbound::Error>),
    /// Too many documents are being fetched.
    #[error("too many documents are being fetched")]
    Busy,
    /// The status is not 200. Redirects are not followed: the document must be at the URL that is its ID (section 4).
    #[error("the response has the status {0}, not 200")]
    Status(u16),
    /// The content type is not JSON.
    #[error("the content type is not JSON")]
    ContentType,
    /// The body is not a JSON object.
    #[error("the body is not a JSON object")]
    Json,
    /// The document describes another client.
    #[error("`client_id` is not the URL of the document")]
    WrongId,
    /// The document has an invalid or forbidden member, or lacks a required one.
    #[error("The client's metadata document cannot be used: {reason}")]
    Invalid {
        /// The problem, as a sentence.
        reason: String,
    },
}

impl DocumentError {
    /// Returns the message that the user sees.
    ///
    /// Anyone can specify any URL. Therefore all failures have the same message until the response is a document that
    /// claims this client ID: the message must not reveal whether a host resolves, to which address, or what responds
    /// there.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Url { .. } | Self::Off | Self::Invalid { .. } => self.to_string(),
            Self::Fetch(_) | Self::Busy | Self::Status(_) | Self::ContentType | Self::Json | Self::WrongId => {
                "The metadata document of this client could not be read from the URL that the client provided. Start the \
                 sign-in again in a minute."
                    .to_owned()
            }
        }
    }
}

/// Whether `client_id` is the URL of a metadata document, as opposed to an ID that was assigned at registration.
#[must_use]
pub fn is_document_url(client_id: &str) -> bool {
    check_url(client_id).is_ok()
}

/// Parses `client_id` as the URL of a document: https, with a path, and without a fragment, user, password or dot
/// segments (section 3). A query is discouraged by the draft, but allowed here.
///
/// # Errors
/// [`DocumentError::Url`] if it is not such a URL.
pub fn check_url(client_id: &str) -> Result<Url, DocumentError> {
    let invalid = |reason| Err(DocumentError::Url { reason });
    if client_id.len() > MAX_URL {
        return invalid("it is too long");
    }
    let Ok(url) = Url::parse(client_id) else { return invalid("it is not a URL") };
    if url.scheme() != "https" {
        return invalid("it does not start with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid("it contains a user or a password");
    }
    if url.fragment().is_some() {
        return invalid("it has a fragment");
    }
    if url.path() == "/" {
        return invalid("it has no path");
    }
    // Parsing removes dot segments in any spelling and normalises the rest. A URL that parsing leaves unchanged has
    // only one spelling, so comparing IDs byte by byte compares clients.
    if url.as_str() != client_id {
        return invalid("it is not in its normalised form");
    }
    Ok(url)
}

impl ClientDocument {
    /// Parses the document that was found at `client_id`. Unknown members are ignored.
    ///
    /// # Errors
    /// [`DocumentError::Json`], [`DocumentError::WrongId`] or [`DocumentError::Invalid`].
    pub fn parse(client_id: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        let mut members: Map<String, Value> = serde_json::from_slice(bytes).map_err(|_| DocumentError::Json)?;
        // RFC 7591, section 2: a member with the value null is treated as absent.
        members.retain(|_, value| !value.is_null());
        if members.get("client_id").and_then(Value::as_str) != Some(client_id) {
            return Err(DocumentError::WrongId);
        }
        check_authentication(&members)?;
        includes(&members, "grant_types", "authorization_code")?;
        includes(&members, "response_types", "code")?;
        let name = text(&members, "client_name")?.ok_or_else(|| missing("client_name"))?;
        let client_uri = text(&members, "client_uri")?.filter(|uri| is_https(uri)).map(str::to_owned);
        let application_type = text(&members, "application_type")?.filter(|kind| matches!(*kind, "native" | "web"));
        Ok(Self {
            client_id: client_id.to_owned(),
            client_name: name::check("client_name", name).map_err(|error| invalid(&error.message))?,
            client_uri,
            redirect_uris: redirect_uris(&members)?,
            application_type: application_type.map(str::to_owned),
        })
    }
}

/// Checks that the client uses no client authentication. A public document cannot contain a shared secret (section
/// 4.1).
fn check_authentication(members: &Map<String, Value>) -> Result<(), DocumentError> {
    if members.contains_key("client_secret") || members.contains_key("client_secret_expires_at") {
        return Err(invalid("It contains a client secret, but the document is public."));
    }
    match text(members, "token_endpoint_auth_method")? {
        None | Some("none") => Ok(()),
        Some(method) if method.starts_with("client_secret_") => {
            Err(invalid("`token_endpoint_auth_method` requires a client secret, but the document is public."))
        }
        Some(_) => Err(invalid("The only supported `token_endpoint_auth_method` is `none`.")),
    }
}

/// Checks that the list `field` contains `required`. An absent member is valid, because its default in RFC 7591
/// contains `required`.
fn includes(members: &Map<String, Value>, field: &'static str, required: &str) -> Result<(), DocumentError> {
    match members.get(field) {
        None => Ok(()),
        Some(Value::Array(values)) if values.iter().any(|value| value.as_str() == Some(required)) => Ok(()),
        Some(_) => Err(invalid(&format!("`{field}` must be a list that contains `{required}`."))),
    }
}

fn redirect_uris(members: &Map<String, Value>) -> Result<Vec<String>, DocumentError> {
    let Some(value) = members.get("redirect_uris") else { return Err(missing("redirect_uris")) };
    let texts = value.as_array().and_then(|values| values.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(uris) = texts.filter(|uris| (1..=MAX_REDIRECT_URIS).contains(&uris.len())) else {
        return Err(invalid(&format!("`redirect_uris` must be a list of 1 to {MAX_REDIRECT_URIS} strings.")));
    };
    if let Some(reason) = uris.iter().find_map(|uri| redirect_uri::check(uri).err()) {
        return Err(invalid(&format!("`redirect_uris` contains an invalid redirect URI: {reason}.")));
    }
    Ok(uris.into_iter().map(str::to_owned).collect())
}

fn is_https(uri: &str) -> bool {
    uri.len() <= MAX_URL && Url::parse(uri).is_ok_and(|url| url.scheme() == "https")
}

fn text<'a>(members: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, DocumentError> {
    match members.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(&format!("`{field}` must be a string."))),
    }
}

fn missing(field: &'static str) -> DocumentError {
    invalid(&format!("`{field}` is missing."))
}

fn invalid(reason: &str) -> DocumentError {
    DocumentError::Invalid { reason: reason.to_owned() }
}
