//! The overview of an instance: state, health and the current deployment.

use askama::Template;
use axum::extract::State;
use http::HeaderMap;
use waypost_core::catalog::{SecretDelivery, Source};
use waypost_core::deployment::{Deployment, DeploymentState};
use waypost_core::instance::{Backend, RemoteServer};
use waypost_core::toolbox::ToolboxState;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::calls::ListCalls;
use waypost_ops::toolboxes;
use waypost_toolbox_proto::deployment::DeploymentStep;
use waypost_toolbox_proto::instance::{Health, InstanceState};

use super::connection::Connection;
use super::records::deployment_badge;
use super::{Badge, InstanceContext, InstanceHeader, VersionSource};
use crate::Console;
use crate::calls::{CallRows, recent_rows};
use crate::layout::Layout;
use crate::live;
use crate::view::{self, FormError, PageResult};

/// A step of the current deployment.
struct Step {
    label: &'static str,
    /// `done`, `next` for the running step, `failed` or empty.
    class: &'static str,
    /// The state in words.
    state: &'static str,
}

/// The parts of the overview that change, which are polled.
#[derive(Template)]
#[template(path = "instances/status.html")]
pub(super) struct Status {
    base: String,
    is_admin: bool,
    state: Badge,
    text: &'static str,
    is_remote: bool,
    connection: Option<Connection>,
    health: Option<Health>,
    deployment: Option<Deployment>,
    badge: &'static str,
    steps: Vec<Step>,
    /// The name of the toolbox, if it is not online.
    offline_toolbox: Option<String>,
    rejected_egress: Vec<String>,
    learns_egress: bool,
}

impl Status {
    /// Whether the log may explain the state, and the viewer can read it.
    fn suggests_logs(&self) -> bool {
        self.is_admin && !self.is_remote && matches!(self.state.class, "bad" | "warn")
    }

    fn checked_at(&self, health: &Health) -> String {
        Timestamp(health.checked_at).rfc3339()
    }
}

#[derive(Template)]
#[template(path = "instances/overview.html")]
struct OverviewPage {
    layout: Layout,
    header: InstanceHeader,
    form_error: FormError,
    status: Status,
    about: About,
    /// The last calls through the gateway, for viewers who can read them.
    calls: Option<CallRows>,
    calls_path: String,
    created_at: String,
    id: String,
}

/// Facts about the server of an instance.
enum About {
    Container(Box<ContainerFacts>),
    Remote(Box<RemoteFacts>),
}

struct RemoteFacts {
    /// The catalogue version of the server, if it has one.
    source: Option<VersionSource>,
    origin: String,
    transport: &'static str,
    /// The names of the headers.
    headers: Vec<String>,
}

struct ContainerFacts {
    source: VersionSource,
    toolbox_path: String,
    toolbox_name: String,
    image: Option<String>,
}

impl ContainerFacts {
    fn egress(&self) -> String {
        let egress = self.source.version.definition.egress.iter().map(ToString::to_string).collect::<Vec<_>>();
        if egress.is_empty() { "None".to_owned() } else { egress.join(", ") }
    }

    fn env_secrets(&self) -> String {
        let secrets = self.source.version.definition.secrets.iter();
        let names = secrets.filter(|secret| secret.delivery == SecretDelivery::Env).map(|secret| secret.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Returns the explanation of a state.
fn explain(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Deploying => "The server is being deployed. It serves calls when it has listed its tools.",
        InstanceState::Running => "The server is healthy.",
        InstanceState::Unhealthy => "The server runs, but does not answer its health checks.",
        InstanceState::CrashLoop => {
            "The server crashed three times within five minutes. It is restarted with increasing delays."
        }
        InstanceState::Stopped => "The server is stopped.",
        InstanceState::Failed => "The deployment failed, and nothing serves calls.",
        InstanceState::Removing => "The toolbox is removing the containers, volumes and files of this instance.",
        InstanceState::Idle => "The server is stopped until its next call, which starts it.",
    }
}

/// The text for a server that requires OAuth and is not connected.
const UNCONNECTED: &str = "The server serves calls when an admin has connected it, and it has listed its tools.";

/// The text for a new server to which each agent has its own connection.
const NO_AGENT_CONNECTED: &str =
    "The server serves calls when an agent has been connected, and it has listed its tools.";

/// Returns the explanation of the state of a remote server.
fn explain_remote(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Deploying => {
            "The connection is being tested. The server serves calls when it has listed its tools."
        }
        InstanceState::Unhealthy => "The server does not answer its health checks.",
        InstanceState::Stopped => "The connection is switched off, so the server's tools cannot be called.",
        InstanceState::Failed => "The server could not be reached. It is tried again every 30 seconds.",
        other => explain(other),
    }
}

fn step_label(step: DeploymentStep) -> &'static str {
    match step {
        DeploymentStep::Validating => "Validate the configuration and the toolbox",
        DeploymentStep::Preparing => "Prepare networks, volumes and secrets",
        DeploymentStep::Pulling => "Pull the image",
        DeploymentStep::Starting => "Start the container",
        DeploymentStep::Checking => "Check that the server speaks MCP and lists its tools",
        DeploymentStep::Complete => "Complete",
    }
}

