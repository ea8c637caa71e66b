//! Incomplete heads, idle connections, and connections that must not be treated as idle.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_with_an_incomplete_head_is_closed_after_ten_seconds() {
    assert_eq!(Client::new().closed().await, (String::new(), 10), "nothing was sent");
    let mut client = Client::new();
    client.send("GET / HTTP/1.1\r\nHost").await;
    assert_eq!(client.closed().await, (String::new(), 10));
    let mut client = Client::new();
    client.send("PRI * HTTP/2.0\r\n").await;
    assert_eq!(client.closed().await, (String::new(), 10));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_arrives_byte_by_byte_gets_no_extra_time() {
    let (mut client, since) = (Client::new(), Instant::now());
    while client.0.write_all(b"G").await.is_ok() {
        tokio::time::sleep(SECOND).await;
    }
    assert!((10..=11).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_after_75_seconds() {
    let mut client = Client::new();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("hello").await;
    assert!(client.is_open_after(70 * SECOND).await);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("hello").await;
    assert_eq!(client.closed().await.1, 75);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_head_also_applies_to_later_requests() {
    let mut client = Client::new();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("hello").await;
    assert!(client.is_open_after(30 * SECOND).await);
    client.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(client.closed().await.1, 10);
}

#[tokio::test(start_paused = true)]
async fn connections_that_wait_for_the_server_are_never_closed() {
    let mut client = Client::new();
    client.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.is_open_after(5 * HOUR).await, "a request that is being processed");
    let mut client = Client::new();
    client.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("\r\n\r\n").await;
    assert!(client.is_open_after(5 * HOUR).await, "a stream without events");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_its_response_and_one_that_does_not_read_is_disconnected() {
    for path in ["/large", "/whole"] {
        let mut client = Client::new();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let (mut bytes, mut piece) = (0, [0; PIPE / 2]);
        loop {
            tokio::time::sleep(20 * SECOND).await;
            match client.0.read(&mut piece).await.unwrap() {
                0 => break,
                read => bytes += read,
            }
        }
        assert!(bytes >= LARGE, "{path}: {bytes}");
        let mut client = Client::new();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let since = Instant::now();
        while client.0.write_all(b"G").await.is_ok() {
            tokio::time::sleep(SECOND).await;
        }
        assert!((60..=61).contains(&since.elapsed().as_secs()), "{path}: {:?}", since.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_rejected_with_431() {
    let mut client = Client::new();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: ").await;
    let flood = async {
        let (mut read, mut write) = tokio::io::split(&mut client.0);
        let mut text = String::new();
        let write = async {
            for _ in 0..64 {
                if write.write_all(&[b'a'; 1_024]).await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::join!(write, read.read_to_string(&mut text));
        text
    };
    let text = flood.await;
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn waiting_connections_are_evicted_and_others_are_served() {
    let mut limits = limits();
    (limits.total, limits.per_address) = (20, 15);
    let port = Port::new(limits);
    let mut served = port.open(HERE);
    served.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut hostile = Vec::new();
    for n in 0..1_000_u32 {
        let mut client = port.open(if n % 2 == 0 { HERE } else { THERE });
        client.send("POST /length HTTP/1.1\r\nContent-Length: 9\r\n").await;
        hostile.push(client);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut client = port.open(HERE);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("hello").await;
    assert!(served.is_open_after(SECOND).await);
    assert!(port.connections.0.tasks.0.receiver_count() <= 21);
}
