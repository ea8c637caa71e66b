//! Client id metadata documents: a client whose id is a URL, at which it describes itself
//! (draft-ietf-oauth-client-id-metadata-document-01, AS-7; section numbers are those of that revision).
//!
//! This file is what can be said of a URL and of a document; [`Documents`] fetches and keeps them.

pub mod availability;
mod fetch;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Map, Value};
use url::Url;
use waypost_core::name;
use waypost_ops::redirect_uri;

pub use fetch::Documents;

/// Bytes in a URL at most: the client's id, which is kept in the database, and those in its document.
const MAX_URL: usize = 1024;
/// Redirect URIs of one client at most.
const MAX_REDIRECT_URIS: usize = 32;

/// A client, as its document describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientDocument {
    /// The URL of the document, byte for byte.
    pub client_id: String,
    /// What the client calls itself: cleaned, 1 to 200 characters. A claim, so it is never shown without the host.
    pub client_name: String,
    /// The client's home page, when it names one that begins with https://.
    pub client_uri: Option<String>,
    /// Where its codes may be sent; at least one.
    pub redirect_uris: Vec<String>,
    /// `native` or `web`, when it says so.
    pub application_type: Option<String>,
}

/// Why a client id metadata document cannot be used, for the log. Users see [`DocumentError::message`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The client's id is not the URL of a document.
    #[error("The client's id is not a usable address of a metadata document: {why}.")]
    Url {
        /// What is wrong with it.
        why: &'static str,
    },
    /// This server accepts no documents.
    #[error(
        "This server does not accept client metadata documents. The application has to register here instead; start the sign-in again."
    )]
    Off,
    /// There is no response.
    #[error("{0}")]
    Fetch(Arc<waypost_outbound::Error>),
    /// Too many documents are being fetched.
    #[error("too many documents are being fetched")]
    Busy,
    /// The response is not successful. Redirects are not followed: the id is where the document is (section 4).
    #[error("the response has the status {0}, not 200")]
    Status(u16),
    /// The content type is not JSON.
    #[error("the content type is not JSON")]
    ContentType,
    /// The body is not a JSON object.
    #[error("the body is not a JSON object")]
    Json,
    /// The document is about another client.
    #[error("`client_id` is not the address of the document")]
    WrongId,
    /// The document of this client has a member that must not be there, or lacks one.
    #[error("The client's metadata document cannot be used: {why}")]
    Invalid {
        /// What is wrong, as a sentence.
        why: String,
    },
}

impl DocumentError {
    /// The message for the page that the user sees.
    ///
    /// Anybody can name any address, so until something there has named itself as this client's document, every failure has
    /// the same message: it does not reveal whether a host has an address, where that is, and what answers there.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Url { .. } | Self::Off | Self::Invalid { .. } => self.to_string(),
            Self::Fetch(_) | Self::Busy | Self::Status(_) | Self::ContentType | Self::Json | Self::WrongId => {
                "No metadata document of this client could be read at the address that the client gave. Start the \
                 sign-in again in a minute."
                    .to_owned()
            }
        }
    }
}

/// Whether `client_id` is the URL of a metadata document, and not an id that was given out at registration.
#[must_use]
pub fn is_document_url(client_id: &str) -> bool {
    check_url(client_id).is_ok()
}

/// The URL of a document, if `client_id` is one: https, with a path, without fragment, user, password and dot segments
/// (section 3). A query is discouraged there and allowed here.
///
/// # Errors
/// [`DocumentError::Url`].
pub fn check_url(client_id: &str) -> Result<Url, DocumentError> {
    let refused = |why| Err(DocumentError::Url { why });
    if client_id.len() > MAX_URL {
        return refused("it is too long");
    }
    let Ok(url) = Url::parse(client_id) else { return refused("it is no URL") };
    if url.scheme() != "https" {
        return refused("it does not begin with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("it has a user or a password in it");
    }
    if url.fragment().is_some() {
        return refused("it has a fragment");
    }
    if url.path() == "/" {
        return refused("it has no path");
    }
    // Reading takes dot segments away, whatever their spelling, and whatever else has a shorter form. What is left
    // unchanged has one spelling only, so that comparing ids byte by byte is comparing clients.
    if url.as_str() != client_id {
        return refused("it is not written in its normal form");
    }
    Ok(url)
}

impl ClientDocument {
    /// Reads the document that was found at `client_id`. Members that are not known are passed over.
    ///
    /// # Errors
    /// [`DocumentError::Json`], [`DocumentError::WrongId`] and [`DocumentError::Invalid`].
    pub fn parse(client_id: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        let mut members: Map<String, Value> = serde_json::from_slice(bytes).map_err(|_| DocumentError::Json)?;
        // RFC 7591, section 2: a member without a value is one that is not there.
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

/// Nobody shares a secret with a document that everybody can read (section 4.1).
fn check_authentication(members: &Map<String, Value>) -> Result<(), DocumentError> {
    if members.contains_key("client_secret") || members.contains_key("client_secret_expires_at") {
        return Err(invalid("It holds a client secret, and a public document cannot keep one."));
    }
    match text(members, "token_endpoint_auth_method")? {
        None | Some("none") => Ok(()),
        Some(method) if method.starts_with("client_secret_") => {
            Err(invalid("`token_endpoint_auth_method` needs a client secret, and a public document cannot keep one."))
        }
        Some(_) => Err(invalid("The only `token_endpoint_auth_method` that is supported here is `none`.")),
    }
}

/// A member that is a list has to have `wanted` in it; without the member, the default of RFC 7591 has it.
fn includes(members: &Map<String, Value>, field: &'static str, wanted: &str) -> Result<(), DocumentError> {
    match members.get(field) {
        None => Ok(()),
        Some(Value::Array(values)) if values.iter().any(|value| value.as_str() == Some(wanted)) => Ok(()),
        Some(_) => Err(invalid(&format!("`{field}` must be a list with `{wanted}` in it."))),
    }
}

fn redirect_uris(members: &Map<String, Value>) -> Result<Vec<String>, DocumentError> {
    let Some(value) = members.get("redirect_uris") else { return Err(missing("redirect_uris")) };
    let texts = value.as_array().and_then(|values| values.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(uris) = texts.filter(|uris| (1..=MAX_REDIRECT_URIS).contains(&uris.len())) else {
        return Err(invalid(&format!("`redirect_uris` must be a list of 1 to {MAX_REDIRECT_URIS} texts.")));
    };
    if let Some(why) = uris.iter().find_map(|uri| redirect_uri::check(uri).err()) {
        return Err(invalid(&format!("`redirect_uris` holds an address that codes are not sent to: {why}.")));
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
        Some(_) => Err(invalid(&format!("`{field}` must be a text."))),
    }
}

fn missing(field: &'static str) -> DocumentError {
    invalid(&format!("`{field}` is missing."))
}

fn invalid(why: &str) -> DocumentError {
    DocumentError::Invalid { why: why.to_owned() }
}
