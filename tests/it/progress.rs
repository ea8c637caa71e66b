//! Effects of the tools on progress (contract, section 4, "Tool behaviour").

use insta::{allow_duplicates, assert_snapshot};
use serde_json::json;
use waypost_core::server::Toolset;
use waypost_ops::end_users;
use waypost_ops::servers::ServerSettings;

use crate::app::{App, Server, open};

waypost_testkit::both!(extended open =>
    a_repeated_next_call_advances_once,
    a_completed_walkthrough_stays_completed_until_a_new_attempt,
    steps_can_be_completed_in_any_order,
    a_reset_closes_the_attempt_and_keeps_the_history,
    a_new_version_applies_only_on_request,
    a_withdrawn_version_moves_its_users_and_completes_nothing,
    moving_to_a_new_version_keeps_completed_steps,
    the_handle_of_a_deleted_user_is_unknown,
    a_deleted_user_with_a_session_starts_again,
    a_just_deleted_walkthrough_causes_no_server_error,
    a_deleted_walkthrough_is_hidden_and_continues_after_restore,
);

const SLUG: &str = "install-acme";

async fn set_up(app: &App) -> Server {
    let settings = ServerSettings { toolset: Some(Toolset::All), ..ServerSettings::default() };
    app.org("acme").await.server_with("acme", settings).await
}

async fn a_repeated_next_call_advances_once(app: App) {
    let server = set_up(&app).await;
    let walkthrough = server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let mut user = server.modern();
    let first = user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.step_id();
    let next = json!({ "walkthrough_id": SLUG, "current_step_id": first });
    let once = user.call("next_walkthrough_step", next.clone()).await;
    assert_eq!((once.progress().as_str(), &once.ok()["completed_step_id"]), ("2/3 33%", &json!(first)));
    for _ in 0..2 {
        let again = user.call("next_walkthrough_step", next.clone()).await;
        assert_eq!((again.progress().as_str(), &again.ok()["completed_step_id"]), ("2/3 33%", &json!(null)));
        assert_eq!(again.ok()["step"], once.ok()["step"]);
    }
    let ahead = json!({ "current_step_id": walkthrough.step("Run").await });
    let mismatch = user.call("next_walkthrough_step", ahead).await;
    assert_eq!(mismatch.error_code(), "step_mismatch");
    assert_eq!(mismatch.structured["error"]["current_step_id"], once.step_id(), "the actual current step");
    assert_eq!(app.count("SELECT count(*) FROM step_completions").await, 1);
    app.finish().await;
}

