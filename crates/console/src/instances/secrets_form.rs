//! The assignment of secrets as form fields: one for each secret that a version declares.

use std::collections::{BTreeMap, BTreeSet};

use waypost_core::caller::Ctx;
use waypost_core::catalog::{SecretDelivery, SecretSpec, VersionDefinition};
use waypost_core::id::{OrganizationId, ToolSecretId};
use waypost_core::instance::Instance;
use waypost_core::{Error, Result};
use waypost_ops::tool_secrets;
use waypost_toolbox_proto::entry::Sharing;

use crate::Console;

/// The number of secrets that are read at a time.
const PAGE: u32 = 200;

/// Returns the ID and the name of each secret of an organisation, ordered by name.
///
/// # Errors
/// `forbidden` for members who are not admins.
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

/// The value of the option for a personal secret. No ID has this form.
const PERSONAL: &str = "personal";

/// The field of a secret.
pub(super) struct SecretField {
    /// The name in the form.
    pub(super) name: String,
    pub(super) spec: SecretSpec,
    /// The ID of the assigned secret, `personal`, or empty.
    pub(super) value: String,
}

impl SecretField {
    /// Whether each agent supplies its own value.
    pub(super) fn is_personal(&self) -> bool {
        self.value == PERSONAL
    }

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
    /// The options as values and labels: no secret, a personal secret if each agent has its own container without
    /// volumes, and the secrets of the organisation.
    choices: Vec<(String, String)>,
}

impl SecretsForm {
    /// Creates the fields with the assignment of `instance`. For a new instance, `instance` is `None`, and the secrets
    /// with the names that the version declares are preselected.
    pub(super) fn new(
        definition: &VersionDefinition,
        instance: Option<&Instance>,
        options: Vec<(String, String)>,
    ) -> Self {
        let is_personal = |instance: &Instance, spec: &SecretSpec| {
            instance.personal_secrets.iter().any(|secret| secret.name == spec.name)
        };
        let value = |spec: &SecretSpec| match instance {
            Some(instance) if is_personal(instance, spec) => Some(PERSONAL.to_owned()),
            Some(Instance { secrets, .. }) => {
                secrets.iter().find(|used| used.name == spec.name).map(|used| used.secret_id.to_string())
            }
            None => options.iter().find(|(_, name)| *name == spec.name).map(|(id, _)| id.clone()),
        };
        let field = |(position, spec): (usize, &SecretSpec)| SecretField {
            name: format!("secret-{position}"),
            value: value(spec).unwrap_or_default(),
            spec: spec.clone(),
        };
        let fields = definition.secrets.iter().enumerate().map(field).collect();
        let none = (String::new(), "None".to_owned());
        let can_be_personal = definition.sharing == Sharing::PerAgent && definition.volumes.is_empty();
        let personal = can_be_personal.then(|| (PERSONAL.to_owned(), "Each agent supplies its own value".to_owned()));
        Self { fields, choices: std::iter::once(none).chain(personal).chain(options).collect() }
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
        let assigned = self.fields.iter().filter(|field| !field.value.is_empty() && field.value != PERSONAL);
        let parse = |field: &SecretField| {
            let id = field.value.parse().map_err(|_| Error::invalid(&field.name, "Select one of the secrets."))?;
            Ok((field.spec.name.clone(), id))
        };
        assigned.map(parse).collect()
    }

    /// Returns the names of the personal secrets.
    pub(super) fn personal(&self) -> BTreeSet<String> {
        let personal = self.fields.iter().filter(|field| field.value == PERSONAL);
        personal.map(|field| field.spec.name.clone()).collect()
    }
}
