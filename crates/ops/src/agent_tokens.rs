//! Tokens of agents. The secret is shown once and stored as a hash, like that of an API key.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::agent::{
    Agent, AgentKind, AgentState, AgentToken, INACTIVE_TOKEN_MS, MAX_INACTIVE_TOKENS, MAX_TOKENS,
};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, AgentTokenId, OrganizationId};
use waypost_core::seal::SecretText;
use waypost_core::secret::hash;
use waypost_core::{Clock, Code, Error, Result, Timestamp};
use waypost_store::agent_token::TokenUse;
pub use waypost_store::agent_token::USED_EVERY_MS;
use waypost_store::recorder::RecorderEntry;
use waypost_store::{Db, Tx, agent, agent_token as store, system};

use crate::Ops;
use crate::agents;
use crate::audit::{Entry, record};
use crate::caches::{KnownAgentToken, TOKEN_LIFETIME};
use crate::checks::{check_expiry, check_short_name, conflict_if_deleted, exceeds};
use crate::hosting::Hosting;

/// The prefix of every secret, so that scanners can recognise leaked secrets.
const PREFIX: &str = "wpa_";
/// The number of random bytes in a secret.
const SECRET_BYTES: usize = 32;
/// The maximum length of a secret, in bytes.
const MAX_SECRET: usize = 128;
/// The maximum number of tokens that are deleted in one transaction.
const BATCH_SIZE: u32 = 500;

/// A token to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateAgentToken<'a> {
    /// The name.
    pub name: &'a str,
    /// The expiry. `None` if the token does not expire.
    pub expires_at: Option<Timestamp>,
}

/// The agent that a token authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedAgent {
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The agent.
    pub agent: Agent,
}

