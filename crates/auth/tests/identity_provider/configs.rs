//! Tests that identity providers are checked before they are saved.

use serde_json::json;
use waypost_core::caller::Caller;
use waypost_core::oauth_config::{OauthConfig, ProviderKind, TokenAuthMethod};
use waypost_core::organization::Role;
use waypost_core::seal::SecretText;
use waypost_core::server::AuthType;
use waypost_core::{Code, Error};
use waypost_ops::oauth_configs::{self, FindingLevel, OauthConfigSettings, ProviderFinding};
use waypost_ops::{organizations, servers};

use crate::fixture::{CLIENT_SECRET, Fixture, fixture};

async fn create(
    fixture: &Fixture,
    settings: &OauthConfigSettings,
) -> Result<(OauthConfig, Vec<ProviderFinding>), Error> {
    oauth_configs::create(&fixture.cx, &fixture.ops, &fixture.organization, settings).await
}

async fn update(fixture: &Fixture, old: &OauthConfig, settings: &OauthConfigSettings) -> Result<OauthConfig, Error> {
    oauth_configs::update(&fixture.cx, &fixture.ops, old, settings).await.map(|(config, _)| config)
}

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{words}: {error}");
}

fn warnings(findings: &[ProviderFinding]) -> Vec<&str> {
    findings
        .iter()
        .filter(|finding| finding.level == FindingLevel::Warning)
        .map(|finding| finding.message.as_str())
        .collect()
}

async fn the_metadata_determines_the_settings(fixture: Fixture) {
    let (config, findings) = create(&fixture, &fixture.settings()).await.unwrap();
    assert_eq!(config.kind, ProviderKind::Openid);
    assert_eq!(config.issuer, fixture.provider.issuer);
    assert_eq!(config.jwks_uri, Some(format!("{}/keys", fixture.provider.issuer)));
    assert_eq!((config.subject_claim.as_str(), config.link_verified_email), ("sub", false));
    assert_eq!(config.token_auth_method, TokenAuthMethod::ClientSecretBasic);
    assert!(findings.iter().all(|finding| finding.level == FindingLevel::Ok), "{findings:?}");
    let url = format!("{}/.well-known/openid-configuration", fixture.provider.issuer);
    let by_url =
        OauthConfigSettings { name: Some("B".into()), issuer: None, metadata_url: Some(url), ..fixture.settings() };
    assert_eq!(create(&fixture, &by_url).await.unwrap().0.issuer, fixture.provider.issuer);
    for text in ["Acme ID", config.id.as_str()] {
        let found = oauth_configs::resolve(&fixture.cx, &fixture.ops, &fixture.organization, text).await.unwrap();
        assert_eq!(found, config);
    }
    assert_eq!(oauth_configs::list(&fixture.cx, &fixture.ops, &fixture.organization).await.unwrap().len(), 2);
    assert_rejected(create(&fixture, &fixture.settings()).await, Code::Conflict, "`Acme ID` already exists");
}

async fn an_invalid_provider_is_not_saved(fixture: Fixture) {
    let issuer = fixture.provider.issuer.clone();
    for (metadata, words) in [
        (json!({"issuer": "https://evil.example"}), "states the issuer `https://evil.example`"),
        (json!({"issuer": format!("{issuer}/")}), "was entered"),
        (json!({"token_endpoint": null}), "contains no token endpoint"),
        (json!({"token_endpoint": "http://127.0.0.1:9/t"}), "token endpoint http://127.0.0.1:9/t did not respond"),
        (
            json!({"authorization_endpoint": "https://10.1.2.3/a"}),
            "authorization endpoint https://10.1.2.3/a did not respond",
        ),
        (json!({"authorization_endpoint": "http://8.8.8.8/a"}), "must begin with https://"),
        (json!({"userinfo_endpoint": "ftp://x.example"}), "userinfo endpoint"),
        (json!({"jwks_uri": format!("{issuer}/nothing")}), "There are no keys at"),
        (json!({"id_token_signing_alg_values_supported": ["HS256", "none"]}), "with a public key (`HS256, none`)"),
        (json!({"jwks_uri": null, "userinfo_endpoint": null}), "contains no userinfo endpoint"),
    ] {
        fixture.provider.set().metadata = metadata;
        assert_rejected(create(&fixture, &fixture.settings()).await, Code::InvalidArguments, words);
    }
    fixture.provider.set().metadata = json!({});
    fixture.provider.set().published = Vec::new();
    assert_rejected(create(&fixture, &fixture.settings()).await, Code::InvalidArguments, "no public key");
    let at = |issuer: &str| OauthConfigSettings { issuer: Some(issuer.into()), ..fixture.settings() };
    assert_rejected(create(&fixture, &at("http://127.0.0.1:9")).await, Code::InvalidArguments, "did not respond");
    assert_rejected(create(&fixture, &at("https://169.254.169.254")).await, Code::InvalidArguments, "outbound_allow");
    assert_rejected(
        create(&fixture, &at(&format!("{issuer}/realm"))).await,
        Code::InvalidArguments,
        "No metadata of the provider",
    );
    assert_rejected(create(&fixture, &at("nonsense")).await, Code::InvalidArguments, "not a valid URL");
    assert_eq!(fixture.query_number("SELECT count(*) FROM oauth_configs").await, 0);
}

