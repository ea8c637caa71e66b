//! The userinfo endpoint (OpenID Connect Core, 5.3) or its equivalent in plain OAuth.

use http::{Method, Request, StatusCode, header};
use serde_json::Value;
use waypost_core::seal::SecretText;
use waypost_outbound::Route;

use super::client::send;
use super::error::LoginError;

/// Returns the claims of the user to whom `token` belongs.
///
/// # Errors
/// Returns an error if the endpoint does not return claims.
pub(super) async fn fetch(route: &Route, endpoint: &str, token: &SecretText) -> Result<Value, LoginError> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(endpoint)
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()))
        .body(Vec::new())
        .map_err(|_| LoginError::InvalidResponse("its token is not a valid header value".to_owned()))?;
    let response = send(route.clone(), request).await?;
    if response.status() != StatusCode::OK {
        return Err(LoginError::InvalidResponse(format!(
            "its userinfo endpoint returned the status {}",
            response.status()
        )));
    }
    match serde_json::from_slice(response.body()) {
        Ok(claims @ Value::Object(_)) => Ok(claims),
        _ => Err(LoginError::InvalidResponse("its userinfo endpoint returned no JSON object".to_owned())),
    }
}
