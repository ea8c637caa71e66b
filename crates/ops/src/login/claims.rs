//! Extracts the user's identity from the provider's claims.

use serde_json::Value;
use waypost_core::oauth_config::ProviderKind;

use super::LoginProvider;
use super::error::{LoginError, sanitize};
use crate::identities::Claims;

/// The maximum length of a subject (OpenID Connect Core, 2).
const MAX_SUBJECT: usize = 255;

/// Returns the identity of the user. For OpenID Connect, `primary` contains the verified claims of the ID token, which
/// `userinfo` may supplement. For plain OAuth, it contains the claims of the userinfo endpoint.
///
/// # Errors
/// Returns an error if there is no subject, or the two sources describe different users.
pub(super) fn claims(
    provider: &LoginProvider,
    primary: &Value,
    userinfo: Option<&Value>,
) -> Result<Claims, LoginError> {
    // OpenID Connect Core, 5.3.2: userinfo of another user must not be used.
    if userinfo.is_some_and(|userinfo| userinfo["sub"] != primary["sub"]) {
        return Err(LoginError::Untrusted("its userinfo endpoint describes another user than its token".to_owned()));
    }
    let subject = subject(provider, primary)?;
    let text = |name: &str| {
        let own = primary[name].as_str().or_else(|| userinfo.and_then(|userinfo| userinfo[name].as_str()));
        own.filter(|text| !text.trim().is_empty()).map(str::to_owned)
    };
    // The email address and its verification must come from the same source.
    let source = if primary["email"].is_string() { Some(primary) } else { userinfo };
    let verified = match source.map(|source| &source["email_verified"]) {
        Some(Value::Bool(verified)) => *verified,
        // Some providers encode all claims as strings.
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    Ok(Claims {
        issuer: provider
            .identity_issuer
            .clone()
            .ok_or_else(|| LoginError::InvalidResponse("it has no userinfo endpoint".to_owned()))?,
        subject,
        email: text("email"),
        // Plain OAuth has no trustworthy statement that an email address is verified.
        email_verified: verified && provider.kind == ProviderKind::Openid,
        name: text("name").or_else(|| text("preferred_username")).or_else(|| text("login")),
        picture_url: text("picture").or_else(|| text("avatar_url")),
    })
}

fn subject(provider: &LoginProvider, primary: &Value) -> Result<String, LoginError> {
    let claim = &provider.subject_claim;
    let subject = match &primary[claim.as_str()] {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => String::new(),
    };
    if subject.is_empty() || subject.chars().count() > MAX_SUBJECT {
        return Err(LoginError::InvalidResponse(format!("its claim `{}` does not identify a user", sanitize(claim))));
    }
    Ok(subject)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::Timestamp;
    use waypost_core::id::{OauthConfigId, OrganizationId};
    use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};

    use super::*;

    fn provider(kind: ProviderKind, subject_claim: &str) -> LoginProvider {
        let config = OauthConfig {
            id: OauthConfigId::from_store("oac_1".into()),
            organization_id: OrganizationId::from_store("org_1".into()),
            name: "P".into(),
            kind,
            issuer: "https://id.example".into(),
            authorization_endpoint: String::new(),
            token_endpoint: String::new(),
            userinfo_endpoint: Some("https://api.id.example/user".into()),
            jwks_uri: None,
            client_id: "waypost".into(),
            client_secret: None,
            token_auth_method: TokenAuthMethod::None,
            scopes: Vec::new(),
            subject_claim: subject_claim.into(),
            link_verified_email: true,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        };
        LoginProvider::of_config(&config, None, "https://waypost.example/oauth/callback".into())
    }

    #[test]
    fn userinfo_adds_claims_that_the_token_lacks() {
        let openid = provider(ProviderKind::Openid, "sub");
        let token = json!({"sub": "anna", "name": " "});
        let userinfo = json!({"sub": "anna", "name": "Anna", "email": "a@b.de", "email_verified": true});
        let all = claims(&openid, &token, Some(&userinfo)).unwrap();
        assert_eq!((all.issuer.as_str(), all.subject.as_str()), ("https://id.example", "anna"));
        assert_eq!((all.email.as_deref(), all.email_verified, all.name.as_deref()), (Some("a@b.de"), true, None));
        let other = json!({"sub": "bert", "email": "b@b.de", "email_verified": true});
        assert!(claims(&openid, &token, Some(&other)).is_err(), "userinfo of another user");
        assert!(claims(&openid, &token, Some(&json!({"email": "b@b.de"}))).is_err(), "userinfo without a subject");
    }

    /// A verification that belongs to another email address does not count.
    #[test]
    fn email_and_verification_come_from_one_source() {
        let openid = provider(ProviderKind::Openid, "sub");
        let token = json!({"sub": "anna", "email": "typed@b.de"});
        let userinfo = json!({"sub": "anna", "email": "a@b.de", "email_verified": true});
        let all = claims(&openid, &token, Some(&userinfo)).unwrap();
        assert_eq!((all.email.as_deref(), all.email_verified), (Some("typed@b.de"), false));
        for (verified, expected) in
            [(json!(true), true), (json!("true"), true), (json!("yes"), false), (json!(1), false), (json!(null), false)]
        {
            let token = json!({"sub": "anna", "email": "a@b.de", "email_verified": verified});
            assert_eq!(claims(&openid, &token, None).unwrap().email_verified, expected, "{verified}");
        }
    }

    #[test]
    fn plain_oauth_identifies_users_and_verifies_no_email() {
        let github = provider(ProviderKind::Oauth, "id");
        let primary = json!({"id": 583_231, "login": "octocat", "email": "o@b.de", "email_verified": true,
            "avatar_url": "https://pictures.example/1"});
        let all = claims(&github, &primary, None).unwrap();
        assert_eq!((all.issuer.as_str(), all.subject.as_str()), ("oauth2:https://api.id.example", "583231"));
        assert_eq!((all.email_verified, all.name.as_deref()), (false, Some("octocat")));
        assert_eq!(all.picture_url.as_deref(), Some("https://pictures.example/1"));
        for invalid in
            [json!({}), json!({"id": ""}), json!({"id": 1.5}), json!({"id": [1]}), json!({"id": "x".repeat(256)})]
        {
            assert!(claims(&github, &invalid, None).is_err(), "{invalid}");
        }
    }
}
