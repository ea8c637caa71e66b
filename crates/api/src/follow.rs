//! Responses that stay open (`text/event-stream`).
//!
//! Such a response ends when the client disconnects, the caller loses access, the process stops, or there is nothing
//! more to send. An error that ends it is sent as an event `error` with `code` and `detail`. Comments keep idle
//! connections open.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use futures::stream::unfold;
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};
use waypost_core::caller::Ctx;
use waypost_core::{Code, Error, Result};
use waypost_http_kit::status;
use waypost_ops::follows::Follow;

use crate::Web;
use crate::authenticate::Credentials;
use crate::extract::Scope;

/// The interval at which access is checked.
const CHECK: Duration = Duration::from_secs(3);
/// The interval between comments on an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The source of the events of an open response.
pub(super) trait Source: Send + 'static {
    type Item: Serialize + Send;

    /// Waits for the next item; `None` at the end. Must be cancel-safe.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Item>>> + Send;

    /// Fails if the caller no longer has access.
    fn check(&mut self, cx: Ctx) -> impl Future<Output = Result<()>> + Send;
}

/// Returns an open response with one event per item. The caller must be authorized.
///
/// # Errors
/// `rate_limited` if too many responses are open; the error of `open`.
pub(super) async fn respond<S: Source>(
    web: &Web,
    scope: &Scope,
    credentials: Credentials,
    open: impl Future<Output = Result<S>>,
) -> Result<Response> {
    let follow = Follow::open(web.ops(), &scope.organization_id).await?;
    let source = open.await?;
    let mut checks = interval(CHECK);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    checks.reset();
    let response = OpenResponse { web: web.clone(), credentials, source, checks, is_ended: false, _follow: follow };
    let events = unfold(response, |mut response| async move {
        let event = response.next_event().await?;
        Some((Ok::<_, Infallible>(event), response))
    });
    Ok(event_stream(events))
}

fn event_stream(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Asks reverse proxies not to buffer events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// An open response.
struct OpenResponse<S> {
    web: Web,
    credentials: Credentials,
    source: S,
    checks: Interval,
    is_ended: bool,
    /// Counts the response until it ends.
    _follow: Follow,
}

impl<S: Source> OpenResponse<S> {
    async fn next_event(&mut self) -> Option<Event> {
        let stopped = self.web.ops().links().stopped();
        while !self.is_ended {
            // Checks have priority over events, so that a flood of events cannot delay them.
            let next = tokio::select! {
                biased;
                () = stopped.cancelled() => return None,
                _ = self.checks.tick() => match self.check().await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                next = self.source.next() => next,
            };
            let event = match next {
                Ok(Some(item)) => Event::default().json_data(item).map_err(Error::internal),
                Ok(None) => return None,
                Err(error) => Err(error),
            };
            match event {
                Ok(event) => return Some(event),
                Err(error) => {
                    self.is_ended = true;
                    status::log(&error);
                    let problem = json!({ "code": error.code.as_str(), "detail": error.message });
                    return Event::default().event("error").json_data(problem).ok();
                }
            }
        }
        None
    }

    /// Checks access. If this fails for a temporary or internal reason, the response stays open until the next check.
    async fn check(&mut self) -> Result<()> {
        let checked = match self.credentials.context(&self.web).await {
            Ok(cx) => self.source.check(cx).await,
            Err(error) => Err(error),
        };
        match checked {
            Err(error) if matches!(error.code, Code::Unavailable | Code::Internal) => {
                status::log(&error);
                Ok(())
            }
            checked => checked,
        }
    }
}
