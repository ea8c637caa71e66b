//! Validation of ID tokens (OpenID Connect Core, 3.1.3.7).

use chrono::DateTime;
use data_encoding::BASE64URL_NOPAD;
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{ClaimsVerificationError, ClientId, IssuerUrl, Nonce, SignatureVerificationError};
use serde_json::Value;
use waypost_core::Timestamp;

use super::error::{LoginError, sanitize};
use super::keys::Freshness;
use super::{LoginProvider, LoginVerification, SigningKeys};

/// The tolerated clock skew of providers.
const SKEW_MS: i64 = 60 * 1_000;

/// The accepted algorithms, all with public keys. With a shared secret, anyone who knows it could sign tokens; with
/// `none`, anyone could.
const ALGORITHMS: &[CoreJwsSigningAlgorithm] = &[
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Returns the claims of `token` if it was signed by the provider, is meant for Waypost and this sign-in, and has not
/// expired. An unknown key causes one refetch of cached keys.
///
/// # Errors
/// Returns an error if the token is not valid, or the keys cannot be fetched.
pub(super) async fn verify(login: &LoginVerification<'_>, token: &CoreIdToken) -> Result<Value, LoginError> {
    let LoginVerification { provider, route, keys, secrets, now, .. } = login;
    let expected = ExpectedToken { provider, nonce: Nonce::new(secrets.nonce.clone()), now: *now };
    let outcome = match keys {
        SigningKeys::Fetched(keys) => expected.check(token, keys),
        SigningKeys::Cached(cache, id) => {
            let uri = provider.jwks_uri.as_deref().unwrap_or_default();
            let keys = cache.get(route, id, uri, *now, Freshness::Cached).await?;
            let outcome = expected.check(token, &keys.unwrap_or_default());
            if outcome.as_ref().is_err_and(is_key_error)
                && let Some(keys) = cache.get(route, id, uri, *now, Freshness::Newer).await?
            {
                expected.check(token, &keys)
            } else {
                outcome
            }
        }
    };
    outcome.map_err(|error| LoginError::Untrusted(describe(&error)))?;
    claims(token, provider)
}

struct ExpectedToken<'a> {
    provider: &'a LoginProvider,
    nonce: Nonce,
    now: Timestamp,
}

impl ExpectedToken<'_> {
    fn check(&self, token: &CoreIdToken, keys: &CoreJsonWebKeySet) -> Result<(), ClaimsVerificationError> {
        let issuer = IssuerUrl::new(self.provider.issuer.clone());
        let issuer = issuer.map_err(|error| ClaimsVerificationError::Other(error.to_string()))?;
        let now = self.now.plus(-SKEW_MS);
        let verifier = CoreIdTokenVerifier::new_public_client(
            ClientId::new(self.provider.client_id.clone()),
            issuer,
            keys.clone(),
        )
        .set_allowed_algs(ALGORITHMS.iter().cloned())
        .set_time_fn(move || DateTime::from_timestamp_millis(now.0).unwrap_or_default());
        token.claims(&verifier, &self.nonce).map(|_| ())
    }
}

/// Whether newer keys might verify the token: its key is unknown, or a key without an ID was replaced.
fn is_key_error(error: &ClaimsVerificationError) -> bool {
    use SignatureVerificationError::{CryptoError, NoMatchingKey};
    matches!(error, ClaimsVerificationError::SignatureVerification(NoMatchingKey | CryptoError(_)))
}

/// Returns a description of the error that does not contain any part of the token.
fn describe(error: &ClaimsVerificationError) -> String {
    use SignatureVerificationError::{CryptoError, DisallowedAlg, NoMatchingKey};
    match error {
        ClaimsVerificationError::Expired(_) => "its token has expired".to_owned(),
        ClaimsVerificationError::InvalidAudience(_) => "its token is meant for another client".to_owned(),
        ClaimsVerificationError::InvalidIssuer(_) => "its token was issued by another issuer".to_owned(),
        ClaimsVerificationError::InvalidNonce(_) => "its token belongs to another sign-in".to_owned(),
        ClaimsVerificationError::SignatureVerification(error) => match error {
            NoMatchingKey => "its token is signed with a key that it does not publish".to_owned(),
            CryptoError(_) => "the signature of its token is invalid".to_owned(),
            DisallowedAlg(_) => "its token is signed with an algorithm that is not accepted".to_owned(),
            _ => "the signature of its token cannot be verified".to_owned(),
        },
        _ => "its token is malformed".to_owned(),
    }
}

/// Returns all claims of a verified token.
fn claims(token: &CoreIdToken, provider: &LoginProvider) -> Result<Value, LoginError> {
    let text = token.to_string();
    let payload = text.split('.').nth(1).and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
    let claims = payload.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
    let claims = claims.ok_or_else(|| LoginError::InvalidResponse("its token cannot be parsed".to_owned()))?;
    // Steps 4 and 5: the authorized party, if present, must be Waypost.
    match &claims["azp"] {
        Value::Null => Ok(claims),
        Value::String(party) if *party == provider.client_id => Ok(claims),
        party => Err(LoginError::Untrusted(format!("its token was issued to `{}`", sanitize(&party.to_string())))),
    }
}