/// OpenID Connect Discovery, 4.3: metadata is valid only at the URL of its issuer.
async fn a_metadata_url_belongs_to_its_issuer(fixture: Fixture) {
    let url = format!("{}/.well-known/openid-configuration", fixture.provider.issuer);
    fixture.provider.set().metadata = json!({"issuer": "https://accounts.example"});
    let settings = OauthConfigSettings { issuer: None, metadata_url: Some(url), ..fixture.settings() };
    assert_rejected(
        create(&fixture, &settings).await,
        Code::InvalidArguments,
        "states the issuer `https://accounts.example`",
    );
}

async fn unusual_metadata_causes_a_warning(fixture: Fixture) {
    fixture.provider.set().metadata = json!({
        "code_challenge_methods_supported": null,
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "scopes_supported": ["openid", "email"],
    });
    let (config, findings) = create(&fixture, &fixture.settings()).await.unwrap();
    assert_eq!(config.token_auth_method, TokenAuthMethod::ClientSecretPost);
    assert_eq!(config.scopes, ["openid", "email"]);
    let [warning] = warnings(&findings)[..] else { panic!("{findings:?}") };
    assert!(warning.contains("PKCE with S256; Waypost sends it anyway"), "{warning}");
    let basic = Some(TokenAuthMethod::ClientSecretBasic);
    let settings = OauthConfigSettings { name: Some("B".into()), token_auth_method: basic, ..fixture.settings() };
    let (_, findings) = create(&fixture, &settings).await.unwrap();
    assert!(warnings(&findings)[1].contains("but not `client_secret_basic`"), "{findings:?}");
}

async fn endpoints_can_be_entered(fixture: Fixture) {
    let (config, _) = create(&fixture, &fixture.settings_without_metadata()).await.unwrap();
    assert_eq!((config.kind, config.issuer.as_str(), config.subject_claim.as_str()), (ProviderKind::Oauth, "", "id"));
    assert!(config.scopes.is_empty() && config.jwks_uri.is_none());
    let both =
        OauthConfigSettings { issuer: Some(fixture.provider.issuer.clone()), ..fixture.settings_without_metadata() };
    assert_rejected(create(&fixture, &both).await, Code::InvalidArguments, "or by its endpoints");
    let less =
        OauthConfigSettings { name: Some("B".into()), userinfo_endpoint: None, ..fixture.settings_without_metadata() };
    assert_rejected(
        create(&fixture, &less).await,
        Code::InvalidArguments,
        "authorization, token and userinfo endpoints",
    );
    // Metadata of plain OAuth, which does not define a userinfo endpoint.
    fixture.provider.set().metadata = json!({"jwks_uri": null, "userinfo_endpoint": null,
        "id_token_signing_alg_values_supported": null});
    let half = OauthConfigSettings {
        name: Some("B".into()),
        userinfo_endpoint: fixture.settings_without_metadata().userinfo_endpoint,
        subject_claim: Some("sub".into()),
        scopes: Some(vec!["read:user".into()]),
        ..fixture.settings()
    };
    let (half, _) = create(&fixture, &half).await.unwrap();
    assert_eq!((half.kind, half.issuer.as_str()), (ProviderKind::Oauth, fixture.provider.issuer.as_str()));
    assert_eq!((half.subject_claim.as_str(), half.scopes), ("sub", vec!["read:user".to_owned()]));
}

async fn values_are_validated(fixture: Fixture) {
    let good = fixture.settings();
    for (settings, field) in [
        (OauthConfigSettings { client_id: None, ..good.clone() }, "client_id"),
        (OauthConfigSettings { client_id: Some("ü".into()), ..good.clone() }, "client_id"),
        (OauthConfigSettings { client_secret: Some(SecretText::new("")), ..good.clone() }, "client_secret"),
        (OauthConfigSettings { client_secret: Some(SecretText::new("a\nb")), ..good.clone() }, "client_secret"),
        (OauthConfigSettings { scopes: Some(vec!["a b".into()]), ..good.clone() }, "scope"),
        (OauthConfigSettings { subject_claim: Some(" ".into()), ..good.clone() }, "subject_claim"),
        (OauthConfigSettings { name: Some(" ".into()), ..good.clone() }, "name"),
        (OauthConfigSettings { token_auth_method: Some(TokenAuthMethod::None), ..good.clone() }, "token_auth_method"),
        (
            OauthConfigSettings {
                token_auth_method: Some(TokenAuthMethod::ClientSecretPost),
                client_secret: None,
                ..good.clone()
            },
            "client_secret",
        ),
    ] {
        let error = create(&fixture, &settings).await.unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &field.into()), "{error}");
    }
}

