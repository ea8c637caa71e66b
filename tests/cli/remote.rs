//! Commands through the REST API of a running server: as on the database, and what can be wrong on the way.

mod wrong;

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::{Answer, Place, providers};

const HELLO: &str = "# Hello\n\nWhat it is about.\n\n## One\n\nFirst text.\n\n## Two\n\nSecond text.\n";

/// An organisation `acme` on a running `waypost serve`, and a key of it with which everything may be done.
pub(crate) struct Served {
    pub(crate) place: Place,
    child: Child,
    /// Open, or what it goes on printing would end it.
    _out: Lines<BufReader<ChildStdout>>,
    pub(crate) url: String,
    key: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// The same with settings of the environment.
    fn with(settings: &[(&str, &str)]) -> Self {
        let place = Place::new();
        place.fine(&["org", "create", "acme", "--name", "Acme Inc."]);
        let key = place.json(&["key", "create", "--name", "remote", "--scope", "owner"]);
        let key = key["key"].as_str().unwrap().to_owned();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
        let mut command = place.command(&serve);
        command
            .env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=sign-in")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped());
        let log = std::fs::File::create(place.path("serve.log")).unwrap();
        let mut child = command.stderr(log).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = out.by_ref().map_while(Result::ok);
        let url = told.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned)).unwrap();
        Self { place, child, _out: out, url, key }
    }

    /// A command that is sent to the server, with its key in the environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        // Whatever it says, it must not come from a database that it happens to find.
        command.current_dir(self.place.path("waypost-data"));
        command.env("WAYPOST_URL", &self.url).env("WAYPOST_API_KEY", &self.key);
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.place.answer(self.command(arguments).output().unwrap())
    }

    #[track_caller]
    pub(crate) fn fine(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{arguments:?}: {}", answer.out);
        answer.out
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, code, "{arguments:?}: {}{}", answer.out, answer.err);
        answer.err
    }

    /// A question has the same answer here and there, for people and for programs.
    #[track_caller]
    fn same(&self, arguments: &[&str]) {
        for words in [arguments.to_vec(), [arguments, &["--json"]].concat()] {
            let there = self.command(&words).output().unwrap();
            let here = self.place.command(&words).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(text(&there.stdout), text(&here.stdout), "{words:?}: {}", text(&there.stderr));
            assert_eq!(text(&there.stderr), text(&here.stderr), "{words:?}");
            assert_eq!(there.status.code(), here.status.code(), "{words:?}");
        }
    }

    /// What `arguments` change there is what `show` finds here afterwards.
    #[track_caller]
    fn changes(&self, arguments: &[&str], show: &[&str]) -> Value {
        let said = self.json(arguments);
        assert_eq!(said, self.place.json(show), "{arguments:?}");
        said
    }
}

