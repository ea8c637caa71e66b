//! The catalogue and the secrets of tool servers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::remote::RunningServer;
use crate::{CommandResult, Workspace};

const VALUE: &str = "hunter2-planted-value";

/// Returns the text of a catalogue entry whose image is referenced by its digest.
fn entry(version: &str, rest: &str) -> String {
    format!(
        "slug: search\nname: Search\nversion: '{version}'\ntransport: stdio\n\
         source: {{image: 'registry.example/search@sha256:{}'}}\n{rest}",
        "ab".repeat(32)
    )
}

/// Starts a registry without authentication, in which every tag has the same digest. It runs until the test process
/// exits.
fn start_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // A TLS handshake (RFC 8446, section 5.1) ends the connection.
            let mut first = [0];
            if stream.peek(&mut first).is_err() || first[0] == 22 {
                continue;
            }
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let is_found = lines.next().is_some_and(|line| line.contains("/search/manifests/"));
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let status = if is_found { "200 OK" } else { "404 Not Found" };
            let digest = format!("sha256:{}", "cd".repeat(32));
            let head = format!("HTTP/1.1 {status}\r\nDocker-Content-Digest: {digest}\r\nConnection: close");
            let _ = write!(stream, "{head}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    host
}

impl Workspace {
    /// Runs a command with a value on standard input.
    fn run_with_input(&self, arguments: &[&str], input: &str) -> CommandResult {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        self.to_result(child.wait_with_output().unwrap())
    }

