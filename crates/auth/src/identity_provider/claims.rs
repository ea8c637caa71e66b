//! From what a provider says to who signed in.

use serde_json::Value;
use waypost_core::oauth_config::{OauthConfig, ProviderKind};
use waypost_ops::identities::{Claims, issuer_of};

use super::failure::{Failure, shown};

/// A subject has 255 characters at most (OpenID Connect Core, 2).
const MAX_SUBJECT: usize = 255;

/// Who signed in. For OpenID Connect `said` are the verified claims of the ID token, to which `userinfo` may add; for
/// plain OAuth, those of the userinfo endpoint.
///
/// # Errors
/// When there is no subject, or the two are not of the same user.
pub(super) fn claims(config: &OauthConfig, said: &Value, userinfo: Option<&Value>) -> Result<Claims, Failure> {
    // OpenID Connect Core, 5.3.2: userinfo of somebody else must not be used.
    if userinfo.is_some_and(|userinfo| userinfo["sub"] != said["sub"]) {
        return Err(Failure::Token("its userinfo endpoint tells of another user than its token".to_owned()));
    }
    let subject = subject(config, said)?;
    let text = |name: &str| {
        let own = said[name].as_str().or_else(|| userinfo.and_then(|userinfo| userinfo[name].as_str()));
        own.filter(|text| !text.trim().is_empty()).map(str::to_owned)
    };
    // Address and proof come from the same place.
    let source = if said["email"].is_string() { Some(said) } else { userinfo };
    let verified = match source.map(|source| &source["email_verified"]) {
        Some(Value::Bool(verified)) => *verified,
        // Some providers write all claims as texts.
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    Ok(Claims {
        issuer: issuer_of(config).ok_or_else(|| Failure::Answer("it has no userinfo endpoint".to_owned()))?,
        subject,
        email: text("email"),
        // Nobody says that an address of plain OAuth was proved in a way that can be trusted.
        email_verified: verified && config.kind == ProviderKind::Openid,
        name: text("name").or_else(|| text("preferred_username")).or_else(|| text("login")),
        picture_url: text("picture").or_else(|| text("avatar_url")),
    })
}

fn subject(config: &OauthConfig, said: &Value) -> Result<String, Failure> {
    let claim = &config.subject_claim;
    let subject = match &said[claim.as_str()] {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => String::new(),
    };
    if subject.is_empty() || subject.chars().count() > MAX_SUBJECT {
        return Err(Failure::Answer(format!("it names nobody in `{}`", shown(claim))));
    }
    Ok(subject)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::Timestamp;
    use waypost_core::id::{OauthConfigId, OrganizationId};
    use waypost_core::oauth_config::TokenAuthMethod;

    use super::*;

    fn config(kind: ProviderKind, subject_claim: &str) -> OauthConfig {
        OauthConfig {
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
        }
    }

    #[test]
    fn userinfo_adds_what_the_token_leaves_out() {
        let openid = config(ProviderKind::Openid, "sub");
        let token = json!({"sub": "anna", "name": " "});
        let userinfo = json!({"sub": "anna", "name": "Anna", "email": "a@b.de", "email_verified": true});
        let all = claims(&openid, &token, Some(&userinfo)).unwrap();
        assert_eq!((all.issuer.as_str(), all.subject.as_str()), ("https://id.example", "anna"));
        assert_eq!((all.email.as_deref(), all.email_verified, all.name.as_deref()), (Some("a@b.de"), true, None));
        let other = json!({"sub": "bert", "email": "b@b.de", "email_verified": true});
        assert!(claims(&openid, &token, Some(&other)).is_err(), "somebody else's userinfo");
        assert!(claims(&openid, &token, Some(&json!({"email": "b@b.de"}))).is_err(), "nobody's userinfo");
    }

    /// A proof that belongs to another address proves nothing.
    #[test]
    fn address_and_proof_come_from_one_place() {
        let openid = config(ProviderKind::Openid, "sub");
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
    fn plain_oauth_names_users_and_proves_no_address() {
        let github = config(ProviderKind::Oauth, "id");
        let said = json!({"id": 583_231, "login": "octocat", "email": "o@b.de", "email_verified": true,
            "avatar_url": "https://pictures.example/1"});
        let all = claims(&github, &said, None).unwrap();
        assert_eq!((all.issuer.as_str(), all.subject.as_str()), ("oauth2:https://api.id.example", "583231"));
        assert_eq!((all.email_verified, all.name.as_deref()), (false, Some("octocat")));
        assert_eq!(all.picture_url.as_deref(), Some("https://pictures.example/1"));
        for nobody in
            [json!({}), json!({"id": ""}), json!({"id": 1.5}), json!({"id": [1]}), json!({"id": "x".repeat(256)})]
        {
            assert!(claims(&github, &nobody, None).is_err(), "{nobody}");
        }
    }
}
