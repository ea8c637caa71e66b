//! The userinfo endpoint (OpenID Connect Core, 5.3), or what plain OAuth has in its place.

use http::{Method, Request, StatusCode, header};
use serde_json::Value;
use waypost_core::seal::SecretText;
use waypost_ops::identity_provider::send;
use waypost_outbound::Route;

use super::failure::Failure;

/// What the endpoint says of the user to whom `token` belongs.
///
/// # Errors
/// When it does not say it.
pub(super) async fn ask(route: &Route, endpoint: &str, token: &SecretText) -> Result<Value, Failure> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(endpoint)
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()))
        .body(Vec::new())
        .map_err(|_| Failure::Answer("its token cannot be sent back to it".to_owned()))?;
    let answer = send(route.clone(), request).await?;
    if answer.status() != StatusCode::OK {
        return Err(Failure::Answer(format!("its userinfo endpoint says {}", answer.status())));
    }
    match serde_json::from_slice(answer.body()) {
        Ok(claims @ Value::Object(_)) => Ok(claims),
        _ => Err(Failure::Answer("its userinfo endpoint gives no JSON object".to_owned())),
    }
}
