//! The off switches of toolboxes and instances: one for the installation (the setting `toolboxes`) and one per
//! organisation. Every operation on them is authorized here, so that none can ignore the switches.

use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Result};
use waypost_store::{Conn, organization};

use crate::Ops;

/// The switch of the toolboxes of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolboxSwitch {
    /// Toolboxes are on.
    On,
    /// The setting `toolboxes` switches them off.
    Off,
    /// Replicas cannot reach each other, because the settings for this are missing.
    Incomplete,
}

impl Ops {
    /// Authorizes an operation on toolboxes or instances that only reads stored data, or that reduces what runs. Such
    /// operations are possible while toolboxes are off for the organisation.
    ///
    /// # Errors
    /// Those of [`authorize`]; `forbidden` (`reason` is `toolboxes_off`) if toolboxes are off on this installation.
    pub(crate) fn authorize_toolboxes(
        &self,
        cx: &Ctx,
        operation: Operation,
        organization: &OrganizationId,
    ) -> Result<()> {
        authorize(&cx.caller, operation, organization)?;
        self.check_toolboxes()
    }

    /// Authorizes an operation that changes toolboxes or instances, or uses the link to a toolbox.
    ///
    /// # Errors
    /// Those of [`Ops::authorize_toolboxes`]; `forbidden` (`reason` is `toolboxes_off`) if toolboxes are off for the
    /// organisation.
    pub(crate) async fn authorize_toolbox_use(
        &self,
        cx: &Ctx,
        operation: Operation,
        organization: &OrganizationId,
    ) -> Result<()> {
        self.authorize_toolboxes(cx, operation, organization)?;
        self.check_toolbox_use(organization).await
    }

    /// Checks that toolboxes are on for the installation and for an organisation.
    ///
    /// # Errors
    /// `forbidden` if they are off; any error of the store.
    pub(crate) async fn check_toolbox_use(&self, organization: &OrganizationId) -> Result<()> {
        self.check_toolboxes()?;
        match has_toolboxes(&mut self.store.read().await?, organization).await? {
            true => Ok(()),
            false => Err(off("Toolboxes are switched off for this organisation. An admin can switch them on again.")),
        }
    }

    /// Checks that toolboxes are on for the installation.
    ///
    /// # Errors
    /// `forbidden` if they are off.
    pub(crate) fn check_toolboxes(&self) -> Result<()> {
        match self.toolboxes {
            ToolboxSwitch::On => Ok(()),
            ToolboxSwitch::Off => {
                Err(off("Toolboxes are switched off on this installation by the setting `toolboxes`."))
            }
            ToolboxSwitch::Incomplete => {
                Err(off("Toolboxes on PostgreSQL require the settings `internal_listen` and `internal_url`."))
            }
        }
    }
}

/// Whether toolboxes are on for an organisation. An organisation that does not exist has none.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn has_toolboxes(conn: &mut Conn, organization: &OrganizationId) -> Result<bool> {
    let found = organization::find(conn, organization).await?;
    Ok(found.is_some_and(|organization| organization.toolboxes_enabled))
}

fn off(message: &str) -> Error {
    Error::new(Code::Forbidden, message).with("reason", "toolboxes_off")
}
