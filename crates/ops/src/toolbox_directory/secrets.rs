//! The secrets that a daemon requests when it starts a container.

use std::collections::BTreeMap;

use waypost_core::Result;
use waypost_core::agent_secret::{self as agent_secrets, AgentSecret, PersonalSecret};
use waypost_core::catalog::VersionDefinition;
use waypost_core::id::{AgentId, CatalogVersionId, OrganizationId, ToolboxId};
use waypost_core::instance::{Instance, SecretUse};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_store::instance_source::{self, SealedSecret};
use waypost_store::replaced_secret::{self, ReplacedSecret};
use waypost_store::{Tx, agent_secret, deployment};
use waypost_toolbox_proto::entry::Sharing;
use waypost_toolbox_proto::http::agent_of_key;
use waypost_toolbox_proto::message::{InstanceSecrets, RegistryCredentials};

use super::ToolboxDirectory;
use crate::agent_secrets::location as agent_secrets_location;
use crate::tool_secrets::replaced_location;

impl ToolboxDirectory {
    /// Returns the secrets of a generation of an instance for the container with a key. Returns `None` if the toolbox has no such
    /// instance, or a value is missing or cannot be opened. Personal secrets without a value are left out.
    pub(super) async fn open_secrets(
        &self,
        toolbox: &ToolboxId,
        instance: &str,
        (generation, key): (u64, Option<&str>),
    ) -> Result<Option<InstanceSecrets>> {
        let Some(toolbox) = self.find(toolbox).await? else { return Ok(None) };
        let mut tx = self.ops.store.snapshot().await?;
        let Some(own) = Self::find_instance(&mut tx, &toolbox, instance).await? else { return Ok(None) };
        let organization = &toolbox.organization_id;
        let Some(Uses { version, secrets, personal }) = find_uses(&mut tx, &own, generation).await? else {
            return Ok(None);
        };
        let source = instance_source::find(&mut tx, organization, &version).await?;
        let Some(definition) = source.map(|source| source.version.definition) else { return Ok(None) };
        let Some(mut values) = self.open_values(&mut tx, organization, &secrets).await? else { return Ok(None) };
        // Only containers of agents have personal secrets, whatever the daemon claims.
        let agent = key.filter(|_| definition.sharing == Sharing::PerAgent && !personal.is_empty());
        let agent = agent.and_then(agent_of_key).and_then(|id| id.parse::<AgentId>().ok());
        let mut personal_version = 0;
        if let Some(agent) = agent {
            let found = agent_secret::list(&mut tx, organization, &agent, Some(&own.id)).await?;
            personal_version = agent_secrets::version(&found);
            let names = |name: &str| personal.iter().any(|secret| secret.name == name);
            let wanted: Vec<_> = found.iter().filter(|secret| secret.is_set && names(&secret.name)).collect();
            match self.open_personal(&mut tx, &own, (&agent, &wanted)).await? {
                Some(opened) => values.extend(opened),
                None => return Ok(None),
            }
        }
        let registry = match self.open_registry(&mut tx, organization, &definition).await? {
            Some(registry) => Some(registry),
            None if definition.registry_secret.is_some() => return Ok(None),
            None => None,
        };
        Ok(Some(InstanceSecrets { values, registry, personal_version }))
    }

    /// Returns the values of the versions in `uses`, or `None` if a secret is missing or cannot be opened. If the value
    /// of an earlier version has not been kept, the current one is used instead.
    async fn open_values(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        uses: &[SecretUse],
    ) -> Result<Option<BTreeMap<String, String>>> {
        let ids: Vec<_> = uses.iter().map(|used| &used.secret_id).collect();
        let sealed = instance_source::list_secrets(tx, organization, &ids).await?;
        let replaced = replaced_secret::list(tx, organization, &ids).await?;
        let open = |used: &SecretUse| {
            let current = sealed.iter().find(|sealed| sealed.id == used.secret_id.as_str())?;
            let is_used = |value: &&ReplacedSecret| {
                value.secret_id == used.secret_id.as_str() && u64::try_from(value.version) == Ok(used.version)
            };
            let value = match replaced.iter().find(is_used) {
                Some(replaced) => self.open_at(&replaced_location(&replaced.id), &replaced.value)?,
                None => self.open(current)?,
            };
            Some((used.name.clone(), value.expose().to_owned()))
        };
        Ok(uses.iter().map(open).collect())
    }

    /// Returns the values of an agent for an instance. Returns `None` if one cannot be opened.
    async fn open_personal(
        &self,
        tx: &mut Tx,
        own: &Instance,
        (agent, secrets): (&AgentId, &[&AgentSecret]),
    ) -> Result<Option<BTreeMap<String, String>>> {
        let sealed = agent_secret::list_values(tx, &own.organization_id, agent, &own.id).await?;
        let open = |secret: &&AgentSecret| {
            let (_, sealed) = sealed.iter().find(|(id, _)| *id == secret.id)?;
            let opened = self.open_at(&agent_secrets_location(&secret.id), sealed)?;
            Some((secret.name.clone(), opened.expose().to_owned()))
        };
        Ok(secrets.iter().map(open).collect())
    }

    async fn open_registry(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        definition: &VersionDefinition,
    ) -> Result<Option<RegistryCredentials>> {
        let Some(name) = &definition.registry_secret else { return Ok(None) };
        let sealed = instance_source::find_secret_by_name(tx, organization, name).await?;
        let text = sealed.and_then(|sealed| self.open(&sealed));
        let credentials = text.as_ref().and_then(|text| text.expose().split_once(':'));
        let (username, password) = match credentials {
            Some((username, password)) => (username.to_owned(), password.trim_end().to_owned()),
            None => return Ok(None),
        };
        Ok(Some(RegistryCredentials { username, password }))
    }

    /// Returns a value, or `None` if no key of the installation opens it.
    fn open(&self, sealed: &SealedSecret) -> Option<SecretText> {
        self.open_at(&SealLocation { table: "tool_secrets", column: "value", row: &sealed.id }, &sealed.value)
    }

    fn open_at(&self, location: &SealLocation<'_>, sealed: &str) -> Option<SecretText> {
        let opened = self.ops.keyring().ok()?.open_text(location, sealed);
        opened.inspect_err(|error| tracing::error!(secret = location.row, %error, "failed to open a secret")).ok()
    }
}

/// The catalogue version and the secrets that a generation of an instance uses.
struct Uses {
    version: CatalogVersionId,
    secrets: Vec<SecretUse>,
    personal: Vec<PersonalSecret>,
}

/// Returns the catalogue version and the secrets of a generation of an instance. `None` if the generation does not
/// exist, or the instance is being removed.
async fn find_uses(tx: &mut Tx, own: &Instance, generation: u64) -> Result<Option<Uses>> {
    if own.is_removing {
        return Ok(None);
    }
    // A generation that was rolled back has the secrets of the serving one.
    let found = match generation == own.generation {
        true => None,
        false => deployment::find_by_generation(tx, &own.organization_id, &own.id, generation).await?,
    };
    Ok(match found {
        Some(found) => {
            Some(Uses { version: found.catalog_version_id, secrets: found.secrets, personal: found.personal_secrets })
        }
        None if generation == own.generation => Some(Uses {
            version: own.container()?.catalog_version_id.clone(),
            secrets: own.secrets.clone(),
            personal: own.personal_secrets.clone(),
        }),
        None => None,
    })
}
