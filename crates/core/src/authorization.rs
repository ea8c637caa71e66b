//! What a client asked for at the authorization endpoint, while its user signs in and consents (RFC 6749, section 4.1).

use crate::clock::Timestamp;
use crate::id::{AuthorizationRequestId, OrganizationId, ServerId};

/// Progress that a request for sign-in may claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressClaim {
    /// The tracking ID of the progress, in its stored form ([`crate::personal::stored_form`]).
    pub tracking_id: String,
    /// When the claim link was signed. `None` for a generated ID, which needs none.
    pub issued_at: Option<Timestamp>,
}

/// Everything that is needed to go on once the user has signed in: all of it was checked when the request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// The request.
    pub id: AuthorizationRequestId,
    /// The server's organisation.
    pub organization_id: OrganizationId,
    /// For which server.
    pub server_id: ServerId,
    /// The issuer in the form that was asked, for `iss` in the answer (RFC 9207).
    pub issuer: String,
    /// The client: the id that it got at registration, or the URL of its metadata document.
    pub client_id: String,
    /// What the client calls itself.
    pub client_name: String,
    /// Where the browser goes back to: one of the client's redirect URIs.
    pub redirect_uri: String,
    /// The client's own value, given back unchanged.
    pub state: Option<String>,
    /// The scopes asked for, separated by spaces.
    pub scope: String,
    /// The resource that the token shall be for (RFC 8707), an address of the server. Personal IDs in it are masked.
    pub resource: String,
    /// The progress that this request may claim: its resource is a personal URL with a generated ID, or a claim link that was
    /// valid when the request was made. `None` for a label without a valid signature.
    pub claim: Option<ProgressClaim>,
    /// The PKCE challenge, S256 (RFC 7636, section 4.3).
    pub code_challenge: String,
    /// `login` or `consent`: what must be asked again (OpenID Connect Core, section 3.1.2.1).
    pub prompt: Option<String>,
    /// The address to begin the sign-in with.
    pub login_hint: Option<String>,
    /// When it came.
    pub created_at: Timestamp,
    /// When it is gone.
    pub expires_at: Timestamp,
    /// When the user allowed the client what it asks for, before they signed in.
    pub consented_at: Option<Timestamp>,
}