    /// Returns everything in the data directory.
    fn read_data(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.path("waypost-data")).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn secrets_are_written_but_never_shown() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let file = workspace.write_file("token", &format!("{VALUE}\n"));
    insta::assert_snapshot!(workspace.run_ok(&["secret", "create", "TOKEN", "--org", "acme", "--value-file", &file]), @"
    id:          sec_…
    name:        TOKEN
    version:     1
    used by:     -
    created at:  TIME
    rotated at:  -
    ");
    for arguments in [
        &["secret", "create", "PIPED"][..],
        &["secret", "create", "DASH", "-"],
        &["secret", "create", "FILE", "--value-file", "-"],
    ] {
        let result = workspace.run_with_input(arguments, VALUE);
        assert_eq!((result.code, result.err.as_str()), (0, ""), "{arguments:?}");
        assert!(!result.out.contains(VALUE));
    }
    let rotated = workspace.run_with_input(&["secret", "rotate", "TOKEN", "--json"], "other\r\n\n");
    let rotated: Value = serde_json::from_str(&rotated.out).unwrap();
    assert_eq!((&rotated["version"], &rotated["used_by"]), (&json!(2), &json!([])));
    assert!(rotated["rotated_at"].is_string() && rotated.get("value").is_none());
    let listed = workspace.run_json(&["secret", "list"]);
    let names: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|secret| secret["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["DASH", "FILE", "PIPED", "TOKEN"]);
    let shown = workspace.run_json(&["secret", "show", "TOKEN"]);
    assert_eq!((&shown["version"], shown.get("value")), (&json!(2), None));
    assert!(!contains(&workspace.read_data(), VALUE), "values are stored encrypted");
    // A rotation of the secret key seals the values with the new key, also the one that was replaced just now.
    assert_eq!(workspace.run_json(&["secret-key", "rotate"]), json!({"new_key": true, "resealed": 5, "unreadable": 0}));
    insta::assert_snapshot!(workspace.run_err(1, &["secret", "create", "TOKEN", "--value-file", &file]), @"error: A secret named `TOKEN` already exists. Rotate it, or choose another name.");
    insta::assert_snapshot!(workspace.run_err(1, &["secret", "create", "a b", "--value-file", &file]), @"error: `name` must have 1 to 64 characters from A to Z, a to z, 0 to 9, `_` and `-`, such as `GITHUB_TOKEN`.");
    insta::assert_snapshot!(workspace.run_err(1, &["secret", "create", "EMPTY"]), @"error: `value` is empty. Enter the secret.");
    insta::assert_snapshot!(workspace.run_err(1, &["secret", "create", "GONE", "--value-file", "gone"]), @"error: cannot read the value from gone (No such file or directory)");
    let large = workspace.write_file("large", &"x".repeat(65_537));
    insta::assert_snapshot!(workspace.run_err(1, &["secret", "create", "LARGE", "--value-file", &large]), @"error: `value` has 65537 bytes; the maximum is 65536.");
    let largest = workspace.write_file("largest", &("x".repeat(65_536) + "\r\n"));
    workspace.run_ok(&["secret", "create", "LARGEST", "--value-file", &largest]);
    let argument = workspace.run_err(2, &["secret", "create", "ARGUMENT", VALUE]);
    assert!(argument.contains("pass the value with --value-file or on standard input"), "{argument}");
    insta::assert_snapshot!(workspace.run_ok(&["secret", "delete", "PIPED", "--yes"]), @"Deleted the secret PIPED.");
    insta::assert_snapshot!(workspace.run_err(1, &["secret", "delete", "PIPED", "--yes"]), @"error: there is no secret `PIPED`: run `waypost secret list` to see all");
    let audit = workspace.run_ok(&["audit", "list", "--act", "tool_secret.", "--json"]);
    assert!(audit.contains("tool_secret.rotate") && !audit.contains(VALUE), "{audit}");
}

#[test]
fn entries_are_imported_from_files() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let first = workspace.write_file("search.yaml", &entry("1.0", ""));
    insta::assert_snapshot!(workspace.run_ok(&["catalog", "import", &first, "--org", "acme"]), @"Created search (cat_…) from DIR/search.yaml: version 1.0");
    insta::assert_snapshot!(workspace.run_ok(&["catalog", "import", &first]), @"No changes in search (cat_…) from DIR/search.yaml: version 1.0");
    let second = workspace
        .write_file("search-2.yaml", &entry("2.0", "description: Finds pages.\negress: ['api.example.com:443']\n"));
    let imported = workspace.run_json(&["catalog", "import", &first, &second]);
    let changes: Vec<_> =
        imported["items"].as_array().unwrap().iter().map(|item| item["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["unchanged", "version_added"]);
    insta::assert_snapshot!(workspace.run_ok(&["catalog", "list"]), @"
    SLUG    NAME    VERSION  DEPLOYMENTS  STATE      ID
    search  Search  2.0      0            published  cat_…
    ");
    insta::assert_snapshot!(workspace.run_ok(&["catalog", "show", "search"]), @"
    id:                 cat_…
    slug:               search
    name:               Search
    description:        Finds pages.
    categories:         -
    license:            -
    documentation url:  -
    state:              published
    deployments:        0
    created at:         TIME
    updated at:         TIME

    VERSION  TRANSPORT  RESOURCES  SOURCE                                                                                           ID
    2.0      stdio      medium     registry.example/search@sha256:abababababababababababababababababababababababababababababababab  ctv_…
    1.0      stdio      medium     registry.example/search@sha256:abababababababababababababababababababababababababababababababab  ctv_…
    ");
    let shown = workspace.run_json(&["catalog", "show", "search"]);
    assert_eq!(shown["versions"][0]["egress"], json!(["api.example.com:443"]));
    assert_eq!(workspace.run_json(&["catalog", "show", shown["id"].as_str().unwrap()]), shown);
    let changed = workspace.write_file("search.yaml", &entry("1.0", "resources: heavy\n"));
    insta::assert_snapshot!(workspace.run_err(1, &["catalog", "import", &changed]), @"error: DIR/search.yaml: version `1.0` of `search` exists with other content (`resources`). Versions cannot be changed. Set `version` to a new one.");
    let invalid = workspace.write_file("invalid.yaml", &entry("3.0", "privileged: true\n"));
    insta::assert_snapshot!(workspace.run_err(1, &["catalog", "import", &second, &invalid]), @"error: DIR/invalid.yaml: `privileged` cannot be set: all containers are isolated in the same way. Remove it.");
    let package = workspace.write_file(
        "package.json",
        &json!({ "slug": "p", "name": "P", "version": "1", "transport": "stdio",
        "source": { "package": { "registry": "npm", "name": "x", "version": "1" } } })
        .to_string(),
    );
    insta::assert_snapshot!(workspace.run_err(1, &["catalog", "import", &package]), @"error: DIR/package.json: `source` is of the kind `package`, which is not supported yet. Build an image from the package, and use `source.image`.");
    let missing = workspace.run(&["catalog", "import", &changed, &second]);
    assert_eq!(missing.code, 1);
    insta::assert_snapshot!(missing.out, @"No changes in search (cat_…) from DIR/search-2.yaml: version 2.0");
    insta::assert_snapshot!(missing.err, @"
    error: DIR/search.yaml: version `1.0` of `search` exists with other content (`resources`). Versions cannot be changed. Set `version` to a new one.
    error: 1 of 2 files were not imported
    ");
    insta::assert_snapshot!(workspace.run_err(1, &["catalog", "import", "gone.yaml"]), @"error: cannot read gone.yaml (No such file or directory)");
    insta::assert_snapshot!(workspace.run_ok(&["catalog", "delete", "search", "--yes"]), @"Deleted the catalogue entry search.");
    insta::assert_snapshot!(workspace.run_ok(&["catalog", "list"]), @"No entries.");
    insta::assert_snapshot!(workspace.run_err(1, &["catalog", "show", "search"]), @"error: there is no catalogue entry `search`: run `waypost catalog list` to see all");
}

#[test]
fn tags_are_resolved_by_the_registry() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let host = start_registry();
    let write = |name: &str, image: &str| {
        workspace.write_file(
            name,
            &format!("slug: {name}\nname: A\nversion: '1'\ntransport: stdio\nsource: {{image: '{image}'}}\n"),
        )
    };
    let file = write("tagged", &format!("{host}/search:3"));
    let run = |file: &str| {
        let mut command = workspace.command(&["catalog", "import", file]);
        workspace.to_result(command.env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=tools").output().unwrap())
    };
    let denied = workspace.run_err(1, &["catalog", "import", &file]);
    assert!(denied.contains("`source.image`") && denied.contains("is not on the public internet"), "{denied}");
    let result = run(&file);
    assert_eq!((result.code, result.err.as_str()), (0, ""), "{}", result.out);
    let shown = workspace.run_json(&["catalog", "show", "tagged"]);
    let version = &shown["versions"][0];
    assert_eq!(version["source"], json!({ "image": format!("{host}/search@sha256:{}", "cd".repeat(32)) }));
    assert_eq!(version["image_tag"], "3");
    let missing = run(&write("missing", &format!("{host}/other:3")));
    assert!(missing.code == 1 && missing.err.contains("The registry has no image `127.0.0.1:"), "{}", missing.err);
}

#[test]
fn catalog_and_secret_commands_work_remotely() {
    let server = RunningServer::new();
    let file = server.workspace.write_file(
        "search.yaml",
        &entry("1.0", "secrets: [{name: TOKEN, as: env}]\nregistry_secret: TOKEN\nlazy: true\n"),
    );
    let missing = server.run_err(1, &["catalog", "import", &file]);
    insta::assert_snapshot!(missing, @"error: DIR/search.yaml: `registry_secret` names the secret `TOKEN`, which does not exist. Create it with the value `USERNAME:PASSWORD`: `waypost secret create TOKEN`.");
    let value = server.workspace.write_file("token", &format!("ann:{VALUE}"));
    let created = server.run_json(&["secret", "create", "TOKEN", "--value-file", &value]);
    assert_eq!(created, server.workspace.run_json(&["secret", "show", "TOKEN"]));
    server.assert_same(&["secret", "list"]);
    server.assert_same(&["secret", "show", created["id"].as_str().unwrap()]);
    server.assert_change(&["secret", "rotate", "TOKEN", "--value-file", &value], &["secret", "show", "TOKEN"]);
    let imported = server.run_json(&["catalog", "import", &file]);
    assert_eq!((&imported["change"], &imported["file"]), (&json!("created"), &json!(file)));
    insta::assert_snapshot!(server.run_ok(&["catalog", "import", &file]), @"No changes in search (cat_…) from DIR/search.yaml: version 1.0");
    for arguments in [
        &["catalog", "list"][..],
        &["catalog", "show", "search"],
        &["catalog", "show", "gone"],
        &["secret", "show", "gone"],
    ] {
        server.assert_same(arguments);
    }
    server.assert_same(&["catalog", "show", imported["id"].as_str().unwrap()]);
    let used = "These catalogue entries use it as `registry_secret`: `search`. Change or delete them first.";
    for result in [
        server.run_err(1, &["secret", "delete", "TOKEN", "--yes"]),
        server.workspace.run_err(1, &["secret", "delete", "TOKEN", "--yes"]),
    ] {
        assert_eq!(result, format!("error: {used}\n"));
    }
    let changed = server.workspace.write_file("changed.yaml", &entry("1.0", ""));
    server.assert_same(&["catalog", "import", &changed]);
    insta::assert_snapshot!(server.run_ok(&["catalog", "delete", "search", "--yes"]), @"Deleted the catalogue entry search.");
    insta::assert_snapshot!(server.run_ok(&["secret", "delete", "TOKEN", "--yes"]), @"Deleted the secret TOKEN.");
    let log = std::fs::read_to_string(server.workspace.path("serve.log")).unwrap();
    assert!(!log.contains(VALUE), "{log}");
}

#[test]
fn remote_servers_are_created_without_showing_their_url() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let url = "https://far.example:8443/mcp?key=s3cr3t";
    let created = workspace.run_json(&["instance", "create", "far", "--remote", url, "--org", "acme"]);
    let expected = json!({ "origin": "https://far.example:8443", "transport": "streamable_http", "oauth": false,
        "connection": "shared", "client_id": null, "client_secret_id": null });
    assert_eq!(created["remote"], expected);
    assert_eq!((&created["state"], &created["toolbox_id"]), (&json!("deploying"), &Value::Null));
    let piped = workspace.run_with_input(&["instance", "create", "sse", "--remote", "-", "--transport", "sse"], url);
    assert!(piped.code == 0 && piped.out.contains("https://far.example:8443 (sse)"), "{}", piped.err);
    let oauth = workspace.run_json(&["instance", "create", "sign-in", "--remote", url, "--oauth", "--org", "acme"]);
    assert_eq!((&oauth["remote"]["oauth"], &oauth["state"]), (&json!(true), &json!("deploying")));
    let address = workspace.run_json(&["instance", "connect", "sign-in"]);
    let page = format!("http://localhost:8080/o/acme/instances/{}", oauth["id"].as_str().unwrap());
    assert_eq!(address, json!({ "url": page }));
    assert!(workspace.run_err(1, &["instance", "connect", "far"]).contains("does not use OAuth"));
    let arguments = ["instance", "create", "own", "--remote", url, "--oauth", "--connection", "per_agent"];
    let own = workspace.run_json(&arguments);
    assert_eq!(own["remote"]["connection"], "per_agent");
    let file = workspace.write_file("client-secret", "hunter2");
    let secret = workspace.run_json(&["secret", "create", "CLIENT_SECRET", "--value-file", &file]);
    let arguments = ["instance", "create", "known", "--remote", url, "--oauth", "--client-id", "waypost-1"];
    let known = workspace.run_json(&[&arguments[..], &["--client-secret", "CLIENT_SECRET"]].concat());
    assert_eq!(
        (&known["remote"]["client_id"], &known["remote"]["client_secret_id"]),
        (&json!("waypost-1"), &secret["id"])
    );
    let used = workspace.run_err(1, &["secret", "delete", "CLIENT_SECRET", "--yes"]);
    assert!(used.contains("`known`"), "{used}");
    let address = workspace.run_json(&["instance", "connect", "own"]);
    let page = format!("http://localhost:8080/o/acme/instances/{}/connections", own["id"].as_str().unwrap());
    assert_eq!(address, json!({ "url": page, "person_url": "http://localhost:8080/o/acme/connect/own" }));
    assert_eq!(workspace.run_json(&["instance", "connections", "own"])["items"], json!([]));
    assert!(workspace.run_err(1, &["instance", "disconnect", "own"]).contains("no such connection"));
    let unknown = workspace.run_err(1, &["instance", "disconnect", "own", "--agent", "ci"]);
    assert!(unknown.contains("there is no agent `ci`"), "{unknown}");
    let shown = workspace.run_ok(&["instance", "show", "far"]) + &workspace.run_ok(&["instance", "list", "--json"]);
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(!String::from_utf8_lossy(&workspace.read_data()).contains("s3cr3t"));
    for (arguments, message) in [
        (&["--remote", "http://127.0.0.1:9/mcp"][..], "is not on the public internet"),
        (&["--remote", "far.example"], "must begin with https://"),
        (&["--remote", url, "--transport", "stdio"], "is `streamable_http` or `sse`"),
        (&["--remote", url, "--secret", "Host=TOKEN"], "there is no secret `TOKEN`"),
        (&["--remote", url, "--toolbox", "rack"], "cannot be used with"),
        (&["--remote", url, "--connection", "per_agent"], "--oauth"),
        (&["--remote", url, "--client-id", "a"], "--oauth"),
        (&["--remote", url, "--oauth", "--client-secret", "CLIENT_SECRET"], "--client-id"),
        (&["--remote", url, "--oauth", "--client-id", "a", "--client-secret", "GONE"], "there is no secret `GONE`"),
        (&[], "--entry"),
    ] {
        let failed = workspace.run(&[&["instance", "create", "other", "--org", "acme"], arguments].concat());
        assert!(failed.code != 0 && failed.err.contains(message), "{arguments:?}: {}", failed.err);
    }
}

/// Returns an entry with a remote server.
fn remote_entry(version: &str, path: &str) -> String {
    format!(
        "slug: far\nname: Far\nversion: '{version}'\n\
         source:\n  remote:\n    url: https://far.example:8443{path}?key={VALUE}\n    transport: sse\n    \
         headers: {{X-Region: 'region ${{config.region}}'}}\n\
         config_schema: {{properties: {{region: {{type: string}}}}, required: [region]}}\n\
         secrets: [{{name: Authorization, description: The key.}}]\n"
    )
}

#[test]
fn remote_entries_are_imported_and_deployed() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let first = workspace.write_file("far.yaml", &remote_entry("1.0", "/mcp"));
    insta::assert_snapshot!(workspace.run_ok(&["catalog", "import", &first, "--org", "acme"]), @"Created far (cat_…) from DIR/far.yaml: version 1.0");
    let second = workspace.write_file("far-2.yaml", &remote_entry("2.0", "/v2/mcp"));
    workspace.run_ok(&["catalog", "import", &second]);
    let shown = workspace.run_ok(&["catalog", "show", "far"]);
    insta::assert_snapshot!(shown.split("\n\n").nth(1).unwrap(), @"
    VERSION  TRANSPORT  RESOURCES  SOURCE                    ID
    2.0      sse        -          https://far.example:8443  ctv_…
    1.0      sse        -          https://far.example:8443  ctv_…
    ");
    let versions = workspace.run_json(&["catalog", "show", "far"])["versions"].take();
    let source = json!({
        "origin": "https://far.example:8443", "transport": "sse", "headers": { "X-Region": "region ${config.region}" },
    });
    assert_eq!(versions[0]["source"], json!({ "remote": source }));
    assert_eq!(versions[0]["secrets"][0]["as"], "header");
    let token = workspace.write_file("token", "Bearer planted");
    workspace.run_ok(&["secret", "create", "FAR", "--value-file", &token]);
    let config = workspace.write_file("config.json", "{\"region\": \"eu\"}");
    let create = ["instance", "create", "far", "--entry", "far", "--config", &config];
    insta::assert_snapshot!(workspace.run_err(1, &create), @"error: This version requires the secret `Authorization`. Create it, and assign it here.");
    let create = [&create[..], &["--secret", "Authorization=FAR", "--version", "1.0"]].concat();
    workspace.run_ok(&["toolbox", "create", "rack-1"]);
    insta::assert_snapshot!(workspace.run_err(1, &[&create[..], &["--toolbox", "rack-1"]].concat()), @"error: This version is a remote server, which has no `toolbox_id`. Remove it.");
    insta::assert_snapshot!(workspace.run_ok(&create), @r#"
    id:                   ins_…
    slug:                 far
    name:                 Far
    catalog version id:   ctv_…
    toolbox id:           -
    remote:               https://far.example:8443 (sse)
    desired:              running
    state:                deploying
    generation:           1
    observed generation:  0
    health:               -
    config:               {"region":"eu"}
    secrets:              Authorization=sec_…
    personal secrets:     -
    record contents:      no
    deployment:           -
    "#);
    let updated = workspace.run_json(&["instance", "update", "far", "--version", "2.0"]);
    assert_eq!((&updated["catalog_version_id"], &updated["generation"]), (&versions[0]["id"], &json!(2)));
    assert_eq!((&updated["state"], &updated["config"]), (&json!("deploying"), &json!({ "region": "eu" })));
    workspace.run_ok(&["instance", "create", "own", "--remote", "https://far.example/mcp"]);
    insta::assert_snapshot!(workspace.run_err(1, &["instance", "update", "own", "--version", "2.0"]), @"error: this remote server is not in the catalogue, so it has no versions: change its URL in the console");
    insta::assert_snapshot!(workspace.run_err(1, &["catalog", "delete", "far", "--yes"]), @"error: These instances use this entry: `far`. Delete them first.");
    assert!(!contains(&workspace.read_data(), VALUE), "URLs are stored encrypted");
}

/// An import of the same file compares the URLs, which shows that the stored URL can be decrypted.
#[test]
fn the_urls_of_entries_survive_a_new_key_and_a_backup() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let file = workspace.write_file("far.yaml", &remote_entry("1.0", "/mcp"));
    let changed = workspace.write_file("changed.yaml", &remote_entry("1.0", "/other"));
    workspace.run_ok(&["catalog", "import", &file]);
    assert_eq!(workspace.run_json(&["secret-key", "rotate"]), json!({"new_key": true, "resealed": 1, "unreadable": 0}));
    std::fs::remove_file(workspace.path("waypost-data/secret.key.previous")).unwrap();
    let check = |folder: &str| {
        let unchanged = workspace.run_json(&["catalog", "import", &file, "--data-dir", folder]);
        assert_eq!(unchanged["change"], "unchanged", "{folder}");
        let error = workspace.run_err(1, &["catalog", "import", &changed, "--data-dir", folder]);
        assert_eq!(
            error,
            "error: DIR/changed.yaml: version `1.0` of `far` exists with other content (`source`). Versions cannot be changed. Set `version` to a new one.\n"
        );
    };
    check("waypost-data");
    workspace.run_ok(&["backup", "a.backup"]);
    assert!(!std::fs::read_to_string(workspace.path("a.backup")).unwrap().contains(VALUE));
    workspace.run_ok(&["restore", "a.backup", "--data-dir", "second"]);
    std::fs::copy(workspace.path("waypost-data/secret.key"), workspace.path("second/secret.key")).unwrap();
    check("second");
    let shown = |folder| workspace.run_json(&["catalog", "show", "far", "--data-dir", folder]);
    assert_eq!(shown("waypost-data"), shown("second"));
}

#[test]
fn remote_entries_are_managed_remotely() {
    let server = RunningServer::new();
    let workspace = &server.workspace;
    let file = workspace.write_file("far.yaml", &remote_entry("1.0", "/mcp"));
    let imported = server.run_json(&["catalog", "import", &file]);
    assert_eq!(imported["change"], "created");
    server.assert_same(&["catalog", "show", "far"]);
    let token = workspace.write_file("token", "Bearer planted");
    server.run_ok(&["secret", "create", "FAR", "--value-file", &token]);
    let config = workspace.write_file("config.json", "{\"region\": \"eu\"}");
    let created = server.run_json(&[
        "instance",
        "create",
        "far",
        "--entry",
        "far",
        "--config",
        &config,
        "--secret",
        "Authorization=FAR",
    ]);
    assert_eq!((&created["catalog_version_id"], &created["toolbox_id"]), (&imported["version_id"], &Value::Null));
    let second = workspace.write_file("far-2.yaml", &remote_entry("2.0", "/v2/mcp"));
    let newer = server.run_json(&["catalog", "import", &second]);
    let updated = server.run_json(&["instance", "update", "far", "--version", "2.0"]);
    assert_eq!(updated["catalog_version_id"], newer["version_id"]);
    server.run_ok(&["instance", "create", "own", "--remote", "https://far.example/mcp"]);
    server.assert_same(&["instance", "update", "own", "--version", "2.0"]);
    let log = std::fs::read_to_string(workspace.path("serve.log")).unwrap();
    assert!(!log.contains(VALUE), "{log}");
}
