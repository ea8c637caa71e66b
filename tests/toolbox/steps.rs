//! Each component is killed (`kill -9`) in every step of a deployment.
//!
//! A step is reached when the API reports it and the event that would end the step is held back: the whole daemon
//! (validating), a response of the engine to the daemon (preparing and starting: the engine has done its work, but the
//! daemon does not know it yet), a layer that the registry sends to the engine (pulling), or the server itself
//! (checking). In every step, two new instances are deployed: a server that becomes healthy, and one that exits before
//! it answers.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::{Engine, RegistryImages};
use crate::image::Image;
use crate::own_engine::OwnEngine;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::site::{Site, id_of};
use crate::waypost::{Toolbox, Waypost};

/// A step of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The control plane starts a deployment in this step, in the transaction that creates the instance, so it cannot
    /// be killed between the two. The step ends when the daemon starts the next one.
    Validating,
    Preparing,
    Pulling,
    Starting,
    Checking,
}

impl Step {
    const ALL: [Self; 5] = [Self::Validating, Self::Preparing, Self::Pulling, Self::Starting, Self::Checking];

    /// Returns the name that the API uses.
    fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Preparing => "preparing",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Checking => "checking",
        }
    }
}

/// A site whose deployments can be held in a step.
struct Stage {
    site: Site,
    /// Between the daemon and the engine.
    engine: Relay,
    /// Between the engine and the registry.
    registry: Relay,
    versions: u32,
    _images: RegistryImages,
}

/// The two instances that are deployed in a step.
struct Pair {
    healthy: String,
    exiting: String,
}

impl Stage {
    async fn start_on(engine: Engine) -> Self {
        let (registry, waypost) = (Registry::start().await, Waypost::start().await);
        let (to_engine, to_registry) = (Relay::to_engine(&engine), Relay::to(registry.address()).await);
        let mut toolbox = Toolbox::join(&waypost, "machine").await;
        toolbox.run(&Engine::at(to_engine.address().as_ref())).await;
        let _images = RegistryImages::new(&engine, to_registry.address());
        let site = Site::of(engine, registry, waypost, toolbox).await;
        Self { site, engine: to_engine, registry: to_registry, versions: 0, _images }
    }

    /// Imports a version of `slug`, which the engine pulls through the relay.
    async fn import(&mut self, slug: &str, image: &Image) -> String {
        let image = self.site.registry.push(slug, image).await;
        let image = image.replacen(self.site.registry.address(), self.registry.address(), 1);
        self.versions += 1;
        self.site.import_image(slug, &self.versions.to_string(), &image, json!({})).await
    }

    /// Ensures that no deployment proceeds beyond `step`.
    fn hold(&self, step: Step) {
        match step {
            Step::Validating => self.site.toolbox.signal(Signal::STOP),
            Step::Preparing => self.engine.hold_responses_to("/networks/create"),
            Step::Pulling => self.registry.hold_responses_to("/blobs/"),
            Step::Starting => self.engine.hold_responses_to("/start"),
            // The servers wait for a signal.
            Step::Checking => {}
        }
    }

    /// Waits until the current deployment of each instance is held in `step`.
    async fn wait_for(&self, step: Step, instances: &[&str]) {
        for id in instances {
            let is_reached = |instance: &Value| instance["deployment"]["step"] == step.name();
            let instance = self.site.wait_for(id, step.name(), is_reached).await;
            assert_eq!(instance["deployment"]["state"], "running", "{instance}");
        }
        match step {
            // The daemon creates one network at a time.
            Step::Preparing => self.engine.holds(1).await,
            Step::Starting => self.engine.holds(instances.len()).await,
            Step::Pulling => self.registry.holds(instances.len()).await,
            Step::Validating | Step::Checking => {}
        }
    }

    /// Starts two deployments and waits until both are held in `step`.
    async fn deploy(&mut self, step: Step) -> Pair {
        let (healthy, exiting) = (Image::new(&["gated"]), Image::new(&["gated", "exit"]));
        let (healthy, exiting) = (self.import("healthy", &healthy).await, self.import("exiting", &exiting).await);
        self.hold(step);
        let slug = |name: &str| format!("{name}-{}", step.name());
        let healthy = id_of(&self.site.create(&slug("healthy"), &healthy).await);
        let exiting = id_of(&self.site.create(&slug("exiting"), &exiting).await);
        self.wait_for(step, &[&healthy, &exiting]).await;
        Pair { healthy, exiting }
    }

    /// Lets deployments continue. A daemon that is stopped stays stopped.
    fn release(&self) {
        self.engine.release();
        self.registry.release();
    }

    /// Sends a signal to the servers of an instance.
    fn signal(&self, id: &str, signal: &str) {
        for container in self.site.containers(id) {
            let path = format!("/containers/{}/kill?signal={signal}", container["Id"].as_str().expect("an ID"));
            // The container may have exited in the meantime.
            let _ = self.site.engine.try_call("POST", &path, &Value::Null);
        }
    }

    /// Waits until the current deployment of an instance has ended, and returns the instance. Lets the servers of the
    /// instance continue.
    async fn settle(&self, id: &str) -> Value {
        self.settle_with(id, "SIGUSR1").await
    }

    /// Like [`Self::settle`], but sends this signal to the servers repeatedly.
    async fn settle_with(&self, id: &str, signal: &str) -> Value {
        self.site
            .wait_for(id, "the end of the deployment", |instance| {
                let has_ended = instance["deployment"]["state"].as_str().is_some_and(|state| state != "running");
                if !has_ended {
                    self.signal(id, signal);
                }
                has_ended
            })
            .await
    }

