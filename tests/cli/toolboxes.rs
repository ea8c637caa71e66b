//! Toolboxes and instances.

use serde_json::{Value, json};

use crate::Workspace;
use crate::remote::RunningServer;

/// Returns the text of a catalogue entry whose image is referenced by its digest.
fn entry(slug: &str, version: &str, rest: &str) -> String {
    format!(
        "slug: {slug}\nname: Search\nversion: '{version}'\ntransport: stdio\n\
         source: {{image: 'registry.example/search@sha256:{}'}}\n{rest}",
        "ab".repeat(32)
    )
}

impl Workspace {
    /// Imports an entry with two versions, and creates a toolbox that no machine has joined and a secret.
    fn prepare(&self) {
        for (version, rest) in [("1.0", ""), ("2.0", "secrets: [{name: TOKEN, required: false}]\n")] {
            let file = self.write_file("search.yaml", &entry("search", version, rest));
            self.run_ok(&["catalog", "import", &file]);
        }
        self.run_ok(&["toolbox", "create", "rack-1"]);
        let value = self.write_file("token", "value");
        self.run_ok(&["secret", "create", "GITHUB", "--value-file", &value]);
    }
}

#[test]
fn an_organisation_switches_its_toolboxes_off_and_on() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.run_ok(&["toolbox", "create", "rack-1"]);
    assert_eq!(workspace.run_json(&["org", "update", "acme", "--toolboxes", "off"])["toolboxes_enabled"], false);
    insta::assert_snapshot!(workspace.run_err(1, &["toolbox", "create", "rack-2"]), @"error: Toolboxes are switched off for this organisation. An admin can switch them on again.");
    // Existing toolboxes can still be read.
    workspace.run_ok(&["toolbox", "show", "rack-1"]);
    assert_eq!(workspace.run_json(&["org", "update", "acme", "--toolboxes", "on"])["toolboxes_enabled"], true);
    workspace.run_ok(&["toolbox", "create", "rack-2"]);
}

