//! The assignment of secrets as form fields: one for each secret that a version declares.

use std::collections::BTreeMap;

use waypost_core::caller::Ctx;
use waypost_core::catalog::{SecretDelivery, SecretSpec, VersionDefinition};
use waypost_core::id::{OrganizationId, ToolSecretId};
use waypost_core::instance::SecretUse;
use waypost_core::{Error, Result};
use waypost_ops::tool_secrets;

use crate::Console;

/// The number of secrets that are read at a time.
const PAGE: u32 = 200;

/// Returns the ID and the name of each secret of an organisation, ordered by name.
///
/// # Errors
/// `forbidden` for members below admin.
pub(super) async fn options(
    cx: &Ctx,
    console: &Console,
    organization: &OrganizationId,
) -> Result<Vec<(String, String)>> {
    let mut options = Vec::new();
    let mut cursor = None;
    loop {
        let page = tool_secrets::list(cx, console.ops(), organization, PAGE, cursor.as_deref()).await?;
        options.extend(page.items.into_iter().map(|secret| (secret.id.to_string(), secret.name)));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(options),
        }
    }
}

/// The field of a secret.
pub(super) struct SecretField {
    /// The name in the form.
    pub(super) name: String,
    pub(super) spec: SecretSpec,
    /// The ID of the assigned secret, or empty.
    pub(super) value: String,
}

impl SecretField {
    pub(super) fn label(&self) -> String {
        let name = &self.spec.name;
        if self.spec.required { format!("{name} (required)") } else { name.clone() }
    }

    pub(super) fn hint(&self) -> String {
        let delivery = match self.spec.delivery {
            SecretDelivery::File => "Provided as a file.",
            SecretDelivery::Env => "Provided as an environment variable.",
            SecretDelivery::Header => "Sent as the header with this name.",
        };
        format!("{} {delivery}", self.spec.description).trim().to_owned()
    }
}

/// The fields of all secrets of a version.
pub(super) struct SecretsForm {
    pub(super) fields: Vec<SecretField>,
    /// The ID and the name of each secret of the organisation, after the choice of none.
    choices: Vec<(String, String)>,
}

impl SecretsForm {
    /// Creates the fields with the current assignment. For a new instance, it is empty: secrets with the name that the
    /// version declares are preselected.
    pub(super) fn new(
        definition: &VersionDefinition,
        used: Option<&[SecretUse]>,
        options: Vec<(String, String)>,
    ) -> Self {
        let value = |spec: &SecretSpec| match used {
            Some(used) => used.iter().find(|used| used.name == spec.name).map(|used| used.secret_id.to_string()),
            None => options.iter().find(|(_, name)| *name == spec.name).map(|(id, _)| id.clone()),
        };
        let field = |(position, spec): (usize, &SecretSpec)| SecretField {
            name: format!("secret-{position}"),
            value: value(spec).unwrap_or_default(),
            spec: spec.clone(),
        };
        let fields = definition.secrets.iter().enumerate().map(field).collect();
        let none = (String::new(), "None".to_owned());
        Self { fields, choices: std::iter::once(none).chain(options).collect() }
    }

    /// Replaces the assignment with that of a submitted form.
    #[must_use]
    pub(super) fn with_input(mut self, pairs: &[(String, String)]) -> Self {
        for field in &mut self.fields {
            let input = pairs.iter().find(|(own, _)| *own == field.name);
            field.value = input.map(|(_, value)| value.clone()).unwrap_or_default();
        }
        self
    }

    pub(super) fn has_options(&self) -> bool {
        self.choices.len() > 1
    }

    pub(super) fn choices(&self) -> &[(String, String)] {
        &self.choices
    }

    /// Returns the assignment.
    ///
    /// # Errors
    /// `invalid_arguments` with the name of the form field.
    pub(super) fn parse(&self) -> Result<BTreeMap<String, ToolSecretId>> {
        let assigned = self.fields.iter().filter(|field| !field.value.is_empty());
        let parse = |field: &SecretField| {
            let id = field.value.parse().map_err(|_| Error::invalid(&field.name, "Select one of the secrets."))?;
            Ok((field.spec.name.clone(), id))
        };
        assigned.map(parse).collect()
    }
}
