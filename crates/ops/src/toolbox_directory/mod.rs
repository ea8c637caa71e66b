//! The implementation of [`Directory`]: the data that links to toolboxes read and report.
//!
//! Invariants:
//! 1. An event is applied in the transaction that stores its number, so it is applied exactly once, however often it
//!    arrives. Everything that an event or a heartbeat changes is changed under the lock of its toolbox.
//! 2. A toolbox changes and reads only its own instances.
//! 3. A report about an earlier generation never overwrites the state of a later one.
//! 4. The personal secrets of an agent are sent only for the container with the key of this agent. A request without a key,
//!    or with any other, gets none.

mod events;
mod heartbeat;
mod outcome;
mod refresh;
mod report;
mod secrets;

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{InstanceId, ToolboxId};
use waypost_core::instance::Instance;
use waypost_core::toolbox::Toolbox;
use waypost_core::{Clock, Error, Random, Result};
use waypost_link::{BoxFuture, Directory};
use waypost_store::{Conn, Tx, instance, system, toolbox};
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Rejection, signed_text};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

use crate::Ops;
use crate::deployments::notify;
use crate::instances::load_desired_state;
use crate::link_leases::LinkLeases;
use crate::public_url::PublicUrl;
use crate::toolbox_access::has_toolboxes;
use crate::toolboxes::check_public_key;

pub use refresh::KnownRevisions;

/// The directory of this installation's toolboxes. Cheap to clone.
#[derive(Clone)]
pub struct ToolboxDirectory {
    ops: Ops,
    public_url: PublicUrl,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    leases: Option<LinkLeases>,
}

impl ToolboxDirectory {
    /// Creates the directory of an installation whose daemons connect to `public_url`.
    #[must_use]
    pub fn new(ops: Ops, public_url: PublicUrl, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { ops, public_url, clock, random, leases: None }
    }

    /// Records which replica holds a link.
    #[must_use]
    pub fn with_leases(self, leases: Option<LinkLeases>) -> Self {
        Self { leases, ..self }
    }

    /// Returns the context of changes that a toolbox causes.
    fn context(&self, toolbox: &ToolboxId) -> Ctx {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        Ctx { caller: Caller::Operator, clock, random, request_id: format!("link {toolbox}") }
    }

    /// Returns the revision of the desired state of each toolbox. `None` if it is revoked or deleted, or its join token
    /// was renewed. A process polls this for its open links, so that it notices changes by other processes.
    ///
    /// # Errors
    /// Any error of the store.
    pub async fn list_revisions(&self, toolboxes: &[&ToolboxId]) -> Result<Vec<(ToolboxId, Option<u64>)>> {
        let found = system::list_toolbox_revisions(&mut self.ops.store.read().await?, toolboxes).await?;
        let revision = |id: &ToolboxId| {
            let revision = found.iter().find(|(found, _)| found == id).map(|(_, revision)| *revision);
            (id.clone(), revision.and_then(|revision| u64::try_from(revision).ok()))
        };
        Ok(toolboxes.iter().copied().map(revision).collect())
    }

    async fn find(&self, id: &ToolboxId) -> Result<Option<Toolbox>> {
        let found = system::find_toolbox(&mut self.ops.store.read().await?, id).await?;
        Ok(found.filter(Toolbox::can_connect))
    }

    /// Whether toolboxes are switched on for the installation and for the organisation of a toolbox.
    async fn is_on(&self, conn: &mut Conn, toolbox: &Toolbox) -> Result<bool> {
        Ok(self.ops.is_toolboxes_enabled() && has_toolboxes(conn, &toolbox.organization_id).await?)
    }

    /// Begins a transaction, and locks a toolbox in it.
    ///
    /// # Errors
    /// `not_found` if the toolbox is revoked or deleted, or its join token was renewed.
    async fn begin(&self, id: &ToolboxId) -> Result<(Tx, Toolbox)> {
        let missing = || Error::not_found("toolbox");
        let organization = self.find(id).await?.ok_or_else(missing)?.organization_id;
        let mut tx = self.ops.store.begin().await?;
        let toolbox = toolbox::lock(&mut tx, &organization, id).await?;
        Ok((tx, toolbox.filter(Toolbox::can_connect).ok_or_else(missing)?))
    }

    /// Checks a daemon's answer to a challenge. Returns its toolbox, with the version and the next key of the daemon;
    /// `None` if the answer is not valid.
    async fn verify(&self, challenge: &Challenge, hello: &Hello) -> Result<Option<Toolbox>> {
        // The signature is valid for one origin, so another control plane cannot forward the challenge.
        if !self.public_url.is_main_origin(&hello.origin) {
            return Ok(None);
        }
        let Ok(id) = hello.toolbox_id.parse::<ToolboxId>() else { return Ok(None) };
        let Some(mut toolbox) = self.find(&id).await? else { return Ok(None) };
        let Some(key) = &toolbox.public_key else { return Ok(None) };
        if !is_signed(challenge, hello, key) {
            return Ok(None);
        }
        if let Some(next) = &hello.next_public_key {
            let Some(next) = check_public_key(next) else { return Ok(None) };
            (toolbox.public_key, toolbox.key_rotation_requested_at) = (Some(next.to_owned()), None);
        }
        toolbox.version = Some(notify::clean(&hello.version));
        Ok(Some(toolbox))
    }