/// The names of the members in their order.
fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn organisations_and_keys() {
    let served = Served::new();
    served.same(&["org", "list"]);
    served.same(&["org", "show", "acme"]);
    served.changes(&["org", "update", "acme", "--name", "Acme"], &["org", "show", "acme"]);
    // Answers of creation as on the database, member by member.
    let mut there = served.json(&["key", "create", "--name", "ci", "--org", "acme", "--expires-in-days", "3"]);
    let mut here = served.place.json(&["key", "create", "--name", "cd", "--expires-in-days", "3"]);
    assert_eq!(members(&there), members(&here));
    assert!(there["key"].take().as_str().unwrap().starts_with("wpk_") && here["key"].take().is_string());
    for noun in ["ci", "cd"] {
        served.same(&["key", "show", noun]);
    }
    served.same(&["key", "show", there["id"].as_str().unwrap()]);
    served.changes(&["key", "update", "ci", "--name", "build", "--scope", "member"], &["key", "show", "build"]);
    served.same(&["key", "list"]);
    served.same(&["key", "delete", "build"]);
    let gone = served.json(&["key", "delete", "build", "--yes"]);
    assert_eq!(gone, json!({"id": there["id"], "deleted": true}));
    served.same(&["key", "show", "build"]);
    insta::assert_snapshot!(served.fine(&["key", "delete", "cd", "--yes"]), @"Deleted the key cd.");
    insta::assert_snapshot!(served.fine(&["key", "create", "--name", "ci"]), @"
    id:    key_…
    name:  ci
    key:   wpk_…
    Keep the key now: it cannot be shown again.
    ");
    insta::assert_snapshot!(served.fails(1, &["org", "create", "other"]), @"error: Only a signed-in user can do this, not an API key: use the console.");
    served.place.fine(&["org", "create", "other"]);
    insta::assert_snapshot!(served.fails(1, &["org", "show", "other"]), @"error: the API key is for the organisation `acme`, not for `other`: use a key of `other`");
    insta::assert_snapshot!(served.fails(1, &["server", "list", "--org", "other"]), @"error: the API key is for the organisation `acme`, not for `other`: use a key of `other`");
    insta::assert_snapshot!(served.fine(&["org", "delete", "acme", "--yes"]), @"Deleted the organisation acme.");
    assert_eq!(served.place.json(&["org", "list"])["items"][0]["slug"], "other");
}

#[test]
fn a_logo() {
    // The smallest picture there is: one pixel.
    const GIF: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    let served = Served::new();
    let picture = served.place.path("logo.gif");
    std::fs::write(&picture, data_encoding::BASE64.decode(GIF.as_bytes()).unwrap()).unwrap();
    served.fine(&["org", "update", "acme", "--logo", picture.to_str().unwrap()]);
    served.fine(&["org", "update", "acme", "--logo", "none"]);
    let svg = served.place.file("logo.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>");
    served.same(&["org", "update", "acme", "--logo", &svg]);
    served.same(&["org", "update", "acme", "--logo", "/gone.png"]);
}

#[test]
fn people() {
    let served = Served::new();
    served.place.fine(&["user", "create", "Ann@acme.example", "--role", "owner"]);
    served.place.fine(&["user", "create", "bob@acme.example"]);
    served.same(&["user", "list"]);
    served.same(&["user", "show", "ann@ACME.example"]);
    served.same(&["user", "show", "gone@acme.example"]);
    let changed = ["user", "update", "bob@acme.example", "--role", "admin"];
    served.changes(&changed, &["user", "show", "bob@acme.example"]);
    // The last owner stays one: the refusal is the same.
    served.same(&["user", "update", "ann@acme.example", "--role", "member"]);
    served.same(&["user", "delete", "bob@acme.example"]);
    insta::assert_snapshot!(served.fine(&["user", "delete", "bob@acme.example", "--yes"]), @"Took bob@acme.example out of the organisation acme.");
    // Nobody becomes a member without knowing.
    let invited = served.json(&["user", "create", "cid@acme.example", "--role", "admin"]);
    assert_eq!(members(&invited), ["id", "email", "role", "created_at", "expires_at", "link", "mailed"]);
    assert_eq!((&invited["role"], &invited["mailed"]), (&json!("admin"), &json!(false)));
    assert!(invited["link"].as_str().unwrap().starts_with("http://"), "{invited}");
    let told = served.fine(&["user", "create", "dan@acme.example"]);
    assert!(
        told.ends_with("Give the link to dan@acme.example, who becomes a member by it; it cannot be shown again.\n"),
        "{told}"
    );
    assert_eq!(served.json(&["user", "list"])["items"].as_array().unwrap().len(), 1);
}

/// If the installation sends email, the link of an invitation is in the email and nowhere else: it proves the address.
#[test]
fn an_emailed_invitation() {
    let served = Served::with(&[("WAYPOST_SMTP_URL", "console:"), ("WAYPOST_MAIL_FROM", "Waypost <way@acme.example>")]);
    let invited = served.json(&["user", "create", "cid@acme.example", "--role", "admin"]);
    assert_eq!((&invited["mailed"], &invited["link"]), (&json!(true), &Value::Null), "{invited}");
    let told = served.fine(&["user", "create", "dan@acme.example"]);
    assert!(told.ends_with("The link is on its way to dan@acme.example, who becomes a member by it.\n"), "{told}");
    for shown in [invited.to_string(), told] {
        assert!(!shown.contains("/invite") && !shown.contains("token"), "{shown}");
    }
}

#[test]
fn servers() {
    let served = Served::new();
    served.same(&["server", "list"]);
    let create = ["server", "create", "acme-docs", "--product", "Acme", "--toolset", "all"];
    let mut made = served.json(&[&create[..], &["--allowed-origin", "https://acme.example"]].concat());
    made["former_slugs"] = json!([]);
    assert_eq!(made, served.place.json(&["server", "show", "acme-docs"]));
    served.same(&create);
    served.same(&["server", "create", "Docs!"]);
    served.same(&["server", "show", "acme-docs"]);
    served.same(&["server", "show", made["id"].as_str().unwrap()]);
    served.same(&["server", "show", "gone-docs"]);
    served.same(&["server", "show", "srv_000000000000"]);
    let settings = ["--sign-in", "on_connect", "--auth-type", "platform_oauth", "--walkthrough-tools", "false"];
    let update = [&["server", "update", "acme-docs", "--slug", "acme-help"][..], &settings].concat();
    let changed = served.changes(&update, &["server", "show", "acme-help"]);
    assert_eq!(changed["former_slugs"], json!(["acme-docs"]));
    // It still answers to its former slug.
    served.same(&["server", "show", "acme-docs"]);
    let freed = served.json(&["server", "release-slug", "acme-help", "acme-docs"]);
    assert_eq!(freed["former_slugs"], json!([]));
    let origins = ["server", "update", "acme-help", "--allowed-origin", "none"];
    assert_eq!(served.changes(&origins, &["server", "show", "acme-help"])["allowed_origins"], json!([]));
    let page = ["server", "update", "acme-help", "--public-page", "false", "--public-page-indexed", "true"];
    let changed = served.changes(&page, &["server", "show", "acme-help"]);
    assert_eq!((&changed["public_page"], &changed["public_page_indexed"]), (&json!(false), &json!(true)));
    served.same(&["server", "delete", "acme-help"]);
    served.same(&["server", "list"]);
    let gone = served.json(&["server", "delete", "acme-help", "--yes"]);
    assert_eq!(gone, json!({"id": made["id"], "deleted": true}));
}

#[test]
fn claims() {
    let served = Served::new();
    served.json(&["server", "create", "acme-docs"]);
    served.same(&["join", "list"]);
    let link = served.json(&["join", "link", "ann", "--server", "acme-docs"]);
    assert!(link["url"].as_str().unwrap().contains("/s/acme-docs/t/claim~ann~"), "{link}");
    served.same(&["join", "link", "a b", "--server", "acme-docs"]);
    served.same(&["join", "show", "joi_0123456789abcdef01234567"]);
    served.same(&["join", "undo", "joi_0123456789abcdef01234567", "--yes"]);
}

#[test]
fn identity_providers() {
    let served = Served::new();
    let issuer = providers::provider();
    let secret = served.place.file("client-secret", "geheim\n");
    let create = |name| {
        let flags =
            ["--issuer", &issuer, "--client-id", "waypost", "--client-secret-file", &secret, "--scope", "openid"];
        [&["oauth-config", "create", name][..], &flags].concat().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let words = create("Acme ID");
    let made = served.json(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((&made["client_secret"], &made["kind"]), (&json!("set"), &json!("openid")));
    assert!(made["findings"][0]["message"].as_str().unwrap().contains("PKCE"), "{made}");
    let words = create("Other ID");
    let mut words: Vec<_> = words.iter().map(String::as_str).collect();
    words.push("--json");
    let mut local = served.place.command(&words);
    let local = local.env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=sign-in").output().unwrap();
    let local: Value = serde_json::from_slice(&local.stdout).unwrap();
    assert_eq!(members(&made), members(&local));
    assert_eq!(made["findings"], local["findings"]);
    served.same(&["oauth-config", "list"]);
    served.same(&["oauth-config", "show", "Acme ID"]);
    served.same(&["oauth-config", "show", "gone"]);
    let server = ["server", "create", "acme-docs", "--auth-type", "custom_oauth", "--oauth-config", "Acme ID"];
    assert_eq!(served.json(&server)["oauth_config_id"], made["id"]);
    served.same(&["oauth-config", "delete", "Acme ID", "--yes"]);
    let renamed =
        served.json(&["oauth-config", "update", "Acme ID", "--name", "Acme", "--link-verified-email", "true"]);
    assert_eq!((&renamed["name"], &renamed["servers"]), (&json!("Acme"), &json!(["acme-docs"])));
    assert_eq!(renamed["redirect_uris"].as_array().unwrap().len(), 2, "{renamed}");
    let checked = served.json(&["oauth-config", "check", "Acme"]);
    assert_eq!(members(&checked), ["items"]);
    served.fine(&["server", "update", "acme-docs", "--auth-type", "none", "--oauth-config", "none"]);
    served.fine(&["oauth-config", "delete", "Acme", "--yes"]);
}

#[test]
fn walkthroughs_on_servers() {
    let served = Served::new();
    served.place.fine(&["server", "create", "acme-docs"]);
    let file = served.place.file("hello.md", HELLO);
    served.place.fine(&["walkthrough", "import", &file, "--publish"]);
    let id = served.place.json(&["walkthrough", "show", "hello"])["id"].as_str().unwrap().to_owned();
    for wanted in ["hello", &id, "gone", "wt_000000000000"] {
        served.same(&["walkthrough", "show", wanted]);
    }
    served.same(&["walkthrough", "list"]);
    served.same(&["walkthrough", "list", "--state", "archived"]);
    let on = ["--server", "acme-docs", "--walkthrough", "hello"];
    let placed = served.json(&[&["assignment", "add"][..], &on, &["--order", "-3", "--disabled"]].concat());
    assert_eq!((&placed["display_order"], &placed["enabled"]), (&json!(-3), &json!(false)));
    served.same(&["assignment", "list", "--server", "acme-docs"]);
    served.same(&[&["assignment", "list"][..], &on].concat());
    // What is placed already is changed, here as there.
    served.same(&[&["assignment", "update"][..], &on, &["--enabled"]].concat());
    insta::assert_snapshot!(served.fine(&[&["assignment", "remove"][..], &on].concat()), @"Took Hello off the server acme-docs.");
    served.same(&[&["assignment", "remove"][..], &on].concat());
    served.same(&["assignment", "list", "--server", "acme-docs"]);
    let update = ["walkthrough", "update", "hello", "--title", "Hello!", "--minutes", "5", "--tags", "a,b"];
    let said = served.json(&update);
    let mut shown = served.place.json(&["walkthrough", "show", "hello"]);
    shown.as_object_mut().unwrap().remove("steps");
    assert_eq!(said, shown);
    assert_eq!(
        served.json(&["walkthrough", "update", "hello", "--minutes", "0"])["estimated_duration_minutes"],
        json!(null)
    );
    for (act, state) in [("unpublish", "draft"), ("archive", "archived"), ("unarchive", "draft")] {
        assert_eq!(served.json(&["walkthrough", act, "hello"])["state"], state);
    }
    served.same(&["walkthrough", "update", "hello", "--title", ""]);
    served.same(&["walkthrough", "delete", "hello"]);
    insta::assert_snapshot!(served.fine(&["walkthrough", "delete", "hello", "--yes"]), @"Moved Hello! to the trash, where it is kept for 30 days.");
    let trash = served.json(&["walkthrough", "list", "--trash"]);
    let (id, title) = (trash["items"][0]["id"].as_str().unwrap().to_owned(), &trash["items"][0]["title"]);
    assert_eq!(title, "Hello!");
    served.same(&["walkthrough", "list", "--trash"]);
    assert_eq!(served.json(&["walkthrough", "restore", &id])["slug"], "hello");
    served.same(&["walkthrough", "restore", &id]);
}

/// Only what a new one differs in each time is left out.
fn alike(mut report: Value) -> Value {
    for member in ["id", "slug", "title"] {
        report[member].take();
    }
    report
}

#[test]
fn files_are_imported_published_and_taken_back() {
    let served = Served::new();
    served.place.fine(&["server", "create", "acme-docs"]);
    let file = served.place.file("hello.md", HELLO);
    let import = ["walkthrough", "import", &file, "--server", "acme-docs", "--publish"];
    served.same(&[&import[..], &["--dry-run"]].concat());
    let there = served.json(&import);
    assert_eq!(there["created"], true);
    let titled = [&import[..], &["--title", "Hello too"]].concat();
    assert_eq!(alike(there), alike(served.place.json(&titled)));
    served.same(&import);
    let course = served.place.path("course");
    served.place.file("course/README.md", "# A course\n\nOn two things.\n");
    served.place.file("course/01-begin/01-first.md", "# First\n\ntext");
    served.place.file("course/01-begin/02-empty.md", "");
    let course = course.to_str().unwrap();
    served.same(&["walkthrough", "import", course, "--dry-run"]);
    assert_eq!(served.json(&["walkthrough", "import", course])["title"], "A course");
    served.same(&["walkthrough", "import", &format!("{course}/")]);
    // A folder in which everything is in one section, and no README gives it a title.
    let alone = served.place.file("alone/01-only/01-first.md", "# First\n\ntext");
    let alone = alone.trim_end_matches("/01-only/01-first.md");
    assert_eq!(served.json(&["walkthrough", "import", alone])["title"], "Alone");
    served.same(&["walkthrough", "import", alone]);
    // Refusals are those of the command on the database, word by word.
    let other = served.place.file("other.md", "# Hello\n\n## Three\n\nx\n\n## Four\n\nx\n\n## Five\n\nx\n");
    let bad = served.place.file("bad.md", "no title");
    served.same(&["walkthrough", "import", &other]);
    served.same(&["walkthrough", "import", &bad]);
    served.same(&["walkthrough", "import", &bad, &file]);
    served.same(&["walkthrough", "import", &file, &other]);
    served.same(&["walkthrough", "import", &file, "--id", "wt_000000000000"]);
    let unknown = served.fails(1, &["walkthrough", "import", &file, "--server", "gone-docs"]);
    assert!(unknown.contains("there is no server `gone-docs`"), "{unknown}");
    served.same(&["walkthrough", "import", &file, &other, "--title", "x"]);
    served.same(&["walkthrough", "import", "gone.md"]);
    let [there, here] =
        [served.json(&["walkthrough", "export", "hello"]), served.place.json(&["walkthrough", "export", "hello"])];
    let timeless = |mut file: Value| {
        file["exportedAt"].take();
        file.to_string()
    };
    assert_eq!(timeless(there), timeless(here));
    let copy = served.place.path("copy.json").to_str().unwrap().to_owned();
    served.same(&["walkthrough", "export", "hello", "--output", &copy]);
    served.same(&["walkthrough", "import", &copy]);
    served.same(&["walkthrough", "publish", "hello"]);
    served.fine(&["walkthrough", "import", &other, "--replace"]);
    insta::assert_snapshot!(served.fine(&["walkthrough", "publish", "hello"]), @"Published version 2 of Hello.");
    served.same(&["walkthrough", "versions", "hello"]);
    let withdrawn = served.json(&["walkthrough", "withdraw", "hello", "--version", "2", "--reason", "wrong"]);
    let mut shown = served.place.json(&["walkthrough", "show", "hello"]);
    shown.as_object_mut().unwrap().remove("steps");
    assert_eq!(withdrawn, shown);
    served.same(&["walkthrough", "versions", "hello"]);
    served.same(&["walkthrough", "withdraw", "hello", "--version", "9", "--reason", "wrong"]);
}
