//! Validating an ID token (OpenID Connect Core, 3.1.3.7).

use chrono::DateTime;
use data_encoding::BASE64URL_NOPAD;
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{ClaimsVerificationError, ClientId, IssuerUrl, Nonce, SignatureVerificationError};
use serde_json::Value;
use waypost_core::Timestamp;
use waypost_core::oauth_config::OauthConfig;
use waypost_outbound::Route;

use super::IdentityProviders;
use super::failure::{Failure, shown};
use super::keys::Want;

/// Clocks of providers may be behind this much.
const SKEW_MS: i64 = 60 * 1_000;

/// With a public key only: a shared secret would let everybody who knows it sign, and `none` everybody.
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

/// The claims of `token`, when it was signed by the provider, for Waypost, for this sign-in, and has not expired. A key
/// that is not known is looked for once.
///
/// # Errors
/// When it is not so, or the keys cannot be had.
pub(super) async fn verify(
    (providers, route): (&IdentityProviders, &Route),
    config: &OauthConfig,
    token: &CoreIdToken,
    nonce: &str,
    now: Timestamp,
) -> Result<Value, Failure> {
    let expected = Expected { config, nonce: Nonce::new(nonce.to_owned()), now };
    let keys = providers.keys.get(route, config, now, Want::Any).await?;
    let mut outcome = expected.check(token, &keys.unwrap_or_default());
    if outcome.as_ref().is_err_and(is_of_a_key)
        && let Some(keys) = providers.keys.get(route, config, now, Want::Newer).await?
    {
        outcome = expected.check(token, &keys);
    }
    outcome.map_err(|error| Failure::Token(words(&error)))?;
    claims(token, config)
}

struct Expected<'a> {
    config: &'a OauthConfig,
    nonce: Nonce,
    now: Timestamp,
}

impl Expected<'_> {
    fn check(&self, token: &CoreIdToken, keys: &CoreJsonWebKeySet) -> Result<(), ClaimsVerificationError> {
        let issuer = IssuerUrl::new(self.config.issuer.clone());
        let issuer = issuer.map_err(|error| ClaimsVerificationError::Other(error.to_string()))?;
        let now = self.now.plus(-SKEW_MS);
        let verifier =
            CoreIdTokenVerifier::new_public_client(ClientId::new(self.config.client_id.clone()), issuer, keys.clone())
                .set_allowed_algs(ALGORITHMS.iter().cloned())
                .set_time_fn(move || DateTime::from_timestamp_millis(now.0).unwrap_or_default());
        token.claims(&verifier, &self.nonce).map(|_| ())
    }
}

/// Whether other keys could make it good: the key is unknown, or it was replaced by another one without a name.
fn is_of_a_key(error: &ClaimsVerificationError) -> bool {
    use SignatureVerificationError::{CryptoError, NoMatchingKey};
    matches!(error, ClaimsVerificationError::SignatureVerification(NoMatchingKey | CryptoError(_)))
}

/// In words that say what is wrong, and nothing of the token.
fn words(error: &ClaimsVerificationError) -> String {
    use SignatureVerificationError::{CryptoError, DisallowedAlg, NoMatchingKey};
    match error {
        ClaimsVerificationError::Expired(_) => "its token has expired".to_owned(),
        ClaimsVerificationError::InvalidAudience(_) => "its token is for somebody else".to_owned(),
        ClaimsVerificationError::InvalidIssuer(_) => "its token is of another issuer".to_owned(),
        ClaimsVerificationError::InvalidNonce(_) => "its token belongs to another sign-in".to_owned(),
        ClaimsVerificationError::SignatureVerification(error) => match error {
            NoMatchingKey => "its token is signed with a key that it does not publish".to_owned(),
            CryptoError(_) => "the signature of its token is wrong".to_owned(),
            DisallowedAlg(_) => "its token is signed in a way that proves nothing".to_owned(),
            _ => "the signature of its token cannot be checked".to_owned(),
        },
        _ => "its token is not as it should be".to_owned(),
    }
}

/// All claims of a token that was verified.
fn claims(token: &CoreIdToken, config: &OauthConfig) -> Result<Value, Failure> {
    let text = token.to_string();
    let payload = text.split('.').nth(1).and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
    let claims = payload.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
    let claims = claims.ok_or_else(|| Failure::Answer("its token cannot be read".to_owned()))?;
    // Steps 4 and 5: when it says whom it was made for, that is Waypost.
    match &claims["azp"] {
        Value::Null => Ok(claims),
        Value::String(party) if *party == config.client_id => Ok(claims),
        party => Err(Failure::Token(format!("its token was made for `{}`", shown(&party.to_string())))),
    }
}