async fn changes_are_checked_too(fixture: Fixture) {
    let (config, _) = create(&fixture, &fixture.settings()).await.unwrap();
    // Changing the name needs no request to the provider.
    fixture.provider.set().metadata = json!({"issuer": "https://evil.example"});
    let own = OauthConfigSettings {
        name: Some("New".into()),
        link_verified_email: Some(true),
        ..OauthConfigSettings::default()
    };
    let config = update(&fixture, &config, &own).await.unwrap();
    assert!(config.name == "New" && config.can_link_by_email());
    let scopes = OauthConfigSettings { scopes: Some(vec!["profile".into()]), ..OauthConfigSettings::default() };
    assert_rejected(update(&fixture, &config, &scopes).await, Code::InvalidArguments, "evil.example");
    fixture.provider.set().metadata = json!({});
    let changed = update(&fixture, &config, &scopes).await.unwrap();
    assert_eq!(changed.scopes, ["openid", "profile"]);
    assert_eq!(changed.client_secret, config.client_secret, "absent settings are unchanged");
    assert_rejected(update(&fixture, &config, &own_name("Other")).await, Code::Conflict, "in the meantime");
    // The saved secret is sent only to the host that it was entered for.
    let other = crate::provider::Provider::start().await;
    let elsewhere = OauthConfigSettings { issuer: Some(other.issuer.clone()), ..OauthConfigSettings::default() };
    assert_rejected(update(&fixture, &changed, &elsewhere).await, Code::InvalidArguments, "client secret again");
    let with_secret = OauthConfigSettings { client_secret: Some(SecretText::new("new")), ..elsewhere };
    let moved = update(&fixture, &changed, &with_secret).await.unwrap();
    assert_eq!(moved.issuer, other.issuer);
}

fn own_name(name: &str) -> OauthConfigSettings {
    OauthConfigSettings { name: Some(name.into()), ..OauthConfigSettings::default() }
}

async fn a_check_reports_changed_metadata(fixture: Fixture) {
    let (config, _) = create(&fixture, &fixture.settings()).await.unwrap();
    let check = async || oauth_configs::check(&fixture.cx, &fixture.ops, &config).await.unwrap();
    assert!(check().await.iter().all(|finding| finding.level == FindingLevel::Ok));
    let moved = format!("{}/authorize?v=2", fixture.provider.issuer);
    fixture.provider.set().metadata = json!({"authorization_endpoint": moved});
    let errors = |findings: Vec<ProviderFinding>| {
        let errors = findings.into_iter().filter(|finding| finding.level == FindingLevel::Error);
        errors.map(|finding| finding.message).collect::<Vec<_>>().join(" ")
    };
    assert!(errors(check().await).contains("has changed"));
    fixture.provider.set().metadata = json!({"token_endpoint": "http://127.0.0.1:9/t"});
    assert!(errors(check().await).contains("did not respond"));
}

async fn a_provider_in_use_cannot_be_deleted(fixture: Fixture) {
    let custom = || servers::ServerSettings { auth_type: Some(AuthType::CustomOauth), ..Default::default() };
    let make = async |slug: &str, settings: servers::ServerSettings| {
        servers::create(&fixture.cx, &fixture.ops, &fixture.organization, slug, &settings).await
    };
    assert_rejected(make("acme-docs", custom()).await, Code::InvalidArguments, "waypost oauth-config create");
    let (one, _) = create(&fixture, &fixture.settings()).await.unwrap();
    let docs = make("acme-docs", custom()).await.unwrap();
    assert_eq!(docs.oauth_config_id, Some(one.id.clone()), "the only provider is used");
    let settings = OauthConfigSettings { name: Some("Two".into()), ..fixture.settings() };
    let (two, _) = create(&fixture, &settings).await.unwrap();
    assert_rejected(make("acme-more", custom()).await, Code::InvalidArguments, "choose one of `Acme ID`, `Two`");
    let named = |name: &str| servers::ServerSettings { oauth_config: Some(name.into()), ..custom() };
    assert_rejected(make("acme-more", named("Three")).await, Code::InvalidArguments, "no identity provider `Three`");
    assert_rejected(make("acme-more", named("none")).await, Code::InvalidArguments, "choose one of");
    make("acme-more", named("Two")).await.unwrap();
    let delete = async |id| oauth_configs::delete(&fixture.cx, &fixture.ops, &fixture.organization, id).await;
    assert_rejected(delete(&one.id).await, Code::Conflict, "`acme-docs`. Change them first");
    let change = servers::ServerSettings { oauth_config: Some(two.id.to_string()), ..Default::default() };
    let docs = servers::update(&fixture.cx, &fixture.ops, &fixture.organization, &docs.id, &change).await.unwrap();
    assert_eq!(docs.oauth_config_id, Some(two.id.clone()));
    delete(&one.id).await.unwrap();
    assert_rejected(delete(&one.id).await, Code::NotFound, "identity provider");
    let using = oauth_configs::list_servers(&fixture.cx, &fixture.ops, &fixture.organization, &two.id).await.unwrap();
    assert_eq!(using, ["acme-docs", "acme-more"]);
}

