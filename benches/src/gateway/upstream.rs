//! The MCP server behind the gateways. Its results are prepared in advance, so that it uses as little CPU time as
//! possible.
//!
//! `/modern/mcp` speaks only 2026-07-28. `/legacy/mcp` speaks only 2025-11-25, without sessions. `/list-N/mcp` is a
//! server of 2026-07-28 with [`LISTED_TOOLS`] tools of its own.

use std::convert::Infallible;
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use anyhow::Result;
use axum::body::to_bytes;
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::mcp::Era;

/// The names of the tools, and the number of characters of the text that each returns.
pub const TOOLS: [(&str, usize); 3] = [("small", 300), ("medium", 15_000), ("large", 1_000_000)];
/// The number of tools of each server at `/list-N/mcp`.
pub const LISTED_TOOLS: usize = 25;
/// The maximum size of a request in bytes.
const MAX_REQUEST: usize = 64 * 1024;

/// Arguments of the hidden `gateway-upstream` subcommand.
#[derive(Args)]
pub struct UpstreamArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speak 2025-11-25 on standard input and output instead, one message per line.
    #[arg(long)]
    stdio: bool,
}

/// The result members of each tool, as JSON text: of 2026-07-28 and of 2025-11-25.
static RESULTS: LazyLock<Vec<[Bytes; 2]>> = LazyLock::new(|| {
    let result = |members: &str, size: usize| {
        let text = "0123456789abcdef".chars().cycle().take(size).collect::<String>();
        Bytes::from(format!(r#","result":{{{members}"content":[{{"type":"text","text":"{text}"}}]}}}}"#))
    };
    TOOLS.iter().map(|(_, size)| [result(r#""resultType":"complete","#, *size), result("", *size)]).collect()
});

/// The members of a request that this server reads.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<&'a str>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    name: Option<&'a str>,
}

/// A response in at most two parts, so that a result is not copied.
#[derive(Default)]
struct Answer {
    parts: [Bytes; 2],
    next: usize,
}

impl Answer {
    fn new(head: String, rest: Bytes) -> Self {
        Self { parts: [head.into(), rest], next: 0 }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.next;
        self.next += 1;
        let part = self.parts.get_mut(next).map(std::mem::take).filter(|part| !part.is_empty());
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.parts.iter().map(|part| part.len() as u64).sum())
    }
}

/// Prints `listening on http://…` and serves until the process is terminated. With `stdio`, serves until standard input
/// ends.
pub fn main(args: UpstreamArgs) -> Result<()> {
    LazyLock::force(&RESULTS);
    if args.stdio {
        return serve_stdio();
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(args.listen))
}

fn serve_stdio() -> Result<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        if let Some(Answer { parts, .. }) = answer(line?.as_bytes(), Era::Legacy, None)? {
            for part in parts {
                output.write_all(&part)?;
            }
            output.write_all(b"\n")?;
            output.flush()?;
        }
    }
    Ok(())
}

async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|request| async { Ok::<_, Infallible>(respond(request).await) });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(request: Request<Incoming>) -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    let path = parts.uri.path();
    let era = if path.starts_with("/legacy/") { Era::Legacy } else { Era::Modern };
    let list = path.strip_prefix("/list-").and_then(|rest| rest.split('/').next());
    let Ok(body) = to_bytes(axum::body::Body::new(body), MAX_REQUEST).await else {
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return response;
    };
    match answer(&body, era, list) {
        Ok(Some(answer)) => {
            *response.body_mut() = answer;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(None) => *response.status_mut() = StatusCode::ACCEPTED,
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

/// Returns the answer to a message; `None` if it needs none. `list` is the name of a server with many tools.
fn answer(text: &[u8], era: Era, list: Option<&str>) -> Result<Option<Answer>> {
    let message: Message<'_> = serde_json::from_slice(text)?;
    let Some(id) = message.id else { return Ok(None) };
    let head = format!(r#"{{"jsonrpc":"2.0","id":{id}"#);
    let result = |result: Value| Bytes::from(format!(r#","result":{result}}}"#));
    let rest = match (message.method.unwrap_or_default(), era) {
        ("tools/call", _) => {
            let found = TOOLS.iter().position(|(name, _)| Some(*name) == message.params.name);
            found.map(|index| RESULTS[index][usize::from(era == Era::Legacy)].clone())
        }
        ("tools/list", _) => Some(result(list_result(list, era))),
        ("server/discover", Era::Modern) => Some(result(json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} }, "ttlMs": 60_000,
            "cacheScope": "public",
        }))),
        ("initialize", Era::Legacy) => Some(result(json!({
            "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
            "serverInfo": { "name": "benchmark", "version": "1" },
        }))),
        ("ping", Era::Legacy) => Some(result(json!({}))),
        _ => None,
    };
    let unknown = || Bytes::from_static(br#","error":{"code":-32601,"message":"Method not found"}}"#);
    Ok(Some(Answer::new(head, rest.unwrap_or_else(unknown))))
}

fn list_result(list: Option<&str>, era: Era) -> Value {
    let tool = |name: String| {
        let schema = json!({ "type": "object", "properties": { "query": { "type": "string" } } });
        json!({ "name": name, "description": "Returns a constant text.", "inputSchema": schema })
    };
    let tools: Vec<Value> = match list {
        Some(list) => (0..LISTED_TOOLS).map(|number| tool(format!("tool-{list}-{number}"))).collect(),
        None => TOOLS.iter().map(|(name, _)| tool((*name).to_owned())).collect(),
    };
    match era {
        Era::Modern => json!({ "resultType": "complete", "tools": tools, "ttlMs": 60_000, "cacheScope": "public" }),
        Era::Legacy => json!({ "tools": tools }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &str, era: Era) -> String {
        let Answer { parts: [head, rest], .. } = answer(message.as_bytes(), era, None).unwrap().unwrap();
        String::from_utf8([head, rest].concat()).unwrap()
    }

    #[test]
    fn each_tool_returns_its_size_with_the_id_of_the_request() {
        for (name, size) in TOOLS {
            for era in Era::ALL {
                let call =
                    format!(r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{{"name":"{name}"}}}}"#);
                let result: Value = serde_json::from_str(&text(&call, era)).unwrap();
                assert_eq!(result["id"], "a");
                assert_eq!(result["result"]["content"][0]["text"].as_str().unwrap().len(), size);
                assert_eq!(result["result"].get("resultType").is_some(), era == Era::Modern);
            }
        }
    }

    #[test]
    fn each_era_has_its_own_first_request() {
        let discover = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#;
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        assert!(text(discover, Era::Modern).contains("result") && text(discover, Era::Legacy).contains("error"));
        assert!(text(initialize, Era::Legacy).contains("result") && text(initialize, Era::Modern).contains("error"));
        assert!(
            answer(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Era::Legacy, None).unwrap().is_none()
        );
    }
}
