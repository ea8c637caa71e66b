//! Agents, grants and tool sets, directly on the database and through the REST API.

use serde_json::{Value, json};

use crate::Workspace;
use crate::remote::RunningServer;

const RULE: &str = r#"{"tool": "search", "field": "limit", "comparison": "at_most", "value": 10}"#;

impl Workspace {
    /// Creates the instances `web` and `files` on a toolbox that no machine has joined.
    fn create_instances(&self) {
        let image = format!("registry.example/search@sha256:{}", "ab".repeat(32));
        let entry = format!("slug: search\nname: S\nversion: '1'\ntransport: stdio\nsource: {{image: '{image}'}}\n");
        let file = self.write_file("entry.yaml", &entry);
        self.run_ok(&["catalog", "import", &file]);
        self.run_ok(&["toolbox", "create", "rack"]);
        for (slug, name) in [("web", "Web search"), ("files", "Files")] {
            let create = ["instance", "create", slug, "--entry", "search", "--toolbox", "rack", "--name", name];
            self.run_ok(&create);
        }
    }
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn an_organisation_switches_its_gateway_off_and_on() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    for (value, is_on) in [("off", false), ("on", true)] {
        let updated = workspace.run_json(&["org", "update", "acme", "--gateway", value]);
        assert_eq!((&updated["gateway_enabled"], &updated["toolboxes_enabled"]), (&json!(is_on), &json!(true)));
        assert_eq!(workspace.run_json(&["org", "show", "acme"]), updated);
    }
}

#[test]
fn agents_and_their_tokens_are_managed() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let created = workspace.run_json(&["agent", "create", "Crawler", "--org", "acme"]);
    assert_eq!(
        (&created["kind"], &created["state"], &created["tokens"]),
        (&json!("service"), &json!("active"), &json!([]))
    );
    assert_eq!(workspace.run_json(&["agent", "show", "Crawler"]), created);
    assert_eq!(workspace.run_json(&["agent", "show", created["id"].as_str().unwrap()]), created);
    let token = workspace.run_json(&["agent", "token", "Crawler"]);
    assert_eq!(members(&token), ["id", "name", "created_at", "expires_at", "last_used_at", "revoked_at", "token"]);
    let secret = token["token"].as_str().unwrap();
    assert!(secret.starts_with("wpa_") && token["name"] == "token" && token["expires_at"].is_null(), "{token}");
    let printed = workspace.run_ok(&["agent", "token", "Crawler", "--name", "laptop", "--expires", "30d"]);
    assert!(printed.contains("name:") && printed.contains("laptop"), "{printed}");
    assert!(printed.ends_with("Store the token now. It cannot be shown again.\n"), "{printed}");
    let shown = workspace.run_ok(&["agent", "show", "Crawler"]);
    assert!(shown.contains("laptop (agk_") && shown.contains(", expires TIME") && !shown.contains("wpa_"), "{shown}");

    assert_eq!(workspace.run_json(&["agent", "disable", "Crawler"])["state"], "disabled");
    assert_eq!(workspace.run_json(&["agent", "enable", "Crawler"])["state"], "active");
    assert_eq!(workspace.run_json(&["agent", "update", "Crawler", "--name", "Spider"])["name"], "Spider");
    let revoked = workspace.run_ok(&["agent", "token-revoke", "Spider", "laptop"]);
    assert_eq!(revoked, "Revoked the token laptop of the agent Spider.\n");
    let id = token["id"].as_str().unwrap();
    assert_eq!(workspace.run_json(&["agent", "token-revoke", id]), json!({ "id": id, "revoked": true }));
    let tokens = workspace.run_json(&["agent", "show", "Spider"])["tokens"].take();
    assert!(tokens.as_array().unwrap().iter().all(|token| token["revoked_at"].is_string()), "{tokens}");

    let err = |code, arguments: &[&str]| workspace.run_err(code, arguments);
    assert_eq!(
        err(1, &["agent", "show", "Gone"]),
        "error: there is no agent `Gone`: run `waypost agent list` to see all\n"
    );
    assert!(err(1, &["agent", "create", "Spider"]).starts_with("error: An agent named `Spider` already exists."));
    assert!(err(1, &["agent", "token-revoke", "Spider", "laptop"]).contains("the agent has no token `laptop`"));
    assert!(err(1, &["agent", "token-revoke", "laptop"]).contains("there is no token with the ID `laptop`"));
    assert!(err(2, &["agent", "token", "Spider", "--expires", "soon"]).contains("expected a duration such as 30d"));
    assert!(err(1, &["agent", "token", "Spider", "--expires", "9999d"]).contains("at most ten years"));
    assert!(err(2, &["agent", "delete", "Spider"]).contains("Pass --yes to confirm"));
    assert_eq!(workspace.run_ok(&["agent", "delete", "Spider", "--yes"]), "Deleted the agent Spider.\n");
    assert_eq!(workspace.run_ok(&["agent", "list"]), "No entries.\n");
}

