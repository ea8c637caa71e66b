//! People at the gateway: consent of users of the console, and the access tokens of their clients.
//!
//! Invariants (docs/gateway.md, "People"):
//! 1. Only a member of an organisation can consent to a client for it. For everyone else, a resource of an organisation
//!    that exists cannot be distinguished from one of an organisation that does not exist.
//! 2. A grant belongs to one agent of the kind `person`, one client and one resource. Its tokens are valid for this
//!    resource only; tokens of a hosted server are valid for none.
//! 3. A token is valid while its person is a member of the organisation and the agent is active. This is checked whenever the
//!    token is looked up, at most once a second, and whenever it is refreshed. A membership that ends deletes the agent, so
//!    tokens and grants do not come back with a new membership.
//! 4. The agent is created at the first consent, without grants.

use std::sync::Arc;

use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_user};
use waypost_core::agent::AgentState;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::{OauthGrantId, OrganizationId, UserId};
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_grant::{GrantOwner, OauthGrant};
use waypost_core::organization::Membership;
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::agent_token::{TokenUse, USED_EVERY_MS};
use waypost_store::recorder::RecorderEntry;
use waypost_store::{system, tool_set, user};

use crate::agent_tokens::ResolvedAgent;
use crate::audit::{Entry, record};
use crate::authorizations::not_found;
use crate::caches::{KnownPersonToken, TOKEN_LIFETIME};
use crate::gateway_url::GatewayResource;
use crate::hosting::Hosting;
use crate::oauth_grants::{self, MAX_TOKEN};
use crate::{Ops, agents, user_sessions};

/// A person whose access token was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The agent as which the person acts.
    pub agent: ResolvedAgent,
    /// The only resource for which the token is valid.
    pub resource: GatewayResource,
}

/// A client that a user has connected to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedClient {
    /// The grant.
    pub grant: OauthGrant,
    /// The name of the organisation.
    pub organization: String,
}

/// Returns the membership with which the calling user can use a resource. Returns `None` if the user is not a member of the
/// organisation, or the organisation or the tool set does not exist.
///
/// # Errors
/// `forbidden` if the caller is not a user; `unavailable` if the database cannot be reached.
pub async fn find_membership(cx: &Ctx, ops: &Ops, resource: &GatewayResource) -> Result<Option<Membership>> {
    let memberships = user_sessions::list_memberships(cx, ops).await?;
    let found = memberships.into_iter().find(|own| own.organization.slug == resource.organization());
    let (Some(membership), Some(slug)) = (&found, resource.tool_set()) else { return Ok(found) };
    let mut conn = ops.store.read().await?;
    let tool_set = tool_set::find_by_slug(&mut conn, &membership.organization.id, slug).await?;
    Ok(found.filter(|_| tool_set.is_some()))
}

