//! Validates the version, the configuration and the secrets of an instance.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use waypost_core::agent_secret::PersonalSecret;
use waypost_core::catalog::{CatalogEntryState, Source, VersionDefinition};
use waypost_core::id::{CatalogVersionId, OrganizationId, ToolSecretId};
use waypost_core::instance::SecretUse;
use waypost_core::{Code, Error, Result};
use waypost_store::Tx;
use waypost_store::instance_source::{self as store, InstanceSource};
use waypost_toolbox_proto::entry::{SecretDelivery, Sharing};

use super::config;
use crate::catalog;
use crate::remote_endpoint::expand_headers;

/// Returns the version with this ID, if it can be deployed.
///
/// # Errors
/// `invalid_arguments` for `catalog_version_id` if there is no such version or its source is a package; `conflict` if
/// the state of its entry does not allow deployments.
pub(super) async fn find_source(
    tx: &mut Tx,
    organization: &OrganizationId,
    id: &CatalogVersionId,
) -> Result<InstanceSource> {
    let invalid = |message: &str| Error::invalid("catalog_version_id", message);
    let source = store::find(tx, organization, id).await?.ok_or_else(|| invalid("There is no such version."))?;
    match &source.version.definition.source {
        Source::Image(_) | Source::Remote(_) => {}
        Source::Package(_) => {
            return Err(invalid("Versions with a source of the kind `package` cannot be deployed yet."));
        }
    }
    match source.entry_state {
        CatalogEntryState::Published | CatalogEntryState::Deprecated => Ok(source),
        state => {
            let message = format!("The catalogue entry `{}` is {state}, so it cannot be deployed.", source.entry_slug);
            Err(Error::new(Code::Conflict, message))
        }
    }
}

/// Validates a configuration against the JSON Schema of a version, and as environment variables and arguments, or as
/// headers of a remote server.
///
/// # Errors
/// `invalid_arguments` for `config`. The message names the path of the first failing member, and contains no values.
pub(super) fn check_config(definition: &VersionDefinition, values: &Map<String, Value>) -> Result<()> {
    if let Source::Remote(remote) = &definition.source {
        config::check_size(values)?;
        catalog::check_config(&definition.config_schema, values)?;
        return expand_headers(&remote.headers, values).map(drop);
    }
    // This also limits the size, which bounds the cost of the validation.
    let environment = config::environment(values)?;
    catalog::check_config(&definition.config_schema, values)?;
    if let Some(args) = &definition.args {
        config::arguments(args, values)?;
    }
    let is_secret =
        |name: &str| definition.secrets.iter().any(|secret| is_variable(secret.delivery) && secret.name == name);
    if let Some(name) = environment.keys().find(|name| is_secret(name)) {
        let message = format!("`config` sets the environment variable `{name}`, which belongs to a secret.");
        return Err(Error::invalid("config", message));
    }
    Ok(())
}

fn is_variable(delivery: SecretDelivery) -> bool {
    delivery == SecretDelivery::Env
}

/// Returns the uses of secrets with the current versions of their values. `personal` are the personal secrets.
///
/// # Errors
/// `invalid_arguments` for `secrets` if the version does not declare a name, if a required secret is missing, or if a
/// secret (including the one for the registry) does not exist.
pub(super) async fn find_secrets(
    tx: &mut Tx,
    organization: &OrganizationId,
    definition: &VersionDefinition,
    (secrets, personal): (&BTreeMap<String, ToolSecretId>, &[PersonalSecret]),
) -> Result<Vec<SecretUse>> {
    let declared: BTreeSet<&str> = definition.secrets.iter().map(|secret| secret.name.as_str()).collect();
    let invalid = |message: String| Error::invalid("secrets", message);
    if let Some(name) = secrets.keys().find(|name| !declared.contains(name.as_str())) {
        return Err(invalid(format!("This version has no secret named `{name}`.")));
    }
    let is_personal = |name: &str| personal.iter().any(|secret| secret.name == name);
    let is_provided = |name: &String| secrets.contains_key(name) || is_personal(name);
    let missing = definition.secrets.iter().find(|secret| secret.required && !is_provided(&secret.name));
    if let Some(missing) = missing {
        let message = format!("This version requires the secret `{}`. Create it, and assign it here.", missing.name);
        return Err(invalid(message).with("reason", "secret_missing"));
    }
    let uses = find_uses(tx, organization, secrets).await?;
    check_registry_secret(tx, organization, definition).await?;
    Ok(uses)
}

/// Returns the personal secrets with these names. `secrets` maps names to the secrets of the organisation that are
/// assigned to them.
///
/// # Errors
/// `invalid_arguments` for `personal_secrets` if agents do not have their own containers, if they share volumes, if the
/// version does not declare a name, or if a secret of the organisation is assigned to it.
pub(super) fn find_personal(
    definition: &VersionDefinition,
    names: &BTreeSet<String>,
    secrets: &BTreeMap<String, ToolSecretId>,
) -> Result<Vec<PersonalSecret>> {
    let invalid = |message: String| Error::invalid("personal_secrets", message);
    if !names.is_empty() && definition.sharing != Sharing::PerAgent {
        let message = format!(
            "Only versions with `sharing: per_agent` can have personal secrets. This version has `sharing: {}`.",
            definition.sharing
        );
        return Err(invalid(message));
    }
    if !names.is_empty() && !definition.volumes.is_empty() {
        // A server could store one agent's value on a shared volume and use it for another agent.
        return Err(invalid(
            "The agents of this version share its volumes, so it cannot have personal secrets.".to_owned(),
        ));
    }
    let find = |name: &String| {
        let declared = definition.secrets.iter().find(|secret| secret.name == *name);
        let declared = declared.ok_or_else(|| invalid(format!("This version has no secret named `{name}`.")))?;
        if secrets.contains_key(name) {
            let message =
                format!("`{name}` is assigned to a secret of the organisation. It cannot be personal as well.");
            return Err(invalid(message));
        }
        Ok(PersonalSecret { name: name.clone(), is_required: declared.required })
    };
    names.iter().map(find).collect()
}

/// Returns the uses of secrets with the current versions of their values.
///
/// # Errors
/// `invalid_arguments` for `secrets` if a secret does not exist.
pub(super) async fn find_uses(
    tx: &mut Tx,
    organization: &OrganizationId,
    secrets: &BTreeMap<String, ToolSecretId>,
) -> Result<Vec<SecretUse>> {
    let invalid = |message: String| Error::invalid("secrets", message);
    let ids: Vec<_> = secrets.values().collect();
    let found = store::list_secrets(tx, organization, &ids).await?;
    let mut uses = Vec::with_capacity(secrets.len());
    for (name, id) in secrets {
        let secret = found.iter().find(|secret| secret.id == id.as_str());
        let secret = secret.ok_or_else(|| {
            invalid(format!("There is no secret `{id}`, which is assigned to `{name}`."))
                .with("reason", "secret_missing")
        })?;
        let version = u64::try_from(secret.version).map_err(Error::internal)?;
        uses.push(SecretUse { name: name.clone(), secret_id: id.clone(), version });
    }
    Ok(uses)
}

async fn check_registry_secret(
    tx: &mut Tx,
    organization: &OrganizationId,
    definition: &VersionDefinition,
) -> Result<()> {
    let Some(name) = &definition.registry_secret else { return Ok(()) };
    if store::find_secret_by_name(tx, organization, name).await?.is_some() {
        return Ok(());
    }
    let message =
        format!("This version needs the secret `{name}` with the credentials of its registry. Create it first.");
    Err(Error::invalid("secrets", message).with("reason", "secret_missing"))
}