#[test]
fn grants_and_tool_sets_are_managed() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.create_instances();
    workspace.run_ok(&["agent", "create", "Crawler"]);
    let add = ["grant", "add", "--agent", "Crawler", "--instance", "web", "--access"];
    let run = |rest: &[&str]| workspace.run_json(&[&add[..], rest].concat());
    let custom = run(&["custom", "--tool", "search", "fetch", "--tool", "list", "--rule", RULE, "--expires", "12h"]);
    assert_eq!(custom["tools"], json!(["search", "fetch", "list"]));
    assert_eq!(custom["rules"], json!([serde_json::from_str::<Value>(RULE).unwrap()]));
    assert!(custom["expires_at"].is_string() && custom["created_by"] == "operator", "{custom}");
    let all = run(&["full_access"]);
    let id = all["id"].as_str().unwrap();
    assert_eq!(workspace.run_json(&["grant", "show", id]), all);
    // An instance can be selected by its name, and an agent by its ID.
    let listed = ["grant", "list", "--instance", "Web search", "--agent", custom["agent_id"].as_str().unwrap()];
    assert_eq!(workspace.run_json(&listed)["items"], json!([all, custom]));
    assert_eq!(workspace.run_json(&["grant", "list", "--instance", "files"])["items"], json!([]));
    let removed = workspace.run_ok(&["grant", "remove", id]);
    assert_eq!(removed, "Removed the grant grt_…\n");

    let err = |code, rest: &[&str]| workspace.run_err(code, &[&add[..], rest].concat());
    assert!(err(2, &["everything"]).contains("[possible values: read_only, custom, full_access]"));
    assert!(err(1, &["custom"]).contains("needs at least one entry of `tools`"));
    assert!(err(1, &["read_only", "--tool", "search"]).contains("only for the access `custom`"));
    assert!(err(2, &["full_access", "--rule", "{}"]).contains("expected an object with `tool`"));
    let gone = |arguments: &[&str]| workspace.run_err(1, arguments);
    let unknown = ["grant", "add", "--agent", "Crawler", "--instance", "gone", "--access", "full_access"];
    assert_eq!(gone(&unknown), "error: there is no instance `gone`: run `waypost instance list` to see all\n");
    let message = "error: there is no grant `grt_…`: run `waypost grant list` to see all\n";
    assert_eq!(gone(&["grant", "remove", id]), message);
    assert!(gone(&["grant", "show", "nonsense"]).contains("there is no grant `nonsense`"));

    let create = ["tool-set", "create", "research", "--member", "web=search,fetch", "--member", "Files"];
    let set = workspace.run_json(&create);
    assert_eq!(
        (&set["name"], &set["prefix"], set["members"].as_array().unwrap().len()),
        (&json!("research"), &json!(true), 2)
    );
    assert_eq!((&set["members"][0]["tools"], &set["members"][1]["tools"]), (&json!(["search", "fetch"]), &Value::Null));
    assert_eq!(workspace.run_json(&["tool-set", "show", "research"]), set);
    let shown = workspace.run_ok(&["tool-set", "show", set["id"].as_str().unwrap()]);
    assert!(shown.contains("ins_…=search,fetch, ins_…"), "{shown}");
    assert!(gone(&["tool-set", "update", "research", "--prefix", "false"]).contains("exactly one instance"));
    let update = ["tool-set", "update", "research", "--prefix", "false", "--member", "web", "--slug", "web-only"];
    let updated = workspace.run_json(&update);
    assert_eq!(
        (&updated["slug"], &updated["prefix"], updated["members"].as_array().unwrap().len()),
        (&json!("web-only"), &json!(false), 1)
    );
    assert_eq!(workspace.run_json(&["tool-set", "list"])["items"], json!([updated]));
    assert!(workspace.run_err(2, &["tool-set", "create", "x", "--member", "web="]).contains("expected INSTANCE or"));
    assert_eq!(workspace.run_ok(&["tool-set", "delete", "web-only", "--yes"]), "Deleted the tool set web-only.\n");
}

