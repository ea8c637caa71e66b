//! Request bodies on routes that do not read them.

use axum::body::Body;
use http::{Method, Request};
use waypost_core::organization::Role;

use crate::app::App;
use crate::console::create_key;

/// A body over 1 MiB is rejected even if no handler reads it, and before it is stored for an idempotency key.
#[tokio::test]
async fn a_large_body_is_rejected_even_if_nothing_reads_it() {
    let app = App::new().await;
    let org = app.server("acme").await.org.id;
    let key = create_key(&app, &org, Role::Owner).await;
    let undo = || {
        Request::builder()
            .method(Method::POST)
            .uri("/api/v1/joins/joi_0123456789abcdef01234567/undo")
            .header("host", "localhost:8080")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
    };
    let status = async |request: Request<Body>| app.send(request).await.status().as_u16();
    assert_eq!(status(undo().body(vec![b'a'; 1_048_576].into()).unwrap()).await, 404);
    assert_eq!(status(undo().body(vec![b'a'; 1_048_577].into()).unwrap()).await, 413);
    let in_pieces = |count| {
        let pieces = (0..count).map(|_| Ok::<_, std::io::Error>(vec![b'a'; 65_536]));
        Body::from_stream(futures::stream::iter(pieces))
    };
    for (count, expected) in [(16, 404), (17, 413)] {
        let request = undo().header("idempotency-key", format!("undo-{count}")).body(in_pieces(count)).unwrap();
        assert_eq!(status(request).await, expected, "{count} pieces of 64 KiB");
    }
    app.finish().await;
}