async fn a_completed_walkthrough_stays_completed_until_a_new_attempt(app: App) {
    let server = set_up(&app).await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let mut user = server.personal("ann");
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    app.advance_clock(1_500).await;
    user.play("next_walkthrough_step", json!({})).await.ok();
    let last = user.play("next_walkthrough_step", json!({})).await;
    assert!(last.message().starts_with("\"Install Acme\" is completed. Tell the user."), "{last}");
    assert_eq!(last.ok()["progress"]["completed_at"], "2026-11-18T11:06:41.500Z");
    let next = user.play("next_walkthrough_step", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!((next.progress().as_str(), &next.ok()["completed_step_id"]), ("completed 100%", &json!(null)));
    assert_eq!(user.call("next_walkthrough_step", json!({})).await.error_code(), "no_active_walkthrough");
    let select = user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    allow_duplicates! { assert_snapshot!(app.redact(select.message()), @r#""Install Acme" is already completed. To repeat it, ask the user first, then call select_walkthrough(walkthrough_id: "wt:1", resume_if_exists: false, confirm: true). Call list_walkthroughs to see what else is available."#); }
    assert_eq!(select.ok()["progress"]["completed_at"], last.ok()["progress"]["completed_at"]);
    let new_attempt = json!({ "walkthrough_id": SLUG, "resume_if_exists": false });
    assert_eq!(
        user.call("select_walkthrough", new_attempt).await.error_code(),
        "confirmation_required",
        "progress is 100%"
    );
    let new_attempt = json!({ "walkthrough_id": SLUG, "resume_if_exists": false, "confirm": true });
    let new_attempt = user.play("select_walkthrough", new_attempt).await;
    let replaced = "Replaced the attempt at 100% (2 of 2 steps); its history is kept. Started \"Install Acme\".";
    assert_eq!(new_attempt.progress(), "1/2 0%");
    assert!(new_attempt.message().starts_with(replaced) && new_attempt.text.contains(replaced), "{new_attempt}");
    assert_eq!(new_attempt.ok()["progress"]["started_at"], "2026-11-18T11:06:41.500Z");
    assert_eq!(app.count("SELECT count(*) FROM progress").await, 2, "the old attempt is in the history");
    assert_eq!(app.count("SELECT count(*) FROM progress WHERE status = 'completed'").await, 1);
    app.finish().await;
}

async fn steps_can_be_completed_in_any_order(app: App) {
    let server = set_up(&app).await;
    let walkthrough = server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let user = server.personal("ann");
    let done = |step: String| json!({ "walkthrough_id": SLUG, "step_id": step });
    let current = user.call("get_current_step", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!((current.progress().as_str(), &current.ok()["progress"]["status"]), ("1/3 0%", &json!("not_started")));
    let last = user.call("complete_step", done(walkthrough.step("Run").await)).await;
    assert_eq!(last.progress(), "1/3 33%", "the walkthrough is started, and the first step is not completed");
    let steps = user.call("get_walkthrough_steps", json!({ "walkthrough_id": SLUG })).await;
    let steps = steps.ok()["steps"].as_array().unwrap().clone();
    let states: Vec<&str> = steps.iter().map(|step| step["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["current", "pending", "completed"]);
    assert!(steps.iter().all(|step| step.get("content").is_none()), "no future content");
    let again = user.call("complete_step", done(walkthrough.step("Run").await)).await;
    assert_eq!((again.progress().as_str(), &again.ok()["completed_step_id"]), ("1/3 33%", &json!(null)));
    user.call("complete_step", done(walkthrough.step("Download").await)).await.ok();
    let end = user.call("complete_step", done(walkthrough.step("Unpack").await)).await;
    assert_eq!(end.progress(), "completed 100%");
    let details = user.call("get_walkthrough_details", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(details.ok()["progress"]["status"], "completed");
    app.finish().await;
}

async fn a_reset_closes_the_attempt_and_keeps_the_history(app: App) {
    let server = set_up(&app).await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    user.play("next_walkthrough_step", json!({})).await.ok();
    for confirm in [json!(false), json!(null), json!("")] {
        let asked = json!({ "walkthrough_id": SLUG, "confirm": confirm });
        assert_eq!(
            user.call("reset_walkthrough_progress", asked).await.error_code(),
            "confirmation_required",
            "{confirm}"
        );
    }
    let asked = user.call("reset_walkthrough_progress", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(asked.error_code(), "confirmation_required", "same as false");
    let confirmed = json!({ "walkthrough_id": SLUG, "confirm": true });
    let reset = user.call("reset_walkthrough_progress", confirmed.clone()).await;
    assert_eq!((&reset.ok()["reset"], reset.handle()), (&json!(true), user.handle.clone().unwrap()));
    let next = format!("select_walkthrough(walkthrough_id: {}, progress_handle: ", reset.structured["walkthrough_id"]);
    for text in [reset.message(), &reset.text] {
        assert!(text.starts_with("Progress in \"Install Acme\" was reset; its history is kept. Call "), "{text}");
        assert!(text.contains(&next) && text.contains("list_walkthroughs"), "the next options: {text}");
    }
    assert_eq!(user.call("reset_walkthrough_progress", confirmed).await.error_code(), "no_progress");
    let status = user.call("get_walkthrough_status", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(status.ok()["progress"]["status"], "not_started");
    assert_eq!(app.count("SELECT count(*) FROM step_completions").await, 1, "the history is kept");
    assert_eq!(user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.progress(), "1/2 0%");
    app.finish().await;
}

async fn a_new_version_applies_only_on_request(app: App) {
    let server = set_up(&app).await;
    let walkthrough = server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    user.play("next_walkthrough_step", json!({})).await.ok();
    walkthrough.publish(&["Check", "Download", "Run", "Tidy"]).await;
    let next = user.play("next_walkthrough_step", json!({})).await;
    assert_eq!(
        (next.progress().as_str(), &next.ok()["step"]["title"]),
        ("3/3 66%", &json!("Run")),
        "still on version 1"
    );
    assert_eq!(
        (&next.ok()["walkthrough"]["version"], &next.ok()["walkthrough"]["latest_version"]),
        (&json!(1), &json!(2))
    );
    let newer = "A newer version (2) is available; select_walkthrough with use_version \"latest\" moves to it.";
    assert!(next.message().starts_with(newer) && next.text.contains(newer), "{next}");
    let resumed = user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(resumed.ok()["walkthrough"]["version"], 1, "the started version is the default");
    let latest = json!({ "walkthrough_id": SLUG, "use_version": "latest" });
    let moved = user.play("select_walkthrough", latest.clone()).await;
    assert_eq!((moved.progress().as_str(), &moved.ok()["step"]["title"]), ("1/4 25%", &json!("Check")));
    let stays = "Moved from version 1; completed steps that still exist stay completed.";
    assert!(moved.message().starts_with(stays) && moved.text.contains(stays), "{moved}");
    let again = user.play("select_walkthrough", latest.clone()).await;
    assert!(again.message().starts_with("Resumed \"Install Acme\"."), "{again}");
    for _ in 0..3 {
        user.play("next_walkthrough_step", json!({})).await.ok();
    }
    walkthrough.publish(&["Check", "Download", "Run", "Tidy", "Enjoy"]).await;
    let completed = user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(completed.progress(), "completed 100%", "completed stays completed");
    let onwards = user.play("select_walkthrough", latest).await;
    assert_eq!((onwards.progress().as_str(), &onwards.ok()["step"]["title"]), ("5/5 80%", &json!("Enjoy")));
    assert_eq!(app.count("SELECT count(*) FROM progress WHERE status = 'completed'").await, 1, "in a new attempt");
    app.finish().await;
}

async fn a_withdrawn_version_moves_its_users_and_completes_nothing(app: App) {
    let server = set_up(&app).await;
    let walkthrough = server.walkthrough("Install Acme", &["Download", "Format the disk", "Run"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    let at = user.play("next_walkthrough_step", json!({})).await.step_id();
    walkthrough.publish(&["Download", "Mount the disk", "Run"]).await;
    walkthrough.withdraw(1, "It formats the wrong disk.").await;
    let status = user.call("get_walkthrough_status", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(status.ok()["steps"][1]["title"], "Mount the disk", "a withdrawn step is not shown");
    let next = user.play("next_walkthrough_step", json!({ "current_step_id": at })).await;
    assert_eq!((next.progress().as_str(), &next.ok()["completed_step_id"]), ("2/3 33%", &json!(null)));
    assert_eq!(next.ok()["step"]["title"], "Mount the disk");
    let withdrawn = "Version 1 was withdrawn by its author: It formats the wrong disk. This is the newest version; this call completed \
                     no step. Tell the user before you continue.";
    assert!(next.message().starts_with(withdrawn) && next.text.contains(withdrawn), "{next}");
    assert_eq!(user.play("next_walkthrough_step", json!({})).await.progress(), "3/3 66%");
    app.finish().await;
}

async fn moving_to_a_new_version_keeps_completed_steps(app: App) {
    let server = set_up(&app).await;
    let walkthrough = server.walkthrough("Install Acme", &["A", "B", "C"]).await;
    let mut user = server.modern();
    let latest = json!({ "walkthrough_id": SLUG, "use_version": "latest" });
    user.play("select_walkthrough", latest.clone()).await.ok();
    user.play("next_walkthrough_step", json!({})).await.ok();
    user.play("next_walkthrough_step", json!({})).await.ok();
    let mut seen = Vec::new();
    for steps in [&["B", "A", "C"][..], &["C", "B"], &["B", "C", "A"], &["New", "C"], &["A", "B"]] {
        walkthrough.publish(steps).await;
        seen.push(user.play("select_walkthrough", latest.clone()).await.progress());
    }
    assert_eq!(
        seen,
        ["3/3 66%", "1/2 50%", "2/3 33%", "1/2 0%", "1/2 0%"],
        "a step that was deleted and created again is a new step"
    );
    app.finish().await;
}

async fn the_handle_of_a_deleted_user_is_unknown(app: App) {
    let server = set_up(&app).await;
    server.walkthrough("Install Acme", &["A", "B", "C"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    user.play("next_walkthrough_step", json!({})).await.ok();
    let ann = server.personal("ann");
    ann.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    app.skip_call_check();
    let id = query_id(&app, "SELECT id FROM end_users WHERE tracking_id IS NULL").await;
    for id in [id, "ann".to_owned()] {
        let id = end_users::resolve(app.cx(), &app.ops(), &server.org.id, &id).await.unwrap();
        end_users::delete(app.cx(), &app.ops(), &server.org.id, &id).await.unwrap();
    }
    let next = user.call("next_walkthrough_step", json!({ "walkthrough_id": SLUG })).await;
    assert!(["handle_unknown", "no_active_walkthrough"].contains(&next.error_code()), "{}", next.error_code());
    let select = user.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(select.error_code(), "handle_unknown");
    assert_eq!(
        user.call("next_walkthrough_step", json!({ "walkthrough_id": SLUG })).await.error_code(),
        "handle_unknown"
    );
    assert_eq!(
        ann.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.progress(),
        "1/3 0%",
        "Ann starts again"
    );
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 1);
    app.finish().await;
}

async fn query_id(app: &App, sql: &'static str) -> String {
    let mut conn = app.db().read().await.unwrap();
    waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
}

async fn a_deleted_walkthrough_is_hidden_and_continues_after_restore(app: App) {
    let server = set_up(&app).await;
    let walkthrough = server.walkthrough("Install Acme", &["A", "B"]).await;
    server.walkthrough("Use Acme", &["A"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    user.play("next_walkthrough_step", json!({ "walkthrough_id": SLUG })).await.ok();
    user.play("select_walkthrough", json!({ "walkthrough_id": "use-acme" })).await.ok();
    walkthrough.delete().await;
    let gone = user.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(gone.error_code(), "walkthrough_not_found");
    assert_eq!(
        user.play("next_walkthrough_step", json!({})).await.progress(),
        "completed 100%",
        "the only remaining walkthrough"
    );
    assert_eq!(app.count("SELECT count(*) FROM progress").await, 2, "progress is kept");
    walkthrough.restore().await;
    assert_eq!(user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.progress(), "2/2 50%");
    app.finish().await;
}

async fn a_deleted_user_with_a_session_starts_again(app: App) {
    let server = set_up(&app).await;
    server.walkthrough("Install Acme", &["A", "B", "C"]).await;
    let session = server.legacy("2025-06-18").connect().await;
    let handle = session.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.handle();
    session.call("next_walkthrough_step", json!({})).await.ok();
    app.skip_call_check();
    let id = query_id(&app, "SELECT id FROM end_users").await;
    let id = end_users::resolve(app.cx(), &app.ops(), &server.org.id, &id).await.unwrap();
    end_users::delete(app.cx(), &app.ops(), &server.org.id, &id).await.unwrap();
    let again = session.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(again.progress(), "1/3 0%");
    assert!(again.message().starts_with("Started \"Install Acme\"."), "{again}");
    assert_eq!(again.handle(), handle, "the session identifies the same user as the handle");
    assert_ne!(query_id(&app, "SELECT id FROM end_users").await, id.to_string());
    app.finish().await;
}

async fn a_just_deleted_walkthrough_causes_no_server_error(app: App) {
    let server = set_up(&app).await;
    let walkthrough = server.walkthrough("Install Acme", &["A", "B"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    walkthrough.delete_without_refresh().await;
    // The offers are polled in the background, so the walkthrough can disappear at any time. It does not reappear.
    let mut codes = Vec::new();
    for tool in ["next_walkthrough_step", "select_walkthrough", "get_walkthrough_status"] {
        let result = user.call(tool, json!({ "walkthrough_id": SLUG })).await;
        codes.push(result.structured["error"]["code"].as_str().unwrap_or("ok").to_owned());
    }
    let mut hidden = codes.iter().skip_while(|code| *code == "ok");
    assert!(hidden.all(|code| code == "walkthrough_not_found"), "{codes:?}");
    app.refresh().await;
    let result = user.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(result.error_code(), "walkthrough_not_found");
    app.finish().await;
}
