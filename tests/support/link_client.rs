//! A toolbox without instances, which opens the real link without a container engine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use tokio::time::timeout;
use waypost_link_io::Body;
use waypost_toolbox::clock;
use waypost_toolbox::identity::Identity;
use waypost_toolbox::link::connect::NetworkConnector;
use waypost_toolbox::link::requests::{BoxFuture, Requests, ResponseBody, error_response};
use waypost_toolbox::link::{Link, Runtime, Status};
use waypost_toolbox_proto::message::{Capacity, Heartbeat};

/// Timeout for opening the link, which is sufficient even on a loaded machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Answers every request with 404.
struct NoInstances;

impl Requests for NoInstances {
    fn handle(&self, _: Parts, _: Body) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(async { error_response(StatusCode::NOT_FOUND, "There are no instances.") })
    }
}

/// Returns the heartbeat of a machine with two CPUs and 4 GiB.
pub fn heartbeat() -> Heartbeat {
    Heartbeat {
        version: "1.0".to_owned(),
        engine: None,
        capacity: Capacity { cpus: 2.0, memory_bytes: 4 << 30, disk_free_bytes: 1 << 30 },
        desired_revision: 0,
        instances: Vec::new(),
    }
}

/// Opens the link of a machine that has joined, and waits until it is online. `folder` is its data directory.
pub async fn open(identity: Identity, folder: &Path, heartbeat: Heartbeat) -> Link {
    let link = Link::open(identity, folder, clock::system).expect("the folder is writable");
    link.start(Runtime {
        connector: Arc::new(NetworkConnector::new(None)),
        requests: Arc::new(NoInstances),
        heartbeat: Arc::new(move || {
            let heartbeat = heartbeat.clone();
            Box::pin(async move { heartbeat })
        }),
    });
    let mut status = link.status();
    let online = timeout(TIMEOUT, status.wait_for(|status| *status == Status::Online)).await;
    online.expect("the link opens in time").expect("the link runs");
    link
}
