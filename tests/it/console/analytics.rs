//! Analytics match the recorded calls, in the API and on the pages. End users are listed, exported and erased.

use http::Method;
use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::clock::ManualClock;
use waypost_core::id::ServerId;
use waypost_core::organization::Role;
use waypost_ops::analytics;

use super::{ConsoleBrowser, ConsoleResponse, call_with_key};
use crate::app::{App, Org, Server, open};

const SLUG: &str = "install-acme";

struct Fixture {
    app: App,
    org: Org,
    walkthrough_id: String,
    server_id: ServerId,
    version: u32,
}

/// Ann completes three steps and Bob one, a minute apart. Cid starts and fails once.
async fn set_up(app: App) -> Fixture {
    let org = app.org("acme").await;
    let server = org.server("acme").await;
    let walkthrough = server.walkthrough("Install Acme", &["Download", "Run", "Check"]).await;
    for (who, steps) in [("ann", 3), ("bob", 1), ("cid", 0)] {
        let client = server.personal(who);
        client.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
        for _ in 0..steps {
            app.advance_clock(60_000).await;
            client.call("next_walkthrough_step", json!({})).await.ok();
        }
    }
    let cid = server.personal("cid");
    let failed = cid.call("next_walkthrough_step", json!({ "current_step_id": "ws_0123456789abcdef" })).await;
    assert_eq!(failed.error_code(), "step_mismatch");
    app.advance_clock(60_000).await;
    // A failed call is recorded shortly after its response.
    while app.count("SELECT count(*) FROM tool_calls").await < 8 {
        tokio::task::yield_now().await;
    }
    Fixture { app, org, walkthrough_id: walkthrough.id.to_string(), server_id: server.id, version: 1 }
}

impl Fixture {
    async fn get(&self, path: &str) -> Value {
        let response = call_with_key(&self.org, Role::Member, Method::GET, path, None).await;
        response.assert_status(200);
        response.json()
    }
}

