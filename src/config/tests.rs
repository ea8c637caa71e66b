use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("waypost.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources {
        file: Some(path),
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    };
    Settings::load(&sources).map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), "DIR"))
}

fn load_error(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    load(file, environment, flags).unwrap_err()
}

#[test]
fn retention_periods_are_in_days_or_hours_or_off() {
    let day = 86_400_000;
    let periods = load("", &[], &[]).unwrap().retention;
    assert_eq!((periods.tool_calls, periods.events), (Some(90 * day), Some(400 * day)));
    assert_eq!((periods.audit, periods.deliveries), (Some(730 * day), Some(30 * day)));
    assert_eq!(periods.gateway_calls, Some(30 * day));
    for (text, period) in [("1d", Some(day)), ("36h", Some(day * 3 / 2)), ("off", None), ("0", None), ("0d", None)] {
        let settings = load("", &[("WAYPOST_RETENTION_AUDIT", text)], &[]).unwrap();
        assert_eq!(settings.retention.audit, period, "{text}");
    }
    for text in ["", "90", "-1d", "1.5d", "d", "99999999999d"] {
        assert!(load_error("", &[("WAYPOST_RETENTION_AUDIT", text)], &[]).contains("retention_audit"), "{text}");
    }
}

#[test]
fn flags_override_environment_overrides_file_overrides_defaults() {
    let settings = load("listen = '127.0.0.1:1'\nrate_limit_burst = 7", &[], &[]).unwrap();
    assert_eq!((settings.listen.port(), settings.rate_limit_burst, settings.rate_limit_per_caller), (1, 7, 100));
    let environment = [("WAYPOST_LISTEN", "127.0.0.1:2"), ("HOME", "/root")];
    let settings = load("listen = '127.0.0.1:1'", &environment, &[]).unwrap();
    assert_eq!(settings.listen.port(), 2);
    let settings = load("listen = '127.0.0.1:1'", &environment, &[("listen", "[::1]:3")]).unwrap();
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.origin("listen"), Some(&Origin::Flag("--listen")));
    assert_eq!(settings.public_url(3).as_str(), "http://localhost:3/");
}

#[test]
fn the_data_directory_moves_only_the_default_database() {
    let settings = load("data_dir = '/srv/100%?'", &[], &[]).unwrap();
    assert_eq!(settings.database_url.expose(), "sqlite:///srv/100%25%3F/waypost.db");
    let settings = load("database_url = 'sqlite:///x.db'", &[], &[("data_dir", "/elsewhere")]).unwrap();
    assert_eq!(settings.database_url.expose(), "sqlite:///x.db");
}

#[test]
fn unknown_settings_are_named_in_the_error() {
    insta::assert_snapshot!(load_error("lisen = 'x'", &[], &[]), @"unknown setting `lisen` (from file DIR/waypost.toml); did you mean `listen`?");
    insta::assert_snapshot!(load_error("[server]\nport = 1", &[], &[]), @"unknown setting `server` (from file DIR/waypost.toml); see docs/config.md for all settings");
    insta::assert_snapshot!(load_error("", &[("WAYPOST_DATABASE", "x")], &[]), @"unknown setting `WAYPOST_DATABASE` (from environment variable WAYPOST_DATABASE); did you mean `WAYPOST_DATABASE_URL`?");
}

#[test]
fn variables_for_commands_are_not_settings() {
    let environment = [("WAYPOST_URL", "https://waypost.example.com"), ("WAYPOST_API_KEY", "wpk_x")];
    load("", &environment, &[]).unwrap();
    insta::assert_snapshot!(load_error("", &[("WAYPOST_APIKEY", "wpk_password")], &[]), @"unknown setting `WAYPOST_APIKEY` (from environment variable WAYPOST_APIKEY); did you mean `WAYPOST_API_KEY`?");
    insta::assert_snapshot!(load_error("url = 'https://a.example'", &[], &[]), @"unknown setting `url` (from file DIR/waypost.toml); see docs/config.md for all settings");
}