#[test]
fn toolboxes_are_managed() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    insta::assert_snapshot!(workspace.run_ok(&["toolbox", "create", "rack-1", "--org", "acme"]), @"
    Created the toolbox rack-1 (tbx_…).
    Run this command on its machine, then `waypost toolbox run`. The token works once, until TIME.

      echo wpt_… | waypost toolbox join --url http://localhost:8080 --token-file -
    ");
    let created = workspace.run_json(&["toolbox", "create", "rack-2"]);
    let names: Vec<_> = created.as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "name", "token", "expires_at", "command"]);
    let token = created["token"].as_str().unwrap();
    assert!(token.starts_with("wpt_") && created["command"].as_str().unwrap().starts_with(&format!("echo {token} |")));
    insta::assert_snapshot!(workspace.run_ok(&["toolbox", "list"]), @"
    NAME    STATE    INSTANCE COUNT  VERSION  ID                    LAST SEEN AT
    rack-1  pending  0               -        tbx_…  -
    rack-2  pending  0               -        tbx_…  -
    ");
    insta::assert_snapshot!(workspace.run_ok(&["toolbox", "show", "rack-1"]), @"
    id:              tbx_…
    name:            rack-1
    state:           pending
    version:         -
    engine:          -
    capacity:        -
    allocated:       0 CPUs, 0.0 GiB memory
    instance count:  0
    last seen at:    -
    ");
    let shown = workspace.run_json(&["toolbox", "show", created["id"].as_str().unwrap()]);
    assert_eq!((&shown["name"], &shown["state"], shown.get("token")), (&json!("rack-2"), &json!("pending"), None));
    insta::assert_snapshot!(workspace.run_ok(&["toolbox", "renew-token", "rack-1", "--org", "acme"]), @"
    Created a new token for the toolbox rack-1 (tbx_…).
    Run this command on its machine, then `waypost toolbox run`. The token works once, until TIME.

      echo wpt_… | waypost toolbox join --url http://localhost:8080 --token-file -
    ");
    let renewed = workspace.run_json(&["toolbox", "renew-token", "rack-2"]);
    assert_eq!(renewed.as_object().unwrap().keys().collect::<Vec<_>>(), names);
    assert!(renewed["id"] == created["id"] && renewed["token"] != created["token"]);
    insta::assert_snapshot!(workspace.run_err(1, &["toolbox", "create", "rack-1"]), @"error: A toolbox named `rack-1` already exists. Choose another name, or delete that toolbox first.");
    insta::assert_snapshot!(workspace.run_err(1, &["toolbox", "rotate-key", "rack-1"]), @"error: No daemon has connected to this toolbox yet.");
    insta::assert_snapshot!(workspace.run_err(1, &["toolbox", "show", "gone"]), @"error: there is no toolbox `gone`: run `waypost toolbox list` to see all");
    insta::assert_snapshot!(workspace.run_err(2, &["toolbox", "revoke", "rack-1"]), @"error: Revoke the toolbox rack-1? Its machine can never connect again. Pass --yes to confirm; there is no terminal for a prompt.");
    let revoked = workspace.run_json(&["toolbox", "revoke", "rack-1", "--yes"]);
    assert_eq!(revoked["state"], "revoked");
    insta::assert_snapshot!(workspace.run_ok(&["toolbox", "delete", "rack-1", "--yes"]), @"Deleted the toolbox rack-1.");
    insta::assert_snapshot!(workspace.run_err(1, &["toolbox", "delete", "rack-1", "--yes"]), @"error: there is no toolbox `rack-1`: run `waypost toolbox list` to see all");
    let audit = workspace.run_ok(&["audit", "list", "--act", "toolbox.", "--json"]);
    assert!(audit.contains("toolbox.revoke") && audit.contains("\"actor\":\"operator\""), "{audit}");
    assert!(!audit.contains(token), "{audit}");
}

#[test]
fn instances_are_managed() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.prepare();
    let config = workspace.write_file("config.json", "{\"region\": \"eu\"}");
    insta::assert_snapshot!(workspace.run_err(1, &["instance", "create", "web", "--entry", "search"]), @"error: No toolbox has room for this instance. `rack-1`: its daemon has not connected yet. Add a toolbox, or remove an instance.");
    let create = ["instance", "create", "web", "--entry", "search", "--toolbox", "rack-1"];
    insta::assert_snapshot!(
        workspace.run_ok(
            &[&create[..], &["--config", &config, "--secret", "TOKEN=GITHUB", "--name", "Web search"]].concat()
        ), @r#"
    id:                   ins_…
    slug:                 web
    name:                 Web search
    catalog version id:   ctv_…
    toolbox id:           tbx_…
    remote:               -
    desired:              running
    state:                deploying
    generation:           1
    observed generation:  0
    health:               -
    config:               {"region":"eu"}
    secrets:              TOKEN=sec_…
    personal secrets:     -
    record contents:      no
    deployment:           running, validating
    "#);
    insta::assert_snapshot!(workspace.run_ok(&["instance", "list"]), @"
    SLUG  NAME        DESIRED  STATE      TOOLBOX ID            ID
    web   Web search  running  deploying  tbx_…  ins_…
    ");
    let shown = workspace.run_json(&["instance", "show", "web"]);
    assert_eq!(workspace.run_json(&["instance", "show", "Web search"]), shown);
    assert_eq!(workspace.run_json(&["instance", "show", shown["id"].as_str().unwrap()]), shown);
    assert_eq!((&shown["config"], &shown["generation"]), (&json!({ "region": "eu" }), &json!(1)));
    let secret = workspace.run_json(&["secret", "show", "GITHUB"]);
    assert_eq!(shown["secrets"], json!({ "TOKEN": secret["id"] }));
    assert_eq!(secret["used_by"][0]["slug"], "web");
    // The newest version is the default.
    let versions = workspace.run_json(&["catalog", "show", "Search"])["versions"].take();
    assert_eq!((&versions[0]["version"], &shown["catalog_version_id"]), (&json!("2.0"), &versions[0]["id"]));
    let renamed = workspace.run_json(&["instance", "update", "web", "--name", "Search"]);
    assert_eq!((&renamed["name"], &renamed["generation"]), (&json!("Search"), &json!(1)));
    let updated =
        workspace.run_json(&["instance", "update", "web", "--version", "1.0", "--secret", "TOKEN=", "--learn-egress"]);
    assert_eq!((&updated["generation"], &updated["secrets"]), (&json!(2), &json!({})));
    assert_eq!((&updated["catalog_version_id"], &updated["config"]), (&versions[1]["id"], &json!({ "region": "eu" })));
    let deployments = workspace.run_json(&["instance", "deployments", "web"])["items"].take();
    assert_eq!(
        (&deployments[0]["state"], &deployments[1]["error"]["code"]),
        (&json!("running"), &json!("interrupted"))
    );
    insta::assert_snapshot!(workspace.run_ok(&["instance", "deployments", "web"]), @"
    ID                            STATE    STEP        ERROR        STARTED AT                ENDED AT
    dep_…  running  validating  -            TIME  -
    dep_…  failed   validating  interrupted  TIME  TIME
    ");
    for (action, desired) in [("stop", "stopped"), ("stop", "stopped"), ("start", "running"), ("restart", "running")] {
        assert_eq!(workspace.run_json(&["instance", action, "web"])["desired"], desired, "{action}");
    }
    insta::assert_snapshot!(workspace.run_err(1, &create), @"error: An instance with the slug `web` already exists. Choose another slug.");
    insta::assert_snapshot!(workspace.run_err(1, &["toolbox", "delete", "rack-1", "--yes"]), @"error: The toolbox still has instances: `web`. Delete them first, or revoke the toolbox if its machine is lost.");
    insta::assert_snapshot!(workspace.run_err(1, &["instance", "show", "gone"]), @"error: there is no instance `gone`: run `waypost instance list` to see all");
    insta::assert_snapshot!(workspace.run_err(2, &["instance", "delete", "web"]), @"error: Delete the instance web with its volumes and its log? Pass --yes to confirm; there is no terminal for a prompt.");
    insta::assert_snapshot!(workspace.run_ok(&["instance", "delete", "web", "--yes"]), @"Deleted the instance web.");
    insta::assert_snapshot!(workspace.run_ok(&["instance", "list"]), @"No entries.");
}

#[test]
fn invalid_options_of_instances_are_explained() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.prepare();
    let create = ["instance", "create", "web", "--toolbox", "rack-1", "--entry"];
    let run = |rest: &[&str]| workspace.run_err(1, &[&create[..], rest].concat());
    insta::assert_snapshot!(run(&["gone"]), @"error: there is no catalogue entry `gone`: run `waypost catalog list` to see all");
    insta::assert_snapshot!(run(&["search", "--version", "3.0"]), @"error: `search` has no version `3.0`: run `waypost catalog show search` to see all");
    insta::assert_snapshot!(run(&["search", "--secret", "TOKEN=gone"]), @"error: there is no secret `gone`: run `waypost secret list` to see all");
    insta::assert_snapshot!(run(&["search", "--secret", "OTHER=GITHUB"]), @"error: This version has no secret named `OTHER`.");
    insta::assert_snapshot!(run(&["search", "--config", "gone.json"]), @"error: cannot read the configuration from gone.json (No such file or directory)");
    let list = workspace.write_file("list.json", "[]");
    insta::assert_snapshot!(run(&["search", "--config", &list]), @"error: the configuration in DIR/list.json must be a JSON object");
    let broken = workspace.write_file("broken.json", "{");
    insta::assert_snapshot!(run(&["search", "--config", &broken]), @"error: the configuration in DIR/broken.json is not valid JSON: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(
        workspace.run_err(1, &["instance", "create", "web", "--entry", "search", "--toolbox", "gone"]), @"error: there is no toolbox `gone`: run `waypost toolbox list` to see all");
    let usage = workspace.run_err(2, &[&create[..], &["search", "--secret", "TOKEN"]].concat());
    assert!(usage.contains("expected NAME=SECRET"), "{usage}");
    // Waypost's own configuration file is a different file, which is passed before the noun.
    let settings = workspace.write_file("waypost.toml", "instance_limit = 1\n");
    let empty = workspace.write_file("empty.json", "{}");
    workspace.run_ok(&["instance", "create", "first", "--toolbox", "rack-1", "--entry", "search"]);
    let limited = [&["--config", &settings], &create[..], &["search", "--config", &empty]].concat();
    insta::assert_snapshot!(workspace.run_err(1, &limited), @"error: An organisation can have at most 1 instances. Delete one first.");
    let second = workspace.write_file("second.yaml", &entry("second", "1", ""));
    workspace.run_ok(&["catalog", "import", &second]);
    insta::assert_snapshot!(run(&["Search"]), @"error: Several entries are named `Search`. Use the slug or the ID.");
}

#[test]
fn waiting_needs_a_running_server() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.prepare();
    let create = ["instance", "create", "web", "--entry", "search", "--toolbox", "rack-1", "--wait"];
    insta::assert_snapshot!(workspace.run_err(1, &create), @"error: `web` is stored, but not deployed, because `waypost serve` is not running: start it, and look at the instance with `waypost instance show web`");
    assert_eq!(workspace.run_json(&["instance", "show", "web"])["state"], "deploying");
}

/// The deployment fails because its toolbox is revoked.
#[test]
fn waiting_ends_with_the_reason_for_the_failure() {
    let server = RunningServer::new();
    let workspace = &server.workspace;
    workspace.prepare();
    let create = ["instance", "create", "web", "--entry", "search", "--toolbox", "rack-1", "--wait", "--json"];
    let mut command = workspace.command(&create);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The first step is printed after the instance is created.
    let mut errors = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut errors, &mut line).unwrap();
    assert_eq!(line, "validating\n");
    workspace.run_ok(&["toolbox", "revoke", "rack-1", "--yes"]);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut errors, &mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), rest.as_str()),
        (
            Some(1),
            "error: the deployment of `web` failed: toolbox_offline while validating: The toolbox was revoked. Delete the instance, and create it on another toolbox.\n"
        )
    );
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["deployment"]["error"]["code"], "toolbox_offline");
}