async fn analytics_match_the_recorded_calls(app: App) {
    let fixture = set_up(app).await;
    for packed in [false, true] {
        if packed {
            // Packed segments give the same results as the log.
            let later = ManualClock::new(fixture.app.cx().now().plus(7_200_000));
            waypost_ops::analytics::pack_settled(fixture.app.db(), &later).await.unwrap();
            assert!(fixture.app.count("SELECT count(*) FROM analytics_segments").await >= 2);
        }
        let now = fixture.get("/analytics/overview").await["current"].clone();
        assert_eq!(now["started"], 3);
        assert_eq!(now["active"], 3);
        assert_eq!(now["completed"], 1);
        assert_eq!(now["started_and_completed"], 1);
        assert_eq!(now["resume_rate"], 0.0);
        assert_eq!(now["median_time_to_complete_ms"], 180_000);
        let funnel = fixture.get(&format!("/analytics/funnel?walkthrough_id={}", fixture.walkthrough_id)).await;
        assert_eq!((&funnel["version"], &funnel["started"]), (&json!(fixture.version), &json!(3)));
        let steps: Vec<_> = funnel["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| {
                let names = ["reached", "completed", "dropped_off", "active", "median_time_ms"];
                names.map(|name| item[name].as_i64().unwrap())
            })
            .collect();
        // Bob and Cid are still active.
        assert_eq!(steps, [[3, 2, 0, 1, 60_000], [2, 1, 0, 1, 60_000], [1, 1, 0, 0, 60_000]]);
        let flows = fixture.get(&format!("/analytics/flows?walkthrough_id={}", fixture.walkthrough_id)).await;
        let left: Vec<_> =
            flows["items"].as_array().unwrap().iter().filter(|flow| flow["to"]["kind"] == "left").collect();
        assert_eq!(left.len(), 2, "{flows}");
        let tools = fixture.get("/analytics/tools").await;
        assert_eq!(
            (&tools["items"][0]["tool"], &tools["items"][0]["errors"]),
            (&json!("next_walkthrough_step"), &json!(1))
        );
        assert_eq!(fixture.get("/analytics/errors").await["items"][0]["code"], "step_mismatch");
        let days = fixture.get("/analytics/timeline?tz_offset_minutes=-120").await;
        let sum: i64 = days["items"].as_array().unwrap().iter().map(|day| day["started"].as_i64().unwrap()).sum();
        assert_eq!(sum, 3);
        assert_eq!(fixture.get("/analytics/clients").await["items"][0]["active"], 3);
        let other = fixture.get("/analytics/overview?client=nobody").await["current"].clone();
        assert_eq!((&other["started"], &other["completion_rate"]), (&json!(0), &Value::Null));
    }
    let statements = fixture.get("/analytics/xapi").await;
    let verbs: Vec<_> = statements
        .as_array()
        .unwrap()
        .iter()
        .map(|statement| statement["verb"]["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
        .collect();
    let count = |verb: &str| verbs.iter().filter(|other| *other == verb).count();
    assert_eq!((count("initialized"), count("progressed"), count("completed")), (3, 4, 1));
    fixture.app.clone().finish().await;
}

async fn invalid_queries_are_rejected(app: App) {
    let fixture = set_up(app).await;
    let other = fixture.app.org("other").await;
    let ask = |org: Org, path: String| async move { call_with_key(&org, Role::Member, Method::GET, &path, None).await };
    let own = |path: &str| ask(fixture.org.clone(), path.to_owned());
    for (path, status) in [
        ("/analytics/overview?from=yesterday", 422),
        ("/analytics/overview?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 422),
        ("/analytics/overview?from=1990-01-01T00:00:00Z", 422),
        ("/analytics/overview?version=1", 422),
        ("/analytics/funnel", 422),
        ("/analytics/timeline?tz_offset_minutes=-9223372036854775808", 422),
        ("/analytics/overview?server_id=srv_0123456789abcdef", 404),
        ("/analytics/overview?walkthrough_id=%00", 404),
        ("/analytics/overview?other=1", 422),
        ("/events?limit=0", 422),
        ("/events?cursor=x", 422),
        ("/events?cursor=99999999999999999999.ev_1", 422),
        ("/end-users?q=%00", 422),
        ("/end-users?status=dead", 422),
        ("/end-users/eu_0123456789abcdef01234567", 404),
        ("/end-users/eu_0123456789abcdef01234567/export", 403),
    ] {
        own(path).await.assert_status(status);
    }
    let walkthrough = &fixture.walkthrough_id;
    let version = format!("/analytics/funnel?walkthrough_id={walkthrough}&version=7");
    own(&version).await.assert_status(404);
    ask(other.clone(), format!("/analytics/funnel?walkthrough_id={walkthrough}")).await.assert_status(404);
    let theirs = ask(other.clone(), "/events".to_owned()).await.json();
    assert_eq!(theirs["items"], json!([]));
    let listed = own("/end-users").await.json();
    let id = listed["items"][0]["id"].as_str().unwrap();
    call_with_key(&other, Role::Owner, Method::DELETE, &format!("/end-users/{id}"), None).await.assert_status(404);
    call_with_key(&fixture.org, Role::Member, Method::DELETE, &format!("/end-users/{id}"), None)
        .await
        .assert_status(403);
    let csv = own("/analytics/tools?format=csv").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    csv.assert_contains("tool,calls,errors,median_us,p90_us\r\n").assert_contains("next_walkthrough_step,5,1,");
    fixture.app.clone().finish().await;
}

async fn lists_are_paginated(app: App) {
    let fixture = set_up(app).await;
    for (list, count) in [("events", 8), ("tool-calls", 8), ("sessions", 3), ("end-users", 3)] {
        let whole = fixture.get(&format!("/{list}")).await["items"].as_array().unwrap().clone();
        assert_eq!(whole.len(), count, "{list}");
        let mut pages = Vec::new();
        let mut path = format!("/{list}?limit=2");
        loop {
            let page = fixture.get(&path).await;
            pages.extend(page["items"].as_array().unwrap().clone());
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/{list}?limit=2&cursor={cursor}");
        }
        assert_eq!(pages, whole, "{list}");
    }
    let ann = fixture.get("/end-users?q=ANN").await["items"].clone();
    assert_eq!((ann.as_array().unwrap().len(), &ann[0]["tracking_id"]), (1, &json!("ann")));
    assert_eq!(fixture.get("/end-users?status=completed").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.get("/end-users?q=%25").await["items"], json!([]), "no wildcard");
    let id = ann[0]["id"].as_str().unwrap();
    assert_eq!(fixture.get(&format!("/end-users/{id}")).await["attempts"][0]["completed_steps"], 3);
    assert_eq!(fixture.get(&format!("/events?end_user_id={id}")).await["items"].as_array().unwrap().len(), 5);
    fixture.app.clone().finish().await;
}

async fn the_impact_of_publishing_adds_up(app: App) {
    let fixture = set_up(app).await;
    let owner = ConsoleBrowser::owner(&fixture.org).await;
    let at = format!("/walkthroughs/{}", fixture.walkthrough_id);
    let draft = owner.api(Method::GET, &at, None).await.assert_status(200).json();
    let download = draft["steps"][0]["id"].as_str().unwrap();
    owner.api(Method::DELETE, &format!("{at}/steps/{download}"), None).await.assert_status(200);
    let step = json!({ "title": "Prepare", "content": "c", "after": null });
    owner.api(Method::POST, &format!("{at}/steps"), Some(step)).await.assert_status(201);
    // Bob has completed the removed step; he and Cid must go back for the new one. Ann has completed everything.
    let impact = fixture.get(&format!("{at}/impact")).await;
    let moving = &impact["migration"];
    let group = |lose: u32| json!({ "end_users": 1, "lose": lose, "repeat": 1, "complete": false });
    assert_eq!((&impact["in_progress"], &moving["groups"]), (&json!(2), &json!([group(0), group(1)])));
    let sums = [&moving["lose_nothing"], &moving["lose"], &moving["repeat"], &moving["complete"]];
    assert_eq!(
        json!(sums),
        json!([0, [{ "steps": 1, "end_users": 1 }], [{ "steps": 1, "end_users": 2 }], 0]),
        "the groups overlap"
    );
    fixture.app.clone().finish().await;
}

async fn end_users_are_exported_and_erased_completely(app: App) {
    let fixture = set_up(app).await;
    let later = ManualClock::new(Timestamp(fixture.app.cx().now().0 + 7_200_000));
    analytics::pack_settled(fixture.app.db(), &later).await.unwrap();
    let admin = ConsoleBrowser::member(&fixture.org, "admin@x.example", Role::Admin).await;
    let member = ConsoleBrowser::member(&fixture.org, "member@x.example", Role::Member).await;
    let ann = fixture.get("/end-users?q=ann").await["items"][0]["id"].as_str().unwrap().to_owned();
    let page = admin.get_page(&format!("/o/acme/end-users/{ann}")).await;
    page.assert_contains("Install Acme")
        .assert_contains("3 of 3")
        .assert_contains("Erase this end user")
        .assert_contains("1 attempt, 5 events");
    member.get_page(&format!("/o/acme/end-users/{ann}")).await.assert_lacks("Erase this end user");
    // The timeline shows the titles at the time of each event, even if the step is deleted and the walkthrough renamed.
    let server = Server {
        app: fixture.app.clone(),
        org: fixture.org.clone(),
        id: fixture.server_id.clone(),
        slug: "acme".into(),
    };
    server.walkthrough("Install Acme", &["Download", "Run", "Verify"]).await;
    fixture.app.execute("UPDATE walkthroughs SET title = 'Renamed', title_key = 'renamed'").await;
    let page = member.get_page(&format!("/o/acme/end-users/{ann}?show=events")).await;
    page.assert_contains("Step completed: Check")
        .assert_contains("Install Acme, after 1 min")
        .assert_lacks("completed: ws_");
    let page = member.get_page(&format!("/o/acme/end-users/{ann}?show=sessions")).await;
    page.assert_contains("Connected with").assert_contains("· acme").assert_lacks("srv_");
    member.get(&format!("/o/acme/end-users/{ann}/export")).await.assert_status(403);
    member.post(&format!("/o/acme/end-users/{ann}/erase"), &[("confirm", &ann)]).await.assert_status(403);
    let export = admin.get_page(&format!("/o/acme/end-users/{ann}/export")).await;
    let whole = export.json();
    assert_eq!(whole["profile"]["tracking_id"], "ann");
    let sizes = ["progress", "completions", "events", "tool_calls"].map(|part| whole[part].as_array().unwrap().len());
    assert_eq!(sizes, [1, 3, 5, 4]);
    export.assert_lacks("hash");
    let path = format!("/o/acme/end-users/{ann}/erase");
    admin.post(&path, &[("confirm", "ann")]).await.assert_status(409).assert_contains("Nothing was erased");
    admin.post(&path, &[("confirm", &ann)]).await.assert_redirect("/o/acme/end-users");
    admin.get_page("/o/acme/end-users").await.assert_contains("End user erased").assert_lacks(&ann);
    admin.get(&format!("/o/acme/end-users/{ann}")).await.assert_status(404);
    let now = fixture.get("/analytics/overview").await["current"].clone();
    assert_eq!((&now["started"], &now["completed"], &now["active"]), (&json!(2), &json!(0), &json!(2)));
    assert_eq!(fixture.get("/analytics/tools").await["items"][0]["calls"], 2);
    let log = "SELECT act || ' ' || detail FROM audit_events WHERE act LIKE 'end_user.%' ORDER BY id";
    let log = fixture.app.query_lines(log).await;
    assert!(log.contains("end_user.export {}") && log.contains("\"events\":5") && !log.contains("ann"), "{log}");
    // Ann's calls were erased too.
    fixture.app.skip_call_check();
    fixture.app.clone().finish().await;
}

async fn the_pages_show_the_analytics(app: App) {
    let fixture = set_up(app).await;
    let browser = ConsoleBrowser::member(&fixture.org, "m@x.example", Role::Member).await;
    let page = browser.get_page("/o/acme/analytics").await;
    page.assert_contains("<dt>Started</dt><dd>3</dd>")
        .assert_contains("Select a walkthrough above")
        .assert_contains("<title id=\"lines-title\">");
    assert!(!page.body.contains("style=\"") && page.body.len() < 200_000, "{}", page.body.len());
    let page = browser.get_page(&format!("/o/acme/analytics?walkthrough={}&range=7", fixture.walkthrough_id)).await;
    let editor = format!("/o/acme/walkthroughs/{}", fixture.walkthrough_id);
    page.assert_contains(&format!("1. <a href=\"{editor}?step=ws_"))
        .assert_contains(">Download</a>")
        .assert_contains("3 started, 1 completed")
        .assert_contains("3 <small class=\"soft\">100.0%</small>")
        .assert_contains("2 <small class=\"soft\">66.7%</small>")
        .assert_lacks("stopped at step")
        .assert_contains("Start → Download: 2")
        .assert_contains("version 1");
    browser.get("/o/acme/analytics?range=soon").await.assert_status(422).assert_contains("Select one of the periods");
    browser.get("/o/acme/analytics?from=x").await.assert_status(422).assert_contains("Enter a valid date");
    browser
        .get_page("/o/acme/analytics?from=2020-01-01&to=2020-01-02")
        .await
        .assert_contains("No activity in this period");
    let file: ConsoleResponse = browser.get_page("/o/acme/analytics/export/overview?range=7&format=csv").await;
    file.assert_contains("from,to,started,");
    browser.get("/o/acme/analytics/export/other").await.assert_status(404);
    let list = browser.get_page("/o/acme/end-users?status=completed").await;
    list.assert_contains(">ann</a>").assert_lacks(">bob</a>");
    browser.get_page("/o/acme/end-users?q=nobody").await.assert_contains("No matching end users");
    let id = fixture.get("/end-users?q=cid").await["items"][0]["id"].as_str().unwrap().to_owned();
    let calls = browser.get_page(&format!("/o/acme/end-users/{id}?show=calls")).await;
    calls.assert_contains("select_walkthrough").assert_lacks("badge info\">Event");
    let outsider = fixture.app.org("other").await;
    let outsider = ConsoleBrowser::owner(&outsider).await;
    for path in ["/o/acme/analytics".to_owned(), format!("/o/other/end-users/{id}")] {
        outsider.get(&path).await.assert_status(404);
    }
    fixture.app.clone().finish().await;
}

async fn users_who_stopped_are_listed(app: App) {
    let fixture = set_up(app).await;
    let member = ConsoleBrowser::member(&fixture.org, "m@x.example", Role::Member).await;
    let path = format!("/o/acme/walkthroughs/{}/analytics", fixture.walkthrough_id);
    member
        .get_page(&path)
        .await
        .assert_lacks("stopped at step")
        .assert_contains("aria-current=\"page\" data-leave>Analytics");
    // A day of inactivity later, Bob and Cid have stopped.
    fixture.app.advance_clock(24 * 3_600_000).await;
    let page = member.get_page(&format!("{path}?range=7")).await;
    page.assert_contains("1 stopped at step 1")
        .assert_contains("1 stopped at step 2")
        .assert_lacks("stopped at step 3");
    let (_, link) = page.body.split_once(&format!("href=\"{path}/stopped/")).unwrap();
    let (link, _) = link.split_once('"').unwrap();
    let link = format!("{path}/stopped/{}", link.replace("&#38;", "&"));
    let list = member.get_page(&link).await;
    list.assert_contains("Stopped at “<span dir=\"auto\">Download</span>”");
    list.assert_contains(">cid</a>").assert_lacks(">bob</a>").assert_lacks(">ann</a>");
    let (steps, _) = link.split_once('?').unwrap();
    member.get_page(&format!("{steps}?from=2020-01-01&to=2020-01-02")).await.assert_contains("No one stopped here");
    for unknown in ["ws_0123456789abcdef", "x", "%00"] {
        member.get(&format!("{path}/stopped/{unknown}")).await.assert_status(404);
    }
    let outsider = ConsoleBrowser::owner(&fixture.app.org("other").await).await;
    outsider.get(&link.replacen("/o/acme/", "/o/other/", 1)).await.assert_status(404);
    outsider.get(&link).await.assert_status(404);
    fixture.app.clone().finish().await;
}

async fn a_short_range_is_shown_by_hour(app: App) {
    let fixture = set_up(app).await;
    let browser = ConsoleBrowser::member(&fixture.org, "m@x.example", Role::Member).await;
    let page = browser.get_page("/o/acme/analytics?range=1").await;
    page.assert_contains("By hour").assert_contains("hours in UTC").assert_lacks("By day");
    let rows = page.body.matches("<tr><th scope=\"row\">20").count();
    assert!((24..=25).contains(&rows), "{rows} hours");
    browser.get_page("/o/acme/analytics?range=7").await.assert_contains("By day").assert_lacks("By hour");
    fixture.app.clone().finish().await;
}

waypost_testkit::both!(
    open => analytics_match_the_recorded_calls, invalid_queries_are_rejected, lists_are_paginated,
    the_impact_of_publishing_adds_up, end_users_are_exported_and_erased_completely, the_pages_show_the_analytics,
    users_who_stopped_are_listed, a_short_range_is_shown_by_hour
);
