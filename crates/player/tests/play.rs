//! End-to-end tests of the player against an MCP server.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod fixture;

use std::{
    error::Error,
    io::Cursor,
    path::Path,
    sync::{Arc, LazyLock},
};

use axum::http::StatusCode;
use fixture::{Fixture, Kind, Walkthrough};
use tokio::sync::Notify;
use url::Url;
use waypost_player::{Outcome, OutputStyle, PlayError, PlayOptions, Report, Terminal, play};

type TestResult = Result<(), Box<dyn Error>>;

/// A text that is larger than any response that the player accepts.
static LARGE: LazyLock<String> = LazyLock::new(|| "x".repeat(5 * 1024 * 1024));

/// A user with a separate home folder.
struct User {
    folder: tempfile::TempDir,
    url: Url,
}

impl User {
    fn at(url: &str) -> Result<Self, Box<dyn Error>> {
        Ok(Self { folder: tempfile::tempdir()?, url: url.parse()? })
    }

    async fn of(fixture: &Fixture) -> Result<Self, Box<dyn Error>> {
        let address = fixture.serve("127.0.0.1:0").await?;
        Self::at(&format!("http://{address}/mcp"))
    }

    fn options(&self) -> PlayOptions {
        PlayOptions {
            url: self.url.clone(),
            walkthrough: None,
            yes: false,
            email: None,
            state_folder: Some(self.folder.path().join("state")),
        }
    }

    /// Plays with `input` on standard input. Returns the output and the result.
    async fn play(&self, input: &str) -> (String, Result<Report, PlayError>) {
        play_with(&self.options(), input, OutputStyle::PLAIN).await
    }

    async fn play_without_prompts(&self) -> (String, Result<Report, PlayError>) {
        play_with(&PlayOptions { yes: true, ..self.options() }, "", OutputStyle::PLAIN).await
    }

    async fn expect_error(&self) -> Result<String, Box<dyn Error>> {
        match self.play_without_prompts().await {
            (output, Ok(_)) => Err(format!("it succeeded with this output: {output}").into()),
            (_, Err(error)) => Ok(error.to_string().replace(self.url.as_str(), "URL")),
        }
    }

    fn files(&self) -> usize {
        let count = |folder: &Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
        count(&self.folder.path().join("state"))
    }
}

async fn play_with(options: &PlayOptions, input: &str, style: OutputStyle) -> (String, Result<Report, PlayError>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let terminal = Terminal {
        out: &mut out,
        err: &mut err,
        input: Box::new(Cursor::new(input.to_owned().into_bytes())),
        echo: false,
        interrupt: Arc::new(Notify::new()),
        style,
    };
    let result = play(options, terminal).await;
    out.append(&mut err);
    (String::from_utf8_lossy(&out).into_owned(), result)
}

