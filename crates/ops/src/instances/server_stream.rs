//! The stream on which a server announces that a list or a resource has changed, outside of calls: the stream of a
//! remote server ([`super::remote_stream`]), or of a container that all agents share ([`super::container_stream`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::{Backend, DesiredRun, Instance};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::strict::OwnedMessage;
use waypost_store::instance as store;

use super::container_stream;
pub use super::container_stream::own_container;
use super::remote_stream::{self, RemoteSource};
use crate::Ops;
use crate::deployments::notify::clean;

/// The time for which a replaced stream is still read, because messages on it may still be in transit.
const OVERLAP: Duration = Duration::from_secs(2);

/// An open stream. Dropping it closes it.
pub struct ServerStream {
    source: Source,
    messages: BoxStream<'static, OwnedMessage>,
    /// The resources that the server was asked about.
    requested: BTreeSet<String>,
    /// The requested resources whose changes the server does not announce.
    refused: BTreeMap<String, Error>,
    can_subscribe: bool,
}

enum Source {
    Remote(RemoteSource),
    /// The stream ends with the session of the container.
    Container,
}

/// A stream that has been opened.
pub(super) struct Opened {
    pub(super) messages: BoxStream<'static, OwnedMessage>,
    /// The requested resources whose changes the server does not announce; `None` if opening the stream did not include
    /// subscriptions.
    pub(super) refused: Option<BTreeMap<String, Error>>,
    /// Whether the server declares that it announces changes of single resources.
    pub(super) can_subscribe: bool,
}

impl fmt::Debug for ServerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStream").field("requested", &self.requested.len()).finish_non_exhaustive()
    }
}

