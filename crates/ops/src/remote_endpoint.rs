//! The rules for URLs and headers of remote servers, which are the same for instances and catalogue versions.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use url::Url;
use waypost_core::catalog::CatalogVersion;
use waypost_core::id::{CatalogVersionId, OrganizationId};
use waypost_core::seal::SealLocation;
use waypost_core::{Error, Result};
use waypost_outbound::Purpose;

use crate::Ops;
use crate::config_template::{TemplateError, expand};

/// The maximum number of headers.
pub(crate) const MAX_HEADERS: usize = 20;
/// The maximum length in bytes of a value that is not a secret.
pub(crate) const MAX_HEADER_VALUE: usize = 4_096;
/// The maximum length of a URL in bytes.
const MAX_URL: usize = 2_048;
/// The maximum length of a header name in bytes.
const MAX_HEADER_NAME: usize = 100;
/// Headers that belong to HTTP or to MCP, in addition to those that begin with `mcp-`.
const RESERVED_HEADERS: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "accept",
    "te",
    "trailer",
    "upgrade",
    "last-event-id",
];
/// Headers whose value is a credential (RFC 9110, sections 11.6.2 and 11.7.2; RFC 6265).
const CREDENTIAL_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// Parses the URL of a remote server. An error is a sentence for users, and does not contain the URL.
pub(crate) fn parse_url(text: &str) -> std::result::Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("The URL can have at most {MAX_URL} bytes."));
    }
    let url = Url::parse(text.trim()).map_err(|_| "The URL is invalid. It must begin with https://.".to_owned())?;
    match url.fragment() {
        Some(_) => Err("The URL must not have a fragment (`#…`).".to_owned()),
        None => Ok(url),
    }
}

/// Checks the scheme and the address of a URL, without resolving its host name. Returns a sentence for users if it cannot
/// be used. Every connection checks it again.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn find_address_problem(
    ops: &Ops,
    organization: &OrganizationId,
    url: &Url,
) -> Result<Option<String>> {
    let route = ops.route(Purpose::Tools, organization).await?;
    Ok(route.check_url(url).err().map(|error| error.to_string()))
}

/// Checks the name of a header. Returns a sentence for users if it cannot be used, or `None` if it can.
pub(crate) fn find_header_problem(name: &str) -> Option<String> {
    if name.len() > MAX_HEADER_NAME || HeaderName::try_from(name).is_err() {
        let shown: String = name.chars().filter(|letter| !letter.is_control()).take(MAX_HEADER_NAME).collect();
        return Some(format!("`{shown}` is not a valid header name."));
    }
    let lower = name.to_ascii_lowercase();
    let is_reserved = RESERVED_HEADERS.contains(&lower.as_str()) || lower.starts_with("mcp-");
    is_reserved.then(|| format!("The header `{name}` cannot be set, because the protocol uses it."))
}

/// Whether the value of a header is always a credential.
pub(crate) fn is_credential_header(name: &str) -> bool {
    CREDENTIAL_HEADERS.iter().any(|header| name.eq_ignore_ascii_case(header))
}

/// Returns the headers of a catalogue version with the values of an instance's configuration.
///
/// # Errors
/// `invalid_arguments` for `config` if a header refers to a member that the configuration does not have, is too large, or
/// contains characters that headers cannot have.
pub(crate) fn expand_headers(headers: &BTreeMap<String, String>, config: &Map<String, Value>) -> Result<HeaderMap> {
    let invalid = |message: String| Error::invalid("config", message);
    let mut expanded = HeaderMap::new();
    for (name, template) in headers {
        let value = expand(template, config, MAX_HEADER_VALUE).map_err(|error| match error {
            TemplateError::Missing(member) => {
                invalid(format!("The header `{name}` of this version refers to `config.{member}`. Add it to `config`."))
            }
            TemplateError::TooLarge => invalid(format!(
                "The header `{name}` has more than {MAX_HEADER_VALUE} bytes with the values of `config`. Shorten the values."
            )),
        })?;
        let value = HeaderValue::try_from(value.trim()).map_err(|_| {
            let message = "cannot contain control characters. Remove them from the values of `config`.";
            invalid(format!("The header `{name}` {message}"))
        })?;
        expanded.insert(HeaderName::try_from(name).map_err(Error::internal)?, value);
    }
    Ok(expanded)
}

/// Returns the location to which the URL of a catalogue version is sealed.
pub(crate) fn version_location(id: &CatalogVersionId) -> SealLocation<'_> {
    SealLocation { table: "catalog_versions", column: "remote_url", row: id.as_str() }
}

/// Returns the URL of a catalogue version.
///
/// # Errors
/// `internal` if it cannot be opened, or the source of the version is not remote.
pub(crate) fn open_version_url(ops: &Ops, version: &CatalogVersion) -> Result<Url> {
    let unreadable = || Error::internal(format!("the URL of the catalogue version {} cannot be opened", version.id));
    let sealed = version.sealed_url.as_deref().ok_or_else(unreadable)?;
    let url = ops.keyring()?.open_text(&version_location(&version.id), sealed).map_err(|_| unreadable())?;
    Url::parse(url.expose()).map_err(|_| unreadable())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_cannot_add_headers() {
        let headers = BTreeMap::from([("X-Region".to_owned(), "region ${config.region}".to_owned())]);
        let expanded = |config: Value| expand_headers(&headers, config.as_object().unwrap());
        assert_eq!(expanded(json!({ "region": "eu" })).unwrap()["x-region"], "region eu");
        assert_eq!(expanded(json!({ "region": 7 })).unwrap()["x-region"], "region 7");
        for (config, words) in [
            (json!({}), "refers to `config.region`"),
            (json!({ "region": "eu\r\nAuthorization: x" }), "control characters"),
            (json!({ "region": "x".repeat(MAX_HEADER_VALUE) }), "more than 4096 bytes"),
        ] {
            let error = expanded(config).unwrap_err();
            assert_eq!(error.details["field"], "config");
            assert!(error.message.contains(words), "{error}");
        }
    }
}
