//! `/o/{org}/instances`: tool servers that run on toolboxes or elsewhere.

mod access_form;
mod actions;
mod config_form;
mod configuration;
mod connection;
mod connections;
mod history;
mod list;
mod logs;
mod new;
mod overview;
mod own_connection;
mod records;
mod remote;
mod secrets_form;
mod tools;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::catalog::{CatalogEntry, CatalogVersion, Source};
use waypost_core::id::{CatalogVersionId, InstanceId, OrganizationId};
use waypost_core::instance::{DesiredRun, Instance};
use waypost_core::{Error, Result};
use waypost_ops::catalog;
use waypost_ops::instances::connect::{CALLBACK_PATH, CLIENT_DOCUMENT_PATH};
use waypost_ops::instances::{self, InstanceView};
use waypost_toolbox_proto::instance::InstanceState;

use crate::Console;
use crate::instance_state::{badge, label};
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::PageError;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::InstanceRead);
    const WRITE: Access = Access::Member(Operation::InstanceWrite);
    const OWN: Access = Access::Member(Operation::InstanceConnect);
    const LOGS: Access = Access::Member(Operation::InstanceLogRead);
    Routes::new()
        .get("/o/{org}/instances", READ, list::show)
        .get("/o/{org}/instances/rows", READ, list::rows)
        .get("/o/{org}/instances/new", WRITE, new::show)
        .get("/o/{org}/instances/connect", WRITE, remote::show_connect)
        .post("/o/{org}/instances/connect", WRITE, remote::connect)
        .post("/o/{org}/instances", WRITE, new::create)
        .get("/o/{org}/instances/{instance}", READ, overview::show)
        .get("/o/{org}/instances/{instance}/badge", READ, overview::badge)
        .get("/o/{org}/instances/{instance}/status", READ, overview::status)
        .get("/o/{org}/instances/{instance}/configuration", READ, configuration::show)
        .post("/o/{org}/instances/{instance}/configuration", WRITE, configuration::save)
        .get("/o/{org}/instances/{instance}/tools", READ, tools::show)
        .post("/o/{org}/instances/{instance}/tools", Access::Member(Operation::ToolApprovalWrite), tools::save)
        .get("/o/{org}/instances/{instance}/logs", LOGS, logs::show)
        .get("/o/{org}/instances/{instance}/history", READ, history::show)
        .get("/o/{org}/instances/{instance}/events", READ, records::events)
        .get("/o/{org}/instances/{instance}/deployments", READ, records::deployments)
        .post("/o/{org}/instances/{instance}/authorize", WRITE, connection::authorize)
        .get("/o/{org}/instances/{instance}/connections", WRITE, connections::show)
        .post("/o/{org}/instances/{instance}/connections", WRITE, connections::connect)
        .post("/o/{org}/instances/{instance}/connections/{agent}/disconnect", WRITE, connections::disconnect)
        .post("/o/{org}/instances/{instance}/disconnect", WRITE, connection::disconnect)
        .get("/o/{org}/connect/{instance}", OWN, own_connection::show)
        .post("/o/{org}/connect/{instance}", OWN, own_connection::connect)
        .post("/o/{org}/connect/{instance}/disconnect", OWN, own_connection::disconnect)
        .get(CALLBACK_PATH, Access::User, connection::callback)
        .get(CLIENT_DOCUMENT_PATH, Access::Public, connection::client_document)
        .post("/o/{org}/instances/{instance}/start", WRITE, actions::start)
        .post("/o/{org}/instances/{instance}/stop", WRITE, actions::stop)
        .post("/o/{org}/instances/{instance}/restart", WRITE, actions::restart)
        .post("/o/{org}/instances/{instance}/delete", WRITE, actions::delete)
}

/// The instance in the path (`{instance}`) with the context of the request.
pub(super) struct InstanceContext {
    cx: Ctx,
    organization_id: OrganizationId,
    org: CurrentOrganization,
    layout: Layout,
    view: InstanceView,
}

impl FromRequestParts<Console> for InstanceContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let Member { cx, organization_id, org, layout } = Member::from_request_parts(parts, console).await?;
        let layout = layout.with_section("instances");
        let params = RawPathParams::from_request_parts(parts, console).await.map_err(IntoResponse::into_response)?;
        let id = params.iter().find(|(name, _)| *name == "instance").and_then(|(_, text)| text.parse().ok());
        let found = match id {
            Some(id) => instances::get(&cx, console.ops(), &organization_id, &id).await,
            None => Err(Error::not_found("instance")),
        };
        match found {
            Ok(view) => Ok(Self { cx, organization_id, org, layout, view }),
            Err(error) => Err(PageError::from(error).with_layout(layout).into_response()),
        }
    }
}