#[tokio::test]
async fn a_walkthrough_is_played_to_the_end() -> TestResult {
    let fixture = Fixture::new(Kind::Good);
    let (output, result) = User::of(&fixture).await?.play_without_prompts().await;
    let report = result?;
    assert!(report.is_success(true));
    assert_eq!(report.outcome, Outcome::Completed);
    insta::assert_snapshot!(output, @r#"
    First steps
    ===========

    What you need to know.

    3 steps, about 5 minutes

    Step 1 of 3 (0%)

    Setup
    Install
    -------

    Run this:

        curl https://example.com | sh

    Step 2 of 3 (33%)

    Setup
    Configure
    ---------

    1. Open `config.toml`
    2. Set the port

    Step 3 of 3 (66%)

    Use
    Go
    --

    That is all.

    3 of 3 steps completed (100%)
    Completed: First steps
    Time taken: 12 min 5 s.
    Next walkthrough: Second. Run the same command to start it.
    "#);
    let steps: Vec<String> = (fixture.state().calls.iter())
        .filter(|(tool, _)| tool == "next_walkthrough_step")
        .map(|(_, arguments)| arguments["current_step_id"].to_string())
        .collect();
    assert_eq!(steps, ["\"ws_0_0\"", "\"ws_0_1\"", "\"ws_0_2\""], "each call contains the ID of the step");
    Ok(())
}

#[tokio::test]
async fn user_input_controls_the_player() -> TestResult {
    let fixture = Fixture::new(Kind::Good);
    let user = User::of(&fixture).await?;
    let (output, result) = user.play("\nwhat?\ns\nb\nq\n").await;
    let report = result?;
    assert_eq!((report.outcome, report.step.map(|step| step.position)), (Outcome::Stopped, Some(2)));
    insta::assert_snapshot!(output, @r#"
    First steps
    ===========

    What you need to know.

    3 steps, about 5 minutes

    Step 1 of 3 (0%)

    Setup
    Install
    -------

    Run this:

        curl https://example.com | sh

    [Enter] complete step · [b] show step again · [s] status · [q] quit
    > 

    Step 2 of 3 (33%)

    Setup
    Configure
    ---------

    1. Open `config.toml`
    2. Set the port

    [Enter] complete step · [b] show step again · [s] status · [q] quit
    > 
    Press Enter, or type b, s or q.

    [Enter] complete step · [b] show step again · [s] status · [q] quit
    > 

    1 of 3 steps completed (33%)

    Setup
    [x]  1. Install
    [>]  2. Configure

    Use
    [ ]  3. Go

    [Enter] complete step · [b] show step again · [s] status · [q] quit
    > 

    Step 2 of 3 (33%)

    Setup
    Configure
    ---------

    1. Open `config.toml`
    2. Set the port

    [Enter] complete step · [b] show step again · [s] status · [q] quit
    > 

    Your progress is saved. Run the same command to continue.
    "#);
    Ok(())
}

#[tokio::test]
async fn a_later_run_resumes_and_then_starts_the_next_walkthrough() -> TestResult {
    let fixture = Fixture::new(Kind::Good);
    let user = User::of(&fixture).await?;
    user.play("\nq\n").await.1?;
    let (output, result) = user.play("\n\n").await;
    assert_eq!(result?.outcome, Outcome::Completed);
    assert!(output.contains("Resuming: 1 of 3 steps completed."), "{output}");
    assert!(output.contains("Time taken: 12 min 5 s."), "{output}");
    assert!(!output.contains("Step 1 of 3"), "{output}");
    assert_eq!(fixture.state().progress.len(), 1, "all runs use the same handle");
    let (output, _) = user.play("\n").await;
    assert!(output.contains("Step 1 of 1 (0%)"), "the next walkthrough starts: {output}");
    let (output, result) = user.play("").await;
    assert_eq!(result?.outcome, Outcome::NothingLeft);
    assert_eq!(output, "Nothing left to play: 2 walkthroughs completed.\n");
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_input_or_an_interrupt_stops_the_player() -> TestResult {
    let user = User::of(&Fixture::new(Kind::Good)).await?;
    let (output, result) = user.play("").await;
    let report = result?;
    assert_eq!(report.outcome, Outcome::Stopped);
    assert!(report.is_success(false) && !report.is_success(true));
    assert!(output.ends_with("Your progress is saved. Run the same command to continue.\n"), "{output}");

    let interrupt = Arc::new(Notify::new());
    interrupt.notify_one();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let input = Box::new(Cursor::new(Vec::new()));
    let terminal = Terminal { out: &mut out, err: &mut err, input, echo: true, interrupt, style: OutputStyle::PLAIN };
    assert_eq!(play(&user.options(), terminal).await?.outcome, Outcome::Stopped);
    Ok(())
}

#[tokio::test]
async fn a_walkthrough_is_selected_by_id_or_slug() -> TestResult {
    let user = User::of(&Fixture::new(Kind::Good)).await?;
    for name in ["second", "wt_1"] {
        let options = PlayOptions { walkthrough: Some(name.to_owned()), yes: true, ..user.options() };
        let (output, result) = play_with(&options, "", OutputStyle::PLAIN).await;
        assert_eq!(result?.walkthrough.map(|walkthrough| walkthrough.id).as_deref(), Some("wt_1"));
        let was_completed = output.contains("You have already completed this walkthrough.");
        assert_eq!(was_completed, name == "wt_1", "{output}");
    }
    let options = PlayOptions { walkthrough: Some("third".to_owned()), ..user.options() };
    let error =
        play_with(&options, "", OutputStyle::PLAIN).await.1.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("offers no walkthrough 'third';"), "{error}");
    assert!(error.ends_with("available: first-steps, second"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_handle_that_the_server_rejects_is_replaced() -> TestResult {
    let fixture = Fixture::new(Kind::Good);
    let user = User::of(&fixture).await?;
    user.play("\nq\n").await.1?;
    fixture.state().progress.clear();
    let (output, result) = user.play("n\n").await;
    assert_eq!(result?.outcome, Outcome::Stopped);
    assert!(output.contains("The server no longer has your progress."), "{output}");
    let (output, result) = user.play("y\n\nq\n").await;
    assert_eq!(result?.step.map(|step| step.position), Some(2), "{output}");
    assert!(output.contains("Step 1 of 3"), "{output}");
    fixture.state().progress.clear();
    let (_, result) = user.play_without_prompts().await;
    assert_eq!(result?.outcome, Outcome::Completed);
    assert_eq!(user.files(), 1);
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_advance_is_an_error() -> TestResult {
    for kind in [Kind::Frozen, Kind::Loop] {
        let error = User::of(&Fixture::new(kind)).await?.expect_error().await?;
        let expected = "URL did not advance after step 'Install' was completed; report this to its operator";
        assert_eq!(error, expected, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn older_revisions_and_personal_urls_work() -> TestResult {
    let legacy = User::of(&Fixture::new(Kind::Legacy)).await?;
    assert_eq!(legacy.play_without_prompts().await.1?.outcome, Outcome::Completed);

    let address = Fixture::new(Kind::Personal).serve("127.0.0.1:0").await?;
    let personal = User::at(&format!("http://{address}/t/me/mcp"))?;
    let (output, _) = personal.play("\nq\n").await;
    assert!(output.contains("Your progress is saved."), "{output}");
    let (output, result) = personal.play_without_prompts().await;
    assert!(output.contains("1 of 3 steps completed") && result?.outcome == Outcome::Completed, "{output}");
    assert_eq!(personal.files(), 0, "there is no handle to store");
    Ok(())
}

#[tokio::test]
async fn a_required_email_is_prompted_for_or_passed_as_an_option() -> TestResult {
    let fixture = Fixture::new(Kind::Email);
    let user = User::of(&fixture).await?;
    assert_eq!(user.expect_error().await?, "URL requires an email; pass it with --email ADDRESS");
    let (output, _) = user.play("me@example.com\n").await;
    assert!(output.contains("Step 1 of 3"), "{output}");
    assert_eq!(
        fixture.state().calls.last().map(|(_, arguments)| arguments["email"].clone()),
        Some("me@example.com".into())
    );
    Ok(())
}

#[tokio::test]
async fn progress_made_in_another_client_is_followed() -> TestResult {
    let (output, result) = User::of(&Fixture::new(Kind::Concurrent)).await?.play_without_prompts().await;
    assert_eq!(result?.outcome, Outcome::Completed);
    assert!(
        output.contains("Step 1 of 3") && !output.contains("Step 2 of 3") && output.contains("Step 3 of 3"),
        "{output}"
    );
    assert_eq!(output.matches("Version 2 was withdrawn.").count(), 1, "a repeated notice is shown once: {output}");
    assert!(!output.contains("Show <content>"), "messages for agents are not shown: {output}");
    Ok(())
}

#[tokio::test]
async fn all_pages_of_a_list_are_read() -> TestResult {
    let user = User::of(&Fixture::new(Kind::Paged)).await?;
    let options = PlayOptions { walkthrough: Some("second".to_owned()), yes: true, ..user.options() };
    assert_eq!(play_with(&options, "", OutputStyle::PLAIN).await.1?.outcome, Outcome::Completed);
    Ok(())
}

#[tokio::test]
async fn text_from_a_server_cannot_control_the_terminal() -> TestResult {
    let malicious = Walkthrough {
        slug: "evil\u{1b}[2J",
        title: "T\u{1b}]0;owned\u{7}",
        steps: vec![("S\u{1b}[31m", "\u{9b}1A", "a\u{1b}[2Jb\r\u{8}\n```\n\u{1b}]52;c;eA==\u{7}\n```\n`\u{202e}x`")],
    };
    let user = User::of(&Fixture::with(Kind::Good, vec![malicious])).await?;
    let (out, result) = user.play("s\n\n").await;
    assert_eq!(result?.outcome, Outcome::Completed);
    let is_forbidden = |character: char| (character.is_control() && character != '\n') || character == '\u{202e}';
    assert_eq!(out.matches(is_forbidden).count(), 0, "{out:?}");
    let other = User { folder: tempfile::tempdir()?, url: user.url.clone() };
    let (out, _) = play_with(&other.options(), "s\n\n", OutputStyle { ansi: true, bar: true, width: 80 }).await;
    let all_known = out.split('\u{1b}').skip(1).all(|rest| {
        let code = rest.strip_prefix('[').and_then(|rest| rest.split_once('m')).map(|(code, _)| code);
        code.is_some_and(|code| !code.is_empty() && code.chars().all(|c| c.is_ascii_digit() || c == ';'))
    });
    assert!(all_known, "all escape sequences are the player's own: {out:?}");
    Ok(())
}

#[tokio::test]
async fn errors_explain_why_a_server_cannot_be_played() -> TestResult {
    let mut errors = Vec::new();
    for kind in [Kind::Empty, Kind::Stepwise, Kind::TextOnly, Kind::SignIn] {
        errors.push(User::of(&Fixture::new(kind)).await?.expect_error().await?);
    }
    insta::assert_snapshot!(errors.join("\n"), @r#"
    URL offers no walkthroughs
    URL offers only the stepwise tools; `waypost walk` needs the toolset `guided` or `all`
    URL returned an unsupported result for list_walkthroughs: only text: There are 2 walkthroughs.
    URL requires signing in (HTTP 401), which `waypost walk` does not support yet; use another MCP client
    "#);
    Ok(())
}

#[tokio::test]
async fn errors_explain_why_a_url_is_wrong() -> TestResult {
    let challenge = [("www-authenticate", "Bearer resource_metadata=\"https://example.com\"")];
    let router = axum::Router::new()
        .route("/html", axum::routing::any(|| async { axum::response::Html("<p>Hello</p>") }))
        .route("/empty", axum::routing::any(|| async { "" }))
        .route("/lost", axum::routing::any(|| async { StatusCode::MISDIRECTED_REQUEST }))
        .route("/bare", axum::routing::any(|| async { StatusCode::UNAUTHORIZED }))
        .route("/signin", axum::routing::any(move || async move { (StatusCode::UNAUTHORIZED, challenge) }))
        .route("/busy", axum::routing::any(|| async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]) }))
        .route("/broken", axum::routing::any(|| async { StatusCode::BAD_GATEWAY }))
        .route("/moved", axum::routing::any(|| async { axum::response::Redirect::to("/html") }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut errors = Vec::new();
    for path in ["html", "empty", "lost", "none", "bare", "signin", "busy", "broken", "moved"] {
        errors.push(format!("{path}: {}", User::at(&format!("http://{address}/{path}"))?.expect_error().await?));
    }
    server.abort();
    let _ = server.await;
    let closed = User::at(&format!("http://{address}/mcp"))?.expect_error().await?;
    assert!(closed.starts_with("cannot reach URL: ") && closed.contains("efused"), "{closed}");
    let unknown = User::at("http://no-such-name.invalid/mcp")?.expect_error().await?;
    assert!(unknown.starts_with("cannot reach URL: "), "{unknown}");
    insta::assert_snapshot!(errors.join("\n"), @r#"
    html: URL is not an MCP endpoint (content type text/html; charset=utf-8); check the URL, most end in /mcp
    empty: URL is not an MCP endpoint (content type text/plain; charset=utf-8); check the URL, most end in /mcp
    lost: URL is not an MCP endpoint (HTTP 421: unknown host name); check the URL, most end in /mcp
    none: URL is not an MCP endpoint (HTTP 404); check the URL, most end in /mcp
    bare: URL requires signing in (HTTP 401), which `waypost walk` does not support yet; use another MCP client
    signin: URL requires signing in (HTTP 401), which `waypost walk` does not support yet; use another MCP client
    busy: URL is unavailable (HTTP 429); try again in 7 s
    broken: URL is unavailable (HTTP 502); try again later
    moved: URL is not an MCP endpoint (HTTP 303: redirect to another URL); check the URL, most end in /mcp
    "#);
    Ok(())
}

#[tokio::test]
async fn a_response_that_is_too_large_is_rejected() -> TestResult {
    let big = Walkthrough { slug: "big", title: "Big", steps: vec![("Only", "", LARGE.as_str())] };
    let stream = User::of(&Fixture::with(Kind::Good, vec![big])).await?.expect_error().await?;
    let json = [("content-type", "application/json")];
    let body = || format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{}\"}}", *LARGE);
    let router = axum::Router::new().fallback(move || async move { (json, body()) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let json = User::at(&format!("http://{address}/mcp"))?.expect_error().await?;
    insta::assert_snapshot!(format!("{json}\n{stream}"), @r"
    URL returned a response of more than 4096 KiB; report this to its operator
    URL returned a response of more than 4096 KiB; report this to its operator
    ");
    Ok(())
}