    async fn open_link(&self, challenge: &Challenge, hello: &Hello) -> Result<Result<ToolboxId, Rejection>> {
        let Some(toolbox) = self.verify(challenge, hello).await? else { return Ok(Err(Rejection::Unauthorized)) };
        // Only a verified daemon learns which versions this installation accepts.
        if challenge.protocol.negotiate(hello.protocol).is_err() {
            return Ok(Err(Rejection::IncompatibleVersion));
        }
        // The daemon retries, because toolboxes can be switched on again.
        if !self.is_on(&mut self.ops.store.read().await?, &toolbox).await? {
            return Ok(Err(Rejection::Unavailable));
        }
        let (mut tx, current) = match self.begin(&toolbox.id).await {
            Ok(begun) => begun,
            Err(error) if error.code == waypost_core::Code::NotFound => return Ok(Err(Rejection::Unauthorized)),
            Err(error) => return Err(error),
        };
        // A key that was replaced since it was verified is no longer valid.
        if !current.public_key.as_deref().is_some_and(|key| is_signed(challenge, hello, key)) {
            return Ok(Err(Rejection::Unauthorized));
        }
        toolbox::update_link(&mut tx, &toolbox).await?;
        tx.commit().await?;
        Ok(Ok(toolbox.id))
    }

    /// Returns the instance `id` if it belongs to the toolbox.
    async fn find_instance(tx: &mut Tx, toolbox: &Toolbox, id: &str) -> Result<Option<Instance>> {
        let found = match id.parse::<InstanceId>() {
            Ok(id) => instance::find(tx, &toolbox.organization_id, &id).await?,
            Err(_) => None,
        };
        let own = found.filter(|instance| instance.toolbox_id() == Some(&toolbox.id));
        if own.is_none() {
            tracing::warn!(toolbox = %toolbox.id, "ignored a message about an instance that the toolbox does not have");
        }
        Ok(own)
    }
}

/// Whether the answer to a challenge is signed with a key.
fn is_signed(challenge: &Challenge, hello: &Hello, key: &str) -> bool {
    let (Ok(key), Ok(signature)) =
        (BASE64URL_NOPAD.decode(key.as_bytes()), BASE64URL_NOPAD.decode(hello.signature.as_bytes()))
    else {
        return false;
    };
    let text = signed_text(&challenge.nonce, &hello.toolbox_id, &hello.origin, hello.next_public_key.as_deref());
    UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok()
}

impl Directory for ToolboxDirectory {
    fn authenticate<'a>(
        &'a self,
        challenge: &'a Challenge,
        hello: &'a Hello,
    ) -> BoxFuture<'a, Result<ToolboxId, Rejection>> {
        Box::pin(async move {
            self.open_link(challenge, hello).await.unwrap_or_else(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "failed to authenticate a toolbox");
                Err(Rejection::Unavailable)
            })
        })
    }

    fn claim<'a>(&'a self, toolbox: &'a ToolboxId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match &self.leases {
                Some(leases) => leases.claim(toolbox).await,
                None => Ok(()),
            }
        })
    }

    fn release<'a>(&'a self, toolbox: &'a ToolboxId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match &self.leases {
                Some(leases) => leases.release(toolbox).await,
                None => Ok(()),
            }
        })
    }

    fn desired_state<'a>(&'a self, toolbox: &'a ToolboxId) -> BoxFuture<'a, Result<Option<DesiredState>>> {
        Box::pin(async move {
            // A snapshot, so that the revision belongs to exactly these instances.
            let mut tx = self.ops.store.snapshot().await?;
            let found = system::find_toolbox(&mut tx, toolbox).await?;
            match found.filter(Toolbox::can_connect) {
                // Closes a link that was accepted before toolboxes were switched off.
                Some(toolbox) if !self.is_on(&mut tx, &toolbox).await? => Ok(None),
                Some(toolbox) => Ok(Some(load_desired_state(&mut tx, &toolbox).await?)),
                None => Ok(None),
            }
        })
    }

    fn receive<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        message: DaemonMessage,
    ) -> BoxFuture<'a, Result<Option<ControlMessage>>> {
        Box::pin(async move {
            match message {
                DaemonMessage::Heartbeat(heartbeat) => self.receive_heartbeat(toolbox, heartbeat).await,
                DaemonMessage::Event { sequence, at, event } => {
                    self.receive_event(toolbox, events::Numbered { sequence, at, event }).await
                }
                DaemonMessage::SecretRequest { request, instance_id, generation, key } => {
                    let secrets = self.open_secrets(toolbox, &instance_id, (generation, key.as_deref())).await?;
                    Ok(Some(ControlMessage::Secrets { request, secrets }))
                }
            }
        })
    }
}