#[test]
fn invalid_settings_are_named_in_the_error() {
    insta::assert_snapshot!(load_error("listen = 8080", &[], &[]), @"invalid setting `listen` (from file DIR/waypost.toml): expected an address and a port, such as 127.0.0.1:8080, not `8080`");
    insta::assert_snapshot!(load_error("listen = {}", &[], &[]), @"invalid setting `listen` (from file DIR/waypost.toml): expected a string, a number or a list of strings");
    insta::assert_snapshot!(load_error("", &[("WAYPOST_PUBLIC_URL", "https://a.example/b")], &[]), @"invalid setting `public_url` (from environment variable WAYPOST_PUBLIC_URL): expected an origin, such as https://waypost.example.com, without path, query or fragment");
    insta::assert_snapshot!(load_error("", &[("WAYPOST_LOG_LEVEL", "verbose")], &[]), @"invalid setting `log_level` (from environment variable WAYPOST_LOG_LEVEL): expected off, error, warn, info, debug or trace, not `verbose`");
    insta::assert_snapshot!(load_error("", &[], &[("database_url", "mysql://u:password@h/d")]), @"invalid setting `database_url` (from flag --database): expected sqlite://PATH or postgres://USER@HOST/DATABASE");
    insta::assert_snapshot!(load_error("trusted_proxies = ['10.0.0.0/8', 'x']", &[], &[]), @"invalid setting `trusted_proxies` (from file DIR/waypost.toml): expected addresses or networks, such as 10.0.0.0/8, not `x`");
    insta::assert_snapshot!(load_error("a =", &[], &[]), @"the configuration file DIR/waypost.toml is not valid TOML, line 1: string values must be quoted, expected literal string");
}

#[test]
fn secrets_never_appear_in_errors_or_debug_output() {
    let key = "5eC2e7".repeat(11);
    for message in [
        load_error("", &[("WAYPOST_SECRET_KEY", &key)], &[]),
        load_error(&format!("secret_key = '{key}'"), &[], &[]),
        load_error(&format!("secret_key = {key}"), &[], &[]),
        load_error(&format!("secret_key = '{key}"), &[], &[]),
        load_error("", &[("WAYPOST_DATABASE_URL", "postgres://u:5eC2e7@[h/d")], &[]),
    ] {
        assert!(!message.contains("5eC2e7"), "{message}");
    }
    let url = "postgres://user:5eC2e7@host:5433/db?password=5eC2e7";
    let environment = [("WAYPOST_DATABASE_URL", url), ("WAYPOST_SECRET_KEY", &"5e".repeat(32))];
    let settings = load("", &environment, &[]).unwrap();
    assert_eq!(settings.database_url.to_string(), "postgres://user@host:5433/db");
    let shown = format!("{settings:?}");
    assert!(!shown.contains("5eC2e7") && !shown.contains("5e5e5e") && !shown.contains("94, 94"), "{shown}");
}

#[test]
fn forwarded_headers_are_a_list_of_names() {
    let settings = load("gateway_forwarded_headers = ['X-Tenant', 'x-request-id']", &[], &[]).unwrap();
    assert_eq!(settings.gateway_forwarded_headers, "x-tenant,x-request-id".parse().unwrap());
    assert_eq!(load("", &[], &[]).unwrap().gateway_forwarded_headers, waypost_gateway::ForwardedHeaders::default());
    let error = load_error("", &[("WAYPOST_GATEWAY_FORWARDED_HEADERS", "X-Tenant,Authorization")], &[]);
    insta::assert_snapshot!(error, @"invalid setting `gateway_forwarded_headers` (from environment variable WAYPOST_GATEWAY_FORWARDED_HEADERS): the header `authorization` is never forwarded");
}

#[test]
fn elicitation_hosts_are_a_list_or_every_host() {
    let settings = load("gateway_elicitation_hosts = ['Auth.example.com', '127.0.0.1']", &[], &[]).unwrap();
    assert_eq!(settings.gateway_elicitation_hosts, "auth.example.com,127.0.0.1".parse().unwrap());
    assert_eq!(load("", &[], &[]).unwrap().gateway_elicitation_hosts, waypost_gateway::ElicitationHosts::default());
    let every = load("", &[("WAYPOST_GATEWAY_ELICITATION_HOSTS", "*")], &[]).unwrap();
    assert_eq!(every.gateway_elicitation_hosts, waypost_gateway::ElicitationHosts::Any);
    let error = load_error("gateway_elicitation_hosts = 'https://auth.example.com'", &[], &[]);
    assert!(
        error.contains("`gateway_elicitation_hosts`") && error.contains("not `https://auth.example.com`"),
        "{error}"
    );
}

#[test]
fn the_call_timeout_is_limited() {
    assert_eq!(load("", &[], &[]).unwrap().gateway_call_timeout_seconds, 30);
    for seconds in [1, 300] {
        let settings = load(&format!("gateway_call_timeout_seconds = {seconds}"), &[], &[]).unwrap();
        assert_eq!(settings.gateway_call_timeout_seconds, seconds);
    }
    for text in ["0", "301", "-1", "30s", ""] {
        let error = load_error("", &[("WAYPOST_GATEWAY_CALL_TIMEOUT_SECONDS", text)], &[]);
        assert!(error.contains("gateway_call_timeout_seconds"), "{error}");
    }
}

