//! The counters of rejected connections and bodies.

use metrics_exporter_prometheus::PrometheusBuilder;

use tokio::net::{TcpListener, TcpStream};

use super::*;

#[tokio::test(start_paused = true)]
async fn closed_connections_and_rejected_bodies_are_counted_by_reason() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let mut limits = limits();
    (limits.total, limits.body_memory) = (3, 10_000);
    let port = Port::new(limits);

    port.open(HERE).closed().await;
    let mut idle = port.open(HERE);
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.closed().await;
    let mut unread = port.open(HERE);
    unread.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(100 * SECOND).await;
    drop(unread);
    let mut first = port.open(HERE);
    let others = [port.open(HERE), port.open(HERE), port.open(HERE)];
    first.closed().await;
    drop(others);
    let mut large = port.open(HERE);
    // The connection may be closed before everything is sent.
    let _ =
        large.0.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}", "a".repeat(3 * PIPE)).as_bytes()).await;
    large.closed().await;
    let mut stalled = port.open(HERE);
    stalled.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx").await;
    stalled.closed().await;
    let mut greedy = port.open(HERE);
    greedy.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n").await;
    greedy.send([b'x'; 12_000]).await;
    greedy.closed().await;

    let text = recorder.handle().render();
    for reason in ["header_timeout", "idle", "response_timeout", "evicted", "header_size"] {
        let line = format!(r#"waypost_connections_closed_total{{port="main",reason="{reason}"}} 1"#);
        assert!(text.contains(&line), "{line}\n{text}");
    }
    for reason in ["timeout", "memory"] {
        let line = format!(r#"waypost_request_bodies_rejected_total{{reason="{reason}"}} 1"#);
        assert!(text.contains(&line), "{line}\n{text}");
    }
    assert!(text.contains(r#"waypost_connections{port="main"} 0"#), "{text}");
}

#[tokio::test]
async fn a_connection_above_the_limit_gets_a_response_and_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    for (total, per_address, status) in [(1, 0, "503"), (0, 1, "429")] {
        let limits = ConnectionLimits { total, per_address, ..limits() };
        let stop = Shutdown::default();
        let connections = Connections::new(limits, stop.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { connections.serve(listener, router()).await });
        let mut served = TcpStream::connect(address).await.unwrap();
        served.write_all(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'H', "the request is being served");
        let mut rejected = String::new();
        TcpStream::connect(address).await.unwrap().read_to_string(&mut rejected).await.unwrap();
        assert!(rejected.starts_with(&format!("HTTP/1.1 {status} ")), "{rejected}");
        assert!(rejected.contains("Retry-After: "), "{rejected}");
        stop.immediate.cancel();
        stop.graceful.cancel();
        server.await.unwrap();
    }
    let text = recorder.handle().render();
    for limit in ["total", "address"] {
        let line = format!(r#"waypost_connections_rejected_total{{port="main",limit="{limit}"}} 1"#);
        assert!(text.contains(&line), "{line}\n{text}");
    }
}
