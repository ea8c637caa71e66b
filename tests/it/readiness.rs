//! `/readyz` reports late jobs.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use waypost_jobs::Job;

use crate::app::{App, open};

waypost_testkit::both!(open => readiness_names_late_jobs, writer_recorder_and_offers_are_supervised);

async fn get_readiness(app: &App) -> (u16, String) {
    let response = app.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A job that never succeeds and is late immediately.
fn stuck_job(name: &'static str) -> Job {
    Job { late_after: Duration::ZERO, ..Job::new(name, Duration::from_secs(1)) }
}

/// A late housekeeping job is named but does not make the process unready. A late job that is required for serving
/// does. Stopped jobs are not late.
async fn readiness_names_late_jobs(app: App) {
    assert_eq!(get_readiness(&app).await, (200, "ready\n".to_owned()));
    let jobs = app.jobs();
    jobs.start(stuck_job("packing"), std::future::pending);
    assert_eq!(get_readiness(&app).await, (200, "ready\nlate: packing (no success for 0 s)\n".to_owned()));
    jobs.start(stuck_job("serving").serving(), std::future::pending);
    let (status, text) = get_readiness(&app).await;
    assert_eq!((status, text.lines().next()), (503, Some("not ready")));
    assert!(text.contains("late: packing") && text.contains("late: serving"), "{text}");
    jobs.stop().await;
    assert_eq!(get_readiness(&app).await, (200, "ready\n".to_owned()));
    app.finish().await;
}

/// The jobs of the hosting are registered by name.
async fn writer_recorder_and_offers_are_supervised(app: App) {
    let names: Vec<_> = app.jobs().statuses().iter().map(|status| status.name).collect();
    assert!(["writer", "recorder", "offers"].iter().all(|name| names.contains(name)), "{names:?}");
    app.finish().await;
}
