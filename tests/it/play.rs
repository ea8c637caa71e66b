//! Plays a walkthrough from the first call to the last.

use insta::assert_snapshot;
use serde_json::json;

use crate::app::{App, open};
use crate::client::LEGACY;

waypost_testkit::both!(extended open => a_walkthrough_can_be_completed_in_every_revision);

async fn a_walkthrough_can_be_completed_in_every_revision(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let mut clients = vec![server.modern()];
    for revision in LEGACY {
        clients.push(server.legacy(revision));
    }
    for mut client in clients {
        let mut progress =
            vec![client.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.progress()];
        for _ in 0..4 {
            progress.push(client.play("next_walkthrough_step", json!({})).await.progress());
            if progress.len() == 4 {
                break;
            }
        }
        assert_eq!(progress, ["1/3 0%", "2/3 33%", "3/3 66%", "completed 100%"], "{:?}", client.era);
    }
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 5);
    app.finish().await;
}

#[tokio::test]
async fn tool_results_match_the_snapshots() {
    let app = App::new().await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let mut user = server.modern();
    assert_snapshot!(user.call("list_walkthroughs", json!({})).await, @r#"
    > list_walkthroughs {}
    {
      "walkthroughs": [
        {
          "id": "wt:1",
          "slug": "install-acme",
          "title": "Install Acme",
          "description": "",
          "type": "course",
          "step_count": 2,
          "estimated_duration_minutes": null,
          "tags": [],
          "version": 1,
          "status": "not_started",
          "progress_percent": 0
        }
      ],
      "next_cursor": null,
      "progress_handle": null,
      "message": "To begin, call select_walkthrough(walkthrough_id: \"wt:1\"). No progress_handle was passed, so the user is unknown. If your notes (for example AGENTS.md or a .waypost file) contain one, pass it."
    }
    ---
    1. Install Acme (2 steps; not started) id wt:1
    To begin, call select_walkthrough(walkthrough_id: "wt:1"). No progress_handle was passed, so the user is unknown. If your notes (for example AGENTS.md or a .waypost file) contain one, pass it.
    "#);
    assert_snapshot!(user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await, @r#"
    > select_walkthrough {"walkthrough_id":"install-acme"}
    {
      "walkthrough": {
        "id": "wt:1",
        "slug": "install-acme",
        "title": "Install Acme",
        "version": 1,
        "latest_version": 1
      },
      "progress": {
        "status": "in_progress",
        "completed": 0,
        "total": 2,
        "percent": 0,
        "started_at": "2026-11-18T11:06:40.000Z",
        "completed_at": null
      },
      "step": {
        "id": "ws:1",
        "position": 1,
        "title": "Download",
        "section_title": null,
        "content": "Download it.",
        "introduction_for_agent": null,
        "context_for_agent": null,
        "operations_for_agent": null
      },
      "completed_step_id": null,
      "progress_handle": "wph:1",
      "message": "Started \"Install Acme\". Show <content> (step.content) and stop. Only when the user says it is done, call next_walkthrough_step(walkthrough_id: \"wt:1\", current_step_id: \"ws:1\", progress_handle: \"wph:1\"). Pass progress_handle on every call, and save it in your notes (for example AGENTS.md or a .waypost file) to resume after a restart.",
      "notice": null
    }
    ---
    Step 1 of 2 (0%): Download
    Started "Install Acme".
    <content>
    Download it.
    </content>
    Show <content> and stop. Only when the user says it is done, call next_walkthrough_step(walkthrough_id: "wt:1", current_step_id: "ws:1", progress_handle: "wph:1"). Pass progress_handle on every call; save it in your notes (AGENTS.md, .waypost) to resume.
    "#);
    assert_snapshot!(user.play("next_walkthrough_step", json!({})).await, @r#"
    > next_walkthrough_step {"progress_handle":"wph:1"}
    {
      "walkthrough": {
        "id": "wt:1",
        "slug": "install-acme",
        "title": "Install Acme",
        "version": 1,
        "latest_version": 1
      },
      "progress": {
        "status": "in_progress",
        "completed": 1,
        "total": 2,
        "percent": 50,
        "started_at": "2026-11-18T11:06:40.000Z",
        "completed_at": null
      },
      "step": {
        "id": "ws:2",
        "position": 2,
        "title": "Run",
        "section_title": null,
        "content": "Run it.",
        "introduction_for_agent": null,
        "context_for_agent": null,
        "operations_for_agent": null
      },
      "completed_step_id": "ws:1",
      "progress_handle": "wph:1",
      "message": "Show <content> (step.content) and stop. Only when the user says it is done, call next_walkthrough_step(walkthrough_id: \"wt:1\", current_step_id: \"ws:2\", progress_handle: \"wph:1\"). Pass progress_handle on every call, and save it in your notes (for example AGENTS.md or a .waypost file) to resume after a restart.",
      "notice": null
    }
    ---
    Step 2 of 2 (50%): Run
    <content>
    Run it.
    </content>
    Show <content> and stop. Only when the user says it is done, call next_walkthrough_step(walkthrough_id: "wt:1", current_step_id: "ws:2", progress_handle: "wph:1"). Pass progress_handle on every call; save it in your notes (AGENTS.md, .waypost) to resume.
    "#);
    app.finish().await;
}
