//! Identity providers and the secret key that seals their client secrets.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::{CommandResult, Workspace};

/// Starts a provider that serves the documents that `oauth-config` reads. It runs until the test process exits.
pub fn start_provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let at = |path: &str| format!("{issuer}{path}");
    let metadata = json!({
        "issuer": issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "userinfo_endpoint": at("/userinfo"), "jwks_uri": at("/keys"),
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let body = match head.first().and_then(|line| line.split(' ').nth(1)) {
                Some("/.well-known/openid-configuration") => metadata.clone(),
                Some("/keys") => json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}),
                _ => json!({}),
            };
            let body = body.to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    issuer
}

impl Workspace {
    /// Runs a command that can reach providers on loopback.
    fn run_with_loopback(&self, arguments: &[&str]) -> CommandResult {
        self.to_result(self.command(arguments).env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=sign-in").output().unwrap())
    }

    /// Creates an organisation with a provider and a server that uses it. Returns the issuer.
    fn create_provider(&self) -> String {
        let issuer = start_provider();
        let secret = self.write_file("client-secret", "hunter2\n");
        self.run_ok(&["org", "create", "acme"]);
        let created = self.run_with_loopback(&[
            "oauth-config",
            "create",
            "Acme ID",
            "--org",
            "acme",
            "--issuer",
            &issuer,
            "--client-id",
            "waypost",
            "--client-secret-file",
            &secret,
        ]);
        assert_eq!((created.code, created.err.as_str()), (0, ""), "{}", created.out);
        assert!(created.out.contains("warning: ") && created.out.contains("PKCE with S256"), "{}", created.out);
        assert!(!created.out.contains("hunter2"));
        self.run_ok(&["server", "create", "acme-docs", "--org", "acme", "--auth-type", "custom_oauth"]);
        issuer
    }

    fn doctor(&self) -> (bool, String) {
        let output = self.command(&["doctor", "--json"]).env("WAYPOST_CLIENT_DOCUMENTS", "off").output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = report["items"].as_array().unwrap();
        let check = items.iter().find(|item| item["check"] == "sealed secrets").unwrap();
        (check["status"] == "ok", check["found"].as_str().unwrap().to_owned())
    }

    fn key(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("waypost-data/{name}"))).unwrap()
    }

    /// Writes a key into the file `to` in the data directory.
    fn set_key(&self, to: &str, key: &str) {
        std::fs::write(self.path(&format!("waypost-data/{to}")), key).unwrap();
    }
}

#[test]
fn an_operator_configures_a_provider() {
    let workspace = Workspace::new();
    let issuer = workspace.create_provider();
    let shown = workspace.run_json(&["oauth-config", "show", "Acme ID"]);
    assert_eq!((&shown["client_secret"], &shown["kind"]), (&"set".into(), &"openid".into()));
    assert_eq!(shown["issuer"], issuer.as_str());
    assert_eq!(
        shown["redirect_uris"],
        json!(["http://localhost:8080/s/acme-docs/oauth/callback", "http://acme-docs.localhost:8080/oauth/callback",])
    );
    let server = workspace.run_json(&["server", "show", "acme-docs"]);
    assert_eq!(server["oauth_config_id"], shown["id"]);
    let error = workspace.run_err(1, &["oauth-config", "delete", "Acme ID", "--yes"]);
    assert!(error.contains("These servers use this provider: `acme-docs`"), "{error}");
    let checked = workspace.run_with_loopback(&["oauth-config", "check", "Acme ID"]);
    assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{}", checked.out);
    // Without the `outbound_allow` entry the provider cannot be reached.
    let checked = workspace.run(&["oauth-config", "check", "Acme ID"]);
    assert!(checked.code == 1 && checked.out.contains("outbound_allow"), "{}", checked.out);
    let error = workspace.run_err(1, &["oauth-config", "update", "Acme ID", "--client-id", "other"]);
    assert!(error.contains("did not respond"), "{error}");
    workspace.run_ok(&["oauth-config", "update", "Acme ID", "--name", "Other", "--link-verified-email", "true"]);
    workspace.run_ok(&["server", "update", "acme-docs", "--auth-type", "none", "--oauth-config", "none"]);
    workspace.run_ok(&["oauth-config", "delete", "Other", "--yes"]);
    insta::assert_snapshot!(workspace.run_ok(&["oauth-config", "list"]), @"No entries.");
    insta::assert_snapshot!(workspace.run_err(1, &["oauth-config", "show", "Other"]), @"error: there is no identity provider `Other`: run `waypost oauth-config list` to see all");
}

