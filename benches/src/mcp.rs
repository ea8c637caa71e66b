//! The MCP messages that the load generator sends and receives, in both protocol eras. Written and parsed with minimal
//! overhead.

use std::borrow::Cow;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::client::{Connection, Response};

/// Protocol era of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// 2025-11-25: an `initialize` handshake, then calls.
    Legacy,
    /// 2026-07-28: self-contained requests.
    Modern,
}

impl Era {
    /// Both eras.
    pub const ALL: [Self; 2] = [Self::Modern, Self::Legacy];

    /// Returns the name used in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"waypost-bench","version":"1"}}"#;
const COMMON: &str = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

/// An MCP client of one user.
pub struct Client {
    path: String,
    era: Era,
    /// The headers of every request.
    common: String,
    session: Option<String>,
    next_id: u64,
    headers: String,
    body: String,
}

impl Client {
    /// Creates a client without a connection.
    pub fn new(path: String, era: Era) -> Self {
        let common = COMMON.to_owned();
        Self { path, era, common, session: None, next_id: 1, headers: String::new(), body: String::new() }
    }

    /// Sends this access token with all further requests.
    pub fn sign_in(&mut self, token: &str) {
        self.common = format!("{COMMON}Authorization: Bearer {token}\r\n");
    }

    /// Performs the handshake of the legacy era. Does nothing in the modern era.
    pub async fn connect(&mut self, connection: &mut Connection) -> Result<()> {
        if self.era == Era::Modern {
            return Ok(());
        }
        let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"waypost-bench","version":"1"}}}"#;
        let reply = connection.post(&self.path, &self.common, body).await?;
        expect_status(&reply, 200)?;
        self.session = reply.session.clone();
        let result: Envelope<'_, InitializeResult<'_>> = serde_json::from_slice(message_of(reply.body))?;
        let version = result.result.context("initialize failed")?.protocol_version;
        if version != "2025-11-25" {
            bail!("the server negotiated {version}");
        }
        self.write_headers("notifications/initialized", None);
        let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let reply = connection.post(&self.path, &self.headers, body).await?;
        expect_status(&reply, 202)
    }

    /// Calls a tool. `arguments` is a JSON object.
    pub async fn call<'c>(
        &mut self,
        connection: &'c mut Connection,
        tool: &str,
        arguments: &str,
    ) -> Result<Outcome<'c>> {
        self.write_headers("tools/call", Some(tool));
        self.body.clear();
        let id = self.next_id;
        self.next_id += 1;
        write!(
            self.body,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}"#
        )?;
        if self.era == Era::Modern {
            self.body.push(',');
            self.body.push_str(META);
        }
        self.body.push_str("}}");
        let reply = connection.post(&self.path, &self.headers, &self.body).await?;
        let body = reply.body;
        expect_status(&reply, 200).with_context(|| format!("{tool} {arguments}"))?;
        let envelope: Envelope<'c, Outcome<'c>> = serde_json::from_slice(body)
            .with_context(|| format!("{tool}: not the expected JSON: {}", excerpt(body)))?;
        match envelope.result {
            Some(outcome) if envelope.id == Some(id) && outcome.is_error != Some(true) => Ok(outcome),
            _ => bail!("{tool} {arguments} failed: {}", excerpt(body)),
        }
    }

    /// Calls a tool without arguments and with this ID. Returns the body of a response with status 200, unchecked.
    pub async fn call_with_id<'c>(&mut self, connection: &'c mut Connection, tool: &str, id: u64) -> Result<&'c [u8]> {
        self.write_headers("tools/call", Some(tool));
        self.body.clear();
        let (comma, meta) = if self.era == Era::Modern { (",", META) } else { ("", "") };
        write!(
            self.body,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}{comma}{meta}}}}}"#
        )?;
        let reply = connection.post(&self.path, &self.headers, &self.body).await?;
        expect_status(&reply, 200)?;
        Ok(reply.body)
    }

    /// Sends a request without parameters and returns the raw body.
    pub async fn send_raw(&mut self, connection: &mut Connection, method: &str) -> Result<Vec<u8>> {
        self.write_headers(method, None);
        let meta = if self.era == Era::Modern { META } else { "" };
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{meta}}}}}"#);
        let reply = connection.post(&self.path, &self.headers, &body).await?;
        expect_status(&reply, 200)?;
        Ok(reply.body.to_vec())
    }

    /// Calls a tool and returns the raw body.
    pub async fn call_raw(&mut self, connection: &mut Connection, tool: &str, arguments: &str) -> Result<Vec<u8>> {
        self.write_headers("tools/call", Some(tool));
        let meta = if self.era == Era::Modern { format!(",{META}") } else { String::new() };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}{meta}}}}}"#
        );
        let reply = connection.post(&self.path, &self.headers, &body).await?;
        expect_status(&reply, 200)?;
        Ok(reply.body.to_vec())
    }

    fn write_headers(&mut self, method: &str, name: Option<&str>) {
        let headers = &mut self.headers;
        headers.clear();
        headers.push_str(&self.common);
        match self.era {
            Era::Legacy => headers.push_str("MCP-Protocol-Version: 2025-11-25\r\n"),
            Era::Modern => {
                for part in ["MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: ", method, "\r\n"] {
                    headers.push_str(part);
                }
                if let Some(name) = name {
                    for part in ["Mcp-Name: ", name, "\r\n"] {
                        headers.push_str(part);
                    }
                }
            }
        }
        if let Some(session) = &self.session {
            for part in ["Mcp-Session-Id: ", session, "\r\n"] {
                headers.push_str(part);
            }
        }
    }
}

