//! Requests to the token endpoint of an authorization server (RFC 6749, sections 4.1.3, 5 and 6), and to its revocation
//! endpoint (RFC 7009).

use std::time::Duration;

use data_encoding::BASE64;
use http::{Request, StatusCode, header};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use waypost_core::Timestamp;
use waypost_core::oauth_client::ClientAuthMethod;
use waypost_outbound::{Limits, Route};

/// The limits of a request. Redirects are never followed, because the request contains credentials.
const LIMITS: Limits = Limits { max_bytes: 64 * 1024, timeout: Duration::from_secs(10), redirects: 0 };
/// The maximum length of a token in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// The maximum lifetime of a token, in seconds. A longer `expires_in` is reduced to it.
const MAX_LIFETIME: u64 = 10 * 365 * 24 * 60 * 60;

/// Waypost as a client of an authorization server. Has no `Debug`, because of the secret.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OauthClient {
    /// The token endpoint.
    pub token_endpoint: String,
    /// The revocation endpoint, if the authorization server has one.
    #[serde(default)]
    pub revocation_endpoint: Option<String>,
    /// The client ID: that of a registration, or the URL of Waypost's client ID metadata document.
    pub client_id: String,
    /// The method by which the client authenticates.
    pub auth_method: ClientAuthMethod,
    /// The client secret of a registration.
    pub client_secret: Option<String>,
}

/// A grant that is exchanged for tokens.
pub(crate) enum Grant<'a> {
    /// The code of an authorization response, with the redirect URI and the PKCE verifier of the request.
    Code { code: &'a str, redirect_uri: &'a str, verifier: &'a str },
    /// A refresh token.
    Refresh(&'a str),
}

/// The tokens of a response. Has no `Debug`, so that they are never logged.
pub(crate) struct Tokens {
    pub access_token: String,
    pub refresh_token: Option<String>,
    /// The expiry of the access token; `None` if the server does not state it.
    pub expires_at: Option<Timestamp>,
}

/// The error of a request for tokens or of a revocation. Contains no text from the server, which may repeat credentials
/// from the request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The grant is no longer valid (RFC 6749, 5.2), so the request must not be repeated.
    #[error("its authorization server rejected the request")]
    Refused,
    /// The client is not accepted (RFC 6749, 5.2). The grant may still be valid.
    #[error("its authorization server rejected the request, because it does not accept the client")]
    ClientRefused,
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
}

/// Requests tokens for `resource`.
///
/// # Errors
/// [`TokenError::Refused`] if the grant is no longer valid; [`TokenError::ClientRefused`] if the client is not accepted;
/// [`TokenError::Failed`] for any other failure.
pub(crate) async fn request_tokens(
    route: &Route,
    client: &OauthClient,
    grant: Grant<'_>,
    (resource, now): (&str, Timestamp),
) -> Result<Tokens, TokenError> {
    let failed = |reason: &str| TokenError::Failed(reason.to_owned());
    let request = build(client, &grant, resource).map_err(|_| failed("its token endpoint is not a valid URL"))?;
    let response = route.send(request, LIMITS).await.map_err(|error| TokenError::Failed(error.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response.status(), response.body()));
    }
    let tokens: TokenResponse =
        serde_json::from_slice(response.body()).map_err(|_| failed("its token endpoint returned no tokens"))?;
    if !tokens.token_type.eq_ignore_ascii_case("bearer") {
        return Err(failed("its token endpoint returned tokens that are not bearer tokens"));
    }
    // RFC 6750, section 2.1: the token becomes part of a header.
    let is_token =
        |text: &String| (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token(&tokens.access_token) || !tokens.refresh_token.iter().all(is_token) {
        return Err(failed("its token endpoint returned a token with invalid characters or length"));
    }
    let expires_at = tokens
        .expires_in
        .map(|seconds| now.plus(i64::try_from(seconds.min(MAX_LIFETIME)).unwrap_or_default().saturating_mul(1_000)));
    Ok(Tokens { access_token: tokens.access_token, refresh_token: tokens.refresh_token, expires_at })
}

fn refusal(status: StatusCode, body: &[u8]) -> TokenError {
    let error = serde_json::from_slice::<ErrorResponse>(body).map(|response| response.error).unwrap_or_default();
    match error.as_str() {
        "invalid_grant" => TokenError::Refused,
        "invalid_client" | "unauthorized_client" => TokenError::ClientRefused,
        _ => TokenError::Failed(format!("its token endpoint returned the HTTP status {}", status.as_u16())),
    }
}

