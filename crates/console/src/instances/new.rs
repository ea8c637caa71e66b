//! The form that deploys an instance.

use askama::Template;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::catalog::{CatalogEntry, CatalogEntryState};
use waypost_core::id::{CatalogEntryId, ToolboxId};
use waypost_core::instance::MAX_SLUG;
use waypost_core::toolbox::ToolboxState;
use waypost_core::{Error, Result};
use waypost_ops::catalog;
use waypost_ops::instances::{self, CatalogServer, NewInstance, NewServer};
use waypost_ops::toolboxes::ToolboxView;

use super::VersionSource;
use super::access_form::AccessForm;
use super::config_form::ConfigForm;
use super::secrets_form::{self, SecretsForm};
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::toolboxes::list_all;
use crate::view::{self, FormError, PageError, PageResult};

/// The number of catalogue entries per page. A page can have fewer if they are large.
const ENTRIES: u32 = 200;

/// The entry and the version to deploy.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NewQuery {
    entry: String,
    version: String,
    /// The cursor of the list of entries.
    after: String,
}

#[derive(Template)]
#[template(path = "instances/choose.html")]
struct ChoosePage {
    layout: Layout,
    org: CurrentOrganization,
    entries: Vec<CatalogEntry>,
    next: Option<String>,
    is_later_page: bool,
}

impl ChoosePage {
    fn catalog_path(&self) -> String {
        self.org.path("catalog")
    }
}

/// The fields of a new instance, except configuration and secrets.
#[derive(Default)]
struct InstanceForm {
    slug: String,
    name: String,
    toolbox_id: String,
    learn_egress: bool,
}

impl From<&[(String, String)]> for InstanceForm {
    fn from(pairs: &[(String, String)]) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "slug" => fields.slug.clone_from(value),
                "name" => fields.name.clone_from(value),
                "toolbox_id" => fields.toolbox_id.clone_from(value),
                "learn_egress" => fields.learn_egress = true,
                _ => {}
            }
        }
        fields
    }
}

#[derive(Template)]
#[template(path = "instances/new.html")]
struct NewPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    fields: InstanceForm,
    source: VersionSource,
    toolboxes: Vec<(String, String)>,
    has_online_toolbox: bool,
    config: ConfigForm,
    secrets: SecretsForm,
    access: AccessForm,
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("instances");
    move |error| PageError::from(error).with_layout(layout.clone())
}

/// Returns a slug for an instance of an entry, or an empty string if the entry's slug cannot be used.
fn suggest_slug(entry: &CatalogEntry) -> String {
    let slug: String = entry.slug.chars().take(MAX_SLUG).collect();
    let slug = slug.trim_matches('-');
    if slug.contains("--") { String::new() } else { slug.to_owned() }
}

fn toolbox_option(view: &ToolboxView) -> (String, String) {
    let name = &view.toolbox.name;
    let label = if view.state == ToolboxState::Online { name.clone() } else { format!("{name} ({})", view.state) };
    (view.toolbox.id.to_string(), label)
}

/// Whether versions of an entry can be deployed.
fn is_deployable(entry: &CatalogEntry) -> bool {
    let is_open = matches!(entry.state, CatalogEntryState::Published | CatalogEntryState::Deprecated);
    is_open && !entry.versions.is_empty()
}

async fn find_source(console: &Console, member: &Member, query: &NewQuery) -> Result<Option<VersionSource>> {
    let Member { cx, organization_id, .. } = member;
    let not_found = |_| Error::not_found("catalogue entry");
    if !query.version.is_empty() {
        let id = query.version.parse().map_err(not_found)?;
        return VersionSource::find(cx, console, organization_id, &id).await.map(Some);
    }
    if query.entry.is_empty() {
        return Ok(None);
    }
    let id: CatalogEntryId = query.entry.parse().map_err(not_found)?;
    let entry = catalog::get(cx, console.ops(), organization_id, &id).await?;
    let newest = entry.versions.first().cloned().ok_or_else(|| Error::not_found("catalogue version"))?;
    Ok(Some(VersionSource { entry, version: newest }))
}

