//! Commands that use the REST API of a running server behave like commands on the database.

mod errors;

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::{CommandResult, Workspace, providers};

const HELLO: &str = "# Hello\n\nWhat it is about.\n\n## One\n\nFirst text.\n\n## Two\n\nSecond text.\n";

/// A running `waypost serve` with the organisation `acme` and an API key of its owner.
pub(crate) struct RunningServer {
    pub(crate) workspace: Workspace,
    child: Child,
    /// Kept open, because a closed pipe would end the process.
    _out: Lines<BufReader<ChildStdout>>,
    pub(crate) url: String,
    key: String,
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RunningServer {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// Starts a server with additional environment variables.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let workspace = Workspace::new();
        workspace.run_ok(&["org", "create", "acme", "--name", "Acme Inc."]);
        let key = workspace.run_json(&["key", "create", "--name", "remote", "--scope", "owner"]);
        let key = key["key"].as_str().unwrap().to_owned();
        let (child, out, url) = start(&workspace, settings);
        Self { workspace, child, _out: out, url, key }
    }

    /// Stops the server with SIGTERM, and waits until it has exited.
    pub(crate) fn stop(&mut self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// Starts the server again after [`RunningServer::stop`].
    pub(crate) fn restart(&mut self) {
        (self.child, self._out, self.url) = start(&self.workspace, &[]);
    }

    /// Returns what the server has logged since its last start.
    pub(crate) fn read_log(&self) -> String {
        std::fs::read_to_string(self.workspace.path("serve.log")).unwrap()
    }

    /// Returns a command that uses the server's API, with URL and key in the environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.command(arguments);
        // Makes sure that the command does not find a local database.
        command.current_dir(self.workspace.path("waypost-data"));
        command.env("WAYPOST_URL", &self.url).env("WAYPOST_API_KEY", &self.key);
        command
    }

    fn run(&self, arguments: &[&str]) -> CommandResult {
        self.workspace.to_result(self.command(arguments).output().unwrap())
    }

    #[track_caller]
    pub(crate) fn run_ok(&self, arguments: &[&str]) -> String {
        let result = self.run(arguments);
        assert_eq!((result.code, result.err.as_str()), (0, ""), "{arguments:?}: {}", result.out);
        result.out
    }

    #[track_caller]
    pub(crate) fn run_json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn run_err(&self, code: i32, arguments: &[&str]) -> String {
        let result = self.run(arguments);
        assert_eq!(result.code, code, "{arguments:?}: {}{}", result.out, result.err);
        result.err
    }

    /// Asserts that a command has the same output remotely and locally, as text and as JSON.
    #[track_caller]
    pub(crate) fn assert_same(&self, arguments: &[&str]) {
        for words in [arguments.to_vec(), [arguments, &["--json"]].concat()] {
            let remote = self.command(&words).output().unwrap();
            let local = self.workspace.command(&words).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(text(&remote.stdout), text(&local.stdout), "{words:?}: {}", text(&remote.stderr));
            assert_eq!(text(&remote.stderr), text(&local.stderr), "{words:?}");
            assert_eq!(remote.status.code(), local.status.code(), "{words:?}");
        }
    }

    /// Asserts that the output of a remote change equals what `show` prints locally afterwards.
    #[track_caller]
    pub(crate) fn assert_change(&self, arguments: &[&str], show: &[&str]) -> Value {
        let output = self.run_json(arguments);
        assert_eq!(output, self.workspace.run_json(show), "{arguments:?}");
        output
    }
}

/// Starts `serve` and waits until it accepts connections.
fn start(workspace: &Workspace, settings: &[(&str, &str)]) -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut command = workspace.command(&["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"]);
    command.env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=sign-in").envs(settings.iter().copied()).stdout(Stdio::piped());
    let log = std::fs::File::create(workspace.path("serve.log")).unwrap();
    let mut child = command.stderr(log).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut output = out.by_ref().map_while(Result::ok);
    let url = output.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned)).unwrap();
    (child, out, url)
}

