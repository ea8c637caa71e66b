//! The player against a server, from the first call to the last.

mod fixture;

use std::{error::Error, io::Cursor, path::Path, sync::Arc};

use axum::http::StatusCode;
use fixture::{Fixture, Kind, Walkthrough};
use tokio::sync::Notify;
use url::Url;
use waypost_player::{Outcome, OutputStyle, PlayError, PlayOptions, Report, Terminal, play};

type Done = Result<(), Box<dyn Error>>;

/// One user with a home folder of their own.
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

    /// Plays with `answers` on standard input; what was shown, and how it ended.
    async fn plays(&self, answers: &str) -> (String, Result<Report, PlayError>) {
        shown(&self.options(), answers, OutputStyle::PLAIN).await
    }

    async fn goes_through(&self) -> (String, Result<Report, PlayError>) {
        shown(&PlayOptions { yes: true, ..self.options() }, "", OutputStyle::PLAIN).await
    }

    async fn fails(&self) -> Result<String, Box<dyn Error>> {
        match self.goes_through().await {
            (shown, Ok(_)) => Err(format!("it succeeded and showed {shown}").into()),
            (_, Err(error)) => Ok(error.to_string().replace(self.url.as_str(), "URL")),
        }
    }

    fn files(&self) -> usize {
        let count = |folder: &Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
        count(&self.folder.path().join("state"))
    }
}

async fn shown(options: &PlayOptions, answers: &str, style: OutputStyle) -> (String, Result<Report, PlayError>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let terminal = Terminal {
        out: &mut out,
        err: &mut err,
        input: Box::new(Cursor::new(answers.to_owned().into_bytes())),
        echo: false,
        interrupt: Arc::new(Notify::new()),
        style,
    };
    let ended = play(options, terminal).await;
    out.append(&mut err);
    (String::from_utf8_lossy(&out).into_owned(), ended)
}

