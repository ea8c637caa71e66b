//! The form that connects to a remote server, and the configuration of such a server.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use waypost_core::instance::{Backend, ConnectionMode, RegisteredClient, RemoteServer};
use waypost_core::{Error, Result};
use waypost_ops::instances::connect::CALLBACK_PATH;
use waypost_ops::instances::remote::NewRemoteServer;
use waypost_ops::instances::{self, InstancePatch, NewInstance, NewServer};
use waypost_toolbox_proto::entry::Transport;

use super::access_form::AccessForm;
use super::{InstanceContext, InstanceHeader, secrets_form};
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

const CREATED: &str =
    "Created. The connection is tested, or waits until you choose Connect if the server requires OAuth.";
/// The number of empty rows for further headers.
const EMPTY_ROWS: usize = 2;

/// A header whose value is a secret.
#[derive(Default, Clone)]
struct HeaderRow {
    name: String,
    /// The ID of the secret.
    secret: String,
}

/// The fields of the form.
#[derive(Default)]
struct RemoteFields {
    slug: String,
    name: String,
    /// The URL. If it is empty, the current one is kept.
    url: String,
    transport: String,
    /// Whether the server requires OAuth.
    oauth: bool,
    /// The owner of the OAuth connection.
    connection: String,
    /// The ID of the registered client. Empty if there is none.
    client_id: String,
    /// The ID of the secret that contains the client secret. Empty if there is none.
    client_secret_id: String,
    /// Whether the contents of calls are recorded.
    record_contents: bool,
    headers: Vec<HeaderRow>,
}

impl RemoteFields {
    fn from_pairs(pairs: &[(String, String)]) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "slug" => value.trim().clone_into(&mut fields.slug),
                "name" => fields.name.clone_from(value),
                "url" => value.trim().clone_into(&mut fields.url),
                "transport" => fields.transport.clone_from(value),
                "oauth" => fields.oauth = true,
                "record_contents" => fields.record_contents = true,
                "connection" => fields.connection.clone_from(value),
                "client_id" => value.trim().clone_into(&mut fields.client_id),
                "client_secret_id" => fields.client_secret_id.clone_from(value),
                "header" => fields.headers.push(HeaderRow { name: value.trim().to_owned(), ..HeaderRow::default() }),
                "secret" => {
                    if let Some(row) = fields.headers.last_mut() {
                        row.secret.clone_from(value);
                    }
                }
                _ => {}
            }
        }
        fields.headers.retain(|row| !row.name.is_empty() || !row.secret.is_empty());
        fields
    }

    /// Returns the ID of the secret for each header.
    ///
    /// # Errors
    /// `invalid_arguments` for `secrets` if a row is incomplete or two rows have the same name.
    fn secrets(&self) -> Result<BTreeMap<String, waypost_core::id::ToolSecretId>> {
        let mut secrets = BTreeMap::new();
        for row in &self.headers {
            let incomplete = "Enter a name and select a secret for each header.";
            if row.name.is_empty() {
                return Err(Error::invalid("secrets", incomplete));
            }
            let id = row.secret.parse().map_err(|_| Error::invalid("secrets", incomplete))?;
            if secrets.insert(row.name.clone(), id).is_some() {
                return Err(Error::invalid("secrets", format!("The header `{}` is set twice.", row.name)));
            }
        }
        Ok(secrets)
    }

    /// Returns the registered client, or `None` if no client ID is entered.
    ///
    /// # Errors
    /// `invalid_arguments` for `client_id` or `client_secret_id`.
    fn client(&self) -> Result<Option<RegisteredClient>> {
        let secret_id = match self.client_secret_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| Error::invalid("client_secret_id", "Select one of the secrets."))?),
        };
        match (self.client_id.is_empty(), secret_id) {
            (false, secret_id) => Ok(Some(RegisteredClient { client_id: self.client_id.clone(), secret_id })),
            (true, None) => Ok(None),
            (true, Some(_)) => {
                Err(Error::invalid("client_id", "Enter the ID of the client to which the secret belongs."))
            }
        }
    }

    /// Returns the remote server that the form describes.
    ///
    /// # Errors
    /// `invalid_arguments` for `transport` or `connection`; those of [`Self::client`].
    fn server(&self) -> Result<NewRemoteServer> {
        let transport = self.transport.parse::<Transport>();
        let transport = transport.map_err(|_| Error::invalid("transport", "Select one of the transports."))?;
        let connection = match self.connection.as_str() {
            "" => ConnectionMode::Shared,
            text => text.parse().map_err(|_| Error::invalid("connection", "Select one of the connections."))?,
        };
        Ok(NewRemoteServer {
            url: self.url.clone(),
            transport,
            is_oauth: self.oauth,
            connection,
            client: self.client()?,
        })
    }
}