fn build(client: &OauthClient, grant: &Grant<'_>, resource: &str) -> http::Result<Request<Vec<u8>>> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    match *grant {
        Grant::Code { code, redirect_uri, verifier } => form
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("code_verifier", verifier),
        Grant::Refresh(token) => form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token),
    };
    form.append_pair("resource", resource);
    authenticated(client, &client.token_endpoint, form)
}

/// Revokes a token, given with its type: `access_token` or `refresh_token`.
///
/// # Errors
/// [`TokenError::Failed`] if the request cannot be sent, or the status is not 200. Revoking a token that is no longer
/// valid succeeds (RFC 7009, section 2.2).
pub(crate) async fn revoke_token(
    route: &Route,
    client: &OauthClient,
    endpoint: &str,
    token: (&str, &str),
) -> Result<(), TokenError> {
    let request = build_revocation(client, endpoint, token);
    let request = request.map_err(|_| TokenError::Failed("its revocation endpoint is not a valid URL".to_owned()))?;
    let response = route.send(request, LIMITS).await.map_err(|error| TokenError::Failed(error.to_string()))?;
    match response.status() {
        StatusCode::OK => Ok(()),
        status => {
            let message = format!("its revocation endpoint returned the HTTP status {}", status.as_u16());
            Err(TokenError::Failed(message))
        }
    }
}

fn build_revocation(
    client: &OauthClient,
    endpoint: &str,
    (token, hint): (&str, &str),
) -> http::Result<Request<Vec<u8>>> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", token).append_pair("token_type_hint", hint);
    authenticated(client, endpoint, form)
}

/// Returns a request with this form and the credentials of the client, according to its authentication method.
fn authenticated(
    client: &OauthClient,
    endpoint: &str,
    mut form: form_urlencoded::Serializer<'_, String>,
) -> http::Result<Request<Vec<u8>>> {
    let secret = client.client_secret.as_deref().unwrap_or_default();
    let mut request = Request::post(endpoint)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    match client.auth_method {
        // RFC 6749, section 2.3.1: both parts are form-encoded first.
        ClientAuthMethod::Basic => {
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encode(&client.client_id), encode(secret));
            request = request.header(header::AUTHORIZATION, format!("Basic {}", BASE64.encode(pair.as_bytes())));
        }
        ClientAuthMethod::Post => {
            form.append_pair("client_id", &client.client_id).append_pair("client_secret", secret);
        }
        ClientAuthMethod::None => {
            form.append_pair("client_id", &client.client_id);
        }
    }
    request.body(form.finish().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_authenticates_by_its_method() {
        let sent = |auth_method| {
            let client = OauthClient {
                token_endpoint: "https://id.example/token".to_owned(),
                revocation_endpoint: None,
                client_id: "a:b".to_owned(),
                auth_method,
                client_secret: Some("s&t".to_owned()),
            };
            let request = build(&client, &Grant::Refresh("r"), "https://far.example/mcp").unwrap();
            let header = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            (header, String::from_utf8(request.into_body()).unwrap())
        };
        let form = "grant_type=refresh_token&refresh_token=r&resource=https%3A%2F%2Ffar.example%2Fmcp";
        assert_eq!(sent(ClientAuthMethod::None), (None, format!("{form}&client_id=a%3Ab")));
        assert_eq!(sent(ClientAuthMethod::Post), (None, format!("{form}&client_id=a%3Ab&client_secret=s%26t")));
        let basic = format!("Basic {}", BASE64.encode(b"a%3Ab:s%26t"));
        assert_eq!(sent(ClientAuthMethod::Basic), (Some(basic), form.to_owned()));
    }

    #[test]
    fn grant_errors_and_client_errors_are_distinguished() {
        for (status, body, expected) in [
            (400, r#"{"error":"invalid_grant","error_description":"gone"}"#, Some(TokenError::Refused)),
            (401, r#"{"error":"invalid_client"}"#, Some(TokenError::ClientRefused)),
            (400, r#"{"error":"unauthorized_client"}"#, Some(TokenError::ClientRefused)),
            (400, r#"{"error":"invalid_request"}"#, None),
            (503, r#"{"error":"temporarily_unavailable"}"#, None),
            (400, "<html>", None),
            (302, "", None),
        ] {
            let error = refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            match &expected {
                Some(expected) => assert_eq!(error, *expected, "{body}"),
                None => assert!(matches!(error, TokenError::Failed(_)), "{body}"),
            }
            assert!(!error.to_string().contains("gone"));
        }
    }
}