async fn page(console: &Console, member: &Member, source: VersionSource) -> Result<NewPage> {
    let Member { cx, organization_id, org, layout } = member;
    let toolboxes = list_all(cx, console, organization_id).await?;
    let usable = toolboxes.iter().filter(|view| view.state != ToolboxState::Revoked);
    let any = (String::new(), "Choose automatically (the one with the most free memory)".to_owned());
    let definition = &source.version.definition;
    let secrets = secrets_form::options(cx, console, organization_id).await?;
    let access = AccessForm::load(cx, console, organization_id, Some(&source.version.id)).await?;
    Ok(NewPage {
        layout: layout.clone().with_section("instances"),
        org: org.clone(),
        form_error: FormError::default(),
        fields: InstanceForm {
            slug: suggest_slug(&source.entry),
            name: source.entry.name.clone(),
            ..InstanceForm::default()
        },
        has_online_toolbox: toolboxes.iter().any(|view| view.state == ToolboxState::Online),
        toolboxes: std::iter::once(any).chain(usable.map(toolbox_option)).collect(),
        config: ConfigForm::new(&definition.config_schema, None),
        secrets: SecretsForm::new(definition, None, secrets),
        access,
        source,
    })
}

pub(super) async fn show(State(console): State<Console>, member: Member, Query(query): Query<NewQuery>) -> PageResult {
    let source = find_source(&console, &member, &query).await.map_err(page_error(&member))?;
    if let Some(source) = source {
        return Ok(view::page(&page(&console, &member, source).await.map_err(page_error(&member))?));
    }
    let cursor = Some(query.after.as_str()).filter(|slug| !slug.is_empty());
    let page = catalog::list(&member.cx, console.ops(), &member.organization_id, ENTRIES, cursor).await;
    let page = page.map_err(page_error(&member))?;
    let next = page.next_cursor.map(|cursor| member.org.path(&format!("instances/new?after={cursor}")));
    let entries = page.items.into_iter().filter(is_deployable).collect();
    let is_later_page = cursor.is_some();
    let Member { org, layout, .. } = member;
    let layout = layout.with_section("instances");
    Ok(view::page(&ChoosePage { layout, org, entries, next, is_later_page }))
}

pub(super) async fn create(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let version = pairs.iter().find(|(name, _)| name == "catalog_version_id").map(|(_, id)| id.clone());
    let query = NewQuery { version: version.unwrap_or_default(), ..NewQuery::default() };
    let source = find_source(&console, &member, &query).await.map_err(page_error(&member))?;
    let source = source.ok_or_else(|| Error::not_found("catalogue version")).map_err(page_error(&member))?;
    let page = page(&console, &member, source).await.map_err(page_error(&member))?;
    let page = NewPage {
        fields: InstanceForm::from(pairs.as_slice()),
        config: page.config.with_input(&pairs),
        secrets: page.secrets.with_input(&pairs),
        access: page.access.with_input(&pairs),
        ..page
    };
    match submit(&console, &member, &page).await {
        Ok(path) => Ok(view::redirect(&path)),
        Err(error) => {
            let (status, form_error) = rejection(&page, error).map_err(page_error(&member))?;
            Ok(view::html(status, &NewPage { form_error, ..page }))
        }
    }
}

fn rejection(page: &NewPage, error: Error) -> Result<(StatusCode, FormError)> {
    let (status, form_error) = FormError::from_error(page.config.locate(error))?;
    // The version is not a field of the form.
    let field = if form_error.field == "catalog_version_id" { String::new() } else { form_error.field };
    Ok((status, FormError { field, ..form_error }))
}

/// Creates the instance. Returns the path of its page.
async fn submit(console: &Console, member: &Member, page: &NewPage) -> Result<String> {
    let fields = &page.fields;
    let toolbox_id = Some(fields.toolbox_id.as_str()).filter(|id| !id.is_empty());
    let toolbox_id = toolbox_id.map(str::parse::<ToolboxId>).transpose();
    let new = NewInstance {
        slug: fields.slug.trim().to_owned(),
        name: Some(fields.name.clone()).filter(|name| !name.trim().is_empty()),
        server: NewServer::Catalog(CatalogServer {
            catalog_version_id: page.source.version.id.clone(),
            toolbox_id: toolbox_id.map_err(|_| Error::invalid("toolbox_id", "Select one of the toolboxes."))?,
            config: page.config.parse()?,
            personal_secrets: page.secrets.personal(),
            learn_egress: fields.learn_egress,
        }),
        secrets: page.secrets.parse()?,
        access: page.access.parse()?,
    };
    let view = instances::create(&member.cx, console.ops(), &member.organization_id, &new).await?;
    Ok(member.org.path(&format!("instances/{}", view.instance.id)))
}
