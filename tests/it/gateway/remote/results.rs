//! Large results, which the gateway does not copy.

use http_body_util::BodyExt;

use super::*;
use crate::gateway::remote::server::Fault;

const CALL: &str = r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"far__find","arguments":{}}}"#;

async fn text_of(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_result_is_relayed_as_it_is() {
    let result = format!("{{\n \"content\":[], \"long\":\"{}\",\n \"n\":1.0}}", r"é\n".repeat(20_000));
    let expected = format!(r#"{{"jsonrpc":"2.0","result":{result},"id":"x"}}"#);
    for is_modern in [false, true] {
        let (stage, server) = (Stage::new().await, Server::start().await);
        server.set(|state| (state.is_modern, state.result) = (is_modern, result.clone()));
        stage.ready(&server.url).await;
        let text = text_of(stage.send(Method::POST, &[], CALL.to_owned()).await).await;
        assert!(text == expected, "{}", text.get(..200).unwrap_or_default());
        // An event has one line.
        server.set(|state| state.fault = Some(Fault::Logs));
        let text = text_of(stage.send(Method::POST, &[], CALL.to_owned()).await).await;
        let events: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.len(), 2, "{}", text.get(..200).unwrap_or_default());
        assert!(events[0].contains("notifications/message"), "{}", events[0]);
        assert!(events[1] == expected.replace('\n', " "), "{}", events[1].get(..200).unwrap_or_default());
        stage.api.app.clone().finish().await;
    }
}
