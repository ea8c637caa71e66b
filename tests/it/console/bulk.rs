//! Bulk operations on walkthroughs, over the REST API and on the page.

use http::Method;
use serde_json::{Value, json};

use super::ConsoleBrowser;
use super::walkthroughs::{call, create_walkthrough};
use crate::app::App;

#[tokio::test]
async fn bulk_operations_report_failures() {
    let app = App::new().await;
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let (browser, outsider) = (ConsoleBrowser::owner(&org).await, ConsoleBrowser::owner(&other).await);
    let (full, _) = create_walkthrough(&browser, "Full", &["A"]).await;
    let (empty, _) = create_walkthrough(&browser, "Empty", &[]).await;
    let (foreign, _) = create_walkthrough(&outsider, "Foreign", &["A"]).await;
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let ids = json!([id(&full), id(&empty), id(&foreign), "x"]);
    let confirmed = json!({ "action": "publish", "ids": ids, "confirm": true });
    let done = call(&browser, Method::POST, "/walkthroughs/bulk", confirmed).await;
    let items = done.assert_status(200).json()["items"].clone();
    let outcomes: Vec<_> =
        items.as_array().unwrap().iter().map(|item| (item["ok"] == true, item["status"].as_u64().unwrap())).collect();
    assert_eq!(outcomes, [(true, 200), (false, 409), (false, 404), (false, 404)]);
    call(&browser, Method::POST, "/walkthroughs/bulk", json!({ "action": "delete", "ids": [] }))
        .await
        .assert_status(422);
    call(&browser, Method::POST, "/walkthroughs/bulk", json!({ "action": "assign", "ids": ["x"] }))
        .await
        .assert_status(422);
    app.finish().await;
}

#[tokio::test]
async fn bulk_publishing_over_the_api_needs_confirmation() {
    let app = App::new().await;
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let (browser, outsider) = (ConsoleBrowser::owner(&org).await, ConsoleBrowser::owner(&other).await);
    let (first, steps) = create_walkthrough(&browser, "First", &["A"]).await;
    let (second, _) = create_walkthrough(&browser, "Second", &["B"]).await;
    let (empty, _) = create_walkthrough(&browser, "Empty", &[]).await;
    let (foreign, _) = create_walkthrough(&outsider, "Foreign", &["A"]).await;
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let version = async |path: &str| browser.api(Method::GET, path, None).await.json()["current_version"].clone();
    let ids = [id(&first), id(&second), id(&empty), id(&foreign)];
    let request = json!({ "action": "publish", "ids": ids });
    let bulk = async |body: Value| call(&browser, Method::POST, "/walkthroughs/bulk", body).await;

    let preview = bulk(request.clone()).await.assert_status(409).json();
    assert_eq!((&preview["code"], &preview["field"]), (&json!("confirmation_required"), &json!("confirm")));
    let impact = &preview["impact"];
    let sentences = json!(["This is the first version, with one step.", "No one is currently in progress."]);
    assert_eq!((&impact[0]["title"], &impact[0]["sentences"]), (&json!("First"), &sentences));
    assert_eq!(impact[0]["problem"], Value::Null);
    assert!(impact[2]["problem"].as_str().unwrap().contains("there are no steps"), "{impact}");
    assert_eq!((&impact[3]["title"], &impact[3]["revision"]), (&Value::Null, &Value::Null), "{impact}");
    assert_eq!(impact[3]["problem"], "There is no such walkthrough.");
    assert_eq!((version(&first).await, version(&second).await), (Value::Null, Value::Null), "nothing is published yet");
    for confirm in [json!(false), json!("yes"), json!(1)] {
        let mut body = request.clone();
        body["confirm"] = confirm;
        assert!([409, 422].contains(&bulk(body).await.status.as_u16()));
    }
    assert_eq!((version(&first).await, version(&second).await), (Value::Null, Value::Null));

    // One walkthrough is edited before the confirmation.
    let revisions: serde_json::Map<_, _> = impact.as_array().unwrap()[..2]
        .iter()
        .map(|item| (item["id"].as_str().unwrap().to_owned(), item["revision"].clone()))
        .collect();
    call(&browser, Method::PATCH, &format!("{first}/steps/{}", steps[0]), json!({ "content": "later" }))
        .await
        .assert_status(200);
    let done = bulk(json!({ "action": "publish", "ids": ids, "confirm": true, "revisions": revisions })).await;
    let statuses: Vec<_> = done.assert_status(200).json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [412, 200, 409, 404]);
    assert_eq!((version(&first).await, version(&second).await), (Value::Null, json!(1)));
    app.finish().await;
}

#[tokio::test]
async fn bulk_publishing_on_the_page_shows_the_impact_first() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let browser = ConsoleBrowser::owner(&org).await;
    let (first, steps) = create_walkthrough(&browser, "First", &["A"]).await;
    let (second, _) = create_walkthrough(&browser, "Second", &["B"]).await;
    let (empty, _) = create_walkthrough(&browser, "Empty", &[]).await;
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let (one, two, three) = (id(&first), id(&second), id(&empty));
    let version = async |path: &str| browser.api(Method::GET, path, None).await.json()["current_version"].clone();
    let bulk = "/o/acme/walkthroughs/bulk";

    let selection = [("action", "publish"), ("ids", &*one), ("ids", &*two), ("ids", &*three)];
    let request = browser.post(bulk, &selection).await;
    request
        .assert_status(200)
        .assert_contains("Publish 2 walkthroughs?")
        .assert_contains("No one is currently in progress")
        .assert_contains("there are no steps");
    assert_eq!((version(&first).await, version(&second).await), (Value::Null, Value::Null), "nothing is published yet");

    // One walkthrough is edited while the page is open.
    let (of_one, of_two) = (format!("revision-{one}"), format!("revision-{two}"));
    let edit = json!({ "content": "later" });
    call(&browser, Method::PATCH, &format!("{first}/steps/{}", steps[0]), edit).await.assert_status(200);
    let confirmed =
        [("action", "publish"), ("confirmed", "yes"), ("ids", &*one), (&*of_one, "2"), ("ids", &*two), (&*of_two, "2")];
    browser
        .post(bulk, &confirmed)
        .await
        .assert_status(200)
        .assert_contains("Some walkthroughs were not changed")
        .assert_contains("First");
    assert_eq!((version(&first).await, version(&second).await), (Value::Null, json!(1)));
    app.finish().await;
}
