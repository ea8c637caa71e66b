//! The volumes of instances. The daemon itself gives a new volume to the user of the container, so no container has to
//! run as root.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};
use rustix::fs::{Mode, OFlags};
use waypost_toolbox_proto::ErrorCode;

use super::super::{ContainerRequest, EngineError};
use super::config::volume_name;
use super::user::User;
use super::{DockerEngine, errors, labels};

impl DockerEngine {
    /// Returns the volumes of this toolbox or of one of its instances.
    pub(super) async fn volumes(&self, instance_id: Option<&str>) -> Result<Vec<Volume>, EngineError> {
        let options = ListVolumesOptions { filters: Some(labels::filter(self.toolbox_id(), instance_id)) };
        let response = self.docker().list_volumes(Some(options)).await;
        let response = response.map_err(|error| self.error("list volumes", &error))?;
        let mut volumes = response.volumes.unwrap_or_default();
        volumes.retain(|volume| {
            let instance = labels::instance(self.toolbox_id(), &volume.labels);
            instance.is_some_and(|id| instance_id.is_none_or(|wanted| wanted == id))
        });
        Ok(volumes)
    }

    /// Creates the missing volumes of an instance, and returns all of its volumes.
    pub(super) async fn ensure_volumes(&self, request: &ContainerRequest) -> Result<Vec<Volume>, EngineError> {
        let mut volumes = Vec::new();
        for volume in &request.spec.volumes {
            let config = VolumeCreateRequest {
                name: Some(volume_name(&request.instance_id, &volume.name)),
                driver: Some("local".into()),
                driver_opts: Some(HashMap::new()),
                labels: Some(labels::of_volume(self.toolbox_id(), request)),
                ..VolumeCreateRequest::default()
            };
            // Returns the existing volume if there is one, regardless of its creator.
            let volume = self.docker().create_volume(config).await;
            let volume = volume.map_err(|error| self.error("create the volume", &error))?;
            if labels::instance(self.toolbox_id(), &volume.labels).as_ref() != Some(&request.instance_id) {
                return Err(EngineError::new(
                    ErrorCode::StartFailed,
                    format!("A volume with the name {} exists, and this toolbox did not create it", volume.name),
                    "Remove or rename the volume on the machine.",
                ));
            }
            volumes.push(volume);
        }
        Ok(volumes)
    }

    /// Removes the volumes of an instance that `is_removed` selects.
    pub(super) async fn remove_volumes_of(
        &self,
        instance_id: &str,
        is_removed: impl Fn(&Volume) -> bool,
    ) -> Result<(), EngineError> {
        for volume in self.volumes(Some(instance_id)).await?.into_iter().filter(is_removed) {
            match self.docker().remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                Err(error) if !errors::is_not_found(&error) => return Err(self.error("remove the volume", &error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes a user the owner of a volume if it is new. The engine creates the folder as root, and no container runs as
/// root, so a folder that root owns has not been used by any container.
pub fn own_if_new(volume: &Volume, user: User) -> Result<(), EngineError> {
    let failed = |error: std::io::Error| {
        tracing::warn!(%error, volume = volume.name, "failed to change the owner of a volume");
        EngineError::new(
            ErrorCode::StartFailed,
            format!("The toolbox cannot access the volume {}", volume.name),
            "Run the toolbox as root on the machine of the engine; in a container, mount the engine's folder `volumes`.",
        )
    };
    // Links are not followed, although a container cannot replace the root of its volume.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(Path::new(&volume.mountpoint), flags, Mode::empty());
    let folder = File::from(folder.map_err(|error| failed(error.into()))?);
    if folder.metadata().map_err(failed)?.uid() == 0 {
        fchown(&folder, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    Ok(())
}