#[derive(Template)]
#[template(path = "instances/connect.html")]
struct ConnectPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    fields: RemoteFields,
    secrets: Vec<(String, String)>,
    redirect_uri: String,
    access: AccessForm,
}

#[derive(Template)]
#[template(path = "instances/remote_configuration.html")]
struct RemoteConfigurationPage {
    layout: Layout,
    org: CurrentOrganization,
    header: InstanceHeader,
    form_error: FormError,
    fields: RemoteFields,
    secrets: Vec<(String, String)>,
    redirect_uri: String,
    origin: String,
}

fn transports() -> Vec<(String, &'static str)> {
    vec![
        (Transport::StreamableHttp.to_string(), "Streamable HTTP"),
        (Transport::Sse.to_string(), "HTTP with SSE (2024-11-05)"),
    ]
}

fn connections() -> Vec<(String, &'static str)> {
    vec![
        (ConnectionMode::Shared.to_string(), "One for the whole organisation"),
        (ConnectionMode::PerAgent.to_string(), "One for each agent"),
    ]
}

/// Returns the choices for the secret of the registered client.
fn client_secrets(secrets: &[(String, String)]) -> Vec<(String, String)> {
    std::iter::once((String::new(), "None".to_owned())).chain(secrets.iter().cloned()).collect()
}

/// Returns the redirect URI of the registered client.
fn redirect_uri(console: &Console) -> String {
    format!("{}{CALLBACK_PATH}", console.public_url.origin())
}

/// Returns the rows of the form with their numbers: the filled ones, followed by empty ones.
fn rows(headers: &[HeaderRow]) -> Vec<(usize, HeaderRow)> {
    let empty = std::iter::repeat_n(HeaderRow::default(), EMPTY_ROWS);
    headers.iter().cloned().chain(empty).enumerate().map(|(index, row)| (index + 1, row)).collect()
}

impl ConnectPage {
    fn rows(&self) -> Vec<(usize, HeaderRow)> {
        rows(&self.fields.headers)
    }

    fn transports(&self) -> Vec<(String, &'static str)> {
        transports()
    }

    fn connections(&self) -> Vec<(String, &'static str)> {
        connections()
    }

    fn client_secrets(&self) -> Vec<(String, String)> {
        client_secrets(&self.secrets)
    }
}

impl RemoteConfigurationPage {
    fn rows(&self) -> Vec<(usize, HeaderRow)> {
        rows(&self.fields.headers)
    }

    fn transports(&self) -> Vec<(String, &'static str)> {
        transports()
    }

    fn connections(&self) -> Vec<(String, &'static str)> {
        connections()
    }

    fn client_secrets(&self) -> Vec<(String, String)> {
        client_secrets(&self.secrets)
    }

    fn can_edit(&self) -> bool {
        self.org.is_admin() && !self.header.is_removing
    }
}

async fn connect_page(console: &Console, member: &Member, fields: RemoteFields) -> Result<ConnectPage, PageError> {
    let layout = member.layout.clone().with_section("instances");
    let secrets = secrets_form::options(&member.cx, console, &member.organization_id).await;
    let secrets = secrets.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    let access = AccessForm::load(&member.cx, console, &member.organization_id, None).await;
    let access = access.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    Ok(ConnectPage {
        layout,
        org: member.org.clone(),
        form_error: FormError::default(),
        fields,
        secrets,
        redirect_uri: redirect_uri(console),
        access,
    })
}

pub(super) async fn show_connect(State(console): State<Console>, member: Member) -> PageResult {
    Ok(view::page(&connect_page(&console, &member, RemoteFields::default()).await?))
}

pub(super) async fn connect(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let page = connect_page(&console, &member, RemoteFields::from_pairs(&pairs)).await?;
    let page = ConnectPage { access: page.access.with_input(&pairs), ..page };
    match create(&console, &member, &page).await {
        Ok(path) => Ok(view::redirect_with_flash(&path, CREATED)),
        Err(error) => {
            let located = form_error(error);
            let (status, form_error) =
                located.map_err(|error| PageError::from(error).with_layout(page.layout.clone()))?;
            Ok(view::html(status, &ConnectPage { form_error, ..page }))
        }
    }
}

