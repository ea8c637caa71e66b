//! The few MCP messages that the load needs, in both protocol eras, written and read with as little work as possible.

use std::borrow::Cow;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::client::{Connection, Reply};

/// Protocol era of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// 2025-11-25: `initialize` first, then calls.
    Legacy,
    /// 2026-07-28: every request stands alone.
    Modern,
}

impl Era {
    /// Both eras.
    pub const ALL: [Self; 2] = [Self::Modern, Self::Legacy];

    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"waypost-bench","version":"1"}}"#;
const COMMON: &str = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

/// One MCP client: one user of one server.
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
    /// A client that has said nothing yet.
    pub fn new(path: String, era: Era) -> Self {
        let common = COMMON.to_owned();
        Self { path, era, common, session: None, next_id: 1, headers: String::new(), body: String::new() }
    }

    /// From now on every request shows this access token.
    pub fn sign_in(&mut self, token: &str) {
        self.common = format!("{COMMON}Authorization: Bearer {token}\r\n");
    }

    /// The handshake of the legacy era; nothing in the modern one.
    pub async fn connect(&mut self, connection: &mut Connection) -> Result<()> {
        if self.era == Era::Modern {
            return Ok(());
        }
        let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"waypost-bench","version":"1"}}}"#;
        let reply = connection.post(&self.path, &self.common, body).await?;
        expect_status(&reply, 200)?;
        self.session = reply.session.clone();
        let result: Envelope<'_, Initialized<'_>> = serde_json::from_slice(reply.body)?;
        let version = result.result.context("initialize failed")?.protocol_version;
        if version != "2025-11-25" {
            bail!("the server negotiated {version}");
        }
        self.write_headers("notifications/initialized", None);
        let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let reply = connection.post(&self.path, &self.headers, body).await?;
        expect_status(&reply, 202)
    }

    /// `tools/call`; `arguments` is a JSON object.
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
        let answer: Envelope<'c, Outcome<'c>> = serde_json::from_slice(body)
            .with_context(|| format!("{tool}: not the expected JSON: {}", excerpt(body)))?;
        match answer.result {
            Some(outcome) if answer.id == Some(id) && outcome.is_error != Some(true) => Ok(outcome),
            _ => bail!("{tool} {arguments} was refused: {}", excerpt(body)),
        }
    }

    /// Any request without parameters of its own; gives the raw body.
    pub async fn raw(&mut self, connection: &mut Connection, method: &str) -> Result<Vec<u8>> {
        self.write_headers(method, None);
        let meta = if self.era == Era::Modern { META } else { "" };
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{meta}}}}}"#);
        let reply = connection.post(&self.path, &self.headers, &body).await?;
        expect_status(&reply, 200)?;
        Ok(reply.body.to_vec())
    }

    /// `tools/call`, giving the raw body.
    pub async fn raw_call(&mut self, connection: &mut Connection, tool: &str, arguments: &str) -> Result<Vec<u8>> {
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

fn expect_status(reply: &Reply<'_>, wanted: u16) -> Result<()> {
    if reply.status == wanted {
        return Ok(());
    }
    bail!("HTTP {} instead of {wanted}: {}", reply.status, excerpt(reply.body))
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
struct Initialized<'a> {
    #[serde(borrow)]
    protocol_version: Cow<'a, str>,
}

/// The members of a tool result that the load checks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome<'a> {
    is_error: Option<bool>,
    /// The typed result.
    #[serde(borrow)]
    pub structured_content: Option<Structured<'a>>,
}

/// The union of a step result, a status and a list, as far as they are checked.
#[derive(Deserialize, Default)]
pub struct Structured<'a> {
    /// The step that this call completed.
    #[serde(borrow)]
    pub completed_step_id: Option<Cow<'a, str>>,
    /// The step to do now.
    #[serde(borrow)]
    pub step: Option<Step<'a>>,
    /// How far the user is.
    pub progress: Option<Progress>,
    /// The offered walkthroughs.
    #[serde(borrow)]
    pub walkthroughs: Option<Vec<Offered<'a>>>,
}

/// A step, as far as it is checked.
#[derive(Deserialize)]
pub struct Step<'a> {
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

/// Progress, as far as it is checked.
#[derive(Deserialize, Clone, Copy)]
pub struct Progress {
    /// Completed steps.
    pub completed: u32,
    /// All steps.
    pub total: u32,
}

/// A row of the list.
#[derive(Deserialize)]
pub struct Offered<'a> {
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its title.
    #[serde(borrow)]
    pub title: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection to a server that answers one request with `status` and `body`.
    async fn answered(status: &'static str, body: &'static str) -> Connection {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        Connection::open(addr).await.unwrap()
    }

    #[tokio::test]
    async fn a_step_result_is_read() {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":false,"structuredContent":
            {"completed_step_id":"ws_1","step":{"id":"ws_2","title":"a \"b\""},"progress":{"completed":1,"total":3}}}}"#;
        let mut connection = answered("200 OK", body).await;
        let mut client = Client::new("/mcp".to_owned(), Era::Modern);
        let outcome = client.call(&mut connection, "next_walkthrough_step", "{}").await.unwrap();
        let result = outcome.structured_content.unwrap();
        assert_eq!(result.completed_step_id.as_deref(), Some("ws_1"));
        assert_eq!(result.step.unwrap().id, "ws_2");
        assert_eq!(result.progress.map(|progress| (progress.completed, progress.total)), Some((1, 3)));
    }

    #[tokio::test]
    async fn whatever_is_not_a_success_is_an_error() {
        let refused = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#;
        let failed = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}"#;
        let another = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
        for (status, body) in [("200 OK", refused), ("200 OK", failed), ("200 OK", another), ("503 Busy", "{}")] {
            let mut connection = answered(status, body).await;
            let mut client = Client::new("/mcp".to_owned(), Era::Legacy);
            assert!(client.call(&mut connection, "next_walkthrough_step", "{}").await.is_err(), "{status} {body}");
        }
    }
}
