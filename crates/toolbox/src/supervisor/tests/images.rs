use waypost_toolbox_proto::message::DeploymentOutcome;
use waypost_toolbox_proto::{DeploymentStep, ErrorCode};

use super::fakes::{Daemon, spec};

const GIB: u64 = 1 << 30;

/// Sets the free disk space, the size of the image to pull, and the sizes of the unused images.
fn fill_disk(daemon: &Daemon, disk_free: u64, image_bytes: u64, unused_images: &[u64]) {
    let mut state = daemon.engine.state();
    state.disk_free = disk_free;
    state.image_bytes = image_bytes;
    state.unused_images = unused_images.iter().copied().collect();
}

#[tokio::test(start_paused = true)]
async fn unused_images_are_removed_if_an_image_does_not_fit() {
    let daemon = Daemon::new();
    // There is enough free space that no image is removed before the first pull.
    fill_disk(&daemon, 5 * GIB / 2, 3 * GIB, &[GIB / 4, GIB]);
    daemon.add("ins_1", spec("good"));
    assert_eq!(daemon.outcome("dep_ins_1_1").await, DeploymentOutcome::Complete);
    let state = daemon.engine.state();
    assert_eq!(state.log[..2], ["remove_unused_images", "pull good"]);
    assert!(state.unused_images.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_does_not_fit_without_unused_images_is_pulled_only_twice() {
    let daemon = Daemon::new();
    fill_disk(&daemon, 5 * GIB / 2, 8 * GIB, &[GIB, GIB]);
    daemon.add("ins_1", spec("good"));
    let DeploymentOutcome::Failed { error } = daemon.outcome("dep_ins_1_1").await else {
        panic!("the deployment must fail")
    };
    assert_eq!((error.step, error.code), (DeploymentStep::Pulling, ErrorCode::DiskFull), "{error:?}");
    assert!(daemon.engine.is_empty());
    let state = daemon.engine.state();
    assert!(state.unused_images.is_empty() && state.pulled.is_empty());
    assert_eq!(state.log.iter().filter(|line| *line == "remove_unused_images").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn unused_images_are_kept_if_the_pull_fails_for_another_reason() {
    let daemon = Daemon::new();
    fill_disk(&daemon, 3 * GIB, GIB, &[GIB]);
    daemon.engine.state().faults.push_back(("pull", ErrorCode::ImageDenied));
    daemon.add("ins_1", spec("good"));
    let outcome = daemon.outcome("dep_ins_1_1").await;
    assert!(
        matches!(&outcome, DeploymentOutcome::Failed { error } if error.code == ErrorCode::ImageDenied),
        "{outcome:?}"
    );
    assert_eq!(daemon.engine.state().unused_images.len(), 1);
}
