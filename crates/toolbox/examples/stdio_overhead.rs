//! Measures what a session adds to a call over the pipe of a stdio server: `cargo run --release --example stdio_overhead`.

use std::io::{BufRead, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;
use waypost_toolbox::bridge::Bridge;
use waypost_toolbox::engine::{Attached, OutputChunk};
use waypost_toolbox::supervisor::servers::{ConnectContext, LogSink, Target};
use waypost_toolbox_proto::http::LogStream;

const CALLS: usize = 20_000;

struct NoLog;

impl LogSink for NoLog {
    fn line(&self, _: LogStream, _: &str) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some("server") {
        return serve();
    }
    for size in [10, 10_000] {
        let direct = direct(size).await;
        let session = session(size).await;
        println!("{size} bytes of arguments, median of {CALLS} calls: pipe {direct:?}, session {session:?}");
    }
}

/// Answers every request with its own text.
fn serve() {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let id =
            line.split("\"id\":").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let id = id.filter(|id| !id.is_empty());
        let Some(id) = id else { continue };
        let result = if line.contains("server/discover") {
            r#"{"supportedVersions":["2026-07-28"]}"#.to_owned()
        } else {
            serde_json::json!({ "content": [{ "type": "text", "text": line }] }).to_string()
        };
        let _ = writeln!(output, r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        let _ = output.flush();
    }
}

fn start() -> (Child, ChildStdin, ChildStdout) {
    let program = std::env::current_exe().expect("the path of this program");
    let mut child = Command::new(program)
        .arg("server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("this program can be started again");
    let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    (child, stdin, stdout)
}

fn message(size: usize) -> String {
    let text = "x".repeat(size);
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{},"io.modelcontextprotocol/clientCapabilities":{}}"#;
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}"}},"_meta":{meta}}}}}"#
    )
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn direct(size: usize) -> Duration {
    let (_child, mut stdin, stdout) = start();
    let mut lines = BufReader::new(stdout).lines();
    let message = format!("{}\n", message(size));
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let started = Instant::now();
        stdin.write_all(message.as_bytes()).await.expect("written");
        lines.next_line().await.expect("read").expect("a line");
        times.push(started.elapsed());
    }
    median(times)
}

async fn session(size: usize) -> Duration {
    let (_child, stdin, stdout) = start();
    let chunks = futures::stream::unfold(stdout, async |mut stdout| {
        let mut chunk = bytes::BytesMut::with_capacity(16 * 1024);
        let count = stdout.read_buf(&mut chunk).await.ok()?;
        (count > 0).then(|| (Ok(OutputChunk::Stdout(chunk.freeze())), stdout))
    });
    let attached = Attached { stdin: Box::pin(stdin), output: Box::pin(chunks) };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let context = ConnectContext {
        instance_id: "ins_1".to_owned(),
        container_id: "c1".to_owned(),
        folder: folder.path().to_owned(),
        is_shared: true,
        masks: Vec::new(),
        log: Arc::new(NoLog),
    };
    let bridge = Bridge::new(waypost_toolbox::clock::system);
    let session = bridge.connect(Target::Stdio(attached), context).await.expect("connected");
    let message = bytes::Bytes::from(message(size));
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let started = Instant::now();
        let mut messages = session.call(message.clone(), Duration::from_secs(10)).await.expect("sent");
        messages.next().await.expect("a response").expect("a response");
        times.push(started.elapsed());
    }
    median(times)
}
