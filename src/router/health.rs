//! `/healthz` and `/readyz`.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use waypost_jobs::{Impact, JobStatus};
use waypost_ops::hosting::Hosting;

/// Timeout of the database check in `/readyz`. Short, because probes have short timeouts.
const READINESS_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the routes of `/healthz`, which reports that the process is running, and `/readyz`, which reports that it can
/// serve requests. Both respond for any host.
pub fn health_routes(hosting: Hosting) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route(
        "/readyz",
        get(move || {
            let hosting = hosting.clone();
            async move {
                match tokio::time::timeout(READINESS_TIMEOUT, hosting.offer_cache().poll()).await {
                    Ok(Ok(())) => readiness(&hosting.jobs().late_jobs()),
                    failed => {
                        let error =
                            failed.err().map_or_else(|| "unavailable".to_owned(), |elapsed| elapsed.to_string());
                        tracing::warn!(%error, "not ready");
                        (StatusCode::SERVICE_UNAVAILABLE, "the database is unavailable\n".to_owned())
                    }
                }
            }
        }),
    )
}

/// Returns the response of `/readyz` while the database is available: 503 if a job that is required for serving is late.
/// Late housekeeping jobs are listed but do not take the process out of service, because that would affect all replicas.
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