/// Returns the member names in order.
fn member_names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn org_and_key_commands_work_remotely() {
    let server = RunningServer::new();
    server.assert_same(&["org", "list"]);
    server.assert_same(&["org", "show", "acme"]);
    server.assert_change(&["org", "update", "acme", "--name", "Acme"], &["org", "show", "acme"]);
    let changed = server.assert_change(&["org", "update", "acme", "--gateway", "off"], &["org", "show", "acme"]);
    assert_eq!(changed["gateway_enabled"], false);
    // `key create` prints the same members as on the database.
    let mut remote = server.run_json(&["key", "create", "--name", "ci", "--org", "acme", "--expires-in-days", "3"]);
    let mut local = server.workspace.run_json(&["key", "create", "--name", "cd", "--expires-in-days", "3"]);
    assert_eq!(member_names(&remote), member_names(&local));
    assert!(remote["key"].take().as_str().unwrap().starts_with("wpk_") && local["key"].take().is_string());
    for name in ["ci", "cd"] {
        server.assert_same(&["key", "show", name]);
    }
    server.assert_same(&["key", "show", remote["id"].as_str().unwrap()]);
    server.assert_change(&["key", "update", "ci", "--name", "build", "--scope", "member"], &["key", "show", "build"]);
    server.assert_same(&["key", "list"]);
    server.assert_same(&["key", "delete", "build"]);
    let deleted = server.run_json(&["key", "delete", "build", "--yes"]);
    assert_eq!(deleted, json!({"id": remote["id"], "deleted": true}));
    server.assert_same(&["key", "show", "build"]);
    insta::assert_snapshot!(server.run_ok(&["key", "delete", "cd", "--yes"]), @"Deleted the key cd.");
    insta::assert_snapshot!(server.run_ok(&["key", "create", "--name", "ci"]), @"
    id:    key_…
    name:  ci
    key:   wpk_…
    Store the key now. It cannot be shown again.
    ");
    insta::assert_snapshot!(server.run_err(1, &["org", "create", "other"]), @"error: API keys cannot do this. Sign in to the console instead.");
    server.workspace.run_ok(&["org", "create", "other"]);
    insta::assert_snapshot!(server.run_err(1, &["org", "show", "other"]), @"error: the API key belongs to organisation `acme`, not to `other`: use a key of `other`");
    insta::assert_snapshot!(server.run_err(1, &["server", "list", "--org", "other"]), @"error: the API key belongs to organisation `acme`, not to `other`: use a key of `other`");
    insta::assert_snapshot!(server.run_ok(&["org", "delete", "acme", "--yes"]), @"Deleted the organisation acme.");
    assert_eq!(server.workspace.run_json(&["org", "list"])["items"][0]["slug"], "other");
}

#[test]
fn logo_commands_work_remotely() {
    // A one-pixel GIF.
    const GIF: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    let server = RunningServer::new();
    let picture = server.workspace.path("logo.gif");
    std::fs::write(&picture, data_encoding::BASE64.decode(GIF.as_bytes()).unwrap()).unwrap();
    server.run_ok(&["org", "update", "acme", "--logo", picture.to_str().unwrap()]);
    server.run_ok(&["org", "update", "acme", "--logo", "none"]);
    let svg = server.workspace.write_file("logo.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>");
    server.assert_same(&["org", "update", "acme", "--logo", &svg]);
    server.assert_same(&["org", "update", "acme", "--logo", "/gone.png"]);
}

#[test]
fn user_commands_work_remotely() {
    let server = RunningServer::new();
    server.workspace.run_ok(&["user", "create", "Ann@acme.example", "--role", "owner"]);
    server.workspace.run_ok(&["user", "create", "bob@acme.example"]);
    server.assert_same(&["user", "list"]);
    server.assert_same(&["user", "show", "ann@ACME.example"]);
    server.assert_same(&["user", "show", "gone@acme.example"]);
    let changed = ["user", "update", "bob@acme.example", "--role", "admin"];
    server.assert_change(&changed, &["user", "show", "bob@acme.example"]);
    // Demoting the last owner fails with the same error.
    server.assert_same(&["user", "update", "ann@acme.example", "--role", "member"]);
    server.assert_same(&["user", "delete", "bob@acme.example"]);
    insta::assert_snapshot!(server.run_ok(&["user", "delete", "bob@acme.example", "--yes"]), @"Removed bob@acme.example from organisation acme.");
    // Over the API, `user create` creates an invitation that the user must accept.
    let invited = server.run_json(&["user", "create", "cid@acme.example", "--role", "admin"]);
    assert_eq!(member_names(&invited), ["id", "email", "role", "created_at", "expires_at", "link", "mailed"]);
    assert_eq!((&invited["role"], &invited["mailed"]), (&json!("admin"), &json!(false)));
    assert!(invited["link"].as_str().unwrap().starts_with("http://"), "{invited}");
    let output = server.run_ok(&["user", "create", "dan@acme.example"]);
    assert!(output.ends_with("Send the link to dan@acme.example. It cannot be shown again.\n"), "{output}");
    assert_eq!(server.run_json(&["user", "list"])["items"].as_array().unwrap().len(), 1);
}

/// If the installation sends email, the invitation link is only in the email, because it verifies the address.
#[test]
fn an_emailed_invitation_shows_no_link() {
    let server =
        RunningServer::with(&[("WAYPOST_SMTP_URL", "console:"), ("WAYPOST_MAIL_FROM", "Waypost <way@acme.example>")]);
    let invited = server.run_json(&["user", "create", "cid@acme.example", "--role", "admin"]);
    assert_eq!((&invited["mailed"], &invited["link"]), (&json!(true), &Value::Null), "{invited}");
    let output = server.run_ok(&["user", "create", "dan@acme.example"]);
    assert!(output.ends_with("The invitation was sent to dan@acme.example.\n"), "{output}");
    for shown in [invited.to_string(), output] {
        assert!(!shown.contains("/invite") && !shown.contains("token"), "{shown}");
    }
}

#[test]
fn server_commands_work_remotely() {
    let server = RunningServer::new();
    server.assert_same(&["server", "list"]);
    let create = ["server", "create", "acme-docs", "--product", "Acme", "--toolset", "all"];
    let mut created = server.run_json(&[&create[..], &["--allowed-origin", "https://acme.example"]].concat());
    created["former_slugs"] = json!([]);
    assert_eq!(created, server.workspace.run_json(&["server", "show", "acme-docs"]));
    server.assert_same(&create);
    server.assert_same(&["server", "create", "Docs!"]);
    server.assert_same(&["server", "show", "acme-docs"]);
    server.assert_same(&["server", "show", created["id"].as_str().unwrap()]);
    server.assert_same(&["server", "show", "gone-docs"]);
    server.assert_same(&["server", "show", "srv_000000000000"]);
    let settings = ["--sign-in", "on_connect", "--auth-type", "platform_oauth", "--walkthrough-tools", "false"];
    let update = [&["server", "update", "acme-docs", "--slug", "acme-help"][..], &settings].concat();
    let changed = server.assert_change(&update, &["server", "show", "acme-help"]);
    assert_eq!(changed["former_slugs"], json!(["acme-docs"]));
    // The server can still be found by its old slug.
    server.assert_same(&["server", "show", "acme-docs"]);
    let freed = server.run_json(&["server", "release-slug", "acme-help", "acme-docs"]);
    assert_eq!(freed["former_slugs"], json!([]));
    let origins = ["server", "update", "acme-help", "--allowed-origin", "none"];
    assert_eq!(server.assert_change(&origins, &["server", "show", "acme-help"])["allowed_origins"], json!([]));
    let page = ["server", "update", "acme-help", "--public-page", "false", "--public-page-indexed", "true"];
    let changed = server.assert_change(&page, &["server", "show", "acme-help"]);
    assert_eq!((&changed["public_page"], &changed["public_page_indexed"]), (&json!(false), &json!(true)));
    server.assert_same(&["server", "delete", "acme-help"]);
    server.assert_same(&["server", "list"]);
    let deleted = server.run_json(&["server", "delete", "acme-help", "--yes"]);
    assert_eq!(deleted, json!({"id": created["id"], "deleted": true}));
}

#[test]
fn join_commands_work_remotely() {
    let server = RunningServer::new();
    server.run_json(&["server", "create", "acme-docs"]);
    server.assert_same(&["join", "list"]);
    let link = server.run_json(&["join", "link", "ann", "--server", "acme-docs"]);
    assert!(link["url"].as_str().unwrap().contains("/s/acme-docs/t/claim~ann~"), "{link}");
    server.assert_same(&["join", "link", "a b", "--server", "acme-docs"]);
    server.assert_same(&["join", "show", "joi_0123456789abcdef01234567"]);
    server.assert_same(&["join", "undo", "joi_0123456789abcdef01234567", "--yes"]);
}

#[test]
fn oauth_config_commands_work_remotely() {
    let server = RunningServer::new();
    let issuer = providers::start_provider();
    let secret = server.workspace.write_file("client-secret", "hunter2\n");
    let create = |name| {
        let flags =
            ["--issuer", &issuer, "--client-id", "waypost", "--client-secret-file", &secret, "--scope", "openid"];
        [&["oauth-config", "create", name][..], &flags].concat().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let words = create("Acme ID");
    let created = server.run_json(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((&created["client_secret"], &created["kind"]), (&json!("set"), &json!("openid")));
    assert!(created["findings"][0]["message"].as_str().unwrap().contains("PKCE"), "{created}");
    let words = create("Other ID");
    let mut words: Vec<_> = words.iter().map(String::as_str).collect();
    words.push("--json");
    let mut local = server.workspace.command(&words);
    let local = local.env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=sign-in").output().unwrap();
    let local: Value = serde_json::from_slice(&local.stdout).unwrap();
    assert_eq!(member_names(&created), member_names(&local));
    assert_eq!(created["findings"], local["findings"]);
    server.assert_same(&["oauth-config", "list"]);
    server.assert_same(&["oauth-config", "show", "Acme ID"]);
    server.assert_same(&["oauth-config", "show", "gone"]);
    let create_server = ["server", "create", "acme-docs", "--auth-type", "custom_oauth", "--oauth-config", "Acme ID"];
    assert_eq!(server.run_json(&create_server)["oauth_config_id"], created["id"]);
    server.assert_same(&["oauth-config", "delete", "Acme ID", "--yes"]);
    let renamed =
        server.run_json(&["oauth-config", "update", "Acme ID", "--name", "Acme", "--link-verified-email", "true"]);
    assert_eq!((&renamed["name"], &renamed["servers"]), (&json!("Acme"), &json!(["acme-docs"])));
    assert_eq!(renamed["redirect_uris"].as_array().unwrap().len(), 2, "{renamed}");
    let checked = server.run_json(&["oauth-config", "check", "Acme"]);
    assert_eq!(member_names(&checked), ["items"]);
    server.run_ok(&["server", "update", "acme-docs", "--auth-type", "none", "--oauth-config", "none"]);
    server.run_ok(&["oauth-config", "delete", "Acme", "--yes"]);
}

#[test]
fn walkthrough_and_assignment_commands_work_remotely() {
    let server = RunningServer::new();
    server.workspace.run_ok(&["server", "create", "acme-docs"]);
    let file = server.workspace.write_file("hello.md", HELLO);
    server.workspace.run_ok(&["walkthrough", "import", &file, "--publish"]);
    let id = server.workspace.run_json(&["walkthrough", "show", "hello"])["id"].as_str().unwrap().to_owned();
    for name in ["hello", &id, "gone", "wt_000000000000"] {
        server.assert_same(&["walkthrough", "show", name]);
    }
    server.assert_same(&["walkthrough", "list"]);
    server.assert_same(&["walkthrough", "list", "--state", "archived"]);
    let on = ["--server", "acme-docs", "--walkthrough", "hello"];
    let placed = server.run_json(&[&["assignment", "add"][..], &on, &["--order", "-3", "--disabled"]].concat());
    assert_eq!((&placed["display_order"], &placed["enabled"]), (&json!(-3), &json!(false)));
    server.assert_same(&["assignment", "list", "--server", "acme-docs"]);
    server.assert_same(&[&["assignment", "list"][..], &on].concat());
    // An existing assignment is updated, remotely and locally.
    server.assert_same(&[&["assignment", "update"][..], &on, &["--enabled"]].concat());
    insta::assert_snapshot!(server.run_ok(&[&["assignment", "remove"][..], &on].concat()), @"Removed Hello from server acme-docs.");
    server.assert_same(&[&["assignment", "remove"][..], &on].concat());
    server.assert_same(&["assignment", "list", "--server", "acme-docs"]);
    let update = ["walkthrough", "update", "hello", "--title", "Hello!", "--minutes", "5", "--tags", "a,b"];
    let output = server.run_json(&update);
    let mut shown = server.workspace.run_json(&["walkthrough", "show", "hello"]);
    shown.as_object_mut().unwrap().remove("steps");
    assert_eq!(output, shown);
    assert_eq!(
        server.run_json(&["walkthrough", "update", "hello", "--minutes", "0"])["estimated_duration_minutes"],
        json!(null)
    );
    for (action, state) in [("unpublish", "draft"), ("archive", "archived"), ("unarchive", "draft")] {
        assert_eq!(server.run_json(&["walkthrough", action, "hello"])["state"], state);
    }
    server.assert_same(&["walkthrough", "update", "hello", "--title", ""]);
    server.assert_same(&["walkthrough", "delete", "hello"]);
    insta::assert_snapshot!(server.run_ok(&["walkthrough", "delete", "hello", "--yes"]), @"Moved Hello! to the trash. It can be restored for 30 days.");
    let trash = server.run_json(&["walkthrough", "list", "--trash"]);
    let (id, title) = (trash["items"][0]["id"].as_str().unwrap().to_owned(), &trash["items"][0]["title"]);
    assert_eq!(title, "Hello!");
    server.assert_same(&["walkthrough", "list", "--trash"]);
    assert_eq!(server.run_json(&["walkthrough", "restore", &id])["slug"], "hello");
    server.assert_same(&["walkthrough", "restore", &id]);
}

/// Removes the members that differ for each new walkthrough.
fn without_identity(mut report: Value) -> Value {
    for member in ["id", "slug", "title"] {
        report[member].take();
    }
    report
}

#[test]
fn import_publish_and_withdraw_work_remotely() {
    let server = RunningServer::new();
    server.workspace.run_ok(&["server", "create", "acme-docs"]);
    let file = server.workspace.write_file("hello.md", HELLO);
    let import = ["walkthrough", "import", &file, "--server", "acme-docs", "--publish"];
    server.assert_same(&[&import[..], &["--dry-run"]].concat());
    let remote = server.run_json(&import);
    assert_eq!(remote["created"], true);
    let titled = [&import[..], &["--title", "Hello too"]].concat();
    assert_eq!(without_identity(remote), without_identity(server.workspace.run_json(&titled)));
    server.assert_same(&import);
    let course = server.workspace.path("course");
    server.workspace.write_file("course/README.md", "# A course\n\nOn two things.\n");
    server.workspace.write_file("course/01-begin/01-first.md", "# First\n\ntext");
    server.workspace.write_file("course/01-begin/02-empty.md", "");
    let course = course.to_str().unwrap();
    server.assert_same(&["walkthrough", "import", course, "--dry-run"]);
    assert_eq!(server.run_json(&["walkthrough", "import", course])["title"], "A course");
    server.assert_same(&["walkthrough", "import", &format!("{course}/")]);
    // A folder with a single section and without a README, so the folder's name becomes the title.
    let alone = server.workspace.write_file("alone/01-only/01-first.md", "# First\n\ntext");
    let alone = alone.trim_end_matches("/01-only/01-first.md");
    assert_eq!(server.run_json(&["walkthrough", "import", alone])["title"], "Alone");
    server.assert_same(&["walkthrough", "import", alone]);
    // Errors are identical to those of local commands.
    let other = server.workspace.write_file("other.md", "# Hello\n\n## Three\n\nx\n\n## Four\n\nx\n\n## Five\n\nx\n");
    let bad = server.workspace.write_file("bad.md", "no title");
    server.assert_same(&["walkthrough", "import", &other]);
    server.assert_same(&["walkthrough", "import", &bad]);
    server.assert_same(&["walkthrough", "import", &bad, &file]);
    server.assert_same(&["walkthrough", "import", &file, &other]);
    server.assert_same(&["walkthrough", "import", &file, "--id", "wt_000000000000"]);
    let unknown = server.run_err(1, &["walkthrough", "import", &file, "--server", "gone-docs"]);
    assert!(unknown.contains("there is no server `gone-docs`"), "{unknown}");
    server.assert_same(&["walkthrough", "import", &file, &other, "--title", "x"]);
    server.assert_same(&["walkthrough", "import", "gone.md"]);
    let [remote, local] = [
        server.run_json(&["walkthrough", "export", "hello"]),
        server.workspace.run_json(&["walkthrough", "export", "hello"]),
    ];
    let timeless = |mut file: Value| {
        file["exportedAt"].take();
        file.to_string()
    };
    assert_eq!(timeless(remote), timeless(local));
    let copy = server.workspace.path("copy.json").to_str().unwrap().to_owned();
    server.assert_same(&["walkthrough", "export", "hello", "--output", &copy]);
    server.assert_same(&["walkthrough", "import", &copy]);
    server.assert_same(&["walkthrough", "publish", "hello"]);
    server.run_ok(&["walkthrough", "import", &other, "--replace"]);
    insta::assert_snapshot!(server.run_ok(&["walkthrough", "publish", "hello"]), @"Published version 2 of Hello.");
    server.assert_same(&["walkthrough", "versions", "hello"]);
    let withdrawn = server.run_json(&["walkthrough", "withdraw", "hello", "--version", "2", "--reason", "wrong"]);
    let mut shown = server.workspace.run_json(&["walkthrough", "show", "hello"]);
    shown.as_object_mut().unwrap().remove("steps");
    assert_eq!(withdrawn, shown);
    server.assert_same(&["walkthrough", "versions", "hello"]);
    server.assert_same(&["walkthrough", "withdraw", "hello", "--version", "9", "--reason", "wrong"]);
}