#[test]
fn toolbox_and_instance_commands_work_remotely() {
    let server = RunningServer::new();
    let workspace = &server.workspace;
    workspace.prepare();
    let created = server.run_json(&["toolbox", "create", "rack-2"]);
    let names: Vec<_> = created.as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "name", "token", "expires_at", "command"]);
    for arguments in [
        &["toolbox", "list"][..],
        &["toolbox", "show", "rack-2"],
        &["toolbox", "show", created["id"].as_str().unwrap()],
        &["toolbox", "show", "gone"],
        &["toolbox", "create", "rack-1"],
        &["toolbox", "rotate-key", "rack-1"],
        &["toolbox", "revoke", "rack-2"],
    ] {
        server.assert_same(arguments);
    }
    let renewed = server.run_json(&["toolbox", "renew-token", "rack-2"]);
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&renewed), names(&workspace.run_json(&["toolbox", "renew-token", "rack-2"])));
    assert_eq!(renewed["id"], created["id"]);
    server.assert_change(&["toolbox", "revoke", "rack-2", "--yes"], &["toolbox", "show", "rack-2"]);
    assert_eq!(
        server.run_json(&["toolbox", "delete", "rack-2", "--yes"]),
        json!({ "id": created["id"], "deleted": true })
    );
    let config = workspace.write_file("config.json", "{\"region\": \"eu\"}");
    let create = ["instance", "create", "web", "--entry", "Search", "--toolbox", "rack-1"];
    let show = ["instance", "show", "web"];
    server.assert_change(&[&create[..], &["--config", &config, "--secret", "TOKEN=GITHUB"]].concat(), &show);
    let update = ["instance", "update", "web", "--version", "1.0", "--secret", "TOKEN=", "--name", "Web"];
    let updated = server.assert_change(&update, &show);
    assert_eq!((&updated["generation"], &updated["secrets"]), (&json!(2), &json!({})));
    server.assert_change(&["instance", "update", "Web", "--learn-egress"], &show);
    for action in ["stop", "start", "restart"] {
        server.assert_change(&["instance", action, "web"], &show);
    }
    for arguments in [
        &["instance", "list"][..],
        &show,
        &["instance", "show", updated["id"].as_str().unwrap()],
        &["instance", "show", "gone"],
        &["instance", "deployments", "web"],
        &["instance", "delete", "web"],
        &create,
        &["instance", "create", "other", "--entry", "search"],
        &["instance", "create", "other", "--entry", "gone"],
        &["instance", "create", "other", "--entry", "search", "--version", "3.0"],
        &["instance", "create", "other", "--entry", "search", "--toolbox", "gone"],
        &["instance", "create", "other", "--entry", "search", "--secret", "TOKEN=gone"],
    ] {
        server.assert_same(arguments);
    }
    assert_eq!(
        server.run_json(&["instance", "delete", "web", "--yes"]),
        json!({ "id": updated["id"], "deleted": true })
    );
    assert_eq!(workspace.run_json(&["instance", "list"]), json!({ "items": [] }));
}

