//! A server with more walkthroughs than fit on one page.

use serde_json::{Value, json};

use crate::app::App;
use crate::client::Client;

async fn list_titles(client: &Client, arguments: Value) -> (Vec<String>, Value) {
    let result = client.call("list_walkthroughs", arguments).await;
    let rows = result.ok()["walkthroughs"].as_array().unwrap().clone();
    let titles = rows.iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect();
    (titles, result.ok()["next_cursor"].clone())
}

#[tokio::test]
async fn lists_over_200_walkthroughs_are_paginated() {
    let app = App::new().await;
    let server = app.server("acme").await;
    for number in 0..203 {
        server.walkthrough(&format!("Guide {number:03}"), &["One", "Two"]).await;
    }
    let mut user = server.modern();
    for slug in ["guide-000", "guide-007", "guide-202"] {
        user.play("select_walkthrough", json!({ "walkthrough_id": slug })).await.ok();
    }
    let (first, cursor) = list_titles(&user, json!({})).await;
    assert_eq!((first.len(), first[0].as_str(), first[199].as_str()), (200, "Guide 000", "Guide 199"));
    let (rest, end) = list_titles(&user, json!({ "cursor": cursor })).await;
    assert_eq!((rest, end), (vec!["Guide 200".into(), "Guide 201".into(), "Guide 202".into()], Value::Null));
    let (found, next) = list_titles(&user, json!({ "query": "GUIDE 201" })).await;
    assert_eq!((found.len(), &found[..2]), (200, &["Guide 201".to_owned(), "Guide 000".to_owned()][..]), "ranked");
    let (found, end) = list_titles(&user, json!({ "query": "GUIDE 201", "cursor": next })).await;
    assert_eq!((found.len(), end), (3, Value::Null), "search results are paginated");
    let text = user.call("list_walkthroughs", json!({})).await.text;
    assert!(
        text.contains("There are more: call list_walkthroughs again and pass next_cursor"),
        "{}",
        &text[text.len() - 200..]
    );
    assert_eq!(user.list_tools().await.len(), 5);
    let prompts = user.send("prompts/list", json!({})).await;
    assert_eq!(prompts.result()["prompts"].as_array().unwrap().len(), 203);
    let resources = user.send("resources/list", json!({})).await;
    assert_eq!(resources.result()["resources"].as_array().unwrap().len(), 203);
    let ambiguous = user.call("next_walkthrough_step", json!({})).await;
    assert_eq!(ambiguous.structured["error"]["candidates"].as_array().unwrap().len(), 3);
    let complete = json!({ "ref": { "type": "ref/resource", "uri": "walkthrough://{walkthrough_id}/steps/{step_id}" },
        "argument": { "name": "walkthrough_id", "value": "" } });
    let values = user.send("completion/complete", complete).await;
    assert_eq!(values.result()["completion"]["values"].as_array().unwrap().len(), 100, "the maximum number of values");
    app.finish().await;
}
