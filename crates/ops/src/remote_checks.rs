//! Checks of remote servers.
//!
//! A new or changed instance is `deploying` until its server has answered and has listed its definitions. After three failed
//! attempts, the instance is `failed`. Later, a check runs every 30 seconds: after three failures the instance is
//! `unhealthy`, and after two successes it is healthy again. A failed instance recovers with its first success.
//!
//! If each agent has its own connection to the server, one of them is used. If the server accepts none of the accounts,
//! this says nothing about the server, so the state of the instance does not change. The same applies if the server
//! requires a scope that the connection does not have, or if its answer is not read because the organisation receives
//! too many large ones.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use serde_json::json;
use tokio::time::Instant;
use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, InstanceId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::{Result, Timestamp};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_store::{Tx, instance as store, remote_server, toolbox};
use waypost_toolbox_proto::instance::{Health, InstanceState};

use crate::Ops;
use crate::deployments::notify::state_changed;
use crate::instances::call::{Call, LIST_KEY};
use crate::instances::containers::ContainerKey;
use crate::instances::requests::within;
use crate::remote_servers::{CONNECT_TIMEOUT, TOO_MANY_LARGE_ANSWERS};
use crate::remote_tokens::{INSUFFICIENT_SCOPE, is_account_error, read_as_any};
use crate::tool_definitions::{fetch, observe};

/// The maximum number of servers that are checked in one run.
const MAX_DUE: i64 = 200;
/// The maximum number of servers that are checked at the same time.
const CONCURRENT_CHECKS: usize = 16;
/// The time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// The delay after the first failed attempt of a new instance. Each further failure doubles it.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The number of consecutive failed checks after which an instance is failed or unhealthy.
const FAILURE_THRESHOLD: u32 = 3;
/// The number of consecutive successful checks after which an unhealthy instance is healthy.
const SUCCESS_THRESHOLD: u32 = 2;

/// Checks the remote servers that are due. Called by a job.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store.
pub async fn check_due(cx: &Ctx, ops: &Ops) -> Result<()> {
    authorize_operator(&cx.caller)?;
    let due = remote_server::list_due(&mut ops.store.read().await?, cx.now(), MAX_DUE).await?;
    let checks = stream::iter(due).map(|(organization, id)| async move { check(cx, ops, &organization, &id).await });
    // A check that fails, for example because of the database, does not prevent the others.
    let results: Vec<Result<()>> = checks.buffer_unordered(CONCURRENT_CHECKS).collect().await;
    results.into_iter().collect()
}