#[test]
fn proxies_are_addresses_or_networks() {
    let settings = load("", &[("WAYPOST_TRUSTED_PROXIES", "192.0.2.7, 10.1.2.3/8,2001:db8::/32")], &[]).unwrap();
    for (peer, trusted) in [
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("10.255.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("2001:db8::1", true),
        ("::1", false),
    ] {
        assert_eq!(settings.is_trusted_proxy(peer.parse().unwrap()), trusted, "{peer}");
    }
}

#[test]
fn outgoing_requests_reach_only_the_public_internet_by_default() {
    let settings = load("", &[], &[]).unwrap();
    assert_eq!((settings.outbound_allow, settings.outbound_ca_file), (Vec::new(), None));
    let file = "outbound_allow = ['10.1.2.3/16=sign-in', '::1=webhooks@acme']\noutbound_ca_file = 'ca.pem'";
    let settings = load(file, &[], &[]).unwrap();
    let allowed: Vec<_> = settings.outbound_allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.1.0.0/16=sign-in", "::1/128=webhooks@acme"]);
    let environment = [("WAYPOST_OUTBOUND_ALLOW", "10.0.0.0/8=tools, 127.0.0.1=client-documents")];
    assert_eq!(load("", &environment, &[]).unwrap().outbound_allow.len(), 2);
    assert_eq!(settings.outbound_ca_file.as_deref(), Some(Path::new("ca.pem")));
    insta::assert_snapshot!(load_error("outbound_allow = 'intranet'", &[], &[]), @"invalid setting `outbound_allow` (from file DIR/waypost.toml): expected NETWORK=PURPOSE or NETWORK=PURPOSE@ORG, such as 10.0.0.0/8=sign-in, not `intranet`");
    insta::assert_snapshot!(load_error("", &[("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8")], &[]), @"invalid setting `outbound_allow` (from environment variable WAYPOST_OUTBOUND_ALLOW): `127.0.0.0/8` has no purpose: write 127.0.0.0/8=PURPOSE or 127.0.0.0/8=PURPOSE@ORG, where PURPOSE is one of sign-in, client-documents, webhooks, tools");
    insta::assert_snapshot!(load_error("", &[("WAYPOST_OUTBOUND_CA_FILE", "")], &[]), @"invalid setting `outbound_ca_file` (from environment variable WAYPOST_OUTBOUND_CA_FILE): expected a file path");
}

#[test]
fn kubernetes_service_variables_are_ignored() {
    let link = ("WAYPOST_PORT_8080_TCP", "tcp://10.0.0.1:8080");
    assert!(load("", &[link], &[]).is_err());
    assert!(load("", &[link, ("KUBERNETES_SERVICE_HOST", "10.0.0.1")], &[]).is_ok());
}

#[test]
fn sizes_have_units() {
    let size =
        |text| load("", &[("WAYPOST_VERSION_CACHE_BYTES", text)], &[]).map(|settings| settings.version_cache_bytes);
    assert_eq!(size("1024"), Ok(1024));
    assert_eq!(size("2 MiB"), Ok(2 * 1024 * 1024));
    assert!(size("99999999999999999999").is_err() && size("17179869184GiB").is_err() && size("-1").is_err());
}

/// Run with `WAYPOST_TEST_WRITE=1` to update the file.
#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    if std::env::var_os("WAYPOST_TEST_WRITE").is_some() {
        std::fs::write(&path, reference::reference()).unwrap();
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        current,
        reference::reference(),
        "docs/config.md is out of date: run the test with WAYPOST_TEST_WRITE=1"
    );
}

#[test]
fn toolboxes_on_postgresql_require_an_internal_url() {
    let mut settings = Settings::default();
    assert_eq!(settings.toolbox_switch(), ToolboxSwitch::On);
    settings.database_url = "postgres://waypost@db/waypost".parse().unwrap();
    assert_eq!(settings.toolbox_switch(), ToolboxSwitch::Incomplete);
    settings.internal_url = Some("https://10.0.0.1:8443".parse().unwrap());
    assert_eq!(settings.toolbox_switch(), ToolboxSwitch::On);
    settings.toolboxes = false;
    assert_eq!(settings.toolbox_switch(), ToolboxSwitch::Off);
}