    /// Checks that both deployments end as if nothing had been killed, and removes the instances.
    async fn finish_pair(&self, step: Step, pair: &Pair) {
        let instance = self.settle(&pair.healthy).await;
        let deployment = &instance["deployment"];
        assert_eq!((&deployment["state"], &deployment["step"]), (&json!("complete"), &json!("complete")), "{instance}");
        assert_eq!(instance["state"], "running", "{step:?}: {instance}");
        self.site.wait_for_link(&pair.healthy).await;
        self.site.assert_echo(&pair.healthy, step.name()).await;
        assert_eq!(self.site.containers(&pair.healthy).len(), 1, "{step:?}");
        let instance = self.settle(&pair.exiting).await;
        let deployment = &instance["deployment"];
        assert_eq!(
            (&instance["state"], &deployment["state"], &deployment["error"]["code"]),
            (&json!("failed"), &json!("failed"), &json!("exited")),
            "{step:?}: {instance}"
        );
        assert_eq!(self.site.leftovers(&pair.exiting), [""; 0], "{step:?}");
        self.remove(&[&pair.healthy, &pair.exiting]).await;
    }

    async fn remove(&self, instances: &[&str]) {
        for id in instances {
            self.site.delete(id).await;
            assert_eq!(self.site.leftovers(id), [""; 0]);
        }
    }

    async fn finish(self) {
        self.site.finish().await;
    }
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_that_is_killed_in_any_step_continues_the_deployment_docker() {
        let mut stage = Stage::start_on(Engine::shared()).await;
        for step in Step::ALL {
            let pair = stage.deploy(step).await;
            stage.site.toolbox.kill().await;
            stage.release();
            let engine = Engine::at(stage.engine.address().as_ref());
            stage.site.toolbox.run(&engine).await;
            stage.finish_pair(step, &pair).await;
        }
        stage.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_control_plane_that_is_killed_in_any_step_learns_the_outcome_docker() {
        let mut stage = Stage::start_on(Engine::shared()).await;
        for step in Step::ALL {
            let pair = stage.deploy(step).await;
            stage.site.waypost.kill().await;
            stage.release();
            // The daemon continues without the control plane, except in the first step, in which it does not know of
            // the deployment yet.
            if step == Step::Validating {
                stage.site.toolbox.signal(Signal::CONT);
            } else {
                stage.site.poll("a running container", async || {
                    let state = |id: &str| stage.site.containers(id).iter().any(|found| found["State"] == "running");
                    state(&pair.healthy) && state(&pair.exiting)
                })
                .await;
            }
            stage.site.waypost.start_again().await;
            stage.finish_pair(step, &pair).await;
        }
        stage.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_container_that_is_killed_while_it_is_deployed_fails_the_deployment_docker() {
        // Until `starting`, a new instance has no container: see the next test.
        let mut stage = Stage::start_on(Engine::shared()).await;
        for step in [Step::Starting, Step::Checking] {
            let version = stage.import("victim", &Image::new(&["gated"])).await;
            stage.hold(step);
            let id = id_of(&stage.site.create(&format!("victim-{}", step.name()), &version).await);
            stage.wait_for(step, &[&id]).await;
            stage.site.engine.kill(&stage.site.container(&id));
            stage.release();
            // A server that exits before the handshake is started once more.
            let instance = stage.settle_with(&id, "SIGKILL").await;
            let deployment = &instance["deployment"];
            assert_eq!(
                (&instance["state"], &deployment["state"], &deployment["error"]["code"]),
                (&json!("failed"), &json!("failed"), &json!("exited")),
                "{step:?}: {instance}"
            );
            assert_eq!(stage.site.leftovers(&id), [""; 0], "{step:?}");
            stage.remove(&[&id]).await;
        }
        stage.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_upgrade_completes_if_the_old_container_is_killed_in_any_step_docker() {
        let mut stage = Stage::start_on(Engine::shared()).await;
        let version = stage.import("upgraded", &Image::stdio()).await;
        let id = stage.site.deploy("upgraded", &version).await;
        for step in Step::ALL {
            let old = stage.site.container(&id);
            let version = stage.import("upgraded", &Image::new(&["gated"])).await;
            stage.hold(step);
            if step == Step::Preparing {
                // The network already exists.
                stage.engine.hold_responses_to("/networks?");
            }
            let change = json!({ "catalog_version_id": version });
            stage.site.api(Method::PATCH, &format!("/instances/{id}"), &change).await;
            stage.wait_for(step, &[&id]).await;
            stage.site.engine.kill(&old);
            stage.release();
            if step == Step::Validating {
                stage.site.toolbox.signal(Signal::CONT);
            }
            let instance = stage.settle(&id).await;
            assert_eq!(instance["deployment"]["state"], "complete", "{step:?}: {instance}");
            assert_eq!(instance["catalog_version_id"], json!(version), "{step:?}: {instance}");
            stage.site.wait_for(&id, "one container", |_| stage.site.containers(&id).len() == 1).await;
            stage.site.wait_for_state(&id, "running").await;
            stage.site.assert_echo(&id, step.name()).await;
        }
        stage.finish().await;
    }
}

waypost_testkit::needs_dockerd! {
    #[tokio::test(flavor = "multi_thread")]
    async fn an_engine_that_is_killed_in_any_step_continues_the_deployment_docker() {
        let own = OwnEngine::start();
        let mut stage = Stage::start_on(own.engine().clone()).await;
        for step in Step::ALL {
            let pair = stage.deploy(step).await;
            own.kill();
            stage.engine.cut();
            stage.release();
            own.start_again();
            if step == Step::Validating {
                stage.site.toolbox.signal(Signal::CONT);
            }
            stage.finish_pair(step, &pair).await;
        }
        stage.finish().await;
    }
}
