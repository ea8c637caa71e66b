//! An installation with one toolbox, and the instances that tests deploy on it.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::engine::Engine;
use crate::image::Image;
use crate::leak::{assert_nothing_left, leftovers};
use crate::registry::Registry;
use crate::waypost::{Toolbox, Waypost};

/// The time within which an instance must reach a state. A deployment may take a minute to fail.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The interval at which a condition is polled.
const INTERVAL: Duration = Duration::from_millis(100);

/// An installation with a running toolbox. Must end with [`Site::finish`].
pub struct Site {
    pub engine: Engine,
    pub waypost: Waypost,
    pub toolbox: Toolbox,
    // Dropped after the daemon, which would start containers again, and before the registry, which removes images.
    _leftovers: LeftoversOfFailure,
    pub registry: Registry,
}

/// Removes the objects that a failed test has left behind, so that they do not affect other tests on the shared engine.
struct LeftoversOfFailure {
    engine: Engine,
    label: String,
}

impl Drop for LeftoversOfFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.engine.remove_labelled(&self.label);
        }
    }
}

impl Site {
    /// Starts the control plane and a toolbox on the shared engine.
    pub async fn start() -> Self {
        Self::start_on(Engine::shared()).await
    }

    /// Starts the control plane and a toolbox on an engine.
    pub async fn start_on(engine: Engine) -> Self {
        let waypost = Waypost::start().await;
        let toolbox = Toolbox::join(&waypost, "machine").await;
        Self::start_as(engine, waypost, toolbox).await
    }

    /// Starts a toolbox that has joined a control plane, on an engine.
    pub async fn start_as(engine: Engine, waypost: Waypost, mut toolbox: Toolbox) -> Self {
        let registry = Registry::start().await;
        toolbox.run(&engine).await;
        Self::of(engine, registry, waypost, toolbox).await
    }

    /// Returns a site with these running components, after the first heartbeat of the toolbox.
    pub async fn of(engine: Engine, registry: Registry, waypost: Waypost, toolbox: Toolbox) -> Self {
        let label = format!("dev.waypost.toolbox={}", toolbox.id);
        let _leftovers = LeftoversOfFailure { engine: engine.clone(), label };
        let site = Self { engine, registry, waypost, toolbox, _leftovers };
        let path = format!("/toolboxes/{}", site.toolbox.id);
        let has_reported = async || site.api(Method::GET, &path, &Value::Null).await["capacity"].is_object();
        site.poll("the first heartbeat", has_reported).await;
        site
    }

