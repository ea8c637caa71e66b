//! Identity providers, and the key that their secrets are sealed with.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::{Answer, Place};

/// A provider as far as `oauth-config` looks at it; it ends with the test's process.
pub fn provider() -> String {
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

impl Place {
    /// A command that may ask this machine's loopback.
    fn out(&self, arguments: &[&str]) -> Answer {
        self.answer(self.command(arguments).env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=sign-in").output().unwrap())
    }

    /// An organisation with a provider and a server that uses it; gives the provider's issuer.
    fn with_provider(&self) -> String {
        let issuer = provider();
        let secret = self.file("client-secret", "geheim\n");
        self.fine(&["org", "create", "acme"]);
        let made = self.out(&[
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
        assert_eq!((made.code, made.err.as_str()), (0, ""), "{}", made.out);
        assert!(made.out.contains("warning: ") && made.out.contains("PKCE with S256"), "{}", made.out);
        assert!(!made.out.contains("geheim"));
        self.fine(&["server", "create", "acme-docs", "--org", "acme", "--auth-type", "custom_oauth"]);
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

    /// Writes the key of `name` into the file `to`.
    fn set_key(&self, to: &str, key: &str) {
        std::fs::write(self.path(&format!("waypost-data/{to}")), key).unwrap();
    }
}

#[test]
fn an_operator_configures_a_provider() {
    let place = Place::new();
    let issuer = place.with_provider();
    let shown = place.json(&["oauth-config", "show", "Acme ID"]);
    assert_eq!((&shown["client_secret"], &shown["kind"]), (&"set".into(), &"openid".into()));
    assert_eq!(shown["issuer"], issuer.as_str());
    assert_eq!(
        shown["redirect_uris"],
        json!(["http://localhost:8080/s/acme-docs/oauth/callback", "http://acme-docs.localhost:8080/oauth/callback",])
    );
    let server = place.json(&["server", "show", "acme-docs"]);
    assert_eq!(server["oauth_config_id"], shown["id"]);
    let refusal = place.fails(1, &["oauth-config", "delete", "Acme ID", "--yes"]);
    assert!(refusal.contains("Servers sign their users in with this provider: `acme-docs`"), "{refusal}");
    let checked = place.out(&["oauth-config", "check", "Acme ID"]);
    assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{}", checked.out);
    // Without the allowance there is no way to it.
    let checked = place.run(&["oauth-config", "check", "Acme ID"]);
    assert!(checked.code == 1 && checked.out.contains("outbound_allow"), "{}", checked.out);
    let refusal = place.fails(1, &["oauth-config", "update", "Acme ID", "--client-id", "other"]);
    assert!(refusal.contains("gives no answer"), "{refusal}");
    place.fine(&["oauth-config", "update", "Acme ID", "--name", "Other", "--link-verified-email", "true"]);
    place.fine(&["server", "update", "acme-docs", "--auth-type", "none", "--oauth-config", "none"]);
    place.fine(&["oauth-config", "delete", "Other", "--yes"]);
    insta::assert_snapshot!(place.fine(&["oauth-config", "list"]), @"Nothing there yet.");
    insta::assert_snapshot!(place.fails(1, &["oauth-config", "show", "Other"]), @"error: there is no identity provider `Other`: `waypost oauth-config list` shows them");
}

#[test]
fn a_rotation_makes_a_new_key_and_keeps_the_former() {
    let place = Place::new();
    place.with_provider();
    let first = place.key("secret.key");
    let rotated = place.json(&["secret", "rotate"]);
    assert_eq!(rotated, json!({"new_key": true, "resealed": 1, "unreadable": 0}));
    let second = place.key("secret.key");
    assert!(first != second && place.key("secret.key.previous") == first);
    assert_eq!(place.doctor(), (true, "the secret key opens all of them".to_owned()));
    // The former key is not needed for what is sealed any more.
    std::fs::remove_file(place.path("waypost-data/secret.key.previous")).unwrap();
    assert!(place.doctor().0);
    assert_eq!(place.out(&["oauth-config", "check", "Acme ID"]).code, 0);
    insta::assert_snapshot!(place.fine(&["secret", "rotate"]), @"
    There is a new key; the former one is kept in ./waypost-data/secret.key.previous.
    1 secrets were sealed anew.
    ");
    assert_eq!(place.key("secret.key.previous"), second);
    #[cfg(unix)]
    for name in ["secret.key", "secret.key.previous"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(place.path(&format!("waypost-data/{name}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Every state in which the power can fail: everything opens, and the next command brings it to an end.
#[test]
fn a_rotation_that_was_interrupted_is_finished() {
    let place = Place::new();
    place.with_provider();
    let first = place.key("secret.key");
    // After the first step: the key stands in both files.
    place.set_key("secret.key.previous", &first);
    assert!(place.doctor().0);
    assert_eq!(place.json(&["secret", "rotate"])["new_key"], true);
    // After the second: nothing is sealed with the new key yet.
    let second = place.key("secret.key");
    let third = "ab".repeat(32);
    place.set_key("secret.key.previous", &second);
    place.set_key("secret.key", &third);
    assert!(place.doctor().0);
    assert_eq!(place.out(&["oauth-config", "check", "Acme ID"]).code, 0);
    let finished = place.json(&["secret", "rotate"]);
    assert_eq!(finished, json!({"new_key": false, "resealed": 1, "unreadable": 0}));
    assert_eq!((place.key("secret.key"), place.key("secret.key.previous")), (third, second));
}

#[test]
fn keys_that_are_set_are_rotated_by_their_owner() {
    let place = Place::new();
    place.with_provider();
    let (former, new) = (place.key("secret.key").trim().to_owned(), "cd".repeat(32));
    let rotate = |environment: &[(&str, &str)]| {
        let mut command = place.command(&["secret", "rotate", "--json"]);
        place.answer(command.envs(environment.iter().copied()).output().unwrap())
    };
    let alone = rotate(&[("WAYPOST_SECRET_KEY", &new)]);
    assert!(alone.code == 2 && alone.err.contains("WAYPOST_SECRET_KEY_PREVIOUS"), "{}", alone.err);
    let wrong = rotate(&[("WAYPOST_SECRET_KEY", &new), ("WAYPOST_SECRET_KEY_PREVIOUS", &"ef".repeat(32))]);
    let answer: Value = serde_json::from_str(&wrong.out).unwrap();
    assert_eq!((wrong.code, answer), (1, json!({"new_key": false, "resealed": 0, "unreadable": 1})));
    let both = rotate(&[("WAYPOST_SECRET_KEY", &new), ("WAYPOST_SECRET_KEY_PREVIOUS", &former)]);
    let answer: Value = serde_json::from_str(&both.out).unwrap();
    assert_eq!((both.code, answer), (0, json!({"new_key": false, "resealed": 1, "unreadable": 0})));
    assert_eq!(place.key("secret.key").trim(), former, "the file is none of its business");
    let (ok, found) = place.doctor();
    assert!(!ok && found.contains("neither the current nor the previous one"), "{found}");
    // And where there is no key at all, none opens anything.
    std::fs::remove_file(place.path("waypost-data/secret.key")).unwrap();
    assert!(!place.doctor().0);
}
