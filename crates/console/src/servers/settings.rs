//! The settings of a server, its former slugs, and its deletion.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::{Operation, authorize};
use waypost_core::server::{AuthType, Server, SignInPolicy, Support, Toolset};
use waypost_ops::oauth_configs;
use waypost_ops::servers::{self, AVAILABLE_SUPPORT, ServerContents, ServerSettings};

use super::super::form::Form;
use super::super::layout::Layout;
use super::super::view::{self, FormError, PageResult};
use super::{ServerContext, ServerHeader, auth_label, pluralize};
use crate::Console;

type Options = Vec<(String, String)>;

/// The form fields. An unchecked checkbox is not sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SettingsForm {
    name: String,
    slug: String,
    product_name: String,
    auth_type: String,
    sign_in: String,
    oauth_config: String,
    walkthrough_tools_enabled: bool,
    toolset: String,
    support: String,
    allowed_origins: String,
    public_page: bool,
    public_page_indexed: bool,
}

impl From<&Server> for SettingsForm {
    fn from(server: &Server) -> Self {
        Self {
            name: server.name.clone(),
            slug: server.slug.clone(),
            product_name: server.product_name.clone(),
            auth_type: server.auth_type.to_string(),
            sign_in: server.sign_in.to_string(),
            oauth_config: server.oauth_config_id.as_ref().map_or("none".to_owned(), ToString::to_string),
            walkthrough_tools_enabled: server.walkthrough_tools_enabled,
            toolset: server.toolset.to_string(),
            support: server.support.to_string(),
            allowed_origins: server.allowed_origins.join("\n"),
            public_page: server.public_page,
            public_page_indexed: server.public_page_indexed,
        }
    }
}

impl SettingsForm {
    fn settings(&self) -> Result<ServerSettings, Error> {
        fn parse_option<T: std::str::FromStr<Err = String>>(field: &str, text: &str) -> Result<Option<T>, Error> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|reason| Error::invalid(field, format!("`{field}`: {reason}.")))
        }
        let lines = self.allowed_origins.lines().map(str::trim).filter(|line| !line.is_empty());
        let auth_type = parse_option::<AuthType>("auth_type", &self.auth_type)?;
        let none = self.oauth_config.is_empty() || self.oauth_config == "none";
        // If no provider is selected, the organisation's only provider is used.
        let oauth_config = match (none, auth_type) {
            (true, Some(AuthType::CustomOauth)) => None,
            (true, _) => Some("none".to_owned()),
            (false, _) => Some(self.oauth_config.clone()),
        };
        Ok(ServerSettings {
            slug: Some(self.slug.trim().to_owned()),
            name: Some(self.name.clone()),
            product_name: Some(self.product_name.clone()),
            auth_type,
            sign_in: parse_option("sign_in", &self.sign_in)?,
            oauth_config,
            walkthrough_tools_enabled: Some(self.walkthrough_tools_enabled),
            toolset: parse_option("toolset", &self.toolset)?,
            support: parse_option("support", &self.support)?,
            allowed_origins: Some(lines.map(str::to_owned).collect()),
            public_page: Some(self.public_page),
            public_page_indexed: Some(self.public_page_indexed),
        })
    }
}

#[derive(Template)]
#[template(path = "servers/settings.html")]
struct ServerSettingsPage {
    layout: Layout,
    header: ServerHeader,
    form_error: FormError,
    is_admin: bool,
    fields: SettingsForm,
    auth_types: Options,
    sign_ins: Options,
    providers: Options,
    providers_path: String,
    toolsets: Options,
    supports: Options,
    former: Vec<String>,
    /// The warning about changing the sign-in settings.
    sign_in_warning: String,
    server_id: String,
}

impl ServerSettingsPage {
    fn slug_extra(&self) -> String {
        // Viewers who cannot change the slug do not need the check.
        if self.is_admin { super::new::slug_extra(&self.header.list, &self.server_id) } else { String::new() }
    }
}

fn options<T: Copy + std::fmt::Display>(all: &[T], label: impl Fn(T) -> &'static str) -> Options {
    all.iter().map(|value| (value.to_string(), label(*value).to_owned())).collect()
}

fn sign_in_label(policy: SignInPolicy) -> &'static str {
    match policy {
        SignInPolicy::Auto => "Automatic: depends on the client",
        SignInPolicy::WhenNeeded => "When a walkthrough starts",
        SignInPolicy::OnConnect => "When the client connects",
    }
}

fn toolset_label(toolset: Toolset) -> &'static str {
    match toolset {
        Toolset::Guided => "Guided: the server leads step by step",
        Toolset::Stepwise => "Stepwise: the agent selects the steps",
        Toolset::All => "Both",
    }
}

fn support_label(support: Support) -> &'static str {
    match support {
        Support::Off => "Off",
        Support::Tickets => "Tickets: agents can open support tickets",
    }
}

async fn render(
    console: &Console,
    context: &ServerContext,
    status: StatusCode,
    form_error: FormError,
    fields: SettingsForm,
) -> Result<Response, Error> {
    let ServerContext { cx, organization_id, server, org, .. } = context;
    let configs = oauth_configs::list(cx, console.ops(), organization_id).await?;
    let mut providers = vec![("none".to_owned(), "None".to_owned())];
    providers.extend(configs.into_iter().map(|config| (config.id.to_string(), config.name)));
    let signed_in = servers::count_signed_in(cx, console.ops(), organization_id, &server.id).await?;
    let sign_in_warning = if signed_in > 0 {
        let users = pluralize(signed_in, "end user is", "end users are");
        format!("{users} signed in. Changing the sign-in settings signs them out, and they have to sign in again.")
    } else {
        String::new()
    };
    let template = ServerSettingsPage {
        layout: context.layout.clone(),
        header: context.header("settings"),
        form_error,
        is_admin: authorize(&cx.caller, Operation::ServerWrite, organization_id).is_ok(),
        fields,
        auth_types: options(AuthType::ALL, auth_label),
        sign_ins: options(SignInPolicy::ALL, sign_in_label),
        providers,
        providers_path: org.path("oauth-configs"),
        toolsets: options(Toolset::ALL, toolset_label),
        supports: options(AVAILABLE_SUPPORT, support_label),
        former: servers::list_former_slugs(cx, console.ops(), organization_id, &server.id).await?,
        sign_in_warning,
        server_id: server.id.to_string(),
    };
    Ok(view::html(status, &template))
}