fn expect_status(reply: &Response<'_>, expected: u16) -> Result<()> {
    if reply.status == expected {
        return Ok(());
    }
    bail!("HTTP {} instead of {expected}: {}", reply.status, excerpt(reply.body))
}

/// Returns the message of a response: JSON, or the data of the first event that has any.
fn message_of(body: &[u8]) -> &[u8] {
    let mut lines = body.split(|byte| *byte == b'\n');
    let data = lines.find_map(|line| line.strip_prefix(b"data:").filter(|data| data.len() > 2));
    data.filter(|_| !body.starts_with(b"{")).unwrap_or(body)
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(400).collect()
}

#[derive(Deserialize)]
struct Envelope<'a, T> {
    id: Option<u64>,
    result: Option<T>,
    #[serde(skip)]
    _borrow: std::marker::PhantomData<&'a ()>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult<'a> {
    #[serde(borrow)]
    protocol_version: Cow<'a, str>,
}

/// The checked members of a tool result.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome<'a> {
    is_error: Option<bool>,
    /// The structured content.
    #[serde(borrow)]
    pub structured_content: Option<StructuredContent<'a>>,
}

/// The checked members of a step result, a status or a list.
#[derive(Deserialize, Default)]
pub struct StructuredContent<'a> {
    /// The completed step.
    #[serde(borrow)]
    pub completed_step_id: Option<Cow<'a, str>>,
    /// The current step.
    #[serde(borrow)]
    pub step: Option<Step<'a>>,
    /// The user's progress.
    pub progress: Option<Progress>,
    /// The listed walkthroughs.
    #[serde(borrow)]
    pub walkthroughs: Option<Vec<ListedWalkthrough<'a>>>,
}

/// The checked members of a step.
#[derive(Deserialize)]
pub struct Step<'a> {
    /// ID.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

/// The checked members of the progress.
#[derive(Deserialize, Clone, Copy)]
pub struct Progress {
    /// Number of completed steps.
    pub completed: u32,
    /// Number of steps.
    pub total: u32,
}

/// A listed walkthrough.
#[derive(Deserialize)]
pub struct ListedWalkthrough<'a> {
    /// ID.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Title.
    #[serde(borrow)]
    pub title: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Connects to a server that responds to one request with `status` and `body`.
    async fn connect_to_response(status: &'static str, body: &'static str) -> Connection {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(response.as_bytes()).await.unwrap();
        });
        Connection::open(addr).await.unwrap()
    }

    #[tokio::test]
    async fn a_step_result_is_parsed() {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":false,"structuredContent":
            {"completed_step_id":"ws_1","step":{"id":"ws_2","title":"a \"b\""},"progress":{"completed":1,"total":3}}}}"#;
        let mut connection = connect_to_response("200 OK", body).await;
        let mut client = Client::new("/mcp".to_owned(), Era::Modern);
        let outcome = client.call(&mut connection, "next_walkthrough_step", "{}").await.unwrap();
        let result = outcome.structured_content.unwrap();
        assert_eq!(result.completed_step_id.as_deref(), Some("ws_1"));
        assert_eq!(result.step.unwrap().id, "ws_2");
        assert_eq!(result.progress.map(|progress| (progress.completed, progress.total)), Some((1, 3)));
    }

    #[tokio::test]
    async fn anything_but_a_success_is_an_error() {
        let refused = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#;
        let failed = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}"#;
        let another = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
        for (status, body) in [("200 OK", refused), ("200 OK", failed), ("200 OK", another), ("503 Busy", "{}")] {
            let mut connection = connect_to_response(status, body).await;
            let mut client = Client::new("/mcp".to_owned(), Era::Legacy);
            assert!(client.call(&mut connection, "next_walkthrough_step", "{}").await.is_err(), "{status} {body}");
        }
    }
}