/// Creates a token of an agent. Returns it with its secret, which cannot be retrieved again.
///
/// # Errors
/// `not_found` if the agent does not exist or the caller cannot access the organisation; `forbidden` for members below
/// admin; `invalid_arguments` for the name or the expiry; `conflict` if the agent belongs to a person, or has 20 active
/// tokens.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    agent_id: &AgentId,
    new: CreateAgentToken<'_>,
) -> Result<(AgentToken, SecretText)> {
    authorize(&cx.caller, Operation::AgentWrite, organization)?;
    let now = cx.now();
    check_expiry(now, new.expires_at)?;
    let token = AgentToken {
        id: AgentTokenId::new(now, &*cx.random),
        agent_id: agent_id.clone(),
        name: check_short_name(new.name)?,
        created_at: now,
        expires_at: new.expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    let mut bytes = [0_u8; SECRET_BYTES];
    cx.random.fill(&mut bytes);
    let secret = SecretText::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)));
    let mut tx = ops.store.begin().await?;
    let agent = agent::find(&mut tx, organization, agent_id).await?.ok_or_else(agents::not_found)?;
    if agent.kind == AgentKind::Person {
        let message = "People sign in to the gateway themselves. Create an agent for a program, and a token for that.";
        return Err(Error::new(Code::Conflict, message));
    }
    // The insertion locks the change counter, so tokens are counted one after another.
    let inserted = store::insert(&mut tx, organization, &token, &hash(secret.expose())).await;
    inserted.map_err(|error| conflict_if_deleted(error, "The agent"))?;
    if exceeds(store::count_active(&mut tx, organization, agent_id, now).await?, MAX_TOKENS) {
        let message = format!("An agent can have at most {MAX_TOKENS} active tokens. Revoke one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    // Otherwise, rows would accumulate until the retention period ends.
    let keep = u32::try_from(MAX_INACTIVE_TOKENS).unwrap_or(u32::MAX);
    store::delete_surplus(&mut tx, organization, agent_id, now, keep).await?;
    record_operation(cx, &mut tx, organization, &token, "agent_token.create").await?;
    tx.commit().await?;
    Ok((token, secret))
}

/// Revokes a token of an agent. It is rejected everywhere within one second. Succeeds if it is already revoked.
///
/// # Errors
/// `not_found` if the agent or the token does not exist, or the caller cannot access the organisation; `forbidden` for
/// members below admin.
pub async fn revoke(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    agent_id: &AgentId,
    id: &AgentTokenId,
) -> Result<()> {
    authorize(&cx.caller, Operation::AgentWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let found = store::find(&mut tx, organization, agent_id, id).await?;
    let token = found.ok_or_else(|| Error::not_found("token"))?;
    if token.revoked_at.is_none() && store::revoke(&mut tx, organization, agent_id, id, cx.now()).await? {
        record_operation(cx, &mut tx, organization, &token, "agent_token.revoke").await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Returns the agent that the token `secret` authenticates. Returns `None` if the token is unknown, expired or revoked, or
/// its agent is disabled.
///
/// A valid token is cached for one second, which is the longest time for which a revoked token works. The use of a token
/// is recorded at most once a minute, in the background.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn resolve(hosting: &Hosting, secret: &str) -> Result<Option<ResolvedAgent>> {
    if !secret.starts_with(PREFIX) || secret.len() > MAX_SECRET {
        return Ok(None);
    }
    // The lookup uses a hash of 256 random bits, so its timing reveals nothing about the secret.
    let secret_hash = hash(secret);
    let (now, elapsed) = (hosting.clock.now(), hosting.clock.elapsed());
    let known = hosting.agent_tokens.0.get(&secret_hash).filter(|known| is_fresh(known, elapsed));
    let known = match known {
        Some(known) => known,
        None => {
            let found = system::find_agent_token(&mut hosting.read().await?, &secret_hash).await?;
            let Some((token, agent)) = found else { return Ok(None) };
            let known = Arc::new(KnownAgentToken { token, agent, found_at: elapsed });
            if !is_valid(&known, now) {
                return Ok(None);
            }
            hosting.agent_tokens.0.insert(secret_hash, Arc::clone(&known));
            record_use(hosting, &known, now).await;
            known
        }
    };
    let resolved =
        || ResolvedAgent { organization_id: known.agent.organization_id.clone(), agent: known.agent.clone() };
    Ok(is_valid(&known, now).then(resolved))
}

fn is_fresh(known: &KnownAgentToken, elapsed: Duration) -> bool {
    elapsed.saturating_sub(known.found_at) < TOKEN_LIFETIME
}

fn is_valid(known: &KnownAgentToken, now: Timestamp) -> bool {
    known.token.is_active(now) && known.agent.state == AgentState::Active
}

async fn record_use(hosting: &Hosting, known: &KnownAgentToken, now: Timestamp) {
    let is_due = |at: Option<Timestamp>| at.is_none_or(|at| now.since(at) >= USED_EVERY_MS);
    if is_due(known.token.last_used_at) || is_due(known.agent.last_seen_at) {
        let token_use = TokenUse { token_id: Some(known.token.id.clone()), agent_id: known.agent.id.clone(), at: now };
        hosting.recorder.record(RecorderEntry::TokenUse(token_use)).await;
    }
}

/// Deletes the tokens of all organisations that expired or were revoked more than 30 days ago, in small transactions.
/// Returns their number.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn delete_ended(db: &Db, clock: &dyn Clock) -> Result<u64> {
    let before = clock.now().plus(-INACTIVE_TOKEN_MS);
    let mut deleted = 0;
    loop {
        let mut tx = db.begin().await?;
        let rows = store::delete_ended(&mut tx, before, BATCH_SIZE).await?;
        tx.commit().await?;
        deleted += rows;
        if rows < u64::from(BATCH_SIZE) {
            return Ok(deleted);
        }
    }
}

async fn record_operation(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    token: &AgentToken,
    action: &'static str,
) -> Result<()> {
    let detail = json!({
        "agent_id": token.agent_id,
        "name": token.name,
        "expires_at": token.expires_at.map(Timestamp::rfc3339),
    });
    record(cx, tx, organization, Entry { action, target: token.id.as_str(), detail }).await
}