async fn check(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<()> {
    let Some(instance) = store::find(&mut ops.store.read().await?, organization, id).await? else { return Ok(()) };
    let started = Instant::now();
    let outcome = match instance.state {
        InstanceState::Running | InstanceState::Unhealthy => ping(ops, &instance).await,
        _ => connect(cx, ops, &instance).await,
    };
    record(cx, ops, organization, id, (&instance, outcome, started.elapsed())).await
}

/// Connects to a server and stores the definitions that it lists.
async fn connect(cx: &Ctx, ops: &Ops, instance: &Instance) -> Result<()> {
    let listed = within(CONNECT_TIMEOUT, fetch(ops, instance, None)).await?;
    observe(cx, ops, instance, &listed.definitions).await?;
    Ok(())
}

/// Pings a server over the connection that calls use. If each agent has its own connection, tries the next one if the
/// server does not accept an account.
async fn ping(ops: &Ops, instance: &Instance) -> Result<()> {
    read_as_any(ops, instance, |agent| ping_as(ops, instance, agent).boxed()).await
}

async fn ping_as(ops: &Ops, instance: &Instance, agent: Option<AgentId>) -> Result<()> {
    let session = (agent.as_ref(), ClientCapabilities::default());
    let is_modern = within(CONNECT_TIMEOUT, ops.remote_servers.connect(ops, instance, session)).await?.is_modern();
    let method = if is_modern { "server/discover" } else { "ping" };
    let call = Call { ops, instance, container: ContainerKey::new(LIST_KEY.to_owned()), agent };
    within(CONNECT_TIMEOUT, call.request(method, &json!({}), 1024 * 1024)).await?;
    Ok(())
}

/// Records the outcome of a check, unless the instance has been changed in the meantime.
async fn record(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    (checked, outcome, elapsed): (&Instance, Result<()>, Duration),
) -> Result<()> {
    let is_new = matches!(checked.state, InstanceState::Deploying | InstanceState::Failed);
    let is_per_agent = checked.is_connected_per_agent();
    let is_inconclusive = outcome.as_ref().is_err_and(|error| match is_new {
        _ if error.reason() == Some(TOO_MANY_LARGE_ANSWERS) => true,
        // The first connection of a new server has to work.
        true => is_per_agent && error.reason() == Some("not_connected"),
        // A server that requires another scope has answered.
        false if error.reason() == Some(INSUFFICIENT_SCOPE) => true,
        false => is_per_agent && (is_account_error(error) || error.reason() == Some("not_refreshed")),
    });
    let mut tx = ops.store.begin().await?;
    toolbox::lock_organization(&mut tx, organization).await?;
    if is_inconclusive {
        return postpone(cx, tx, checked).await;
    }
    let Some(streak) = remote_server::count_check(&mut tx, checked, outcome.is_ok()).await? else { return Ok(()) };
    let Some(mut instance) = store::find(&mut tx, organization, id).await? else { return Ok(()) };
    let state = next_state(instance.state, outcome.is_ok(), streak);
    let message = outcome.as_ref().err().map(|error| error.message.clone());
    let previous = std::mem::replace(&mut instance.state, state);
    if outcome.is_ok() {
        instance.observed_generation = instance.generation;
    }
    instance.health = Some(Health {
        ok: state == InstanceState::Running,
        checked_at: cx.now().0,
        latency_ms: outcome.is_ok().then(|| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
        message: message.clone(),
    });
    remote_server::update_health(&mut tx, &instance, next_check(cx.now(), state, streak)).await?;
    if state != previous {
        state_changed(cx, &mut tx, &instance, previous, message.as_deref()).await?;
    }
    Ok(tx.commit().await?)
}

/// Postpones the next check of an instance that could not be checked, unless it has been changed in the meantime.
async fn postpone(cx: &Ctx, mut tx: Tx, checked: &Instance) -> Result<()> {
    let current = store::find(&mut tx, &checked.organization_id, &checked.id).await?;
    let same = |current: &Instance| (current.generation, current.restarts) == (checked.generation, checked.restarts);
    if let Some(current) = current.filter(same) {
        remote_server::update_health(&mut tx, &current, next_check(cx.now(), InstanceState::Running, 1)).await?;
    }
    Ok(tx.commit().await?)
}

/// Returns the state after `streak` consecutive checks that have all succeeded, or all failed.
fn next_state(state: InstanceState, succeeded: bool, streak: u32) -> InstanceState {
    match (state, succeeded) {
        (InstanceState::Unhealthy, true) if streak < SUCCESS_THRESHOLD => InstanceState::Unhealthy,
        (_, true) => InstanceState::Running,
        (InstanceState::Running, false) if streak >= FAILURE_THRESHOLD => InstanceState::Unhealthy,
        (InstanceState::Deploying, false) if streak >= FAILURE_THRESHOLD => InstanceState::Failed,
        (state, false) => state,
    }
}

/// Returns the time of the next check.
fn next_check(now: Timestamp, state: InstanceState, streak: u32) -> Timestamp {
    let delay = match state {
        InstanceState::Deploying => RETRY_DELAY * 2_u32.saturating_pow(streak.saturating_sub(1)),
        _ => CHECK_INTERVAL,
    };
    now.plus(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_and_two_successes_change_the_state() {
        use InstanceState::{Deploying, Failed, Running, Unhealthy};
        for (state, succeeded, streak, next) in [
            (Deploying, true, 1, Running),
            (Deploying, false, 1, Deploying),
            (Deploying, false, 2, Deploying),
            (Deploying, false, 3, Failed),
            (Failed, false, 4, Failed),
            (Failed, true, 1, Running),
            (Running, true, 9, Running),
            (Running, false, 2, Running),
            (Running, false, 3, Unhealthy),
            (Unhealthy, false, 4, Unhealthy),
            (Unhealthy, true, 1, Unhealthy),
            (Unhealthy, true, 2, Running),
        ] {
            assert_eq!(next_state(state, succeeded, streak), next, "{state} {succeeded} {streak}");
        }
    }

    #[test]
    fn a_new_server_is_retried_after_one_and_two_seconds() {
        let after = |state, streak| next_check(Timestamp(0), state, streak).0;
        assert_eq!((after(InstanceState::Deploying, 1), after(InstanceState::Deploying, 2)), (1_000, 2_000));
        assert_eq!((after(InstanceState::Failed, 3), after(InstanceState::Running, 1)), (30_000, 30_000));
    }
}