/// Creates the instance. Returns the path of its page.
async fn create(console: &Console, member: &Member, page: &ConnectPage) -> Result<String> {
    let fields = &page.fields;
    let new = NewInstance {
        slug: fields.slug.clone(),
        name: Some(fields.name.clone()).filter(|name| !name.trim().is_empty()),
        server: NewServer::Remote(fields.server()?),
        secrets: fields.secrets()?,
        access: page.access.parse()?,
    };
    let view = instances::create(&member.cx, console.ops(), &member.organization_id, &new).await?;
    Ok(member.org.path(&format!("instances/{}", view.instance.id)))
}

/// Converts an error for the form. An error about `remote` is shown at the field `url`.
fn form_error(error: Error) -> Result<(http::StatusCode, FormError)> {
    let (status, found) = FormError::from_error(error)?;
    let field = if found.field == "remote" { "url".to_owned() } else { found.field };
    Ok((status, FormError { field, ..found }))
}

async fn configuration_page(
    console: &Console,
    at: &InstanceContext,
    (remote, fields): (&RemoteServer, Option<RemoteFields>),
) -> Result<RemoteConfigurationPage> {
    let instance = at.instance();
    let header = |used: &waypost_core::instance::SecretUse| HeaderRow {
        name: used.name.clone(),
        secret: used.secret_id.to_string(),
    };
    let client_secret = remote.client.as_ref().and_then(|client| client.secret_id.as_ref());
    let fields = fields.unwrap_or_else(|| RemoteFields {
        slug: instance.slug.clone(),
        name: instance.name.clone(),
        url: String::new(),
        transport: remote.transport.to_string(),
        oauth: remote.is_oauth,
        connection: remote.connection.to_string(),
        client_id: remote.client.as_ref().map(|client| client.client_id.clone()).unwrap_or_default(),
        client_secret_id: client_secret.map(ToString::to_string).unwrap_or_default(),
        record_contents: instance.record_contents,
        headers: instance.secrets.iter().map(header).collect(),
    });
    // Only admins can list secrets. Other members see the names of the headers.
    let secrets = match at.org.is_admin() {
        true => secrets_form::options(&at.cx, console, &at.organization_id).await?,
        false => Vec::new(),
    };
    Ok(RemoteConfigurationPage {
        layout: at.layout.clone(),
        org: at.org.clone(),
        header: at.header("configuration"),
        form_error: FormError::default(),
        fields,
        secrets,
        redirect_uri: redirect_uri(console),
        origin: remote.origin.clone(),
    })
}

fn remote_of(at: &InstanceContext) -> Result<&RemoteServer> {
    match &at.instance().backend {
        Backend::Remote(remote) => Ok(remote),
        Backend::Container(_) => Err(Error::not_found("remote server")),
    }
}

pub(super) async fn show_configuration(console: &Console, at: &InstanceContext) -> PageResult {
    let found = async { configuration_page(console, at, (remote_of(at)?, None)).await };
    Ok(view::page(&found.await.map_err(|error| at.page_error(error))?))
}

pub(super) async fn save_configuration(
    console: &Console,
    at: &InstanceContext,
    pairs: &[(String, String)],
) -> PageResult {
    let fields = RemoteFields::from_pairs(pairs);
    let saved = async {
        let remote = remote_of(at)?;
        let is_moved = !fields.url.is_empty();
        let server = fields.server()?;
        let is_same = server.transport == remote.transport
            && (server.is_oauth, server.connection) == (remote.is_oauth, remote.connection)
            && server.client == remote.client;
        if !is_moved && !is_same {
            let message = "Enter the URL again to change the transport, or how the server is connected with OAuth.";
            return Err(Error::invalid("url", message));
        }
        let patch = InstancePatch {
            name: Some(fields.name.clone()),
            secrets: Some(fields.secrets()?),
            record_contents: Some(fields.record_contents),
            remote: is_moved.then_some(server),
            ..InstancePatch::default()
        };
        instances::update(&at.cx, console.ops(), &at.organization_id, at.id(), &patch).await
    };
    match saved.await {
        Ok(view) if view.instance.generation != at.instance().generation => {
            Ok(view::redirect_with_flash(&at.path(""), "Saved. The server is tested again."))
        }
        Ok(_) => Ok(view::redirect_with_flash(&at.path("configuration"), "Saved.")),
        Err(error) => {
            let (status, form_error) = form_error(error).map_err(|error| at.page_error(error))?;
            let page = async { configuration_page(console, at, (remote_of(at)?, Some(fields))).await };
            let page = page.await.map_err(|error| at.page_error(error))?;
            Ok(view::html(status, &RemoteConfigurationPage { form_error, ..page }))
        }
    }
}
