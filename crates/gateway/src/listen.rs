//! Streams that notify agents of changes to what they see and to resources to which they are subscribed: GET in the
//! revisions with a handshake ("Listening for Messages from the Server"), and `subscriptions/listen` in 2026-07-28
//! ("Subscriptions").
//!
//! A stream compares digests of what the agent sees. They are computed from the access cache, which queries the
//! database once per organisation, not once per stream. The agent's token is checked again before each notification,
//! and every [`CHECK_INTERVAL`].

use std::collections::HashSet;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_core::caller::Ctx;
use waypost_core::id::InstanceId;
use waypost_core::tool_definition::DefinitionKind;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::strict::Message;
use waypost_mcp_wire::{INVALID_PARAMS, JsonRpcError};
use waypost_ops::agent_tokens::ResolvedAgent;
use waypost_ops::tool_access::{AgentAccess, ToolAccessCache};
use waypost_ops::visibility::View;

use crate::session::Session;
use crate::session_subscriptions::SessionUse;
use crate::slots::{MAX_SUBSCRIPTIONS, Slot};
use crate::subscribe::MAX_URI;
use crate::subscriptions::{Mailbox, Subscription};
use crate::{Gateway, GatewayAddress, reply};

/// The method that opens a stream (2026-07-28).
pub(crate) const METHOD: &str = "subscriptions/listen";
/// The interval at which a stream looks for changes.
const INTERVAL: Duration = Duration::from_millis(500);
/// The interval at which the agent's token and the expiry of its grants are checked, and a comment is sent so that no
/// proxy closes the idle connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The member of `_meta` with the ID of the request that opened the stream.
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// Checks whether the token of an agent is still valid. An error means that the database cannot be queried.
pub type TokenCheck = Arc<dyn Fn() -> BoxFuture<'static, Result<bool>> + Send + Sync>;

/// The lists whose changes are announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filter {
    tools: bool,
    prompts: bool,
    resources: bool,
}

/// Digests of the lists that an agent sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    tools: u64,
    prompts: u64,
    resources: u64,
}

impl Seen {
    fn new(view: View<'_>) -> Self {
        let digest = |kinds: &[DefinitionKind]| {
            let mut hasher = DefaultHasher::new();
            for item in kinds.iter().flat_map(|kind| view.items(*kind)) {
                (item.public, &item.definition.digest, item.description).hash(&mut hasher);
            }
            hasher.finish()
        };
        Self {
            tools: digest(&[DefinitionKind::Tool]),
            prompts: digest(&[DefinitionKind::Prompt]),
            resources: digest(&[DefinitionKind::Resource, DefinitionKind::ResourceTemplate]),
        }
    }

    /// Returns the methods of the notifications about what has changed since `earlier`.
    fn changes(self, earlier: Self, filter: Filter) -> impl Iterator<Item = &'static str> {
        let lists = [
            (filter.tools && self.tools != earlier.tools, "notifications/tools/list_changed"),
            (filter.prompts && self.prompts != earlier.prompts, "notifications/prompts/list_changed"),
            (filter.resources && self.resources != earlier.resources, "notifications/resources/list_changed"),
        ];
        lists.into_iter().filter(|(is_changed, _)| *is_changed).map(|(_, method)| method)
    }
}

/// An open stream.
struct Listener {
    access: Arc<ToolAccessCache>,
    cx: Ctx,
    caller: ResolvedAgent,
    address: GatewayAddress,
    is_valid: TokenCheck,
    stop: CancellationToken,
    /// The agent's access when the stream last checked it.
    looked_at: AgentAccess,
    /// The ID of the request as the agent wrote it; `None` for GET.
    raw_id: Option<String>,
    filter: Filter,
    seen: Seen,
    checked_at: Instant,
    resources: Resources,
    _slot: Slot,
}

/// The request with which a stream is opened.
#[derive(Clone, Copy)]
pub(crate) enum Opening<'a> {
    /// With GET, in a session if there is one.
    Get(Option<&'a Session>),
    /// With this request of 2026-07-28.
    Listen(&'a Message<'a>),
}

/// The resources to which a stream is subscribed.
struct Resources {
    mailbox: Arc<Mailbox>,
    /// The subscriptions of the stream itself (2026-07-28).
    own: Vec<Subscription>,
    /// Keeps the subscriptions of the stream's session in use as long as the stream exists.
    _session: Option<SessionUse>,
}

/// The notifications that a request asks for.
struct ListenParams {
    filter: Filter,
    /// The URIs of resources, without duplicates.
    uris: Vec<String>,
}

