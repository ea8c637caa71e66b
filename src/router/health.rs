//! `/healthz` and `/readyz`.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use waypost_jobs::{Impact, JobStatus};
use waypost_ops::hosting::Hosting;

/// How long the database may take to answer before `/readyz` says no: probes give up soon.
const READY: Duration = Duration::from_secs(1);

/// `/healthz` says that the process runs, `/readyz` that it can serve: both on any host.
pub fn health_routes(hosting: Hosting) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route(
        "/readyz",
        get(move || {
            let hosting = hosting.clone();
            async move {
                match tokio::time::timeout(READY, hosting.offer_cache().poll()).await {
                    Ok(Ok(())) => readiness(&hosting.jobs().late_jobs()),
                    failed => {
                        let error = failed.err().map_or_else(|| "unavailable".to_owned(), |late| late.to_string());
                        tracing::warn!(%error, "not ready");
                        (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n".to_owned())
                    }
                }
            }
        }),
    )
}

/// The answer of `/readyz` while the database answers: 503 if a job is late without which this process cannot serve. A late
/// job of housekeeping is named, but takes no process out of service: it would take out all of them.
fn readiness(late: &[JobStatus]) -> (StatusCode, String) {
    let is_down = late.iter().any(|job| job.impact == Impact::Serving);
    let (status, text) =
        if is_down { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") } else { (StatusCode::OK, "ready\n") };
    let mut text = text.to_owned();
    for job in late {
        text.push_str(&format!("late: {} (no success for {} s)\n", job.name, job.age.as_secs()));
    }
    (status, text)
}
