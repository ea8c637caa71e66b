//! The catalogue: tool servers that an organisation can deploy, with their versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
pub use waypost_toolbox_proto::entry::{
    Destination, ResourceClass, SecretDelivery, SecretSpec, Sharing, Transport, Volume,
};

use crate::clock::Timestamp;
use crate::id::{CatalogEntryId, CatalogVersionId, OrganizationId};
use crate::walkthrough::names;

/// The maximum number of entries of an organisation.
pub const MAX_ENTRIES: usize = 500;
/// The maximum number of versions of an entry.
pub const MAX_VERSIONS: usize = 200;

names! {
    /// The state of a catalogue entry.
    CatalogEntryState {
        /// Being prepared.
        Draft = "draft",
        /// Waiting for a review.
        Review = "review",
        /// Can be deployed.
        Published = "published",
        /// Can be deployed, but should not be.
        Deprecated = "deprecated",
        /// Cannot be deployed. Existing instances continue to run.
        Archived = "archived",
    }
}

/// A catalogue entry.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogEntry {
    /// The ID.
    pub id: CatalogEntryId,
    /// The organisation that owns the entry.
    pub organization_id: OrganizationId,
    /// The slug, unique in the organisation.
    pub slug: String,
    /// The name.
    pub name: String,
    /// The description; may be empty.
    pub description: String,
    /// The categories.
    pub categories: Vec<String>,
    /// The licence, as an SPDX expression.
    pub license: Option<String>,
    /// The URL of the documentation.
    pub documentation_url: Option<String>,
    /// The state.
    pub state: CatalogEntryState,
    /// The versions, newest first.
    pub versions: Vec<CatalogVersion>,
    /// The number of instances of all versions.
    pub deployments: u64,
    /// When the entry was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A version of a catalogue entry. It is immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogVersion {
    /// The ID.
    pub id: CatalogVersionId,
    /// The organisation that owns the entry.
    pub organization_id: OrganizationId,
    /// The entry.
    pub catalog_entry_id: CatalogEntryId,
    /// The version, such as `1.2.0`, unique within the entry.
    pub version: String,
    /// How the server runs.
    pub definition: VersionDefinition,
    /// The URL of a remote source, sealed to the row; `None` for every other source.
    pub sealed_url: Option<String>,
    /// When the version was imported.
    pub created_at: Timestamp,
}

/// How the server of a version runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionDefinition {
    /// Where the server comes from.
    pub source: Source,
    /// The tag of the image that was resolved to the digest in `source`. `None` if the import contained the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// The transport.
    pub transport: Transport,
    /// The command, which replaces the entry point of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The arguments of the entry point. `${config.NAME}` stands for a member of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// The port of a server that is reached over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path of a server that is reached over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The JSON Schema of the configuration.
    #[serde(default)]
    pub config_schema: Map<String, Value>,
    /// The secrets that the server needs.
    #[serde(default)]
    pub secrets: Vec<SecretSpec>,
    /// The name of the organisation's secret with the credentials of the registry, as `USERNAME:PASSWORD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_secret: Option<String>,
    /// The resource class.
    #[serde(default = "medium")]
    pub resources: ResourceClass,
    /// The destinations that the server may connect to.
    #[serde(default)]
    pub egress: Vec<Destination>,
    /// The volumes.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// The callers that share a container.
    #[serde(default = "shared")]
    pub sharing: Sharing,
    /// Whether the container starts only when it is first called.
    #[serde(default)]
    pub lazy: bool,
    /// The time without a call after which a container is stopped, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// The age at which a container is replaced, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_seconds: Option<u64>,
}

impl VersionDefinition {
    /// Whether the server is already running elsewhere, so that it has no container.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.source, Source::Remote(_))
    }
}

fn medium() -> ResourceClass {
    ResourceClass::Medium
}

fn shared() -> Sharing {
    Sharing::Shared
}

/// Where a server comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A container image by digest, `host/name@sha256:…`. In an import, a tag is allowed instead, which is resolved
    /// once.
    Image(String),
    /// A package of a registry, from which an image is built.
    Package(PackageSource),
    /// A server that is already running elsewhere.
    Remote(RemoteSource),
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSource {
    /// The registry: `npm` or `pypi`.
    pub registry: String,
    /// The name.
    pub name: String,
    /// The exact version.
    pub version: String,
    /// The digest of the package.
    #[serde(default)]
    pub integrity: Option<String>,
}

/// A remote server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteSource {
    /// The scheme, host and port of the URL. The rest of the URL can contain credentials, so the complete URL is stored
    /// in [`CatalogVersion::sealed_url`].
    pub origin: String,
    /// The transport, which is not [`Transport::Stdio`].
    pub transport: Transport,
    /// The headers to send, by name. Their values are not secret. `${config.NAME}` stands for a member of the
    /// configuration.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Returns the name of the environment variable that a top-level member of an instance's configuration sets: in upper
/// case, with `_` for every character outside `[A-Z0-9_]`.
#[must_use]
pub fn environment_name(member: &str) -> String {
    let to_name = |letter: char| match letter.to_ascii_uppercase() {
        upper if upper.is_ascii_uppercase() || upper.is_ascii_digit() => upper,
        _ => '_',
    };
    member.chars().map(to_name).collect()
}

/// Whether an environment variable is set by the daemon, or changes how programs are started, so that neither a
/// configuration nor a secret can set it.
#[must_use]
pub fn is_reserved_environment_name(name: &str) -> bool {
    const RESERVED: [&str; 7] = ["PATH", "HOME", "HOSTNAME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];
    let upper = name.to_ascii_uppercase();
    RESERVED.contains(&upper.as_str()) || upper.starts_with("LD_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_become_environment_variables() {
        for (member, name) in
            [("apiKey", "APIKEY"), ("api-key", "API_KEY"), ("API_KEY", "API_KEY"), ("a.b c9", "A_B_C9"), ("ü", "_")]
        {
            assert_eq!(environment_name(member), name);
        }
        for name in ["PATH", "path", "LD_PRELOAD", "http_proxy", "No_Proxy", "HOME", "HOSTNAME"] {
            assert!(is_reserved_environment_name(name), "{name}");
        }
        for name in ["PATHS", "LD", "OLD_PATH", "PROXY", ""] {
            assert!(!is_reserved_environment_name(name), "{name}");
        }
    }
}
