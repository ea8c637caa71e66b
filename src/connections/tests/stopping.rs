//! Shutting down a port.

use super::*;

impl Port {
    /// Starts a graceful shutdown and returns the seconds until all connections are closed.
    async fn shut_down(&self) -> u64 {
        let since = Instant::now();
        self.stop.graceful.cancel();
        self.connections.0.tasks.wait().await;
        since.elapsed().as_secs()
    }
}

#[tokio::test(start_paused = true)]
async fn incomplete_requests_do_not_delay_the_shutdown() {
    let port = Port::new(limits());
    let mut idle = port.open(HERE);
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.read_until("hello").await;
    let mut head = port.open(HERE);
    head.send("GET / HTTP/1.1\r\n").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(port.shut_down().await, 2);

    let port = Port::new(limits());
    let mut uploads = Vec::new();
    for _ in 0..50 {
        let mut client = port.open(HERE);
        client.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx").await;
        uploads.push(client);
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(port.connections.active_count(), 0, "a stalled upload does not count as active");
    assert_eq!(port.shut_down().await, 4, "five seconds after the uploads started");
}

#[tokio::test(start_paused = true)]
async fn open_requests_are_completed_until_the_immediate_shutdown() {
    let port = Port::new(limits());
    let mut upload = port.open(HERE);
    upload.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nx").await;
    let mut never = port.open(HERE);
    never.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(SECOND).await;
    port.stop.graceful.cancel();
    tokio::time::sleep(3 * SECOND).await;
    upload.send("xxx").await;
    assert!(upload.closed().await.0.ends_with('4'));
    assert_eq!(port.connections.active_count(), 1);
    port.stop.immediate.cancel();
    assert_eq!(port.shut_down().await, 0);
}