#[test]
fn rotation_creates_a_new_key_and_keeps_the_old_one() {
    let workspace = Workspace::new();
    workspace.create_provider();
    let first = workspace.key("secret.key");
    let rotated = workspace.run_json(&["secret-key", "rotate"]);
    assert_eq!(rotated, json!({"new_key": true, "resealed": 1, "unreadable": 0}));
    let second = workspace.key("secret.key");
    assert!(first != second && workspace.key("secret.key.previous") == first);
    assert_eq!(workspace.doctor(), (true, "all can be decrypted".to_owned()));
    // The old key is no longer needed.
    std::fs::remove_file(workspace.path("waypost-data/secret.key.previous")).unwrap();
    assert!(workspace.doctor().0);
    assert_eq!(workspace.run_with_loopback(&["oauth-config", "check", "Acme ID"]).code, 0);
    insta::assert_snapshot!(workspace.run_ok(&["secret-key", "rotate"]), @"
    Generated a new key. The previous key is kept in ./waypost-data/secret.key.previous.
    Re-encrypted 1 secrets.
    ");
    assert_eq!(workspace.key("secret.key.previous"), second);
    #[cfg(unix)]
    for name in ["secret.key", "secret.key.previous"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(workspace.path(&format!("waypost-data/{name}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Regardless of the step at which a power failure interrupts a rotation, all secrets can be decrypted, and the next
/// command completes the rotation.
#[test]
fn an_interrupted_rotation_is_completed() {
    let workspace = Workspace::new();
    workspace.create_provider();
    let first = workspace.key("secret.key");
    // After the first step, the key is in both files.
    workspace.set_key("secret.key.previous", &first);
    assert!(workspace.doctor().0);
    assert_eq!(workspace.run_json(&["secret-key", "rotate"])["new_key"], true);
    // After the second step, nothing is sealed with the new key yet.
    let second = workspace.key("secret.key");
    let third = "ab".repeat(32);
    workspace.set_key("secret.key.previous", &second);
    workspace.set_key("secret.key", &third);
    assert!(workspace.doctor().0);
    assert_eq!(workspace.run_with_loopback(&["oauth-config", "check", "Acme ID"]).code, 0);
    let finished = workspace.run_json(&["secret-key", "rotate"]);
    assert_eq!(finished, json!({"new_key": false, "resealed": 1, "unreadable": 0}));
    assert_eq!((workspace.key("secret.key"), workspace.key("secret.key.previous")), (third, second));
}

#[test]
fn configured_keys_are_rotated_by_the_operator() {
    let workspace = Workspace::new();
    workspace.create_provider();
    let (former, new) = (workspace.key("secret.key").trim().to_owned(), "cd".repeat(32));
    let rotate = |environment: &[(&str, &str)]| {
        let mut command = workspace.command(&["secret-key", "rotate", "--json"]);
        workspace.to_result(command.envs(environment.iter().copied()).output().unwrap())
    };
    let alone = rotate(&[("WAYPOST_SECRET_KEY", &new)]);
    assert!(alone.code == 2 && alone.err.contains("WAYPOST_SECRET_KEY_PREVIOUS"), "{}", alone.err);
    let wrong = rotate(&[("WAYPOST_SECRET_KEY", &new), ("WAYPOST_SECRET_KEY_PREVIOUS", &"ef".repeat(32))]);
    let result: Value = serde_json::from_str(&wrong.out).unwrap();
    assert_eq!((wrong.code, result), (1, json!({"new_key": false, "resealed": 0, "unreadable": 1})));
    let both = rotate(&[("WAYPOST_SECRET_KEY", &new), ("WAYPOST_SECRET_KEY_PREVIOUS", &former)]);
    let result: Value = serde_json::from_str(&both.out).unwrap();
    assert_eq!((both.code, result), (0, json!({"new_key": false, "resealed": 1, "unreadable": 0})));
    assert_eq!(workspace.key("secret.key").trim(), former, "the key file does not change");
    let (ok, found) = workspace.doctor();
    assert!(!ok && found.contains("neither the current nor the previous one"), "{found}");
    // Without any key, no secret can be decrypted.
    std::fs::remove_file(workspace.path("waypost-data/secret.key")).unwrap();
    assert!(!workspace.doctor().0);
}
