//! Streams the notifications that a server in a container sends outside of calls, over the link to its toolbox.
//!
//! The daemon manages the subscriptions to resources, because all replicas share one session with the server: a replica
//! must not end a subscription that another one needs. A daemon that does not support the request forwards no
//! notifications.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use http::{Request, header};
use waypost_core::instance::Instance;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::strict::OwnedMessage;
use waypost_store::catalog_version;
use waypost_toolbox_proto::Sharing;
use waypost_toolbox_proto::http::{MAX_MESSAGE_BYTES, NotificationsOpened, NotificationsRequest, notifications_path};

use super::exchange::LinkExchange;
use super::requests::{interrupted, send, within};
use super::server_stream::{Opened, not_supported, rejected};
use crate::Ops;

/// The time in which the toolbox must open the stream, including the server's answers to all subscriptions.
const TIMEOUT: Duration = Duration::from_secs(18);

/// Opens the stream of an instance's server, with subscriptions to these resources. Does not start a container. Returns
/// `None` if the server sends no notifications, or the toolbox does not support the request.
///
/// # Errors
/// `conflict` if no container is running (`reason` is `not_running`), or callers have their own containers (`not_supported`);
/// otherwise those of [`send`].
pub(super) async fn open(ops: &Ops, instance: &Instance, uris: &BTreeSet<String>) -> Result<Option<Opened>> {
    check_sharing(ops, instance).await?;
    let body = serde_json::to_vec(&NotificationsRequest { resources: uris.clone() }).map_err(Error::internal)?;
    let request = Request::post(notifications_path(instance.id.as_str()))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .map_err(Error::internal)?;
    let opening = async {
        let memory = ops.message_memory(&instance.organization_id);
        let mut exchange = LinkExchange::new(send(ops, instance, request).await?, MAX_MESSAGE_BYTES, &memory);
        let first = exchange.next().await?.ok_or_else(interrupted)?;
        let opened: NotificationsOpened = serde_json::from_slice(&first).map_err(|_| interrupted())?;
        Ok((exchange, opened))
    };
    let (exchange, opened) = match within(TIMEOUT, opening).await {
        Ok(opened) => opened,
        // The toolbox does not know the instance or the request, or the server sends no notifications.
        Err(error) if error.reason() == Some("not_deployed") => return Ok(None),
        Err(error) => return Err(error),
    };
    let refused = uris.difference(&opened.accepted).map(|uri| {
        let refusal = opened.rejected.get(uri).map_or_else(not_supported, |message| rejected(message));
        (uri.clone(), refusal)
    });
    let refused: BTreeMap<_, _> = refused.collect();
    let messages = futures::stream::unfold(exchange, |mut exchange| async {
        let text = exchange.next().await.ok().flatten()?;
        Some((OwnedMessage::read(text).ok()?, exchange))
    });
    Ok(Some(Opened { messages: messages.boxed(), refused: Some(refused), can_subscribe: opened.can_subscribe }))
}

/// Checks that all agents use the same container. The toolbox checks it as well.
async fn check_sharing(ops: &Ops, instance: &Instance) -> Result<()> {
    let version = &instance.container()?.catalog_version_id;
    let found = catalog_version::find(&mut ops.store.read().await?, &instance.organization_id, version).await?;
    if found.is_some_and(|version| version.definition.sharing == Sharing::Shared) {
        return Ok(());
    }
    Err(own_container())
}

/// Returns the error for a server with a separate container for each agent or session. Notifications of one container must
/// not reach other agents, and the gateway does not keep a stream to each container.
pub fn own_container() -> Error {
    let message = "This server has a separate container for each agent or session, so resource subscriptions are not \
                   supported. Read the resource again instead.";
    Error::new(Code::Conflict, message).with("reason", "not_supported")
}
