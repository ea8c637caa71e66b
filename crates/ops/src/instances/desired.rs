//! The desired state of a toolbox, built from stored rows.

use serde_json::Map;
use waypost_core::catalog::{Source, VersionDefinition};
use waypost_core::id::DeploymentId;
use waypost_core::instance::{DesiredRun, Instance};
use waypost_core::{Error, Result};
use waypost_store::{Conn, deployment, instance, instance_source};
use waypost_toolbox_proto::desired::{DesiredInstance, DesiredState, InstanceSpec, SecretMount};

use super::config;
use waypost_core::toolbox::Toolbox;

/// The rows of an instance that should exist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DesiredRows {
    /// The instance.
    pub instance: Instance,
    /// The definition of its version.
    pub definition: VersionDefinition,
    /// The deployment of its generation.
    pub deployment_id: DeploymentId,
}

/// Returns the desired state of a toolbox. Instances that are being removed are not part of it.
///
/// # Errors
/// Any error of the store; `internal` if the rows of an instance are inconsistent. An incomplete state is never
/// returned, because the daemon would remove the missing instances.
pub(crate) async fn load(conn: &mut Conn, toolbox: &Toolbox) -> Result<DesiredState> {
    let organization = &toolbox.organization_id;
    let mut instances = instance::list_by_toolbox(conn, organization, &toolbox.id).await?;
    instances.retain(|instance| !instance.is_removing);
    let ids: Vec<_> = instances.iter().map(|instance| &instance.id).collect();
    let deployments = deployment::list_current(conn, organization, &ids).await?;
    let mut rows = Vec::with_capacity(instances.len());
    for instance in instances {
        let missing = |what: &str| Error::internal(format!("the instance {} has no {what}", instance.id));
        let source = instance_source::find(conn, organization, &instance.container()?.catalog_version_id).await?;
        let definition = source.ok_or_else(|| missing("version"))?.version.definition;
        let deployment = deployments.iter().find(|deployment| deployment.instance_id == instance.id);
        let deployment_id = deployment.ok_or_else(|| missing("deployment"))?.id.clone();
        rows.push(DesiredRows { instance, definition, deployment_id });
    }
    build(toolbox.desired_revision, &rows)
}

/// Builds the desired state from rows.
///
/// # Errors
/// `internal` if a version is not a container image, or a configuration cannot be used.
pub(crate) fn build(revision: u64, rows: &[DesiredRows]) -> Result<DesiredState> {
    let instances = rows.iter().map(desired_instance).collect::<Result<_>>()?;
    Ok(DesiredState { revision, instances })
}

fn desired_instance(rows: &DesiredRows) -> Result<DesiredInstance> {
    let DesiredRows { instance, definition, deployment_id } = rows;
    Ok(DesiredInstance {
        id: instance.id.to_string(),
        slug: instance.slug.clone(),
        generation: instance.generation,
        deployment_id: deployment_id.to_string(),
        run: instance.desired == DesiredRun::Running,
        restarts: instance.restarts,
        spec: spec(instance, definition).map_err(|error| {
            let message = format!("the specification of the instance {} cannot be built: {error}", instance.id);
            Error::internal(message)
        })?,
    })
}

fn spec(instance: &Instance, definition: &VersionDefinition) -> Result<InstanceSpec> {
    let Source::Image(image) = &definition.source else {
        return Err(Error::internal("the version is not a container image"));
    };
    let mount = |secret: &waypost_toolbox_proto::entry::SecretSpec| {
        let (name, delivery) = (secret.name.clone(), secret.delivery);
        if instance.personal_secrets.iter().any(|personal| personal.name == name) {
            return Some(SecretMount { name, delivery, version: 0, personal: true, optional: !secret.required });
        }
        let used = instance.secrets.iter().find(|used| used.name == name)?;
        Some(SecretMount { name, delivery, version: used.version, personal: false, optional: false })
    };
    let args = definition.args.as_ref().map(|args| config::arguments(args, &instance.config)).transpose()?;
    Ok(InstanceSpec {
        image: image.clone(),
        transport: definition.transport,
        command: definition.command.clone(),
        args,
        port: definition.port,
        path: definition.path.clone(),
        environment: config::environment(&instance.config)?,
        secrets: definition.secrets.iter().filter_map(mount).collect(),
        registry_credentials: definition.registry_secret.is_some(),
        resources: definition.resources,
        egress: definition.egress.clone(),
        learn_egress: instance.learn_egress,
        volumes: definition.volumes.clone(),
        sharing: definition.sharing,
        lazy: definition.lazy,
        idle_seconds: definition.idle_seconds,
        max_lifetime_seconds: definition.max_lifetime_seconds,
        extra: Map::new(),
    })
}