    /// Sends a request that must succeed.
    pub async fn api(&self, method: Method, path: &str, body: &Value) -> Value {
        let (status, body) = self.waypost.api(method.clone(), path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {body}");
        body
    }

    /// Imports a version of the entry `slug`, whose image is pushed to the registry. `fields` are additional members of
    /// the entry. Returns the ID of the version.
    pub async fn import(&self, slug: &str, version: &str, image: &Image, fields: Value) -> String {
        let image = self.registry.push(slug, image).await;
        self.import_image(slug, version, &image, fields).await
    }

    /// Like [`Self::import`], with the reference of an image.
    pub async fn import_image(&self, slug: &str, version: &str, image: &str, fields: Value) -> String {
        let mut entry = json!({
            "slug": slug, "name": slug, "version": version, "source": { "image": image }, "transport": "stdio",
            "resources": "light",
        });
        let fields: Map<String, Value> = serde_json::from_value(fields).expect("an object");
        entry.as_object_mut().expect("an object").extend(fields);
        let imported = self.api(Method::POST, "/catalog/import", &entry).await;
        imported["version_id"].as_str().unwrap_or_else(|| panic!("no version: {imported}")).to_owned()
    }

    /// Creates an instance of a version, and returns it without waiting for its deployment.
    pub async fn create(&self, slug: &str, version: &str) -> Value {
        self.api(Method::POST, "/instances", &json!({ "slug": slug, "catalog_version_id": version })).await
    }

    /// Creates an instance and waits until it is deployed. Returns its ID.
    pub async fn deploy(&self, slug: &str, version: &str) -> String {
        let id = id_of(&self.create(slug, version).await);
        let instance = self.deployed(&id).await;
        assert_eq!(instance["deployment"]["state"], "complete", "{instance}\n{}", self.toolbox.log());
        assert_eq!(instance["state"], "running", "{instance}");
        id
    }

    /// Waits until the current deployment of an instance has ended, and returns the instance.
    pub async fn deployed(&self, id: &str) -> Value {
        self.wait_for(id, "the end of the deployment", |instance| {
            instance["deployment"]["state"].as_str().is_some_and(|state| state != "running")
        })
        .await
    }

    /// Waits until an instance has a state.
    pub async fn wait_for_state(&self, id: &str, state: &str) -> Value {
        self.wait_for(id, state, |instance| instance["state"] == state).await
    }

    /// Waits until `is_reached` is true for an instance, and returns it.
    pub async fn wait_for(&self, id: &str, what: &str, is_reached: impl Fn(&Value) -> bool) -> Value {
        let (mut instance, path) = (Value::Null, format!("/instances/{id}"));
        self.poll(what, async || {
            instance = self.api(Method::GET, &path, &Value::Null).await;
            is_reached(&instance)
        })
        .await;
        instance
    }

    /// Calls a tool and returns the response of the API.
    pub async fn call(&self, id: &str, tool: &str, arguments: Value) -> (StatusCode, Value) {
        let body = json!({ "tool": tool, "arguments": arguments });
        self.waypost.api(Method::POST, &format!("/instances/{id}/call"), &body).await
    }

    /// Calls the tool `echo`, which must return its text.
    pub async fn assert_echo(&self, id: &str, text: &str) {
        let (status, result) = self.call(id, "echo", json!({ "text": text })).await;
        assert_eq!((status, &result["content"][0]["text"]), (StatusCode::OK, &json!(text)), "{result}");
    }

    /// Waits until the control plane has a link to the toolbox again.
    pub async fn wait_for_link(&self, id: &str) {
        let path = format!("/instances/{id}/tools");
        self.poll("a link", async || self.waypost.api(Method::GET, &path, &Value::Null).await.0.is_success()).await;
    }

    /// Waits until the daemon's log contains `text`.
    pub async fn wait_for_log(&self, text: &str) {
        self.poll(text, async || self.toolbox.log().contains(text)).await;
    }

    /// Waits until `is_reached` returns true.
    pub async fn poll(&self, what: &str, mut is_reached: impl AsyncFnMut() -> bool) {
        let reached = async {
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                interval.tick().await;
                if is_reached().await {
                    return;
                }
            }
        };
        assert!(timeout(TIMEOUT, reached).await.is_ok(), "{what} was not reached:\n{}", self.toolbox.log());
    }

    /// Returns the containers of an instance.
    pub fn containers(&self, id: &str) -> Vec<Value> {
        self.engine.containers(&format!("dev.waypost.instance={id}"))
    }

    /// Returns the ID of the only container of an instance.
    pub fn container(&self, id: &str) -> String {
        let containers = self.containers(id);
        assert_eq!(containers.len(), 1, "{containers:#?}");
        containers[0]["Id"].as_str().expect("an ID").to_owned()
    }

    /// Returns descriptions of the objects of an instance in the engine and in the folder for secrets.
    pub fn leftovers(&self, id: &str) -> Vec<String> {
        leftovers(&self.engine, &format!("dev.waypost.instance={id}"), self.toolbox.secrets())
    }

    /// Deletes an instance and waits until it no longer exists.
    pub async fn delete(&self, id: &str) {
        self.api(Method::DELETE, &format!("/instances/{id}"), &Value::Null).await;
        let path = format!("/instances/{id}");
        let is_gone = async || self.waypost.api(Method::GET, &path, &Value::Null).await.0 == StatusCode::NOT_FOUND;
        self.poll("the removal", is_gone).await;
    }

    /// Deletes all instances, stops the daemon, and checks that nothing is left.
    pub async fn finish(mut self) {
        let instances = self.api(Method::GET, "/instances", &Value::Null).await;
        for instance in instances["items"].as_array().expect("a list") {
            self.delete(&id_of(instance)).await;
        }
        self.toolbox.stop().await;
        self.finish_stopped();
    }

    /// Checks that nothing is left of a toolbox whose daemon has stopped.
    pub fn finish_stopped(self) {
        assert_nothing_left(&self.engine, &self.toolbox.id, self.toolbox.secrets());
        self.engine.remove_images_of(self.registry.address());
    }
}

/// Returns the ID of an object of the API.
pub fn id_of(object: &Value) -> String {
    object["id"].as_str().unwrap_or_else(|| panic!("no ID: {object}")).to_owned()
}
