//! The secrets that a daemon requests when it starts a container.

use std::collections::BTreeMap;

use waypost_core::Result;
use waypost_core::catalog::VersionDefinition;
use waypost_core::id::{CatalogVersionId, OrganizationId, ToolboxId};
use waypost_core::instance::{Instance, SecretUse};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_store::instance_source::{self, SealedSecret};
use waypost_store::{Tx, deployment};
use waypost_toolbox_proto::message::{InstanceSecrets, RegistryCredentials};

use super::ToolboxDirectory;

impl ToolboxDirectory {
    /// Returns the secrets of a generation of an instance. Returns `None` if the toolbox has no such instance, or a value
    /// is missing or cannot be opened.
    pub(super) async fn open_secrets(
        &self,
        toolbox: &ToolboxId,
        instance: &str,
        generation: u64,
    ) -> Result<Option<InstanceSecrets>> {
        let Some(toolbox) = self.find(toolbox).await? else { return Ok(None) };
        let mut tx = self.ops.store.snapshot().await?;
        let Some(own) = Self::find_instance(&mut tx, &toolbox, instance).await? else { return Ok(None) };
        let organization = &toolbox.organization_id;
        let Some((version, uses)) = find_uses(&mut tx, &own, generation).await? else { return Ok(None) };
        let source = instance_source::find(&mut tx, organization, &version).await?;
        let Some(definition) = source.map(|source| source.version.definition) else { return Ok(None) };
        let Some(values) = self.open_values(&mut tx, organization, &uses).await? else { return Ok(None) };
        let registry = match self.open_registry(&mut tx, organization, &definition).await? {
            Some(registry) => Some(registry),
            None if definition.registry_secret.is_some() => return Ok(None),
            None => None,
        };
        Ok(Some(InstanceSecrets { values, registry }))
    }

    async fn open_values(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        uses: &[SecretUse],
    ) -> Result<Option<BTreeMap<String, String>>> {
        let ids: Vec<_> = uses.iter().map(|used| &used.secret_id).collect();
        let sealed = instance_source::list_secrets(tx, organization, &ids).await?;
        let open = |used: &SecretUse| {
            let sealed = sealed.iter().find(|sealed| sealed.id == used.secret_id.as_str())?;
            Some((used.name.clone(), self.open(sealed)?.expose().to_owned()))
        };
        Ok(uses.iter().map(open).collect())
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

    /// Returns a value, or `None` if neither key of the installation opens it.
    fn open(&self, sealed: &SealedSecret) -> Option<SecretText> {
        let location = SealLocation { table: "tool_secrets", column: "value", row: &sealed.id };
        let opened = self.ops.keyring().ok()?.open_text(&location, &sealed.value);
        opened.inspect_err(|error| tracing::error!(secret = sealed.id, %error, "failed to open a secret")).ok()
    }
}

/// Returns the version and the uses of secrets of a generation of an instance.
async fn find_uses(tx: &mut Tx, own: &Instance, generation: u64) -> Result<Option<(CatalogVersionId, Vec<SecretUse>)>> {
    if own.is_removing {
        return Ok(None);
    }
    // A generation that was rolled back has the secrets of the serving one.
    let found = match generation == own.generation {
        true => None,
        false => deployment::find_by_generation(tx, &own.organization_id, &own.id, generation).await?,
    };
    Ok(match found {
        Some(found) => Some((found.catalog_version_id, found.secrets)),
        None if generation == own.generation => {
            Some((own.container()?.catalog_version_id.clone(), own.secrets.clone()))
        }
        None => None,
    })
}
