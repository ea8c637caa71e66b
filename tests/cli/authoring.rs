//! Authoring walkthroughs from files.

use serde_json::json;

use crate::Workspace;

const HELLO: &str = "# Hello\n\nWhat it is about.\n\n## One\n\nFirst text.\n\n## Two\n\nSecond text.\n";

fn set_up() -> Workspace {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.run_ok(&["server", "create", "acme-docs"]);
    workspace
}

#[test]
fn a_file_is_imported_published_and_assigned() {
    let workspace = set_up();
    let file = workspace.write_file("hello.md", HELLO);
    let import = ["walkthrough", "import", &file, "--server", "acme-docs", "--publish"];
    insta::assert_snapshot!(workspace.run_ok(&[&import[..], &["--dry-run"]].concat()), @r#"
    Would create Hello (new) from DIR/hello.md: 2 steps: 2 added
      + step 1 "One": added
      + step 2 "Two": added
      Version 1 would be published.
      Would be assigned to the server.
    "#);
    assert_eq!(workspace.run_json(&["walkthrough", "list"]), json!({"items": []}));
    insta::assert_snapshot!(workspace.run_ok(&import), @"
    Created Hello (wt_…) from DIR/hello.md: 2 steps: 2 added
      Version 1 published.
      Assigned to the server.
    ");
    insta::assert_snapshot!(workspace.run_ok(&import), @"
    No changes in Hello (wt_…) from DIR/hello.md: 2 steps unchanged
      Version 1 is already published.
    ");
    insta::assert_snapshot!(workspace.run_ok(&["walkthrough", "show", "hello"]), @"
    id:                          wt_…
    organization id:             org_…
    slug:                        hello
    title:                       Hello
    description:                 What it is about.
    type:                        quickstart
    state:                       published
    estimated duration minutes:  -
    tags:                        -
    current version id:          wv_…
    revision:                    1
    created at:                  TIME
    updated at:                  TIME

    POSITION  ID                   SECTION TITLE  TITLE
    1         ws_…  -              One
    2         ws_…  -              Two
    ");
    insta::assert_snapshot!(workspace.run_ok(&["assignment", "list", "--server", "acme-docs"]), @"
    DISPLAY ORDER  WALKTHROUGH ID       TITLE  STATE      ENABLED
    1              wt_…  Hello  published  yes
    ");
    let id = workspace.run_json(&["walkthrough", "show", "hello"])["id"].as_str().unwrap().to_owned();
    let exported = workspace.run_json(&["walkthrough", "export", &id]);
    assert_eq!((&exported["version"], &exported["steps"][1]["title"]), (&json!("1.1"), &json!("Two")));
    let copy = workspace.path("copy.json").to_str().unwrap().to_owned();
    workspace.run_ok(&["walkthrough", "export", &id, "--output", &copy]);
    let again = workspace.run_json(&["walkthrough", "import", &copy]);
    assert_eq!((&again["id"], &again["changed"]), (&json!(id), &json!(false)));
}

#[test]
fn an_assignment_is_added_moved_and_removed() {
    let workspace = set_up();
    let file = workspace.write_file("hello.md", HELLO);
    workspace.run_ok(&["walkthrough", "import", &file]);
    let target = ["--server", "acme-docs", "--walkthrough", "hello"];
    let assign = |verb, more: &[&str]| workspace.run_json(&[&["assignment", verb][..], &target, more].concat());
    let made = assign("add", &["--order", "5", "--disabled"]);
    assert_eq!((&made["display_order"], &made["enabled"]), (&json!(5), &json!(false)));
    let moved = assign("add", &["--order", "-1"]);
    assert_eq!((&moved["id"], &moved["display_order"], &moved["enabled"]), (&made["id"], &json!(-1), &json!(false)));
    assert_eq!(assign("add", &["--enabled"])["enabled"], true);
    assert_eq!(assign("list", &[])["items"][0]["title"], "Hello");
    assert_eq!(assign("remove", &[])["deleted"], true);
    assert_eq!(assign("list", &[]), json!({"items": []}));
}

#[test]
fn a_walkthrough_moves_through_its_states() {
    let workspace = set_up();
    let file = workspace.write_file("hello.md", HELLO);
    workspace.run_ok(&["walkthrough", "import", &file]);
    let state = |verb: &[&str]| workspace.run_json(&[&["walkthrough"], verb].concat());
    assert_eq!(state(&["publish", "hello"])["number"], 1);
    assert_eq!(state(&["publish", "hello"])["created"], false);
    assert_eq!(state(&["show", "hello"])["state"], "published");
    assert_eq!(state(&["unpublish", "hello"])["state"], "draft");
    assert_eq!(state(&["archive", "hello"])["state"], "archived");
    assert_eq!(state(&["unarchive", "hello"])["state"], "draft");
    assert_eq!(
        state(&["update", "hello", "--title", "Hi", "--tags", "a,b", "--minutes", "5"])["tags"],
        json!(["a", "b"])
    );
    assert_eq!(state(&["publish", "hello"])["number"], 2);
    assert_eq!(state(&["withdraw", "hello", "--version", "2", "--reason", "wrong"])["state"], "published");
    assert_eq!(state(&["versions", "hello"])["items"][0]["withdrawn_reason"], "wrong");
    let id = state(&["show", "hello"])["id"].as_str().unwrap().to_owned();
    let publish = workspace.run_ok(&["walkthrough", "publish", "hello"]);
    insta::assert_snapshot!(publish, @r"
    Published version 3 of Hi.
    It is not assigned to a server yet. To assign it: waypost assignment add --server SLUG --walkthrough hello
    ");
    assert_eq!(state(&["delete", "hello", "--yes"])["deleted"], true);
    assert_eq!(state(&["list", "--trash"])["items"][0]["id"], json!(id));
    assert_eq!(state(&["list"])["items"], json!([]));
    assert_eq!(state(&["restore", &id])["title"], "Hi");
    assert_eq!(state(&["delete", "hello", "--yes"])["deleted"], true);
    insta::assert_snapshot!(workspace.run_err(1, &["walkthrough", "show", "hello"]), @"error: there is no walkthrough `hello`: run `waypost walkthrough list` to see all");
}

#[test]
fn folders_and_multiple_files_are_imported() {
    let workspace = set_up();
    workspace.write_file("course/01-begin/01-first.md", "# First\n\ntext");
    workspace.write_file("course/01-begin/02-second.md", "# Second\n\ntext");
    let course = workspace.path("course").to_str().unwrap().to_owned();
    let hello = workspace.write_file("hello.md", HELLO);
    let made = workspace.run_json(&["walkthrough", "import", &course, &hello]);
    assert_eq!((&made["items"][0]["title"], &made["items"][1]["title"]), (&json!("Course"), &json!("Hello")));
    assert_eq!(workspace.run_json(&["walkthrough", "show", "course"])["type"], "course");
    insta::assert_snapshot!(workspace.run_err(2, &["walkthrough", "import", &course, &hello, "--title", "x"]), @"error: --title and --id can only be used with a single file");
}

#[test]
fn errors_name_the_file_and_change_nothing() {
    let workspace = set_up();
    let hello = workspace.write_file("hello.md", HELLO);
    let broken = workspace.write_file("broken.json", "{\"steps\": [");
    let empty = workspace.write_file("empty.md", "# Only a title\n\n## Step\n");
    insta::assert_snapshot!(workspace.run_err(1, &["walkthrough", "import", &hello, &broken]), @"error: DIR/broken.json: `document` is not valid JSON at line 1, column 11: EOF while parsing a list.");
    insta::assert_snapshot!(workspace.run_err(1, &["walkthrough", "import", &empty, "--publish"]), @r#"error: DIR/empty.md: The walkthrough cannot be published: step 1 "Step": `content` is empty. Write the text for the user."#);
    insta::assert_snapshot!(workspace.run_err(1, &["walkthrough", "import", "gone.md"]), @"error: cannot read gone.md (No such file or directory)");
    insta::assert_snapshot!(workspace.run_err(1, &["walkthrough", "import", &hello, "--server", "gone"]), @"error: DIR/hello.md: The organisation has no server `gone`.");
    assert_eq!(workspace.run_json(&["walkthrough", "list"]), json!({"items": []}));
}

#[test]
fn lint_needs_no_database() {
    let workspace = Workspace::empty();
    let hello = workspace.write_file("hello.md", HELLO);
    let bad = workspace.write_file("bad.md", "---\ntype: installer\n---\n\n# Setup\n\n## One\n\nText.\n");
    insta::assert_snapshot!(workspace.run_ok(&["walkthrough", "lint", &hello]), @"DIR/hello.md: no problems");
    let result = workspace.run(&["walkthrough", "lint", &hello, &bad]);
    assert_eq!(result.code, 1);
    insta::assert_snapshot!(format!("{}{}", result.out, result.err), @r#"
    DIR/hello.md: no problems
    DIR/bad.md: error: step 1 "One": `operations_for_agent` is empty, but every step of a walkthrough of type `installer` requires it.
    error: 1 file has errors that prevent publishing
    "#);
    assert!(!workspace.path("waypost-data").exists());
}
