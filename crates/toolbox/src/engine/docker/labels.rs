//! The labels by which the daemon recognises the objects that it has created. They contain no secrets.

use std::collections::HashMap;

use waypost_toolbox_proto::ResourceClass;

use super::super::ContainerRequest;

/// The ID of the toolbox.
pub const TOOLBOX: &str = "dev.waypost.toolbox";
/// The ID of the instance.
pub const INSTANCE: &str = "dev.waypost.instance";
/// The generation of the instance that a container belongs to, or that created a volume.
pub const GENERATION: &str = "dev.waypost.generation";
/// The agent or session that a container is for; empty for a shared container.
pub const KEY: &str = "dev.waypost.key";
/// The digest of everything that requires a new container if it changes.
pub const DIGEST: &str = "dev.waypost.digest";
/// The version of the personal secrets of the agent that a container is for.
pub const PERSONAL_VERSION: &str = "dev.waypost.personal-version";
/// The resource class.
pub const RESOURCES: &str = "dev.waypost.resources";
/// Set on the containers that are created only to read files of an image, and never started.
pub const PROBE: &str = "dev.waypost.probe";

/// Labels as the engine stores them.
pub type Labels = HashMap<String, String>;

/// The content of the labels of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLabels {
    /// The ID of the instance.
    pub instance_id: String,
    /// The generation of the instance.
    pub generation: u64,
    /// The agent or session that the container is for.
    pub key: Option<String>,
    /// The digest from its request.
    pub digest: String,
    /// The version of the personal secrets.
    pub personal_version: u64,
    /// The resource class.
    pub resources: ResourceClass,
}

/// Returns the labels of a container. Every label is set, because the engine takes missing ones from the image.
pub fn of_container(toolbox_id: &str, request: &ContainerRequest) -> Labels {
    let labels = [
        (TOOLBOX, toolbox_id.to_owned()),
        (INSTANCE, request.instance_id.clone()),
        (GENERATION, request.generation.to_string()),
        (KEY, request.key.clone().unwrap_or_default()),
        (DIGEST, request.digest.clone()),
        (PERSONAL_VERSION, request.personal_version.to_string()),
        (RESOURCES, request.spec.resources.to_string()),
        (PROBE, String::new()),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the labels of a volume that a container needs. The engine ignores them if the volume exists.
pub fn of_volume(toolbox_id: &str, request: &ContainerRequest) -> Labels {
    let mut labels = of_instance(toolbox_id, &request.instance_id);
    labels.insert(GENERATION.to_owned(), request.generation.to_string());
    labels
}

/// Returns the generation that created a volume.
pub fn generation(labels: &Labels) -> Option<u64> {
    labels.get(GENERATION)?.parse().ok()
}

/// Returns the labels of a network of an instance.
pub fn of_instance(toolbox_id: &str, instance_id: &str) -> Labels {
    [(TOOLBOX, toolbox_id), (INSTANCE, instance_id)].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Returns the labels of a container from which files of an image are read.
pub fn of_probe(toolbox_id: &str) -> Labels {
    [(TOOLBOX, toolbox_id), (INSTANCE, ""), (GENERATION, ""), (PROBE, "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Parses the labels of a container; `None` if the container does not belong to an instance of this toolbox.
pub fn parse(toolbox_id: &str, labels: &Labels) -> Option<ContainerLabels> {
    let get = |name: &str| labels.get(name).map(String::as_str);
    if get(TOOLBOX)? != toolbox_id || !get(PROBE)?.is_empty() {
        return None;
    }
    Some(ContainerLabels {
        instance_id: get(INSTANCE).filter(|id| !id.is_empty())?.to_owned(),
        generation: get(GENERATION)?.parse().ok()?,
        key: get(KEY).filter(|key| !key.is_empty()).map(str::to_owned),
        digest: get(DIGEST)?.to_owned(),
        // Containers of earlier versions of the daemon do not have this label.
        personal_version: get(PERSONAL_VERSION).and_then(|text| text.parse().ok()).unwrap_or_default(),
        resources: get(RESOURCES)?.parse().ok()?,
    })
}

/// Returns the instance ID of a network or volume; `None` if it does not belong to this toolbox.
pub fn instance(toolbox_id: &str, labels: &Labels) -> Option<String> {
    let own = labels.get(TOOLBOX).is_some_and(|id| id == toolbox_id);
    labels.get(INSTANCE).filter(|id| own && !id.is_empty()).cloned()
}

/// Returns the filter for all objects of this toolbox, or of one of its instances.
pub fn filter(toolbox_id: &str, instance_id: Option<&str>) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{TOOLBOX}={toolbox_id}")];
    labels.extend(instance_id.map(|id| format!("{INSTANCE}={id}")));
    HashMap::from([("label".to_owned(), labels)])
}
