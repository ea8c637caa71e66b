//! Organisations, servers and walkthroughs for tests.

use serde_json::json;
use waypost_content::transfer;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::servers::{self, ServerSettings};
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::walkthroughs::{self, EditTarget, WalkthroughPatch, publish, trash};

use super::App;
use crate::client::Client;

/// An organisation.
#[derive(Clone)]
pub struct Org {
    pub app: App,
    pub id: OrganizationId,
}

impl Org {
    pub async fn server(&self, slug: &str) -> Server {
        self.server_with(slug, ServerSettings::default()).await
    }

    pub async fn server_with(&self, slug: &str, settings: ServerSettings) -> Server {
        let app = &self.app;
        let server = servers::create(app.cx(), &app.ops(), &self.id, slug, &settings).await.unwrap();
        app.refresh().await;
        Server { app: app.clone(), org: self.clone(), id: server.id, slug: slug.to_owned() }
    }

    /// Creates a published walkthrough that is not assigned.
    pub async fn walkthrough(&self, title: &str, steps: &[&str]) -> Walkthrough {
        self.import(&document(title, steps), ImportOptions { publish: true, ..ImportOptions::default() }).await
    }

    pub async fn import(&self, document: &serde_json::Value, options: ImportOptions) -> Walkthrough {
        let app = &self.app;
        let file = transfer::parse("test.json", &document.to_string()).unwrap();
        let report = import::import(app.cx(), &app.ops(), &self.id, file, options).await.unwrap();
        app.refresh().await;
        let title = document["walkthrough"]["title"].as_str().unwrap().to_owned();
        Walkthrough { org: self.clone(), id: report.id.unwrap(), slug: report.slug, title }
    }
}

/// A hosted server.
#[derive(Clone)]
pub struct Server {
    pub app: App,
    pub org: Org,
    pub id: ServerId,
    pub slug: String,
}

impl Server {
    /// Creates a published walkthrough that is assigned to this server. A step's key is its title.
    pub async fn walkthrough(&self, title: &str, steps: &[&str]) -> Walkthrough {
        self.import(&document(title, steps)).await
    }

    /// Imports, publishes and assigns a walkthrough document.
    pub async fn import(&self, document: &serde_json::Value) -> Walkthrough {
        let server = Some(self.slug.clone());
        self.org.import(document, ImportOptions { publish: true, server, ..ImportOptions::default() }).await
    }

    pub async fn update(&self, settings: ServerSettings) {
        let app = &self.app;
        servers::update(app.cx(), &app.ops(), &self.org.id, &self.id, &settings).await.unwrap();
        app.refresh().await;
    }

    pub fn path(&self) -> String {
        format!("/s/{}/mcp", self.slug)
    }

    /// Returns a 2026-07-28 client.
    pub fn modern(&self) -> Client {
        Client::modern(&self.app, self.path())
    }

    /// Returns a 2026-07-28 client with a personal URL.
    pub fn personal(&self, tracking_id: &str) -> Client {
        Client::modern(&self.app, format!("/s/{}/t/{tracking_id}/mcp", self.slug))
    }

    /// Returns a client of a legacy revision that has not connected yet.
    pub fn legacy(&self, revision: &'static str) -> Client {
        Client::legacy(&self.app, self.path(), revision)
    }

    pub async fn assign(&self, walkthrough: &Walkthrough, placement: AssignmentPatch) {
        let app = &self.app;
        assignments::assign(app.cx(), &app.ops(), &self.org.id, &self.id, &walkthrough.id, placement).await.unwrap();
        app.refresh().await;
    }

    pub async fn unassign(&self, walkthrough: &Walkthrough) {
        let app = &self.app;
        assignments::unassign(app.cx(), &app.ops(), &self.org.id, &self.id, &walkthrough.id).await.unwrap();
        app.refresh().await;
    }
}

/// A walkthrough.
#[derive(Clone)]
pub struct Walkthrough {
    org: Org,
    pub id: WalkthroughId,
    pub slug: String,
    title: String,
}

impl Walkthrough {
    fn target(&self) -> EditTarget<'_> {
        EditTarget { organization_id: &self.org.id, walkthrough_id: &self.id, revision: None }
    }

    /// Returns the ID of the draft step with this title.
    pub async fn step(&self, title: &str) -> String {
        let app = &self.org.app;
        let draft = walkthroughs::get_draft(app.cx(), &app.ops(), &self.org.id, &self.id).await.unwrap();
        draft.steps.iter().find(|step| step.content.title == title).unwrap().id.to_string()
    }

    /// Publishes a new version with the given steps.
    pub async fn publish(&self, steps: &[&str]) {
        let options =
            ImportOptions { id: Some(self.id.clone()), publish: true, replace: true, ..ImportOptions::default() };
        self.org.import(&document(&self.title, steps), options).await;
    }

    pub async fn update(&self, change: WalkthroughPatch) {
        let app = &self.org.app;
        walkthroughs::update(app.cx(), &app.ops(), self.target(), change).await.unwrap();
        app.refresh().await;
    }

    pub async fn republish(&self) {
        let app = &self.org.app;
        publish::publish(app.cx(), &app.ops(), self.target(), false).await.unwrap();
        app.refresh().await;
    }

    pub async fn withdraw(&self, number: u32, reason: &str) {
        let app = &self.org.app;
        publish::withdraw(app.cx(), &app.ops(), self.target(), number, reason).await.unwrap();
        app.refresh().await;
    }

    pub async fn unpublish(&self) {
        let app = &self.org.app;
        publish::unpublish(app.cx(), &app.ops(), self.target()).await.unwrap();
        app.refresh().await;
    }

    pub async fn archive(&self) {
        let app = &self.org.app;
        publish::archive(app.cx(), &app.ops(), self.target()).await.unwrap();
        app.refresh().await;
    }

    pub async fn unarchive(&self) {
        let app = &self.org.app;
        publish::unarchive(app.cx(), &app.ops(), self.target()).await.unwrap();
        app.refresh().await;
    }

    pub async fn delete(&self) {
        self.delete_without_refresh().await;
        self.org.app.refresh().await;
    }

    /// Restores the walkthrough from the trash.
    pub async fn restore(&self) {
        let app = &self.org.app;
        let target = self.target();
        trash::restore(app.cx(), &app.ops(), target.organization_id, target.walkthrough_id).await.unwrap();
        app.refresh().await;
    }

    /// Deletes the walkthrough without reloading the offers, as if another process had deleted it.
    pub async fn delete_without_refresh(&self) {
        let app = &self.org.app;
        walkthroughs::delete(app.cx(), &app.ops(), self.target()).await.unwrap();
    }
}

/// Returns a walkthrough document. Each step's key is its title.
pub fn document(title: &str, steps: &[&str]) -> serde_json::Value {
    let steps: Vec<_> = steps
        .iter()
        .map(|title| {
            let fields = json!({ "version": "v1", "contentForUser": format!("{title} it.") });
            json!({ "key": title, "title": title, "contentFields": fields })
        })
        .collect();
    json!({ "version": "1.1", "walkthrough": { "title": title, "type": "course" }, "steps": steps })
}
