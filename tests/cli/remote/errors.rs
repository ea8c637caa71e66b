//! Errors between a command and the API. Each is reported in one line that says what to do.

use super::*;

/// Starts a server that returns a fixed response. It runs until the test process exits.
fn start_fixed_server(head: &'static str, body: &'static str) -> String {
    start_server(move |_| (head, body.to_owned()))
}

/// Starts a server that returns the head and the body of `respond` for each path. It runs until the test process exits.
fn start_server(respond: impl Fn(&str) -> (&'static str, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Fused, because a TLS handshake is not text.
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok).fuse();
            let request = lines.next().unwrap_or_default();
            let _ = lines.take_while(|line| !line.is_empty()).count();
            let (head, body) = respond(request.split(' ').nth(1).unwrap_or_default());
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    url
}

/// Returns the error of a command for `url`, in which `url` is replaced with `URL`.
fn error_for(workspace: &Workspace, url: &str) -> String {
    let result = workspace.run(&["server", "list", "--url", url, "--api-key", "wpk_x"]);
    assert_eq!((result.code, result.out.as_str()), (1, ""), "{}", result.err);
    assert_eq!(result.err.lines().filter(|line| !line.starts_with("(-v")).count(), 1, "{}", result.err);
    result.err.replace(url, "URL")
}