/// Completes an authorization request of the gateway with the consent of `user`: stores a grant of their agent, which
/// is created if there is none, and returns the grant's code.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation, `user` is not a member of it, or the request is no longer
/// pending; `forbidden` if the agent is disabled; `conflict` if the organisation has 1,000 agents; `rate_limited` if the
/// agent has too many grants that are younger than an hour.
pub async fn issue_code(
    cx: &Ctx,
    ops: &Ops,
    request: &AuthorizationRequest,
    browser: &str,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<String> {
    authorize(&cx.caller, Operation::GatewaySignIn, organization)?;
    if request.issuer_id != IssuerId::Gateway {
        return Err(not_found());
    }
    let mut tx = ops.store.begin().await?;
    oauth_grants::complete(cx, &mut tx, request, browser).await?;
    let is_member = user::lock_member(&mut tx, organization, user).await?;
    let member = user::find_member(&mut tx, organization, user).await?.filter(|_| is_member);
    let member = member.ok_or_else(not_found)?;
    let agent = agents::find_or_create_for_member(cx, &mut tx, organization, &member).await?;
    if agent.state == AgentState::Disabled {
        let message =
            "An admin has disabled your access to the gateway of this organisation. Ask an admin to enable it.";
        return Err(Error::new(Code::Forbidden, message));
    }
    let code = oauth_grants::create(cx, &mut tx, request, organization, GrantOwner::Agent(agent.id)).await?;
    tx.commit().await?;
    Ok(code)
}

/// Completes an authorization request of the gateway without a grant, because the user denied access. The denial is
/// recorded in the audit log of `organization`, of which the user is a member. It is not recorded if `organization` is
/// `None`: users who are not members cannot write to an audit log.
///
/// # Errors
/// `not_found` if the request is no longer pending, or the caller cannot access the organisation.
pub async fn deny(
    cx: &Ctx,
    ops: &Ops,
    request: &AuthorizationRequest,
    browser: &str,
    organization: Option<&OrganizationId>,
) -> Result<()> {
    if let Some(organization) = organization {
        authorize(&cx.caller, Operation::GatewaySignIn, organization)?;
    }
    if request.issuer_id != IssuerId::Gateway {
        return Err(not_found());
    }
    let mut tx = ops.store.begin().await?;
    oauth_grants::complete(cx, &mut tx, request, browser).await?;
    if let Some(organization) = organization {
        let detail = json!({ "client_id": request.client_id, "resource": request.resource });
        let entry = Entry { action: "grant.refuse", target: request.id.as_str(), detail };
        record(cx, &mut tx, organization, entry).await?;
    }
    Ok(tx.commit().await?)
}

/// Returns the person whom an access token of the gateway authenticates. Returns `None` if the token is unknown,
/// expired or revoked, was issued by a hosted server, or its person may no longer use the gateway.
///
/// A valid token is cached for one second, which is the longest time for which a revoked token works.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn authenticate(hosting: &Hosting, token: &str) -> Result<Option<Person>> {
    if token.len() > MAX_TOKEN {
        return Ok(None);
    }
    let token_hash = hash(token);
    let (now, elapsed) = (hosting.clock.now(), hosting.clock.elapsed());
    let cached = hosting.person_tokens.0.get(&token_hash);
    let known = match cached.filter(|known| elapsed.saturating_sub(known.found_at) < TOKEN_LIFETIME) {
        Some(known) => known,
        None => {
            let found = system::find_person_token(&mut hosting.read().await?, &token_hash, now).await?;
            let Some((token, agent)) = found else { return Ok(None) };
            let known = Arc::new(KnownPersonToken { token, agent, found_at: elapsed });
            if known.agent.state == AgentState::Active {
                hosting.person_tokens.0.insert(token_hash, Arc::clone(&known));
                record_use(hosting, &known, now).await;
            }
            known
        }
    };
    let is_valid = now < known.token.expires_at && known.agent.state == AgentState::Active;
    let Some(resource) = GatewayResource::from_url(&known.token.resource).filter(|_| is_valid) else {
        return Ok(None);
    };
    let agent = known.agent.clone();
    let agent = ResolvedAgent { organization_id: agent.organization_id.clone(), agent };
    Ok(Some(Person { agent, resource }))
}

async fn record_use(hosting: &Hosting, known: &KnownPersonToken, now: Timestamp) {
    if known.agent.last_seen_at.is_none_or(|at| now.since(at) >= USED_EVERY_MS) {
        let token_use = TokenUse { token_id: None, agent_id: known.agent.id.clone(), at: now };
        hosting.recorder.record(RecorderEntry::TokenUse(token_use)).await;
    }
}

/// Lists the clients that the calling user has connected to the gateway, in all organisations, newest first.
///
/// # Errors
/// `forbidden` if the caller is not a user.
pub async fn list_clients(cx: &Ctx, ops: &Ops) -> Result<Vec<ConnectedClient>> {
    let user = authorize_user(&cx.caller)?;
    let grants = system::list_person_grants(&mut ops.store.read().await?, user, cx.now()).await?;
    Ok(grants.into_iter().map(|(grant, organization)| ConnectedClient { grant, organization }).collect())
}

/// Disconnects a client of the calling user: revokes its grant with all tokens, which are rejected everywhere within one
/// second.
///
/// # Errors
/// `forbidden` if the caller is not a user; `not_found` if the user has no such client.
pub async fn disconnect_client(cx: &Ctx, ops: &Ops, id: &OauthGrantId) -> Result<()> {
    let user = authorize_user(&cx.caller)?;
    let mut tx = ops.store.begin().await?;
    let grants = system::list_person_grants(&mut tx, user, cx.now()).await?;
    let found = grants.into_iter().find(|(grant, _)| grant.id == *id);
    let (grant, _) = found.ok_or_else(|| Error::not_found("connected application"))?;
    oauth_grants::revoke_grant(cx, &mut tx, &grant, "user").await?;
    Ok(tx.commit().await?)
}
