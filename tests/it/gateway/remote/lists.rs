//! Lists contain the definitions exactly as the servers sent them.

use http_body_util::BodyExt;

use super::*;

/// Returns the text of a definition with this name or URI and further members, formatted as no serializer would write
/// it.
fn definition(name: &str, members: &str) -> String {
    let vendor = r#""x-vendor":{"b":1E+2, "a":1.0,"c":[ ],"\u00e9\/":"\u00e9é\ud83d\ude00"}"#;
    format!("{{ {name} ,\r\n\t{vendor} ,{members}\n\"title\" : \"\\u0041\" }}")
}

/// Requests a list at an address with 2025-11-25 or 2026-07-28, and returns the unparsed response.
async fn list(stage: &Stage, path: &str, method: &str, is_modern: bool) -> String {
    let mut request = http::Request::post(path).header("host", "localhost:8080");
    request = request.header("content-type", "application/json");
    request = request.header("authorization", format!("Bearer {}", stage.token));
    let mut params = json!({});
    if is_modern {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
    }
    let message = json!({ "jsonrpc": "2.0", "id": "x", "method": method, "params": params }).to_string();
    let response = stage.api.app.send(request.body(message.into()).unwrap()).await;
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_listed_byte_for_byte_except_for_their_names() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let schema = r#""inputSchema":{ "type":"object"},"#;
    // The method, the member of the result, the name as received and as listed, and further members.
    let lists = [
        ("tools/list", "tools", r#""name": "fi\u006ed""#, r#""name": "far__find""#, schema),
        ("prompts/list", "prompts", r#""n\u0061me":"ask""#, r#""n\u0061me":"far__ask""#, ""),
        ("resources/list", "resources", r#""uri":"file:\/\/\/a""#, r#""uri":"wp+far:file:///a""#, r#""name":"a","#),
        (
            "resources/templates/list",
            "resourceTemplates",
            r#""uriTemplate":"file:///{id}""#,
            r#""uriTemplate":"wp+far:file:///{id}""#,
            r#""name":"a","#,
        ),
    ];
    server.set(|state| {
        for (method, member, name, _, members) in lists {
            state.lists.insert(method, format!("{{ \"{member}\" :[ {} ] }}", definition(name, members)));
        }
    });
    let id = stage.ready(&server.url).await;
    let tool_set = json!({ "slug": "plain", "prefix": false, "members": [{ "instance_id": id }] });
    stage.api.post("/tool-sets", tool_set).await.assert_status(201);
    for (method, member, name, public, members) in lists {
        // Without the prefix, the name does not change either.
        for (path, name) in [("/gateway/mcp", public), ("/gateway/acme/plain/mcp", name)] {
            let start = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{{"{member}":[{}]"#, definition(name, members));
            assert_eq!(list(&stage, path, method, false).await, format!("{start}}}}}"));
            let text = list(&stage, path, method, true).await;
            let rest = r#","ttlMs":5000,"cacheScope":"private","resultType":"complete","_meta":{"#;
            assert!(text.starts_with(&format!("{start}{rest}")), "{text}");
            let result = serde_json::from_str::<Value>(&text).unwrap()["result"].take();
            let server = &result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"];
            assert_eq!((server, result[member].as_array().unwrap().len()), (&json!("waypost-gateway"), 1));
        }
    }
    // The admin's description is added, and nothing else changes.
    let change = json!({ "tool": "find", "description": "Finds \"pages\"." });
    let path = format!("/instances/{id}/tool-overrides");
    stage.api.call(Method::PATCH, &path, Some(change)).await.assert_status(200);
    for (path, name) in [("/gateway/mcp", lists[0].3), ("/gateway/acme/plain/mcp", r#""name": "find""#)] {
        let expected = definition(name, schema).replacen('{', r#"{"description":"Finds \"pages\".","#, 1);
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{{"tools":[{expected}]}}}}"#);
        assert_eq!(list(&stage, path, "tools/list", false).await, expected);
    }
    stage.api.app.clone().finish().await;
}
