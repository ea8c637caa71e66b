//! Clients that send incomplete requests: other clients are still served, and the incomplete connections are closed in
//! time.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use waypost::connections::descriptors;
use waypost_outbound::unguarded_client;

use crate::installation::{Installation, TIMEOUT};
use crate::program::{ServeProcess, configure};
use crate::shutdown::LIMIT;

/// The program's file descriptor limit.
const DESCRIPTORS: usize = 1_024;
/// The number of hostile connections, which exceeds the program's descriptor limit.
const HOSTILE_CONNECTIONS: usize = 1_100;
/// The maximum memory for hostile bodies: twice the configured limit, to allow for overhead.
const MAX_MEMORY: u64 = 2 * 64 * 1_024 * 1_024;

/// Starts the program with [`DESCRIPTORS`] file descriptors. Returns the program and its diagnostics origin.
async fn start(installation: &Installation) -> (ServeProcess, String) {
    start_with(installation, DESCRIPTORS).await
}

async fn start_with(installation: &Installation, files: usize) -> (ServeProcess, String) {
    descriptors::raise_limit();
    let diagnostics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
    command.args(["-c", &limited, env!("CARGO_BIN_EXE_waypost")]);
    configure(&mut command, installation, &["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", &diagnostics]);
    let program = ServeProcess::run(command, &installation.data_dir()).await;
    (program, format!("http://{diagnostics}"))
}

fn address(program: &ServeProcess) -> SocketAddr {
    program.client().url("x").split('/').nth(2).unwrap().parse().unwrap()
}

/// Opens `count` connections, each of which sends only `request` and `body` bytes of the body.
async fn open_connections(address: SocketAddr, count: usize, request: &'static str, body: usize) -> Vec<TcpStream> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        opening.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The program may already have closed the connection to make room.
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.write_all(&vec![b'x'; body]).await;
            stream
        });
    }
    timeout(TIMEOUT, opening.join_all()).await.expect("every connection is accepted")
}

/// Waits until the program has closed all connections.
async fn wait_until_closed(streams: Vec<TcpStream>) {
    let mut closing = JoinSet::new();
    for mut stream in streams {
        closing.spawn(async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    }
    let closed = async { while closing.join_next().await.is_some() {} };
    let in_time = timeout(TIMEOUT, closed).await;
    assert!(in_time.is_ok(), "{} connections are still open", closing.len());
}

async fn metric(diagnostics: &str, name: &str) -> u64 {
    let client = unguarded_client().build().unwrap();
    let text = client.get(format!("{diagnostics}/metrics")).send().await.unwrap().text().await.unwrap();
    let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

/// Asserts that both ports respond, including on a reused connection.
async fn assert_both_ports_respond(program: &ServeProcess, diagnostics: &str) {
    let client = program.client();
    assert!(client.tools().await.unwrap() > 0);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(client.get(path).await, Some(200));
        let diagnostics_client = unguarded_client().build().unwrap();
        assert_eq!(diagnostics_client.get(format!("{diagnostics}{path}")).send().await.unwrap().status().as_u16(), 200);
    }
    assert!(client.tools().await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ports_respond_when_incomplete_requests_use_up_descriptors() {
    let installation = Installation::sqlite().await;
    let (program, diagnostics) = start(&installation).await;
    let incomplete = [
        ("POST /s/demo/mcp HTTP/1.1\r\nHost: localhost\r\n", 0),
        ("POST /s/demo/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{", 0),
        ("", 0),
    ];
    for (request, body) in incomplete {
        let hostile = open_connections(address(&program), HOSTILE_CONNECTIONS, request, body).await;
        assert_both_ports_respond(&program, &diagnostics).await;
        // Connections to the diagnostics port do not block it either.
        let more = open_connections(diagnostics[7..].parse().unwrap(), 100, request, body).await;
        assert_both_ports_respond(&program, &diagnostics).await;
        // The kernel may have dropped connections before the program accepted them. Clients that sent nothing do not
        // notice.
        if !request.is_empty() {
            wait_until_closed(hostile).await;
            wait_until_closed(more).await;
        }
        let closed = async { while metric(&diagnostics, "waypost_connections{port=\"main\"}").await > 2 {} };
        timeout(TIMEOUT, closed).await.expect("the server closes the connections in time");
        assert_both_ports_respond(&program, &diagnostics).await;
    }
    assert!(metric(&diagnostics, "waypost_connections_closed_total{").await > 0);
    assert!(metric(&diagnostics, "waypost_request_bodies_rejected_total{").await > 0);
    program.stop().await;
}

/// With few descriptors, they are exhausted before the connection limit is reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ports_respond_without_free_descriptors() {
    let installation = Installation::sqlite().await;
    let (program, diagnostics) = start_with(&installation, 56).await;
    let request = "POST /s/demo/mcp HTTP/1.1\r\nHost: localhost\r\n";
    let hostile = open_connections(address(&program), 200, request, 0).await;
    assert_both_ports_respond(&program, &diagnostics).await;
    assert!(metric(&diagnostics, "waypost_connections_rejected_total{port=\"main\",limit=\"descriptors\"}").await > 0);
    wait_until_closed(hostile).await;
    assert_both_ports_respond(&program, &diagnostics).await;
    program.stop().await;
}

fn memory_bytes(program: &ServeProcess, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid().as_raw_nonzero())).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_bodies_use_little_memory() {
    let installation = Installation::sqlite().await;
    let (program, diagnostics) = start(&installation).await;
    assert!(program.client().tools().await.unwrap() > 0);
    let before = memory_bytes(&program, "VmRSS:");
    let request = "POST /s/demo/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                   Content-Length: 1048576\r\n\r\n";
    let hostile = open_connections(address(&program), 300, request, 1_048_575).await;
    assert_both_ports_respond(&program, &diagnostics).await;
    wait_until_closed(hostile).await;
    let held = memory_bytes(&program, "VmHWM:") - before;
    assert!(held < MAX_MEMORY, "{held} bytes");
    assert!(metric(&diagnostics, "waypost_request_bodies_rejected_total{reason=\"memory\"}").await > 0);
    program.stop().await;
}

async fn stalled_uploads_do_not_delay_shutdown(installation: Installation) {
    let (mut program, diagnostics) = start(&installation).await;
    let client = program.client();
    assert!(client.tools().await.unwrap() > 0);
    let request = "POST /s/demo/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                   Content-Length: 100000\r\n\r\n";
    let hostile = open_connections(address(&program), 50, request, 50_000).await;
    assert_both_ports_respond(&program, &diagnostics).await;
    let started = Instant::now();
    program.terminate();
    let status = program.exit().await;
    assert!(started.elapsed() < LIMIT, "shutdown took {:?}", started.elapsed());
    let log = program.log();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("\"ERROR\"") && !log.contains("\"WARN\""), "{log}");
    wait_until_closed(hostile).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_uploads_do_not_delay_shutdown_on_sqlite() {
    stalled_uploads_do_not_delay_shutdown(Installation::sqlite().await).await;
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn stalled_uploads_do_not_delay_shutdown_on_postgres() {
        stalled_uploads_do_not_delay_shutdown(Installation::postgres().await).await;
    }
}
