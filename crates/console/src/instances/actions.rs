//! Start, stop, restart and removal.

use axum::extract::State;
use waypost_ops::instances;

use super::InstanceContext;
use super::overview::render_with_error;
use crate::Console;
use crate::view::{self, PageResult};

/// Redirects to the overview, or renders it with the error.
async fn finish<T>(
    console: &Console,
    at: InstanceContext,
    result: waypost_core::Result<T>,
    message: &str,
) -> PageResult {
    match result {
        Ok(_) => Ok(view::redirect_with_flash(&at.path(""), message)),
        Err(error) => render_with_error(console, at, error).await,
    }
}

pub(super) async fn start(State(console): State<Console>, at: InstanceContext) -> PageResult {
    let started = instances::start(&at.cx, console.ops(), &at.organization_id, at.id()).await;
    finish(&console, at, started, "Starting the instance.").await
}

pub(super) async fn stop(State(console): State<Console>, at: InstanceContext) -> PageResult {
    let stopped = instances::stop(&at.cx, console.ops(), &at.organization_id, at.id()).await;
    finish(&console, at, stopped, "Stopping the instance. Its server has 30 seconds to exit.").await
}

pub(super) async fn restart(State(console): State<Console>, at: InstanceContext) -> PageResult {
    let restarted = instances::restart(&at.cx, console.ops(), &at.organization_id, at.id()).await;
    finish(&console, at, restarted, "Restarting the instance.").await
}

pub(super) async fn delete(State(console): State<Console>, at: InstanceContext) -> PageResult {
    match instances::delete(&at.cx, console.ops(), &at.organization_id, at.id()).await {
        Ok(()) => {
            let message = "Removing the instance. It disappears from the list when its toolbox has removed everything.";
            Ok(view::redirect_with_flash(&at.org.path("instances"), message))
        }
        Err(error) => render_with_error(&console, at, error).await,
    }
}