async fn providers_are_scoped_to_their_organisation(fixture: Fixture) {
    let (config, _) = create(&fixture, &fixture.settings()).await.unwrap();
    let other = organizations::create(&fixture.cx, &fixture.ops, "other", None).await.unwrap().id;
    let by = |organization_id, role| {
        fixture.cx.with_caller(Caller::Member { organization_id, role, actor: "usr_caller".to_owned() })
    };
    let (foreign, member) = (by(other.clone(), Role::Owner), by(fixture.organization.clone(), Role::Member));
    let Fixture { ops, organization, .. } = &fixture;
    assert_rejected(
        oauth_configs::resolve(&foreign, ops, organization, "Acme ID").await,
        Code::NotFound,
        "organisation",
    );
    assert_rejected(
        oauth_configs::resolve(&foreign, ops, &other, config.id.as_str()).await,
        Code::NotFound,
        "provider",
    );
    assert_rejected(oauth_configs::list(&foreign, ops, organization).await, Code::NotFound, "organisation");
    assert_rejected(
        oauth_configs::list_servers(&foreign, ops, organization, &config.id).await,
        Code::NotFound,
        "organisation",
    );
    assert_rejected(oauth_configs::check(&foreign, ops, &config).await, Code::NotFound, "organisation");
    assert_rejected(oauth_configs::delete(&foreign, ops, &other, &config.id).await, Code::NotFound, "provider");
    let renamed = own_name("Mine");
    assert_rejected(oauth_configs::update(&foreign, ops, &config, &renamed).await, Code::NotFound, "organisation");
    assert_eq!(oauth_configs::resolve(&member, ops, organization, "Acme ID").await.unwrap(), config);
    assert_rejected(oauth_configs::update(&member, ops, &config, &renamed).await, Code::Forbidden, "`admin`");
    assert_rejected(oauth_configs::delete(&member, ops, organization, &config.id).await, Code::Forbidden, "`admin`");
    assert_rejected(oauth_configs::check(&member, ops, &config).await, Code::Forbidden, "`admin`");
    // A server of another organisation cannot use it, even for the operator.
    let settings = servers::ServerSettings { oauth_config: Some(config.id.to_string()), ..Default::default() };
    assert_rejected(
        servers::create(&fixture.cx, ops, &other, "other", &settings).await,
        Code::InvalidArguments,
        "no identity",
    );
}

async fn the_audit_log_contains_no_secret(fixture: Fixture) {
    let (config, _) = create(&fixture, &fixture.settings()).await.unwrap();
    update(&fixture, &config, &own_name("New")).await.unwrap();
    oauth_configs::delete(&fixture.cx, &fixture.ops, &fixture.organization, &config.id).await.unwrap();
    let sql = "SELECT count(*) FROM audit_events WHERE act LIKE 'oauth_config.%'";
    assert_eq!(fixture.query_number(sql).await, 3);
    let sql = "SELECT detail FROM audit_events WHERE act = 'oauth_config.create'";
    let detail = fixture.query_text(sql).await;
    assert!(detail.contains("\"has_client_secret\":true"), "{detail}");
    assert!(!detail.contains(CLIENT_SECRET) && !detail.contains("v1."), "{detail}");
    assert!(!format!("{:?}", fixture.settings()).contains(CLIENT_SECRET));
}

waypost_testkit::both!(extended fixture =>
    the_metadata_determines_the_settings,
    an_invalid_provider_is_not_saved,
    a_metadata_url_belongs_to_its_issuer,
    unusual_metadata_causes_a_warning,
    endpoints_can_be_entered,
    values_are_validated,
    changes_are_checked_too,
    a_check_reports_changed_metadata,
    a_provider_in_use_cannot_be_deleted,
    providers_are_scoped_to_their_organisation,
    the_audit_log_contains_no_secret,
);
