//! Request bodies that stall, arrive slowly, or use too much memory.

use super::*;

fn post(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_rejected_after_five_seconds() {
    for sent in [0, 100_000] {
        let mut client = Client::new();
        client.send(post("/length", 1_000_000)).await;
        client.send(vec![b'x'; sent]).await;
        let (text, seconds) = client.closed().await;
        assert!(text.starts_with("HTTP/1.1 408") && text.contains("connection: close"), "{text}");
        assert_eq!(seconds, 5, "after {sent} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_accepted_if_it_makes_progress() {
    let mut client = Client::new();
    client.send(post("/length", 120_000)).await;
    for _ in 0..100 {
        client.send([b'x'; 1_200]).await;
        tokio::time::sleep(SECOND).await;
    }
    let text = client.read_until("120000").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_body_without_enough_progress_is_rejected() {
    let mut client = Client::new();
    client.send(post("/length", 120_000)).await;
    let since = Instant::now();
    while client.0.write_all(&[b'x'; 500]).await.is_ok() {
        tokio::time::sleep(SECOND).await;
    }
    // The body falls behind by half a second per second.
    assert!((9..=11).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    let mut client = Client::new();
    client.send("POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    while client.0.write_all(b"1\r\nx\r\n").await.is_ok() {
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(client.closed().await.0.starts_with("HTTP/1.1 408"));
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_does_not_keep_the_connection_open() {
    let mut client = Client::new();
    client.send(post("/ignore", 1_000_000)).await;
    let (text, seconds) = client.closed().await;
    assert!(text.contains("ignored"), "{text}");
    assert!(seconds <= 10, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn incomplete_bodies_stay_within_the_budget_and_small_requests_are_served() {
    let mut limits = limits();
    limits.body_memory = 256 * 1_024;
    let port = Port::new(limits);
    let mut hostile = Vec::new();
    for _ in 0..40 {
        let mut client = port.open(HERE);
        client.send(post("/length", 1_000_000)).await;
        client.send([b'x'; PIPE]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let held = port.connections.0.budget.used_bytes();
        assert!(held <= 256 * 1_024, "{held}");
        hostile.push(client);
    }
    let mut client = port.open(HERE);
    client.send(post("/length", 2_000)).await;
    client.send([b'x'; 1_000]).await;
    tokio::time::sleep(SECOND).await;
    client.send([b'x'; 1_000]).await;
    client.read_until("2000").await;
    let mut evicted = 0;
    for client in &mut hostile {
        let (text, _) = client.closed().await;
        match text.split(' ').nth(1) {
            Some("503") => {
                assert!(text.contains("retry-after: 1"), "{text}");
                evicted += 1;
            }
            status => assert_eq!(status, Some("408"), "{text}"),
        }
    }
    assert!((25..=30).contains(&evicted), "{evicted} of 40 bodies of 16 KiB were evicted from 256 KiB");
    drop((client, hostile));
    tokio::time::sleep(SECOND).await;
    assert_eq!(port.connections.0.budget.used_bytes(), 0);
}
