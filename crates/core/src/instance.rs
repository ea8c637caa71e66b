//! Instances: tool servers of an organisation, in containers of a toolbox or elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use waypost_toolbox_proto::entry::Transport;
use waypost_toolbox_proto::instance::{Health, InstanceState};

use crate::agent_secret::PersonalSecret;
use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::id::{CatalogVersionId, InstanceEventId, InstanceId, OrganizationId, ToolSecretId, ToolboxId};
use crate::walkthrough::names;

/// The maximum length of an instance's slug: the public names of its tools contain it.
pub const MAX_SLUG: usize = 24;

names! {
    /// Whether an instance should run.
    DesiredRun {
        /// The server should run.
        Running = "running",
        /// The server should not run.
        Stopped = "stopped",
    }
}

names! {
    /// The owner of the OAuth connection that authorizes requests to a remote server.
    ConnectionMode {
        /// One connection of the organisation, for all agents.
        Shared = "shared",
        /// Each agent has its own connection.
        PerAgent = "per_agent",
    }
}

names! {
    /// The state of an OAuth connection to a remote server.
    ConnectionState {
        /// Requests are authorized.
        Connected = "connected",
        /// The access token has expired. It is refreshed with the next request, if possible.
        Expired = "expired",
        /// The authorization server rejected a refresh. The agent must be connected again.
        Failed = "failed",
    }
}

/// A secret of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// The name that the version declares.
    pub name: String,
    /// The secret.
    pub secret_id: ToolSecretId,
    /// The version of the value that the instance uses or will use.
    pub version: u64,
}

/// The location of an instance's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// In containers of a toolbox.
    Container(Container),
    /// Elsewhere, at a URL.
    Remote(RemoteServer),
}

/// A server in containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The deployed version.
    pub catalog_version_id: CatalogVersionId,
    /// The toolbox.
    pub toolbox_id: ToolboxId,
}

/// A server that is already running elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteServer {
    /// The catalogue version from which the URL was copied; `None` if an admin entered it.
    pub catalog_version_id: Option<CatalogVersionId>,
    /// The transport, which is not [`Transport::Stdio`].
    pub transport: Transport,
    /// The scheme, host and port of the URL. The rest of it can contain credentials.
    pub origin: String,
    /// The URL, sealed to the row.
    pub sealed_url: String,
    /// Whether requests are authorized with OAuth.
    pub is_oauth: bool,
    /// The connection mode. [`ConnectionMode::Shared`] without OAuth.
    pub connection: ConnectionMode,
    /// The client that an admin registered at the authorization server. `None` if Waypost uses its own metadata
    /// document or registers itself.
    pub client: Option<RegisteredClient>,
}

/// A registration of Waypost as an OAuth client, made beforehand at an authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredClient {
    /// The ID of the client.
    pub client_id: String,
    /// The tool secret that contains the client secret. `None` for a public client.
    pub secret_id: Option<ToolSecretId>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The ID.
    pub id: InstanceId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The slug. No two slugs of an organisation are equal or look alike.
    pub slug: String,
    /// The name.
    pub name: String,
    /// The location of its server.
    pub backend: Backend,
    /// Whether the instance should run.
    pub desired: DesiredRun,
    /// The observed state.
    pub state: InstanceState,
    /// The number of the specification, which increases with every deployment.
    pub generation: u64,
    /// The generation of the container that serves calls; 0 before the first one.
    pub observed_generation: u64,
    /// The number of requested restarts.
    pub restarts: u64,
    /// Whether the instance is being removed. Its row is deleted when the toolbox has removed everything.
    pub is_removing: bool,
    /// The last probe.
    pub health: Option<Health>,
    /// The configuration, which satisfies the version's schema.
    pub config: Map<String, Value>,
    /// The secrets, ordered by name.
    pub secrets: Vec<SecretUse>,
    /// The secrets for which each agent supplies its own value, ordered by name. Their names are not in `secrets`.
    pub personal_secrets: Vec<PersonalSecret>,
    /// Whether rejected destinations are recorded.
    pub learn_egress: bool,
    /// Whether arguments and results of calls through the gateway are recorded.
    pub record_contents: bool,
    /// The rejected destinations, as `host:port`, in the order in which they were first seen.
    pub rejected_egress: Vec<String>,
    /// When the instance was created.
    pub created_at: Timestamp,
    /// When it was last changed by a user.
    pub updated_at: Timestamp,
}

impl Instance {
    /// Returns the deployed catalogue version; `None` for a remote server that is not from the catalogue.
    #[must_use]
    pub fn catalog_version_id(&self) -> Option<&CatalogVersionId> {
        match &self.backend {
            Backend::Container(container) => Some(&container.catalog_version_id),
            Backend::Remote(remote) => remote.catalog_version_id.as_ref(),
        }
    }

    /// Returns the toolbox on which the instance runs; `None` for a remote server.
    #[must_use]
    pub fn toolbox_id(&self) -> Option<&ToolboxId> {
        self.container().ok().map(|container| &container.toolbox_id)
    }

    /// Whether each agent needs its own OAuth connection to the server.
    #[must_use]
    pub fn is_connected_per_agent(&self) -> bool {
        match &self.backend {
            Backend::Remote(server) => server.is_oauth && server.connection == ConnectionMode::PerAgent,
            Backend::Container(_) => false,
        }
    }

    /// Returns the details of a server in containers.
    ///
    /// # Errors
    /// `conflict` (`reason` is `remote`) for a remote server.
    pub fn container(&self) -> Result<&Container, Error> {
        match &self.backend {
            Backend::Container(container) => Ok(container),
            Backend::Remote(_) => {
                let message = "This instance is a remote server. It has no container, because Waypost does not run it.";
                Err(Error::new(Code::Conflict, message).with("reason", "remote"))
            }
        }
    }
}

names! {
    /// The kind of an event of an instance.
    InstanceEventKind {
        /// The state has changed.
        State = "state",
        /// A container has exited unexpectedly.
        Crashed = "crashed",
    }
}

/// An event of an instance on its toolbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceEvent {
    /// The ID.
    pub id: InstanceEventId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The kind.
    pub kind: InstanceEventKind,
    /// The human-readable new state or cause of the crash.
    pub message: String,
    /// The time by the toolbox's clock, but not later than the time at which the event was stored.
    pub created_at: Timestamp,
}