impl InstanceContext {
    fn instance(&self) -> &Instance {
        &self.view.instance
    }

    fn id(&self) -> &InstanceId {
        &self.view.instance.id
    }

    /// Whether the server is remote: it does not run on a toolbox.
    fn is_remote(&self) -> bool {
        self.instance().container().is_err()
    }

    /// Whether the server is remote, at a URL that an admin has entered.
    fn has_own_url(&self) -> bool {
        self.is_remote() && self.instance().catalog_version_id().is_none()
    }

    /// Returns the path of a page of the instance.
    fn path(&self, rest: &str) -> String {
        let base = format!("instances/{}", self.id());
        self.org.path(&if rest.is_empty() { base } else { format!("{base}/{rest}") })
    }

    /// Returns the header for a page of the instance.
    fn header(&self, tab: &'static str) -> InstanceHeader {
        let instance = self.instance();
        InstanceHeader {
            list: self.org.path("instances"),
            base: self.path(""),
            name: instance.name.clone(),
            slug: instance.slug.clone(),
            badge: Badge::new(instance.state),
            tab,
            is_admin: self.org.is_admin(),
            is_remote: self.is_remote(),
            has_connections: instance.is_connected_per_agent(),
            is_stopped: instance.desired == DesiredRun::Stopped,
            is_removing: instance.is_removing,
        }
    }

    fn page_error(&self, error: Error) -> PageError {
        PageError::from(error).with_layout(self.layout.clone())
    }
}

/// The badge with the state of an instance, which is polled.
#[derive(askama::Template)]
#[template(path = "instances/badge.html")]
pub(super) struct Badge {
    class: &'static str,
    label: &'static str,
}

impl Badge {
    fn new(state: InstanceState) -> Self {
        Self { class: badge(state), label: label(state) }
    }
}

/// The header of all pages of an instance.
pub(super) struct InstanceHeader {
    /// The path of the list.
    list: String,
    /// The path of the instance.
    base: String,
    name: String,
    slug: String,
    badge: Badge,
    tab: &'static str,
    is_admin: bool,
    /// Whether the server is remote, so that there is no container to show.
    is_remote: bool,
    /// Whether each agent has its own connection.
    has_connections: bool,
    is_stopped: bool,
    is_removing: bool,
}

impl InstanceHeader {
    /// Returns the path and label of each tab that the viewer can open, and whether it is the current one.
    fn tabs(&self) -> Vec<(String, &'static str, bool)> {
        [
            ("", "Overview"),
            ("configuration", "Configuration"),
            ("connections", "Connections"),
            ("tools", "Tools"),
            ("logs", "Logs"),
            ("history", "History"),
            ("events", "Events"),
            ("deployments", "Deployments"),
        ]
        .into_iter()
        .filter(|(rest, _)| *rest != "logs" || self.is_admin)
        .filter(|(rest, _)| *rest != "connections" || (self.is_admin && self.has_connections))
        .filter(|(rest, _)| !self.is_remote || !matches!(*rest, "logs" | "history" | "deployments"))
        .map(|(rest, label)| {
            let href = if rest.is_empty() { self.base.clone() } else { format!("{}/{rest}", self.base) };
            (href, label, rest == self.tab)
        })
        .collect()
    }
}

/// A version of a catalogue entry, with its entry.
pub(super) struct VersionSource {
    entry: CatalogEntry,
    version: CatalogVersion,
}

impl VersionSource {
    /// Returns the version `id` with its entry.
    ///
    /// # Errors
    /// `not_found` if it does not exist.
    async fn find(cx: &Ctx, console: &Console, organization: &OrganizationId, id: &CatalogVersionId) -> Result<Self> {
        let entry = catalog::get_by_version(cx, console.ops(), organization, id).await?;
        let version = entry.versions.iter().find(|version| version.id == *id).cloned();
        let version = version.ok_or_else(|| Error::not_found("catalogue version"))?;
        Ok(Self { entry, version })
    }

    /// Returns the ID and the label of each version of the entry, newest first, and whether it is this one.
    fn options(&self) -> Vec<(String, String, bool)> {
        let option =
            |version: &CatalogVersion| (version.id.to_string(), version.version.clone(), version.id == self.version.id);
        self.entry.versions.iter().map(option).collect()
    }

    /// Whether the version describes a remote server.
    fn is_remote(&self) -> bool {
        self.version.definition.is_remote()
    }

    /// Returns the origin of the URL of a remote server, or `None` for other servers.
    fn origin(&self) -> Option<&str> {
        match &self.version.definition.source {
            Source::Remote(remote) => Some(&remote.origin),
            Source::Image(_) | Source::Package(_) => None,
        }
    }

    /// Whether the entry has other versions.
    fn has_other_versions(&self) -> bool {
        self.entry.versions.len() > 1
    }
}
