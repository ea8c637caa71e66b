//! Authorization requests of clients, stored while the user signs in and consents (RFC 6749, section 4.1).

use crate::clock::Timestamp;
use crate::id::AuthorizationRequestId;
use crate::issuer::IssuerId;

/// Progress that an authorization request can claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressClaim {
    /// The tracking ID of the progress, in its stored form ([`crate::personal::stored_form`]).
    pub tracking_id: String,
    /// When the claim link was signed. `None` for a generated ID, which needs no link.
    pub issued_at: Option<Timestamp>,
}

/// The data needed to continue once the user has signed in. Validated when the request was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// The request's ID.
    pub id: AuthorizationRequestId,
    /// The issuer that received the request.
    pub issuer_id: IssuerId,
    /// The URL of the issuer in the form of the requested URL, for `iss` in the response (RFC 9207).
    pub issuer: String,
    /// The client: its registered ID, or the URL of its metadata document.
    pub client_id: String,
    /// The client's name.
    pub client_name: String,
    /// The redirect URI, one of those that the client registered.
    pub redirect_uri: String,
    /// The client's `state`, returned unchanged.
    pub state: Option<String>,
    /// The requested scopes, separated by spaces.
    pub scope: String,
    /// The requested resource (RFC 8707), one of the issuer's. Personal IDs in it are masked.
    pub resource: String,
    /// The progress that this request can claim, if its resource is a personal URL with a generated ID, or a claim link
    /// that was valid when the request was made. `None` for any other resource, such as a label without a valid
    /// signature.
    pub claim: Option<ProgressClaim>,
    /// The PKCE challenge, S256 (RFC 7636, section 4.3).
    pub code_challenge: String,
    /// `login` or `consent`: the step that must be repeated (OpenID Connect Core, section 3.1.2.1).
    pub prompt: Option<String>,
    /// The email to prefill on the sign-in page.
    pub login_hint: Option<String>,
    /// When the request was received.
    pub created_at: Timestamp,
    /// When the request expires.
    pub expires_at: Timestamp,
    /// When the user consented, if they did so before signing in.
    pub consented_at: Option<Timestamp>,
}