#[test]
fn an_unreachable_or_foreign_server_is_reported() {
    let workspace = Workspace::new();
    let unused_url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    insta::assert_snapshot!(error_for(&workspace, &unused_url), @"error: cannot reach URL (Connection refused): check the URL and that `waypost serve` is running there");
    insta::assert_snapshot!(error_for(&workspace, &start_fixed_server("200 OK", "<h1>Hello</h1>")), @"error: the response of URL is not from Waypost's API: check the URL");
    insta::assert_snapshot!(error_for(&workspace, &start_fixed_server("200 OK", r#"{"items": [], "next_cursor": null}"#)), @"error: the response of URL is not from Waypost's API: check the URL");
    insta::assert_snapshot!(error_for(&workspace, &start_fixed_server("404 Not Found", "")), @"error: URL returned 404 Not Found: check that the URL is the URL of Waypost and that Waypost is not too old");
    insta::assert_snapshot!(error_for(&workspace, &start_fixed_server("502 Bad Gateway", "oops")), @"error: URL returned 502 Bad Gateway: check that Waypost is running behind that URL");
    insta::assert_snapshot!(error_for(&workspace, &start_fixed_server("301 Moved\r\nLocation: https://x.example/", "")), @"error: URL redirects to https://x.example/: pass that URL with --url, without its path");
    let busy = start_fixed_server(
        "429 Too Many\r\nRetry-After: 7",
        r#"{"code": "rate_limited", "detail": "Too many requests."}"#,
    );
    insta::assert_snapshot!(error_for(&workspace, &busy), @"error: Too many requests. Try again in 7 s.");
    let plain = start_fixed_server("200 OK", "").replace("http:", "https:");
    let error = error_for(&workspace, &plain);
    assert!(error.starts_with("error: no secure connection to URL (") && error.contains("use http://"), "{error}");
}

/// A hostile server can neither send control characters to the terminal nor make a command read an endless list.
#[test]
fn a_hostile_server_cannot_control_the_terminal() {
    let workspace = Workspace::new();
    let refusal = start_fixed_server("409 Conflict", r#"{"code": "conflict", "detail": "\u001b[2Jgone\nand\u0007"}"#);
    insta::assert_snapshot!(error_for(&workspace, &refusal), @"error: �[2Jgone�and�");
    let named = start_fixed_server(
        "200 OK",
        r#"{"items": [{"id": "org_x", "slug": "\u001b]0;x\u0007", "name": "\u009b2J", "created_at": ""}], "next_cursor": null}"#,
    );
    let listed = workspace.run(&["org", "list", "--url", &named, "--api-key", "wpk_x"]);
    assert!(listed.code == 0 && !listed.out.replace('\n', "").chars().any(char::is_control), "{:?}", listed.out);
    let other = workspace.run(&["server", "list", "--org", "x", "--url", &named, "--api-key", "wpk_x"]);
    assert!(other.code == 1 && !other.err.replace('\n', "").chars().any(char::is_control), "{:?}", other.err);
    let endless = start_fixed_server("200 OK", r#"{"items": [{"id": "org_x"}], "next_cursor": "again"}"#);
    insta::assert_snapshot!(error_for(&workspace, &endless), @"error: the list returned by URL does not end or has more than 100000 items");
}

#[test]
fn a_log_is_followed_until_the_stream_ends() {
    const STREAM: &str = "200 OK\r\nContent-Type: text/event-stream";
    let workspace = Workspace::new();
    let follow = |head: &'static str, events: String, rest: &[&str]| {
        let url = start_server(move |path| match path {
            "/api/v1/organizations" => {
                ("200 OK", r#"{"items": [{"id": "org_x", "slug": "x"}], "next_cursor": null}"#.to_owned())
            }
            "/api/v1/instances/ins_x/logs?tail=5&follow=true" => (head, events.clone()),
            _ => ("200 OK", r#"{"items": [{"id": "ins_x", "slug": "web"}], "next_cursor": null}"#.to_owned()),
        });
        let command = ["instance", "logs", "web", "-f", "--tail", "5", "--url", &url, "--api-key", "wpk_x"];
        let result = workspace.run(&[&command[..], rest].concat());
        (result.code, result.out, result.err.replace(&url, "URL"))
    };
    let line =
        |text: &str| format!("data: {{\"at\": 1795000000000, \"stream\": \"stderr\", \"text\": \"{text}\"}}\n\n");
    let two = format!("{}: a comment\n\n{}", line("one"), line("\\u001b[2J"));
    let (code, out, err) = follow(STREAM, two.clone(), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "TIME stderr  one\nTIME stderr  \u{fffd}[2J\n");
    let (_, out, _) = follow(STREAM, two, &["--json"]);
    let texts: Vec<_> = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].take()).collect();
    assert_eq!(texts, ["one", "\u{1b}[2J"]);
    let refused = format!("{}event: error\ndata: {{\"code\": \"not_found\", \"detail\": \"Gone.\"}}\n\n", line("one"));
    assert_eq!(follow(STREAM, refused, &[]), (1, "TIME stderr  one\n".to_owned(), "error: Gone.\n".to_owned()));
    let foreign = "error: the response of URL is not from Waypost's API: check the URL\n".to_owned();
    assert_eq!(follow(STREAM, "data: x\n\n".to_owned(), &[]), (1, String::new(), foreign.clone()));
    assert_eq!(follow("200 OK", line("one"), &[]), (1, String::new(), foreign.clone()));
    let endless = format!("data: {}", "x".repeat(3 * 1024 * 1024));
    assert_eq!(follow(STREAM, endless, &[]), (1, String::new(), foreign));
}

#[test]
fn rejected_keys_are_explained() {
    let server = RunningServer::new();
    let wrong = |key: &str| {
        let mut command = server.command(&["server", "list"]);
        let result = server.workspace.to_result(command.env("WAYPOST_API_KEY", key).output().unwrap());
        (result.code, result.err.replace(&server.url, "URL"))
    };
    let (code, error) = wrong("wpk_000000000000000000000000000000");
    assert_eq!(code, 1);
    insta::assert_snapshot!(error, @"error: URL rejected the API key: it is mistyped, deleted or expired; create another one in the console");
    let (code, error) = wrong("");
    assert_eq!(code, 2);
    insta::assert_snapshot!(error, @"error: an API key is required: set WAYPOST_API_KEY, or pass `--api-key -` and write the key to standard input; create keys in the console or with `waypost key create`");
    let (code, error) = wrong("wpk_ä");
    assert_eq!(code, 2);
    insta::assert_snapshot!(error, @"error: the API key contains invalid characters: copy it again, it starts with wpk_");
    // For a key without permission the API's message is shown.
    let member = server.run_json(&["key", "create", "--name", "reader", "--scope", "member"]);
    let member = member["key"].as_str().unwrap();
    let rejected = server.run_err(1, &["key", "list", "--api-key", member]);
    assert!(
        rejected.starts_with("error: ") && rejected.lines().count() == 1 && !rejected.contains("wpk_"),
        "{rejected}"
    );
    server.workspace.run_ok(&["key", "delete", "reader", "--yes"]);
    assert!(server.run_err(1, &["server", "list", "--api-key", member]).contains("rejected the API key"));
}

#[test]
fn the_key_can_come_from_the_environment_stdin_or_a_flag() {
    let server = RunningServer::new();
    let mut piped = server.command(&["org", "show", "acme", "--api-key", "-"]);
    piped.env_remove("WAYPOST_API_KEY").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", server.key).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut flags = server.workspace.command(&["org", "list", "--url", &server.url, "--api-key", &server.key]);
    flags.env("WAYPOST_URL", "http://nobody.invalid").env("WAYPOST_API_KEY", "wpk_wrong");
    assert!(flags.output().unwrap().status.success(), "flags override environment variables");
}

#[test]
fn conflicting_flags_are_rejected() {
    let workspace = Workspace::empty();
    let fails = |arguments: &[&str]| {
        let result = workspace.run(&[arguments, &["--api-key", "wpk_x"]].concat());
        assert_eq!((result.code, result.out.as_str()), (2, ""), "{arguments:?}: {}", result.err);
        result.err
    };
    let url = ["--url", "http://127.0.0.1:1"];
    insta::assert_snapshot!(fails(&["org", "list"]), @"error: --api-key requires --url");
    for flags in [["--database", "sqlite://x.db"], ["--data-dir", "x"]] {
        let error = fails(&[&["org", "list"][..], &flags, &url].concat());
        insta::allow_duplicates!(
            insta::assert_snapshot!(error, @"error: --url cannot be combined with --database or --data-dir")
        );
    }
    for command in [
        &["migrate"][..],
        &["doctor"],
        &["backup", "x"],
        &["restore", "x"],
        &["secret-key", "rotate"],
        &["serve"],
        &["walk", "http://127.0.0.1:1/s/x/mcp"],
        &["walkthrough", "lint", "x.md"],
    ] {
        let error = fails(&[command, &url].concat());
        assert!(error.contains(&format!("`waypost {}", command[0])) && error.contains("--url"), "{error}");
    }
    insta::assert_snapshot!(fails(&["org", "list", "--url", "acme.example"]), @"error: invalid installation URL: expected an origin, such as https://waypost.example.com: relative URL without a base");
    insta::assert_snapshot!(fails(&["org", "list", "--url", "acme.example:80"]), @"error: invalid installation URL: expected an origin, such as https://waypost.example.com, starting with http:// or https://");
    insta::assert_snapshot!(fails(&["org", "list", "--url", "http://acme.example/api/v1"]), @"error: invalid installation URL: expected an origin, such as https://waypost.example.com, without path, query or fragment");
    let error = fails(&["org", "list", "--url", "https://ann:hunter2@acme.example"]);
    assert!(!error.contains("hunter2") && error.contains("without user name or password"), "{error}");
    assert!(!workspace.path("waypost-data").exists(), "nothing is created on this machine");
}

/// `WAYPOST_URL` selects a remote server. Commands without a remote mode either ignore it or reject it.
#[test]
fn local_commands_reject_a_remote_url() {
    let workspace = Workspace::new();
    let run = |arguments: &[&str]| {
        let mut command = workspace.command(arguments);
        command.env("WAYPOST_URL", "http://127.0.0.1:1").env("WAYPOST_API_KEY", "wpk_x");
        workspace.to_result(command.output().unwrap())
    };
    let rejected = run(&["backup", "x"]);
    assert_eq!(rejected.code, 2);
    insta::assert_snapshot!(rejected.err, @"error: WAYPOST_URL is set, but `waypost backup` works directly on the database: unset it, or specify the database with --database or --data-dir");
    for arguments in
        [&["migrate", "--data-dir", "here"][..], &["org", "list", "--data-dir", "here"], &["serve", "--help"]]
    {
        assert_eq!(run(arguments).code, 0, "{arguments:?}");
    }
    let file = workspace.write_file("hello.md", HELLO);
    assert_eq!(run(&["walkthrough", "lint", &file]).code, 0);
    assert_eq!(run(&["org", "list"]).code, 1, "nothing listens at WAYPOST_URL");
}

/// Every page is requested with the key and with the unchanged cursor.
#[test]
fn lists_read_every_page() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let server = |slug: &str| json!({"id": format!("srv_{slug}"), "slug": slug, "name": slug});
            let with_key = head.iter().any(|line| line.eq_ignore_ascii_case("authorization: bearer wpk_x"));
            let body = match head[0].split(' ').nth(1) {
                _ if !with_key => json!({}),
                Some("/api/v1/organizations") => {
                    json!({"items": [{"id": "org_x", "slug": "acme"}], "next_cursor": null})
                }
                Some("/api/v1/servers?limit=200") => json!({"items": [server("one")], "next_cursor": "a b&c/ä"}),
                Some("/api/v1/servers?cursor=a+b%26c%2F%C3%A4&limit=200")
                | Some("/api/v1/servers?limit=200&cursor=a+b%26c%2F%C3%A4") => {
                    json!({"items": [server("two")], "next_cursor": null})
                }
                _ => json!({}),
            };
            let body = body.to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    let workspace = Workspace::new();
    let listed = workspace.run_json(&["server", "list", "--url", &url, "--api-key", "wpk_x"]);
    let slugs: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["one", "two"]);
    assert_eq!(listed["items"][0]["organization_id"], "org_x");
}
