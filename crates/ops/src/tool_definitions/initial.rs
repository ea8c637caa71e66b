//! Initial approvals: when an admin creates an instance, they can approve everything that its server lists at its first check.
//!
//! Invariants:
//! 1. At most one list of definitions is approved: the first one that is stored. The approval is deleted in the transaction
//!    that stores it, even if the list is empty or none of it can be approved. If checks run at the same time, definitions
//!    that are missing from the list that is stored first wait for approval.
//! 2. It applies to the first generation only. It ends after an hour, when the instance fails for the first time, and
//!    with every change to the version, the configuration or the secrets.
//! 3. It applies only if the user or key that gave it may still approve. It is recorded as their approval.
//! 4. It approves only definitions that could be approved individually, and none that an admin has rejected for the
//!    same catalogue version. Definitions of other instances are not changed.

use std::time::Duration;

use futures::{StreamExt, stream};
use waypost_core::access::{Operation, authorize, authorize_operator};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::instance::Instance;
use waypost_core::tool_definition::{ApprovalState, Class, DefinitionKind, ToolDefinition};
use waypost_core::{Result, Timestamp};
use waypost_store::initial_approval::{self as store, DueCheck};
use waypost_store::{Tx, api_key, instance as instances, user};

use super::decision::{check, record_decision};
use super::{fetch, observe};
use crate::Ops;
use crate::instances::requests::within;

/// The maximum number of servers that are checked in one run.
const MAX_DUE: i64 = 64;
/// The maximum number of servers that are checked at the same time.
const CONCURRENT_CHECKS: usize = 16;
/// The time limit of a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// The delay after the first failed check, in milliseconds. Each further failure doubles it.
const RETRY_MS: i64 = 1_000;
/// The maximum delay between two checks, in milliseconds.
const MAX_RETRY_MS: i64 = 60_000;

/// An initial approval that applies to the definitions that are being stored.
pub(super) struct InitialApproval {
    /// The context of the user or key that gave it.
    cx: Ctx,
    class: Class,
}

impl InitialApproval {
    /// Ends the initial approval of an instance, and returns it if it applies to the list that was read from `checked`.
    ///
    /// # Errors
    /// Any error of the store.
    pub(super) async fn consume(cx: &Ctx, tx: &mut Tx, checked: &Instance) -> Result<Option<Self>> {
        let organization = &checked.organization_id;
        let Some(approval) = store::consume(tx, organization, &checked.id).await? else { return Ok(None) };
        let current = instances::find(tx, organization, &checked.id).await?;
        let is_first = |instance: &Instance| instance.generation == 1 && !instance.is_removing;
        let caller = find_caller(tx, organization, &approval.requested_by, cx.now()).await?;
        let reason = match caller {
            _ if !is_first(checked) || !current.as_ref().is_some_and(is_first) => "changed",
            _ if approval.expires_at <= cx.now() => "expired",
            Some(caller) if authorize(&caller, Operation::ToolApprovalWrite, organization).is_ok() => {
                return Ok(Some(Self { cx: cx.with_caller(caller), class: approval.class }));
            }
            _ => "not_authorized",
        };
        tracing::info!(instance = %checked.id, reason, "an initial approval was not applied");
        Ok(None)
    }

    /// Approves a new definition, unless it cannot be approved. Only tools get the class of the approval; instructions,
    /// prompts and resources get `Read`.
    pub(super) fn apply(&self, definition: ToolDefinition) -> ToolDefinition {
        if check(&definition, &definition.digest).is_err() {
            return definition;
        }
        let class = if definition.kind == DefinitionKind::Tool { self.class } else { Class::Read };
        ToolDefinition {
            state: ApprovalState::Approved,
            class: Some(class),
            decided_by: Some(self.cx.caller.actor().to_owned()),
            decided_at: Some(self.cx.now()),
            ..definition
        }
    }

    /// Records an approval in the audit log.
    ///
    /// # Errors
    /// Any error of the store.
    pub(super) async fn record(&self, tx: &mut Tx, definition: &ToolDefinition) -> Result<()> {
        record_decision(&self.cx, tx, definition, "tool_approval.approve").await
    }
}

/// Returns the caller with the current role of `actor`. `None` if the user is no longer a member, or the key has been deleted
/// or has expired.
async fn find_caller(
    tx: &mut Tx,
    organization: &OrganizationId,
    actor: &str,
    now: Timestamp,
) -> Result<Option<Caller>> {
    if actor == Caller::Operator.actor() {
        return Ok(Some(Caller::Operator));
    }
    let role = if let Ok(user) = actor.parse() {
        user::find_member(tx, organization, &user).await?.map(|member| member.role)
    } else if let Ok(key) = actor.parse() {
        let key = api_key::find(tx, organization, &key).await?;
        key.filter(|key| !key.is_expired(now)).map(|key| key.scope)
    } else {
        None
    };
    let member = |role| Caller::Member { organization_id: organization.clone(), role, actor: actor.to_owned() };
    Ok(role.map(member))
}

/// Checks servers in containers that serve calls for the first time and have an initial approval. Remote servers are checked
/// by [`crate::remote_checks`]. Called by a job.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store.
pub async fn check_new(cx: &Ctx, ops: &Ops) -> Result<()> {
    authorize_operator(&cx.caller)?;
    let due = store::list_due(&mut ops.store.read().await?, cx.now(), MAX_DUE).await?;
    let checks = stream::iter(due).map(|due| async move { check_one(cx, ops, &due).await });
    // A check that fails, for example because of the database, does not prevent the others.
    let results: Vec<Result<()>> = checks.buffer_unordered(CONCURRENT_CHECKS).collect().await;
    results.into_iter().collect()
}

async fn check_one(cx: &Ctx, ops: &Ops, due: &DueCheck) -> Result<()> {
    let (organization, id) = (&due.organization_id, &due.instance_id);
    let Some(instance) = instances::find(&mut ops.store.read().await?, organization, id).await? else { return Ok(()) };
    match within(CHECK_TIMEOUT, fetch(ops, &instance, None)).await {
        Ok(listed) => observe(cx, ops, &instance, &listed.definitions).await.map(drop),
        Err(error) => {
            tracing::debug!(instance = %id, %error, "failed to check a new server");
            let mut tx = ops.store.begin().await?;
            store::postpone(&mut tx, organization, id, next_check(cx.now(), due.attempts)).await?;
            Ok(tx.commit().await?)
        }
    }
}

/// Returns the time of the next check after a failed one. `attempts` is the number of checks that failed before it.
fn next_check(now: Timestamp, attempts: u32) -> Timestamp {
    now.plus(RETRY_MS.saturating_mul(1 << attempts.min(16)).min(MAX_RETRY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_checks_are_retried_with_exponential_backoff() {
        let after = |attempts| next_check(Timestamp(0), attempts).0;
        assert_eq!([after(0), after(1), after(5), after(6), after(u32::MAX)], [1_000, 2_000, 32_000, 60_000, 60_000]);
    }
}
