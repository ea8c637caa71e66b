//! Servers that flood standard output.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_flood_slows_down_only_the_server_itself() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let flood = "noise\n".repeat(10_000);
    let started = Instant::now();
    let (answer, ()) = tokio::join!(response(&session, call(1, "")), async {
        let request = fake.read().await;
        (0..20).for_each(|_| fake.write_raw(flood.as_bytes()));
        fake.write(&result(&request, json!({})));
    });
    assert_eq!(answer["id"], 1, "noise is tolerated");
    let delay = started.elapsed().as_secs();
    assert!((1..=20).contains(&delay), "{delay}");
    assert_eq!(session.counters().noise_lines.load(Ordering::Relaxed), 200_000);
    assert_eq!(fixture.log.lines()[0], (LogStream::Stdout, "noise".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_flood_without_a_line_break_slows_down_only_the_server_itself() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let started = Instant::now();
    let (failure, ()) = tokio::join!(status(&session, call(1, ""), TIMEOUT), async {
        fake.read().await;
        let chunk = vec![b'x'; 1024 * 1024];
        (0..30).for_each(|_| fake.write_raw(&chunk));
    });
    assert_eq!(failure, 502);
    let (answer, ()) = tokio::join!(response(&session, call(2, "")), async {
        let request = fake.read().await;
        fake.write_raw(b"\n");
        fake.write(&result(&request, json!({})));
    });
    assert_eq!(answer["id"], 2);
    let delay = started.elapsed().as_secs();
    assert!((19..=21).contains(&delay), "{delay}");
}