/// Returns an instance that is meant to run; `None` if it does not exist, or is stopped.
///
/// # Errors
/// Any error of the store.
pub async fn find_running(ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<Option<Instance>> {
    let found = store::find(&mut ops.store.read().await?, organization, id).await?;
    Ok(found.filter(|instance| instance.desired == DesiredRun::Running))
}

/// Whether the server of an instance can have a stream, as far as the instance shows. It cannot if each agent has its
/// own connection to it or its own secrets, because messages for one agent must not reach another.
#[must_use]
pub fn can_have_stream(instance: &Instance) -> bool {
    !instance.is_connected_per_agent() && instance.personal_secrets.is_empty()
}

/// Whether a server announces changes of single resources. `None` if this is unknown without opening its stream.
#[must_use]
pub fn can_subscribe(ops: &Ops, instance: &Instance) -> Option<bool> {
    match &instance.backend {
        _ if !can_have_stream(instance) => Some(false),
        Backend::Remote(_) => remote_stream::can_subscribe(ops, instance),
        Backend::Container(_) => None,
    }
}

impl ServerStream {
    /// Opens the stream of the server of an instance, with subscriptions to these resources. Connects to a remote
    /// server first if there is no connection; does not start a container. Returns `None` if the server has no such
    /// stream.
    ///
    /// # Errors
    /// `conflict` if no container is running (`reason` is `not_running`), or callers have their own containers
    /// (`not_supported`); `unavailable` or `tool_server_error` if the server or its toolbox cannot be reached.
    pub async fn open(ops: &Ops, instance: &Instance, uris: &BTreeSet<String>) -> Result<Option<Self>> {
        if !can_have_stream(instance) {
            return Ok(None);
        }
        let opened = match &instance.backend {
            Backend::Remote(_) => {
                let opened = remote_stream::open(ops, instance, uris).await?;
                opened.map(|(source, opened)| (Source::Remote(source), opened))
            }
            Backend::Container(_) => {
                container_stream::open(ops, instance, uris).await?.map(|opened| (Source::Container, opened))
            }
        };
        let Some((source, Opened { messages, refused, can_subscribe })) = opened else { return Ok(None) };
        let (requested, is_asked) = (BTreeSet::new(), refused.is_some());
        let mut stream = Self { source, messages, requested, refused: refused.unwrap_or_default(), can_subscribe };
        match is_asked {
            true => stream.requested.clone_from(uris),
            false => Box::pin(stream.change_one_by_one(uris)).await?,
        }
        Ok(Some(stream))
    }

    /// Returns the next message of the server; `None` at the end of the stream. Can be cancelled without losing a message.
    pub async fn next(&mut self) -> Option<OwnedMessage> {
        self.messages.next().await
    }

    /// Whether the server declares that it announces changes of single resources.
    #[must_use]
    pub fn can_subscribe(&self) -> bool {
        self.can_subscribe
    }

    /// Whether calls still use the connection and the session of this stream, as far as this is known before it ends.
    #[must_use]
    pub fn is_current(&self, ops: &Ops, instance: &Instance) -> bool {
        match &self.source {
            Source::Remote(source) => source.is_current(ops, instance),
            Source::Container => true,
        }
    }

    /// Subscribes to exactly these resources. A stream of a remote server with a handshake is kept. Any other is
    /// replaced by a new one, which is opened before the old one is closed. If the server accepts no stream with
    /// additional resources, these are refused, and the old stream is kept, so that one resource does not end the
    /// notifications about the others.
    ///
    /// # Errors
    /// Those of [`Self::open`] if the connection is lost. The stream cannot be used then.
    pub async fn subscribe(&mut self, ops: &Ops, instance: &Instance, uris: &BTreeSet<String>) -> Result<()> {
        if *uris == self.requested {
            return Ok(());
        }
        if matches!(&self.source, Source::Remote(source) if source.has_handshake()) {
            return self.change_one_by_one(uris).await;
        }
        let refusal = match Self::open(ops, instance, uris).await {
            Ok(Some(stream)) => {
                self.replace(stream);
                return Ok(());
            }
            Ok(None) => not_supported(),
            Err(error) => error,
        };
        // `requested` stays the same, so the stream is not replaced again once the refused resources are no longer
        // requested.
        let added = uris.difference(&self.requested);
        self.refused.extend(added.map(|uri| (uri.clone(), refusal.without_cause())));
        Ok(())
    }

    /// Continues with a new stream. For a while, the old one is read as well; a change that is announced on both does
    /// no harm.
    fn replace(&mut self, stream: Self) {
        let old = std::mem::replace(&mut self.messages, stream::empty().boxed());
        let old = old.take_until(tokio::time::sleep(OVERLAP)).boxed();
        // Drops the old stream at its end, which closes it.
        let old = stream::unfold(old, async |mut old| Some((old.next().await?, old)));
        let messages = stream::select(old, stream.messages).boxed();
        *self = Self { messages, ..stream };
    }

    /// Returns the error for a resource whose changes the server does not announce.
    #[must_use]
    pub fn refusal(&self, uri: &str) -> Option<Error> {
        self.refused.get(uri).map(Error::without_cause)
    }

    /// Subscribes and unsubscribes one by one ("Resources", "Subscriptions").
    async fn change_one_by_one(&mut self, uris: &BTreeSet<String>) -> Result<()> {
        let Source::Remote(source) = &self.source else { return Ok(()) };
        for uri in self.requested.difference(uris) {
            if self.refused.remove(uri).is_none() {
                source.unsubscribe(uri).await?;
            }
        }
        for uri in uris.difference(&self.requested) {
            let refusal = source.subscribe(uri).await?;
            self.refused.extend(refusal.map(|refusal| (uri.clone(), refusal)));
        }
        self.requested.clone_from(uris);
        Ok(())
    }
}

/// Returns the error for a subscription that the server has rejected with this message.
pub(super) fn rejected(message: &str) -> Error {
    let message = format!("The server rejected the subscription: {}", clean(message));
    Error::new(Code::ToolServerError, message).with("reason", "server_error")
}

pub(super) fn not_supported() -> Error {
    Error::new(Code::Conflict, "The server does not announce changes of this resource.").with("reason", "not_supported")
}