impl Gateway {
    /// Opens a stream.
    ///
    /// # Errors
    /// Those of [`ToolAccessCache::find`]; `not_found` if the address is not the agent's; `rate_limited` if there are too many
    /// subscriptions.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        (caller, address): (&ResolvedAgent, &GatewayAddress),
        is_valid: TokenCheck,
        opening: Opening<'_>,
    ) -> Result<Response> {
        let (request, session) = match opening {
            Opening::Get(session) => (None, session),
            Opening::Listen(request) => (Some(request), None),
        };
        let params = match request.map(|request| request.params.notifications.map(ListenParams::parse)) {
            None => ListenParams { filter: Filter { tools: true, prompts: true, resources: true }, uris: Vec::new() },
            Some(Some(Some(params))) => params,
            Some(_) => {
                let text = format!(
                    "Invalid params: `notifications` is missing or malformed. It can name up to {MAX_SUBSCRIPTIONS} \
                     resources, each with a URI of at most {MAX_URI} bytes."
                );
                let error = JsonRpcError::new(INVALID_PARAMS, text, request.and_then(Message::id));
                return Ok(reply::rejection(&error, true));
            }
        };
        let slot = match self.streams.acquire(&caller.organization_id, &caller.agent.id) {
            Ok(slot) => slot,
            Err(limit) => return Ok(reply::too_many_streams(request, limit)),
        };
        if let Some(request) = request.filter(|_| !params.uris.is_empty())
            && let Err(wait) = self.quota.check(&caller.agent.id)
        {
            return Ok(reply::quota_exceeded(request, wait));
        }
        let session = session.map(|session| self.session_subscriptions.enter(session));
        let mailbox = session.as_ref().map(|session| Arc::clone(session.mailbox())).unwrap_or_default();
        let own = self.subscribe_all((caller, address), &params.uris, &mailbox).await?;
        let access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        let tool_set = address.tool_set(&access).ok_or_else(|| Error::not_found("tool set"))?;
        let seen = Seen::new(View::new(&access, tool_set, self.cx.now()));
        let listener = Listener {
            access: Arc::clone(&self.access),
            cx: self.cx.clone(),
            caller: caller.clone(),
            address: address.clone(),
            is_valid,
            stop: self.stop.clone(),
            raw_id: request.and_then(|request| request.raw_id).map(str::to_owned),
            filter: params.filter,
            seen,
            looked_at: access,
            checked_at: Instant::now(),
            resources: Resources { mailbox, own, _session: session },
            _slot: slot,
        };
        let first = listener.opening();
        let events = stream::unfold(Some((listener, Some(first))), |state| async move {
            let (mut listener, ready) = state?;
            match ready {
                Some(ready) => Some((Ok::<_, Infallible>(ready), Some((listener, None)))),
                None => match listener.next().await {
                    Some(text) => Some((Ok(text), Some((listener, None)))),
                    None => listener.closing().map(|text| (Ok(text), None)),
                },
            }
        });
        Ok(reply::stream(Body::from_stream(events)))
    }
}

impl Listener {
    /// Returns the first bytes: the acknowledgement, or a comment, so that the agent knows at once that the stream is open.
    fn opening(&self) -> Bytes {
        if self.raw_id.is_none() {
            return Bytes::from_static(b": open\n\n");
        }
        let Filter { tools, prompts, resources } = self.filter;
        let accepted =
            [("toolsListChanged", tools), ("promptsListChanged", prompts), ("resourcesListChanged", resources)];
        let accepted = accepted.into_iter().filter(|(_, is_accepted)| *is_accepted);
        let mut accepted: Value =
            accepted.map(|(name, _)| (name.to_owned(), Value::Bool(true))).collect::<serde_json::Map<_, _>>().into();
        if !self.resources.own.is_empty() {
            accepted["resourceSubscriptions"] = self.resources.own.iter().map(Subscription::public).collect();
        }
        self.notification("notifications/subscriptions/acknowledged", Some(("notifications", accepted)))
    }

