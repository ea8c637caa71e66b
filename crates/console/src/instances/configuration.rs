//! The configuration of an instance of a catalogue entry. Saving a change starts a deployment, or a test of a remote
//! server.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use waypost_core::id::CatalogVersionId;
use waypost_core::instance::Instance;
use waypost_core::{Error, Result};
use waypost_ops::instances::{self, InstancePatch};

use super::config_form::ConfigForm;
use super::secrets_form::{self, SecretsForm};
use super::{InstanceContext, InstanceHeader, VersionSource, remote};
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::view::{self, FormError, PageResult};

/// The version whose fields are shown, if it is not the current one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct VersionQuery {
    version: String,
}

#[derive(Template)]
#[template(path = "instances/configuration.html")]
struct ConfigurationPage {
    layout: Layout,
    org: CurrentOrganization,
    header: InstanceHeader,
    form_error: FormError,
    entered_name: String,
    learn_egress: bool,
    record_contents: bool,
    source: VersionSource,
    /// Whether the shown version is not the current one.
    is_other_version: bool,
    config: ConfigForm,
    secrets: SecretsForm,
    /// The configuration as JSON, for members who cannot change it.
    json: String,
}

impl ConfigurationPage {
    fn can_edit(&self) -> bool {
        self.org.is_admin() && !self.header.is_removing
    }
}

/// Returns the page with the fields of `version`, which must belong to the instance's catalogue entry. If it is empty,
/// uses the current version.
async fn load(console: &Console, at: &InstanceContext, version: &str) -> Result<ConfigurationPage> {
    let instance: &Instance = at.instance();
    let current = instance.catalog_version_id().ok_or_else(|| Error::not_found("catalogue version"))?;
    let mut source = VersionSource::find(&at.cx, console, &at.organization_id, current).await?;
    if !version.is_empty() {
        let other = source.entry.versions.iter().find(|other| other.id.as_str() == version).cloned();
        source.version = other.ok_or_else(|| Error::not_found("catalogue version"))?;
    }
    // Only admins can list secrets. Other members see which ones are assigned.
    let options = match at.org.is_admin() {
        true => secrets_form::options(&at.cx, console, &at.organization_id).await?,
        false => Vec::new(),
    };
    let definition = &source.version.definition;
    Ok(ConfigurationPage {
        layout: at.layout.clone(),
        org: at.org.clone(),
        header: at.header("configuration"),
        form_error: FormError::default(),
        entered_name: instance.name.clone(),
        learn_egress: instance.learn_egress,
        record_contents: instance.record_contents,
        is_other_version: source.version.id != *current,
        config: ConfigForm::new(&definition.config_schema, Some(&instance.config)),
        secrets: SecretsForm::new(definition, Some(instance), options),
        json: serde_json::to_string_pretty(&instance.config).unwrap_or_default(),
        source,
    })
}

pub(super) async fn show(
    State(console): State<Console>,
    at: InstanceContext,
    Query(query): Query<VersionQuery>,
) -> PageResult {
    if at.has_own_url() {
        return remote::show_configuration(&console, &at).await;
    }
    Ok(view::page(&load(&console, &at, &query.version).await.map_err(|error| at.page_error(error))?))
}

pub(super) async fn save(
    State(console): State<Console>,
    at: InstanceContext,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    if at.has_own_url() {
        return remote::save_configuration(&console, &at, &pairs).await;
    }
    let input = |name: &str| pairs.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str());
    let page = load(&console, &at, input("catalog_version_id")).await.map_err(|error| at.page_error(error))?;
    let page = ConfigurationPage {
        entered_name: input("name").to_owned(),
        learn_egress: input("learn_egress") == "true",
        record_contents: input("record_contents") == "true",
        config: page.config.with_input(&pairs),
        secrets: page.secrets.with_input(&pairs),
        ..page
    };
    match submit(&console, &at, &page).await {
        Ok(true) => {
            let message = match at.is_remote() {
                true => "Saved. The server is tested again.",
                false => "Saved. The new deployment is in progress.",
            };
            Ok(view::redirect_with_flash(&at.path(""), message))
        }
        Ok(false) => Ok(view::redirect_with_flash(&at.path("configuration"), "Saved.")),
        Err(error) => {
            let located = FormError::from_error(page.config.locate(error));
            let (status, form_error) = located.map_err(|error| at.page_error(error))?;
            Ok(view::html(status, &ConfigurationPage { form_error, ..page }))
        }
    }
}

/// Updates the instance. Returns whether this started a deployment or a test.
async fn submit(console: &Console, at: &InstanceContext, page: &ConfigurationPage) -> Result<bool> {
    let version: CatalogVersionId = page.source.version.id.clone();
    let patch = InstancePatch {
        name: Some(page.entered_name.clone()),
        catalog_version_id: Some(version),
        config: Some(page.config.parse()?),
        secrets: Some(page.secrets.parse()?),
        personal_secrets: Some(page.secrets.personal()),
        learn_egress: Some(page.learn_egress),
        record_contents: Some(page.record_contents),
        remote: None,
    };
    let view = instances::update(&at.cx, console.ops(), &at.organization_id, at.id(), &patch).await?;
    Ok(view.instance.generation != at.instance().generation)
}
