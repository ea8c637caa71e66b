//! A minimal keep-alive HTTP/1.1 client: sends requests and reads the status, one header and the body.
//!
//! The load generator shares its cores with the servers under test, so it must use much less CPU time than they do.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A connection, used for one request at a time.
pub struct Connection {
    stream: TcpStream,
    host: String,
    out: Vec<u8>,
    input: Vec<u8>,
    body: Vec<u8>,
}

/// A response, which borrows the connection until the next request.
pub struct Response<'a> {
    /// HTTP status code.
    pub status: u16,
    /// The `Mcp-Session-Id` header, if present.
    pub session: Option<String>,
    /// The decoded body.
    pub body: &'a [u8],
}

/// The relevant parts of a response head.
#[derive(Default)]
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    session: Option<String>,
}

impl Connection {
    /// Connects with `TCP_NODELAY`.
    pub async fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("cannot connect to {addr}"))?;
        Self::from_stream(stream, addr)
    }

    /// Connects from the given local address.
    pub async fn open_from(from: IpAddr, addr: SocketAddr) -> Result<Self> {
        Self::from_stream(connect_from(from, addr).await?, addr)
    }

    fn from_stream(stream: TcpStream, addr: SocketAddr) -> Result<Self> {
        stream.set_nodelay(true)?;
        let host = addr.to_string();
        Ok(Self { stream, host, out: Vec::with_capacity(2048), input: Vec::with_capacity(16384), body: Vec::new() })
    }

    /// Returns the value of the `Host` header.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends a POST request with `headers` (each line terminated by CRLF) and reads the complete response.
    pub async fn post(&mut self, path: &str, headers: &str, body: &str) -> Result<Response<'_>> {
        self.send("POST", path, headers, body).await
    }

    /// Sends a request with `headers` (each line terminated by CRLF) and a body, and reads the complete response.
    pub async fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Result<Response<'_>> {
        self.out.clear();
        for part in [method, " ", path, " HTTP/1.1\r\nHost: ", &self.host, "\r\nContent-Length: "] {
            self.out.extend_from_slice(part.as_bytes());
        }
        self.out.extend_from_slice(body.len().to_string().as_bytes());
        for part in ["\r\n", headers, "\r\n", body] {
            self.out.extend_from_slice(part.as_bytes());
        }
        self.exchange().await
    }

    /// Sends a GET request and reads the complete response.
    pub async fn get(&mut self, path: &str) -> Result<Response<'_>> {
        self.get_with(path, "").await
    }

    /// Sends a GET request with `headers` (each line terminated by CRLF) and reads the complete response.
    pub async fn get_with(&mut self, path: &str, headers: &str) -> Result<Response<'_>> {
        self.out.clear();
        self.out.extend_from_slice(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.host).as_bytes());
        self.exchange().await
    }

    async fn exchange(&mut self) -> Result<Response<'_>> {
        self.stream.write_all(&self.out).await?;
        self.input.clear();
        let (head, start) = self.read_head().await?;
        if head.status == 304 {
            // Has no body, even if it has a length (RFC 9110, section 15.4.5).
            self.body.clear();
        } else if head.chunked {
            self.read_chunked(start).await?;
        } else {
            let end = start + head.length.unwrap_or(0);
            while self.input.len() < end {
                self.read_more().await?;
            }
            std::mem::swap(&mut self.body, &mut self.input);
            self.body.truncate(end);
            self.body.drain(..start);
        }
        Ok(Response { status: head.status, session: head.session, body: &self.body })
    }

    async fn read_more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the server closed the connection before the response was complete");
        }
        Ok(())
    }

    async fn read_head(&mut self) -> Result<(Head, usize)> {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.input[from..], b"\r\n\r\n") {
                let end = from + at;
                return Ok((parse_head(&self.input[..end])?, end + 4));
            }
            from = self.input.len().saturating_sub(3);
            self.read_more().await?;
        }
    }

    async fn read_chunked(&mut self, start: usize) -> Result<()> {
        self.body.clear();
        let mut at = start;
        loop {
            let line_end = loop {
                match find(&self.input[at..], b"\r\n") {
                    Some(offset) => break at + offset,
                    None => self.read_more().await?,
                }
            };
            let size = std::str::from_utf8(&self.input[at..line_end])?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
            let next = line_end + 2 + size + 2;
            while self.input.len() < next {
                self.read_more().await?;
            }
            if size == 0 {
                return Ok(());
            }
            self.body.extend_from_slice(&self.input[line_end + 2..next - 2]);
            at = next;
        }
    }
}

/// Connects from the given local address, such as one in 127.0.0.0/8.
pub async fn connect_from(from: IpAddr, addr: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(socket.connect(addr).await?)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(bytes: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(bytes).context("the response head is not text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)).and_then(|code| code.parse().ok());
    let mut head = Head { status: status.context("no HTTP status line")?, ..Head::default() };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            head.session = Some(value.to_owned());
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_case_insensitive() {
        let head = parse_head(b"HTTP/1.1 202 Accepted\r\nCONTENT-length: 12\r\nMcp-Session-Id: abc").unwrap();
        assert_eq!((head.status, head.length, head.chunked), (202, Some(12), false));
        assert_eq!(head.session.as_deref(), Some("abc"));
    }

    #[tokio::test]
    async fn a_chunked_body_is_reassembled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut input = [0; 512];
            let _ = stream.read(&mut input).await.unwrap();
            let response =
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
            for half in [&response[..52], &response[52..]] {
                stream.write_all(half).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut connection = Connection::open(addr).await.unwrap();
        let reply = connection.get("/").await.unwrap();
        assert_eq!((reply.status, reply.body), (200, &b"abc0123456789"[..]));
    }
}