pub(super) async fn show(State(console): State<Console>, context: ServerContext) -> PageResult {
    let fields = SettingsForm::from(&context.server);
    let rendered = render(&console, &context, StatusCode::OK, FormError::default(), fields).await;
    rendered.map_err(|error| context.page_error(error))
}

pub(super) async fn save(
    State(console): State<Console>,
    context: ServerContext,
    Form(fields): Form<SettingsForm>,
) -> PageResult {
    let ServerContext { cx, organization_id, server, .. } = &context;
    let saved = match fields.settings() {
        Ok(settings) => servers::update(cx, console.ops(), organization_id, &server.id, &settings).await,
        Err(error) => Err(error),
    };
    match saved {
        Ok(new) => {
            let message = if new.slug == server.slug {
                "Saved.".to_owned()
            } else {
                format!(
                    "Saved. The server is still available under “{}” until you release that slug below.",
                    server.slug
                )
            };
            Ok(view::redirect_with_flash(&context.path("settings"), &message))
        }
        Err(error) => {
            let rejection = FormError::from_error(error).map_err(|error| context.page_error(error));
            let (status, form_error) = rejection?;
            Ok(render(&console, &context, status, form_error, fields).await?)
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ReleaseForm {
    slug: String,
}

pub(super) async fn release(
    State(console): State<Console>,
    context: ServerContext,
    Form(ReleaseForm { slug }): Form<ReleaseForm>,
) -> PageResult {
    let ServerContext { cx, organization_id, server, .. } = &context;
    let released = servers::release_slug(cx, console.ops(), organization_id, &server.id, &slug).await;
    released.map_err(|error| context.page_error(error))?;
    let message = format!("Slug “{slug}” released. The server is no longer available under it.");
    Ok(view::redirect_with_flash(&context.path("settings"), &message))
}

#[derive(Template)]
#[template(path = "servers/delete.html")]
struct DeleteServerPage {
    layout: Layout,
    header: ServerHeader,
    form_error: FormError,
    slug: String,
    mcp_url: String,
    deletion_summary: Vec<String>,
}

impl DeleteServerPage {
    fn label(&self) -> String {
        format!("Type {} to confirm", self.slug)
    }

    fn typed_extra(&self) -> &'static str {
        "required autocomplete=\"off\" autocapitalize=\"none\" spellcheck=\"false\""
    }
}

async fn render_delete(
    console: &Console,
    context: &ServerContext,
    status: StatusCode,
    form_error: FormError,
) -> Result<Response, Error> {
    let ServerContext { cx, organization_id, server, .. } = context;
    let contents = servers::count_contents(cx, console.ops(), organization_id, &server.id).await?;
    Ok(view::html(
        status,
        &DeleteServerPage {
            layout: context.layout.clone(),
            header: context.header("settings"),
            form_error,
            slug: server.slug.clone(),
            mcp_url: context.mcp_url.clone(),
            deletion_summary: deletion_summary(contents),
        },
    ))
}

/// Returns the data that is deleted with a server, one item per line.
fn deletion_summary(contents: ServerContents) -> Vec<String> {
    let mut lines = Vec::new();
    if contents.attempts > 0 {
        let (attempts, users) = (
            pluralize(contents.attempts, "attempt", "attempts"),
            pluralize(contents.end_users, "end user", "end users"),
        );
        lines.push(format!("the progress of {users}: {attempts}, including completed ones"));
    }
    if contents.walkthroughs > 0 {
        let walkthroughs = pluralize(contents.walkthroughs, "walkthrough", "walkthroughs");
        lines.push(format!("the assignments of {walkthroughs} (the walkthroughs are kept)"));
    }
    if contents.signed_in > 0 {
        lines.push(format!("the sign-in of {}", pluralize(contents.signed_in, "end user", "end users")));
    }
    lines.push("its sessions, call log and analytics".to_owned());
    lines
}

pub(super) async fn confirm_delete(State(console): State<Console>, context: ServerContext) -> PageResult {
    let rendered = render_delete(&console, &context, StatusCode::OK, FormError::default()).await;
    rendered.map_err(|error| context.page_error(error))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct DeleteForm {
    confirm: String,
}

pub(super) async fn delete(
    State(console): State<Console>,
    context: ServerContext,
    Form(form): Form<DeleteForm>,
) -> PageResult {
    let ServerContext { cx, organization_id, server, org, .. } = &context;
    if form.confirm.trim() != server.slug {
        let message = format!("Type {} exactly as shown.", server.slug);
        let form_error = FormError { field: "confirm".to_owned(), message, ..FormError::default() };
        return Ok(render_delete(&console, &context, StatusCode::UNPROCESSABLE_ENTITY, form_error).await?);
    }
    let deleted = servers::delete(cx, console.ops(), organization_id, &server.id).await;
    deleted.map_err(|error| context.page_error(error))?;
    Ok(view::redirect_with_flash(&org.path("servers"), &format!("Server “{}” deleted.", server.name)))
}
