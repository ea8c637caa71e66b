//! A toolbox that sends messages about an instance of another toolbox: a client in the test that uses the real link.

use http::Method;
use serde_json::{Value, json};
use waypost_toolbox::control::Control;
use waypost_toolbox::identity::Identity;
use waypost_toolbox::link::Link;
use waypost_toolbox_proto::message::{Capacity, DeploymentOutcome, Engine, Heartbeat, InstanceReport, ToolboxEvent};
use waypost_toolbox_proto::{DeploymentError, DeploymentStep, ErrorCode, InstanceState};

use crate::image::Image;
use crate::link_client;
use crate::site::{Site, id_of};
use crate::support::TIMEOUT;
use crate::waypost::Toolbox;

const SECRET: &str = "correct-horse-battery-staple";

/// Opens the link of a toolbox that claims to have an instance, which has failed.
async fn open_link(toolbox: &Toolbox, instance: &str) -> Link {
    let identity = Identity::load(toolbox.data()).expect("the toolbox has joined");
    let heartbeat = Heartbeat {
        version: "forged".to_owned(),
        engine: Some(Engine {
            version: "forged".to_owned(),
            runtime: "forged".to_owned(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
        }),
        capacity: Capacity { cpus: 64.0, memory_bytes: 1 << 40, disk_free_bytes: 1 << 40 },
        instances: vec![failed(instance)],
        ..link_client::heartbeat()
    };
    link_client::open(identity, toolbox.data(), heartbeat).await
}

fn failed(instance: &str) -> InstanceReport {
    InstanceReport { id: instance.to_owned(), generation: 1, state: InstanceState::Failed, health: None }
}

/// Returns an event of each kind about an instance.
fn events(instance: &str, deployment: &str) -> Vec<ToolboxEvent> {
    let (instance_id, deployment_id) = (instance.to_owned(), deployment.to_owned());
    let error = DeploymentError {
        step: DeploymentStep::Checking,
        code: ErrorCode::Exited,
        cause: "forged".to_owned(),
        next_action: "forged".to_owned(),
    };
    let outcome = DeploymentOutcome::Failed { error };
    vec![
        ToolboxEvent::Instance(failed(instance)),
        ToolboxEvent::DeploymentStep {
            deployment_id: deployment_id.clone(),
            instance_id: instance_id.clone(),
            step: DeploymentStep::Pulling,
        },
        ToolboxEvent::DeploymentEnded { deployment_id, instance_id: instance_id.clone(), outcome },
        ToolboxEvent::Crashed { instance_id: instance_id.clone(), exit_code: 1, out_of_memory: false },
        ToolboxEvent::EgressRejected {
            instance_id: instance_id.clone(),
            destinations: vec!["forged.example:1".into()],
        },
        ToolboxEvent::Removed { instance_id },
    ]
}

impl Site {
    /// Returns everything that the API shows about an instance, except the time of the last probe.
    async fn shown(&self, id: &str) -> [Value; 3] {
        let mut instance = self.api(Method::GET, &format!("/instances/{id}"), &Value::Null).await;
        instance["health"] = instance["health"]["ok"].take();
        let list = async |name: &str| self.api(Method::GET, &format!("/instances/{id}/{name}"), &Value::Null).await;
        [instance, list("events").await, list("deployments").await]
    }
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_toolbox_cannot_report_on_an_instance_of_another_toolbox_docker() {
        let site = Site::start().await;
        let secret = id_of(&site.api(Method::POST, "/secrets", &json!({ "name": "KEY", "value": SECRET })).await);
        let version = site.import("owned", "1", &Image::stdio(), json!({ "secrets": [{ "name": "KEY" }] })).await;
        let body = json!({ "slug": "owned", "catalog_version_id": version, "secrets": { "KEY": secret } });
        let id = id_of(&site.api(Method::POST, "/instances", &body).await);
        let deployment = id_of(&site.deployed(&id).await["deployment"]);
        let before = site.shown(&id).await;
        assert_eq!((&before[0]["state"], &before[0]["deployment"]["state"]), (&json!("running"), &json!("complete")));

        let other = Toolbox::join(&site.waypost, "other").await;
        let link = open_link(&other, &id).await;
        for event in events(&id, &deployment) {
            link.report(event);
        }
        site.poll("the acknowledgement", async || link.unacknowledged_events() == 0).await;
        let path = format!("/toolboxes/{}", other.id);
        let is_stored = async || site.api(Method::GET, &path, &Value::Null).await["version"] == "forged";
        site.poll("the heartbeat", is_stored).await;
        for generation in 0..3 {
            let answer = tokio::time::timeout(TIMEOUT, link.secrets(&id, generation, None)).await.expect("an answer");
            assert!(answer.is_none(), "generation {generation}");
        }
        let desired = link.desired().borrow().clone().expect("the desired state arrives first");
        assert!(desired.instances.is_empty(), "{desired:?}");
        assert_eq!(site.shown(&id).await, before, "nothing has changed");
        site.assert_echo(&id, "still here").await;
        // The link remains valid for its own toolbox.
        assert_eq!(site.api(Method::GET, &path, &Value::Null).await["state"], "online");
        link.stop().await;
        site.finish().await;
    }
}