#[test]
fn agents_grants_and_tool_sets_work_remotely() {
    let server = RunningServer::new();
    server.workspace.create_instances();
    let show = ["agent", "show", "Crawler"];
    server.assert_change(&["agent", "create", "Crawler"], &show);
    let token = server.run_json(&["agent", "token", "Crawler", "--name", "laptop", "--expires", "30d"]);
    assert!(token["token"].as_str().unwrap().starts_with("wpa_"), "{token}");
    for arguments in [&show[..], &["agent", "list"], &["agent", "show", "Gone"], &["agent", "token-revoke", "x"]] {
        server.assert_same(arguments);
    }
    server.assert_change(&["agent", "disable", "Crawler"], &show);
    server.assert_change(&["agent", "enable", "Crawler"], &show);
    let revoked = server.run_ok(&["agent", "token-revoke", "Crawler", "laptop"]);
    assert_eq!(revoked, "Revoked the token laptop of the agent Crawler.\n");
    server.assert_same(&show);

    let add = ["grant", "add", "--agent", "Crawler", "--instance", "Web search", "--access", "custom"];
    let grant = server.run_json(&[&add[..], &["--tool", "search", "--rule", RULE, "--expires", "30d"]].concat());
    let id = grant["id"].as_str().unwrap();
    assert_eq!(grant, server.workspace.run_json(&["grant", "show", id]));
    let filtered = ["grant", "list", "--agent", "Crawler", "--instance", "files"];
    for arguments in [&["grant", "list"][..], &["grant", "show", id], &filtered, &["grant", "remove", "nonsense"]] {
        server.assert_same(arguments);
    }
    assert_eq!(server.run_ok(&["grant", "remove", id]), "Removed the grant grt_…\n");
    server.assert_same(&["grant", "show", id]);
    server.assert_same(&["grant", "remove", id]);

    // The command that creates an instance can also approve its tools and grant access to it.
    let create = ["instance", "create", "third", "--entry", "search", "--toolbox", "rack", "--approve", "--grant"];
    server.assert_change(&[&create[..], &["Crawler=read_only"]].concat(), &["instance", "show", "third"]);
    let create =
        ["instance", "create", "fourth", "--entry", "search", "--toolbox", "rack", "--approve=read", "--grant"];
    server.workspace.run_ok(&[&create[..], &["Crawler=full_access"]].concat());
    let grants = server.run_json(&["grant", "list"])["items"].take();
    let levels: Vec<_> = grants.as_array().unwrap().iter().map(|grant| grant["access"].as_str().unwrap()).collect();
    assert_eq!(levels, ["full_access", "read_only"]);
    let requests = server.workspace.run_json(&["audit", "list", "--act", "tool_approval.request"])["items"].take();
    let classes: Vec<_> = requests.as_array().unwrap().iter().map(|entry| entry["detail"]["class"].clone()).collect();
    assert_eq!(classes, [json!("read"), json!("write")]);
    let create = ["instance", "create", "x", "--entry", "search", "--grant"];
    let (gone, custom) = ([&create[..], &["Gone=read_only"]].concat(), [&create[..], &["Crawler=custom"]].concat());
    for output in [server.run_err(1, &gone), server.workspace.run_err(1, &gone)] {
        assert!(output.contains("there is no agent `Gone`"), "{output}");
    }
    assert!(server.workspace.run_err(2, &custom).contains("expected AGENT=ACCESS"));
    server.assert_same(&["agent", "connections"]);

    let show = ["tool-set", "show", "research"];
    server.assert_change(&["tool-set", "create", "research", "--member", "web=search", "--member", "files"], &show);
    server.assert_same(&show);
    server.assert_change(&["tool-set", "update", "research", "--member", "web", "--prefix", "false"], &show);
    for arguments in [&["tool-set", "list"][..], &["tool-set", "show", "gone"]] {
        server.assert_same(arguments);
    }
    assert_eq!(server.run_ok(&["tool-set", "delete", "research", "--yes"]), "Deleted the tool set research.\n");
    assert_eq!(server.run_ok(&["agent", "delete", "Crawler", "--yes"]), "Deleted the agent Crawler.\n");
}