    /// Returns the last bytes: the result of the request.
    fn closing(&self) -> Option<Bytes> {
        let id = self.raw_id.as_ref()?;
        let meta = json!({ "io.modelcontextprotocol/serverInfo": reply::server_info() });
        let result = json!({ "resultType": "complete", "_meta": meta });
        Some(reply::event(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).as_bytes()))
    }

    fn notification(&self, method: &str, member: Option<(&str, Value)>) -> Bytes {
        let mut params = serde_json::Map::new();
        params.extend(member.map(|(name, value)| (name.to_owned(), value)));
        // As JSON, because the ID can be a string or a number.
        if let Some(id) = self.raw_id.as_ref().and_then(|id| serde_json::from_str::<Value>(id).ok()) {
            params.insert("_meta".to_owned(), json!({ SUBSCRIPTION_ID: id }));
        }
        let mut message = json!({ "jsonrpc": "2.0", "method": method });
        if !params.is_empty() {
            message["params"] = params.into();
        }
        reply::event(message.to_string().as_bytes())
    }

    /// Waits for the next bytes. Returns `None` if the stream has to end: the agent's token is no longer valid, the
    /// address is no longer the agent's, the gateway is switched off for the organisation, or the program stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let is_due = self.checked_at.elapsed() >= CHECK_INTERVAL;
            let seen = match self.look(is_due).await {
                Ok(Some(seen)) => seen,
                Ok(None) => return None,
                Err(error) if matches!(error.code, Code::NotFound | Code::Forbidden) => return None,
                // Tries again at the next interval.
                Err(_) => continue,
            };
            if seen == self.seen && !is_due && self.resources.mailbox.is_empty() {
                continue;
            }
            match (self.is_valid)().await {
                Ok(true) => self.checked_at = Instant::now(),
                Ok(false) => return None,
                Err(_) => continue,
            }
            let mut changes: Vec<u8> =
                seen.changes(self.seen, self.filter).flat_map(|method| self.notification(method, None)).collect();
            changes.extend(self.updates());
            self.seen = seen;
            if !changes.is_empty() {
                return Some(changes.into());
            }
            if is_due {
                return Some(Bytes::from_static(b": idle\n\n"));
            }
        }
    }

    /// Returns the notifications about the resources that have changed, if the agent may still read them.
    fn updates(&self) -> Vec<u8> {
        let Some(tool_set) = self.address.tool_set(&self.looked_at) else { return Vec::new() };
        let view = View::new(&self.looked_at, tool_set, self.cx.now());
        let changed = self.resources.mailbox.take();
        let is_allowed = |(instance, uri): &(InstanceId, String)| {
            view.find_resource(uri).is_some_and(|found| found.server.instance.id == *instance)
        };
        let allowed = changed.into_iter().filter(is_allowed);
        let notification =
            |(_, uri)| self.notification("notifications/resources/updated", Some(("uri", Value::String(uri))));
        allowed.flat_map(notification).collect()
    }

    /// Returns digests of what the agent sees at present; `None` if the address is not the agent's. If nothing was
    /// loaded since the last time, they are computed only if `is_due`, because a grant may have expired.
    async fn look(&mut self, is_due: bool) -> Result<Option<Seen>> {
        let access = self.access.find(&self.caller.organization_id, &self.caller.agent.id).await?;
        let is_same =
            Arc::ptr_eq(&access.access, &self.looked_at.access) && Arc::ptr_eq(&access.grants, &self.looked_at.grants);
        if is_same && !is_due {
            return Ok(Some(self.seen));
        }
        let Some(tool_set) = self.address.tool_set(&access) else { return Ok(None) };
        let seen = Seen::new(View::new(&access, tool_set, self.cx.now()));
        self.looked_at = access;
        Ok(Some(seen))
    }
}

impl ListenParams {
    /// Parses the `notifications` of a request. Returns `None` if they are malformed.
    fn parse(raw: &str) -> Option<Self> {
        let filter: Value = serde_json::from_str(raw).ok()?;
        let filter = filter.as_object()?;
        let is_set =
            |name: &str| filter.get(name).is_none_or(Value::is_boolean).then(|| filter.get(name) == Some(&json!(true)));
        let uris = match filter.get("resourceSubscriptions") {
            None => Vec::new(),
            Some(uris) => uris.as_array().filter(|uris| uris.len() <= MAX_SUBSCRIPTIONS)?.clone(),
        };
        let uris: Option<Vec<String>> = uris.iter().map(|uri| uri.as_str().map(str::to_owned)).collect();
        let mut uris = uris.filter(|uris| uris.iter().all(|uri| uri.len() <= MAX_URI))?;
        let mut known = HashSet::new();
        uris.retain(|uri| known.insert(uri.clone()));
        let (tools, prompts) = (is_set("toolsListChanged")?, is_set("promptsListChanged")?);
        Some(Self { filter: Filter { tools, prompts, resources: is_set("resourcesListChanged")? }, uris })
    }
}