fn steps(deployment: &Deployment) -> Vec<Step> {
    let reached = deployment.error.as_ref().map_or(deployment.step, |error| error.step);
    let shown = DeploymentStep::ALL.iter().filter(|step| **step != DeploymentStep::Complete);
    let step = |step: &DeploymentStep| {
        let (class, state) = match (step.cmp(&reached), deployment.state) {
            (_, DeploymentState::Complete) | (std::cmp::Ordering::Less, _) => ("done", "done"),
            (std::cmp::Ordering::Equal, DeploymentState::Running) => ("next", "in progress"),
            (std::cmp::Ordering::Equal, _) => ("failed", "failed"),
            (std::cmp::Ordering::Greater, _) => ("", "not reached"),
        };
        Step { label: step_label(*step), class, state }
    };
    shown.map(step).collect()
}

async fn load(console: &Console, at: &InstanceContext) -> Result<(Status, Option<toolboxes::ToolboxView>)> {
    let instance = at.instance();
    let toolbox = match instance.toolbox_id() {
        Some(id) => Some(toolboxes::get(&at.cx, console.ops(), &at.organization_id, id).await?),
        None => None,
    };
    let offline = toolbox.as_ref().filter(|toolbox| toolbox.state != ToolboxState::Online);
    let is_remote = toolbox.is_none();
    let connection = Connection::find(console, at).await?;
    let status = Status {
        base: at.path(""),
        is_admin: at.org.is_admin(),
        state: Badge::new(instance.state),
        text: match &connection {
            Some(connection)
                if connection.own.is_none()
                    && connection.current.is_none()
                    && instance.state != InstanceState::Stopped =>
            {
                UNCONNECTED
            }
            Some(Connection { own: Some(_), .. }) if instance.state == InstanceState::Deploying => NO_AGENT_CONNECTED,
            _ if is_remote => explain_remote(instance.state),
            _ => explain(instance.state),
        },
        is_remote,
        connection,
        health: instance.health.clone(),
        badge: at.view.deployment.as_ref().map_or("", |deployment| deployment_badge(deployment.state)),
        steps: at.view.deployment.as_ref().map(steps).unwrap_or_default(),
        deployment: at.view.deployment.clone(),
        offline_toolbox: offline.map(|toolbox| toolbox.toolbox.name.clone()),
        rejected_egress: instance.rejected_egress.clone(),
        learns_egress: instance.learn_egress,
    };
    Ok((status, toolbox))
}

async fn remote_facts(console: &Console, at: &InstanceContext, remote: &RemoteServer) -> Result<RemoteFacts> {
    let source = match &remote.catalog_version_id {
        Some(version) => Some(VersionSource::find(&at.cx, console, &at.organization_id, version).await?),
        None => None,
    };
    let mut headers: Vec<_> = at.instance().secrets.iter().map(|used| used.name.clone()).collect();
    if let Some(Source::Remote(remote)) = source.as_ref().map(|source| &source.version.definition.source) {
        headers.extend(remote.headers.keys().cloned());
        headers.sort_unstable();
    }
    Ok(RemoteFacts { source, origin: remote.origin.clone(), transport: remote.transport.as_str(), headers })
}

async fn page(console: &Console, at: &InstanceContext) -> Result<OverviewPage> {
    let (status, toolbox) = load(console, at).await?;
    let instance = at.instance();
    let about = match (&instance.backend, toolbox) {
        (Backend::Container(container), Some(toolbox)) => {
            let version = &container.catalog_version_id;
            let source = VersionSource::find(&at.cx, console, &at.organization_id, version).await?;
            let image = match &source.version.definition.source {
                Source::Image(image) => Some(image.clone()),
                _ => None,
            };
            let toolbox_path = at.org.path(&format!("toolboxes/{}", container.toolbox_id));
            About::Container(Box::new(ContainerFacts {
                source,
                toolbox_path,
                toolbox_name: toolbox.toolbox.name,
                image,
            }))
        }
        (Backend::Remote(remote), _) => About::Remote(Box::new(remote_facts(console, at, remote).await?)),
        (Backend::Container(_), None) => return Err(Error::internal("the toolbox of an instance was not read")),
    };
    let query = ListCalls { instance_id: Some(at.id().clone()), ..ListCalls::default() };
    let calls = match at.org.is_admin() && console.has_gateway() {
        true => Some(recent_rows(&at.cx, console, &at.organization_id, &at.org, query).await?),
        false => None,
    };
    Ok(OverviewPage {
        layout: at.layout.clone(),
        header: at.header(""),
        form_error: FormError::default(),
        status,
        about,
        calls,
        calls_path: at.org.path(&format!("calls?instance={}", at.id())),
        created_at: instance.created_at.rfc3339(),
        id: instance.id.to_string(),
    })
}

pub(super) async fn show(State(console): State<Console>, at: InstanceContext) -> PageResult {
    Ok(view::page(&page(&console, &at).await.map_err(|error| at.page_error(error))?))
}

pub(super) async fn status(State(console): State<Console>, at: InstanceContext, headers: HeaderMap) -> PageResult {
    Ok(live::fragment(&headers, &load(&console, &at).await.map_err(|error| at.page_error(error))?.0))
}

pub(super) async fn badge(at: InstanceContext, headers: HeaderMap) -> PageResult {
    Ok(live::fragment(&headers, &Badge::new(at.instance().state)))
}

/// Renders the overview with the error of an action.
pub(super) async fn render_with_error(console: &Console, at: InstanceContext, error: Error) -> PageResult {
    let (status, form_error) = FormError::from_error(error).map_err(|error| at.page_error(error))?;
    let page = page(console, &at).await.map_err(|error| at.page_error(error))?;
    Ok(view::html(status, &OverviewPage { form_error, ..page }))
}