#[tokio::test]
async fn goes_through_to_the_end() -> Done {
    let fixture = Fixture::new(Kind::Good);
    let (shown, ended) = User::of(&fixture).await?.goes_through().await;
    let ended = ended?;
    assert!(ended.is_success(true));
    assert_eq!(ended.outcome, Outcome::Completed);
    insta::assert_snapshot!(shown, @r#"
    First steps
    ===========

    What you need to know.

    3 steps, about 5 minutes

    Step 1 of 3 (0 %)

    Setup
    Install
    -------

    Run this:

        curl https://example.com | sh

    Step 2 of 3 (33 %)

    Setup
    Configure
    ---------

    1. Open `config.toml`
    2. Set the port

    Step 3 of 3 (66 %)

    Use
    Go
    --

    That is all.

    3 of 3 steps done (100 %)
    Completed: First steps
    From start to end it took 12 min 5 s.
    Next here: Second. Run the same command to start it.
    "#);
    let steps: Vec<String> = (fixture.state().calls.iter())
        .filter(|(tool, _)| tool == "next_walkthrough_step")
        .map(|(_, arguments)| arguments["current_step_id"].to_string())
        .collect();
    assert_eq!(steps, ["\"ws_0_0\"", "\"ws_0_1\"", "\"ws_0_2\""], "a step is always named");
    Ok(())
}

#[tokio::test]
async fn answers_lead_through() -> Done {
    let fixture = Fixture::new(Kind::Good);
    let user = User::of(&fixture).await?;
    let (shown, ended) = user.plays("\nwhat?\ns\nb\nq\n").await;
    let ended = ended?;
    assert_eq!((ended.outcome, ended.step.map(|step| step.position)), (Outcome::Stopped, Some(2)));
    insta::assert_snapshot!(shown, @r#"
    First steps
    ===========

    What you need to know.

    3 steps, about 5 minutes

    Step 1 of 3 (0 %)

    Setup
    Install
    -------

    Run this:

        curl https://example.com | sh

    [Enter] done, next · [b] show this step again · [s] status · [q] stop here
    > 

    Step 2 of 3 (33 %)

    Setup
    Configure
    ---------

    1. Open `config.toml`
    2. Set the port

    [Enter] done, next · [b] show this step again · [s] status · [q] stop here
    > 
    Please answer with Enter, b, s or q.

    [Enter] done, next · [b] show this step again · [s] status · [q] stop here
    > 

    1 of 3 steps done (33 %)

    Setup
    [x]  1. Install
    [>]  2. Configure

    Use
    [ ]  3. Go

    [Enter] done, next · [b] show this step again · [s] status · [q] stop here
    > 

    Step 2 of 3 (33 %)

    Setup
    Configure
    ---------

    1. Open `config.toml`
    2. Set the port

    [Enter] done, next · [b] show this step again · [s] status · [q] stop here
    > 

    Your place is kept. Run the same command to go on.
    "#);
    Ok(())
}

#[tokio::test]
async fn the_next_run_goes_on_and_then_to_the_next_walkthrough() -> Done {
    let fixture = Fixture::new(Kind::Good);
    let user = User::of(&fixture).await?;
    user.plays("\nq\n").await.1?;
    let (shown, ended) = user.plays("\n\n").await;
    assert_eq!(ended?.outcome, Outcome::Completed);
    assert!(shown.contains("You go on where you stopped: 1 of 3 steps done."), "{shown}");
    assert!(shown.contains("From start to end it took 12 min 5 s."), "{shown}");
    assert!(!shown.contains("Step 1 of 3"), "{shown}");
    assert_eq!(fixture.state().progress.len(), 1, "one end user");
    let (shown, _) = user.plays("\n").await;
    assert!(shown.contains("Step 1 of 1 (0 %)"), "then the next one: {shown}");
    let (shown, ended) = user.plays("").await;
    assert_eq!(ended?.outcome, Outcome::NothingLeft);
    assert_eq!(shown, "Everything here is completed (2 walkthroughs).\n");
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_input_and_an_interrupt_stop_it() -> Done {
    let user = User::of(&Fixture::new(Kind::Good)).await?;
    let (shown, ended) = user.plays("").await;
    let ended = ended?;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert!(ended.is_success(false) && !ended.is_success(true));
    assert!(shown.ends_with("Your place is kept. Run the same command to go on.\n"), "{shown}");

    let interrupt = Arc::new(Notify::new());
    interrupt.notify_one();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let input = Box::new(Cursor::new(Vec::new()));
    let terminal = Terminal { out: &mut out, err: &mut err, input, echo: true, interrupt, style: OutputStyle::PLAIN };
    assert_eq!(play(&user.options(), terminal).await?.outcome, Outcome::Stopped);
    Ok(())
}

#[tokio::test]
async fn a_walkthrough_is_named_by_id_or_slug() -> Done {
    let user = User::of(&Fixture::new(Kind::Good)).await?;
    for name in ["second", "wt_1"] {
        let options = PlayOptions { walkthrough: Some(name.to_owned()), yes: true, ..user.options() };
        let (shown, ended) = shown(&options, "", OutputStyle::PLAIN).await;
        assert_eq!(ended?.walkthrough.map(|walkthrough| walkthrough.id).as_deref(), Some("wt_1"));
        let already = shown.contains("You have completed this walkthrough already.");
        assert_eq!(already, name == "wt_1", "{shown}");
    }
    let options = PlayOptions { walkthrough: Some("third".to_owned()), ..user.options() };
    let error =
        shown(&options, "", OutputStyle::PLAIN).await.1.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.starts_with("there is no walkthrough 'third' at"), "{error}");
    assert!(error.ends_with("there is: first-steps, second"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_handle_that_the_server_forgot_is_dropped() -> Done {
    let fixture = Fixture::new(Kind::Good);
    let user = User::of(&fixture).await?;
    user.plays("\nq\n").await.1?;
    fixture.state().progress.clear();
    let (shown, ended) = user.plays("n\n").await;
    assert_eq!(ended?.outcome, Outcome::Stopped);
    assert!(shown.contains("This server does not know your place any more"), "{shown}");
    let (shown, ended) = user.plays("y\n\nq\n").await;
    assert_eq!(ended?.step.map(|step| step.position), Some(2), "{shown}");
    assert!(shown.contains("Step 1 of 3"), "{shown}");
    fixture.state().progress.clear();
    let (_, ended) = user.goes_through().await;
    assert_eq!(ended?.outcome, Outcome::Completed);
    assert_eq!(user.files(), 1);
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_go_on_is_left() -> Done {
    for kind in [Kind::Frozen, Kind::Circle] {
        let error = User::of(&Fixture::new(kind)).await?.fails().await?;
        let told =
            "URL does not go on after the step 'Install', although it was confirmed; report this to its operator";
        assert_eq!(error, told, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn older_revisions_and_personal_addresses_work() -> Done {
    let legacy = User::of(&Fixture::new(Kind::Legacy)).await?;
    assert_eq!(legacy.goes_through().await.1?.outcome, Outcome::Completed);

    let address = Fixture::new(Kind::Personal).serve("127.0.0.1:0").await?;
    let personal = User::at(&format!("http://{address}/t/me/mcp"))?;
    let (shown, _) = personal.plays("\nq\n").await;
    assert!(shown.contains("Your place is kept."), "{shown}");
    let (shown, ended) = personal.goes_through().await;
    assert!(shown.contains("1 of 3 steps done") && ended?.outcome == Outcome::Completed, "{shown}");
    assert_eq!(personal.files(), 0, "there is no handle to keep");
    Ok(())
}

#[tokio::test]
async fn an_email_address_is_asked_for_or_given() -> Done {
    let fixture = Fixture::new(Kind::Email);
    let user = User::of(&fixture).await?;
    assert_eq!(user.fails().await?, "URL asks for an e-mail address; give one with --email ADDRESS");
    let (shown, _) = user.plays("me@example.com\n").await;
    assert!(shown.contains("Step 1 of 3"), "{shown}");
    assert_eq!(
        fixture.state().calls.last().map(|(_, arguments)| arguments["email"].clone()),
        Some("me@example.com".into())
    );
    Ok(())
}

#[tokio::test]
async fn a_place_that_moved_elsewhere_is_followed() -> Done {
    let (shown, ended) = User::of(&Fixture::new(Kind::Elsewhere)).await?.goes_through().await;
    assert_eq!(ended?.outcome, Outcome::Completed);
    assert!(
        shown.contains("Step 1 of 3") && !shown.contains("Step 2 of 3") && shown.contains("Step 3 of 3"),
        "{shown}"
    );
    assert_eq!(shown.matches("Version 2 was withdrawn.").count(), 1, "the same notice once: {shown}");
    assert!(!shown.contains("Show <content>"), "what is said to agents is not shown: {shown}");
    Ok(())
}

#[tokio::test]
async fn a_list_is_read_to_its_end() -> Done {
    let user = User::of(&Fixture::new(Kind::Paged)).await?;
    let options = PlayOptions { walkthrough: Some("second".to_owned()), yes: true, ..user.options() };
    assert_eq!(shown(&options, "", OutputStyle::PLAIN).await.1?.outcome, Outcome::Completed);
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_server_steers_the_terminal() -> Done {
    let evil = Walkthrough {
        slug: "evil\u{1b}[2J",
        title: "T\u{1b}]0;owned\u{7}",
        steps: vec![("S\u{1b}[31m", "\u{9b}1A", "a\u{1b}[2Jb\r\u{8}\n```\n\u{1b}]52;c;eA==\u{7}\n```\n`\u{202e}x`")],
    };
    let user = User::of(&Fixture::with(Kind::Good, vec![evil])).await?;
    let (out, ended) = user.plays("s\n\n").await;
    assert_eq!(ended?.outcome, Outcome::Completed);
    let bad = |character: char| (character.is_control() && character != '\n') || character == '\u{202e}';
    assert_eq!(out.matches(bad).count(), 0, "{out:?}");
    let other = User { folder: tempfile::tempdir()?, url: user.url.clone() };
    let (out, _) = shown(&other.options(), "s\n\n", OutputStyle { ansi: true, bar: true, width: 80 }).await;
    let own = out.split('\u{1b}').skip(1).all(|rest| {
        let code = rest.strip_prefix('[').and_then(|rest| rest.split_once('m')).map(|(code, _)| code);
        code.is_some_and(|code| !code.is_empty() && code.chars().all(|c| c.is_ascii_digit() || c == ';'))
    });
    assert!(own, "only the looks of the player itself: {out:?}");
    Ok(())
}

#[tokio::test]
async fn servers_that_cannot_be_played_say_why() -> Done {
    let mut told = Vec::new();
    for kind in [Kind::Empty, Kind::Stepwise, Kind::TextOnly, Kind::SignIn] {
        told.push(User::of(&Fixture::new(kind)).await?.fails().await?);
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    there are no walkthroughs at URL
    URL offers its walkthroughs stepwise only; this player needs the guided tools (toolset guided or all)
    URL answered list_walkthroughs in a form that this player cannot read: text only. It says: There are 2 walkthroughs.
    URL needs a sign-in (HTTP 401), which this player cannot do yet; use an MCP client that can
    "#);
    Ok(())
}

#[tokio::test]
async fn addresses_that_are_wrong_say_why() -> Done {
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
    let mut told = Vec::new();
    for path in ["html", "empty", "lost", "none", "bare", "signin", "busy", "broken", "moved"] {
        told.push(format!("{path}: {}", User::at(&format!("http://{address}/{path}"))?.fails().await?));
    }
    server.abort();
    let _ = server.await;
    let closed = User::at(&format!("http://{address}/mcp"))?.fails().await?;
    assert!(closed.starts_with("cannot reach URL: ") && closed.contains("efused"), "{closed}");
    let unknown = User::at("http://no-such-name.invalid/mcp")?.fails().await?;
    assert!(unknown.starts_with("cannot reach URL: "), "{unknown}");
    insta::assert_snapshot!(told.join("\n"), @r#"
    html: URL is not an MCP address (it sent text/html; charset=utf-8); check it, most end in /mcp
    empty: URL is not an MCP address (it sent text/plain; charset=utf-8); check it, most end in /mcp
    lost: URL is not an MCP address (HTTP 421: the server does not know this host name); check it, most end in /mcp
    none: URL is not an MCP address (HTTP 404); check it, most end in /mcp
    bare: URL needs a sign-in (HTTP 401), which this player cannot do yet; use an MCP client that can
    signin: URL needs a sign-in (HTTP 401), which this player cannot do yet; use an MCP client that can
    busy: URL cannot answer now (HTTP 429); try again in 7 s
    broken: URL cannot answer now (HTTP 502); try again later
    moved: URL is not an MCP address (HTTP 303: it points to another address); check it, most end in /mcp
    "#);
    Ok(())
}