/// No machine is connected, so the errors show that the requests reach the running process with the operator's rights.
#[test]
fn commands_that_need_the_link_reach_the_running_server() {
    let server = RunningServer::new();
    let workspace = &server.workspace;
    workspace.prepare();
    workspace.run_ok(&["org", "create", "other"]);
    let acme = ["--org", "acme"];
    let create = ["instance", "create", "web", "--entry", "search", "--toolbox", "rack-1"];
    workspace.run_ok(&[&create[..], &acme].concat());
    for arguments in
        [&["logs", "web"][..], &["logs", "-f", "web"], &["tools", "web"], &["call", "web", "find"], &["stats", "web"]]
    {
        let command = [&["instance"], arguments].concat();
        let local = workspace.run_err(1, &[&command[..], &acme].concat());
        assert!(local.contains("offline") || local.contains("not connected"), "{arguments:?}: {local}");
        assert_eq!(server.run_err(1, &command), local, "{arguments:?}");
        assert_eq!(
            workspace.run_err(1, &[&command[..], &["--org", "other"]].concat()),
            "error: there is no instance `web`: run `waypost instance list` to see all\n"
        );
        assert_eq!(
            workspace.run_err(1, &[&command[..], &["--org", "gone"]].concat()),
            "error: there is no organisation `gone`: run `waypost org list` to see all\n"
        );
        let message = workspace.run_err(2, &command);
        assert_eq!(message, "error: there are several organisations, choose one with --org SLUG: acme, other\n");
    }
}