/// Stores that the server of the instance `web` lists the tool `find`.
fn list_find(workspace: &Workspace) {
    const SQL: &str =
        "INSERT INTO tool_definitions (id, organization_id, instance_id, catalog_version_id, kind, name, digest,
            definition, problem, is_current, state, class, reason, decided_by, decided_at, first_seen_at)
        SELECT 'apr_0123456789abcdef01234567', organization_id, id, catalog_version_id, 'tool', 'find', 'd0',
            '{\"name\":\"find\"}', NULL, TRUE, 'pending', NULL, NULL, NULL, NULL, 1
        FROM instances WHERE slug = 'web'";
    let url = format!("sqlite://{}", workspace.path("waypost-data/waypost.db").to_str().unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let db = waypost_store::Db::open(&url).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        waypost_store::on!(&mut tx, c => { sqlx::raw_sql(SQL).execute(c).await.unwrap(); });
        tx.commit().await.unwrap();
        db.close().await;
    });
}

#[test]
fn names_and_descriptions_of_tools_can_be_overridden() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.create_instances();
    list_find(&workspace);
    let change = ["instance", "tool-override", "web", "find"];
    let list = ["instance", "tool-overrides", "web"];
    assert_eq!(workspace.run_json(&list)["items"], json!([]));
    let description = "Finds pages.";
    let changed = workspace.run_json(&[&change[..], &["--name", "look_up", "--description", description]].concat());
    assert_eq!(changed, json!({ "tool": "find", "name": "look_up", "description": description }));
    assert_eq!(workspace.run_json(&list)["items"], json!([changed]));
    let changed = workspace.run_json(&[&change[..], &["--name", ""]].concat());
    assert_eq!(changed, json!({ "tool": "find", "name": null, "description": description }));
    workspace.run_ok(&[&change[..], &["--description", ""]].concat());
    assert_eq!(workspace.run_json(&list)["items"], json!([]));
    assert!(workspace.run_err(2, &change).contains("--name <NAME>|--description <DESCRIPTION>"));
    assert!(workspace.run_err(1, &[&change[..], &["--name", "a b"]].concat()).contains("`name` must have 1 to 64"));
    let unknown = ["instance", "tool-override", "web", "gone", "--name", "a"];
    assert!(workspace.run_err(1, &unknown).contains("lists no tool with this original name"));
}

#[test]
fn names_and_descriptions_of_tools_can_be_overridden_remotely() {
    let server = RunningServer::new();
    server.workspace.create_instances();
    list_find(&server.workspace);
    let change = ["instance", "tool-override", "Web search", "find"];
    let list = ["instance", "tool-overrides", "web"];
    for options in [&["--name", "look_up", "--description", "Finds."][..], &["--name", ""], &["--description", ""]] {
        let changed = server.run_json(&[&change[..], options].concat());
        assert_eq!(changed["tool"], "find");
        let is_original = changed["name"].is_null() && changed["description"].is_null();
        let listed = if is_original { json!([]) } else { json!([changed]) };
        assert_eq!(server.workspace.run_json(&list)["items"], listed);
        server.assert_same(&list);
    }
    for arguments in [&["--name", "a b"][..], &["--description", "a\u{200b}"]] {
        server.assert_same(&[&change[..], arguments].concat());
    }
    server.assert_same(&["instance", "tool-override", "web", "gone", "--name", "a"]);
}
