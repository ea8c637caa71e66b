//! The export of the audit log as a file.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;

use crate::audit_events::{self, AuditEventView, AuditFilter};
use crate::{Ops, spreadsheet};

/// The format of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditExportFormat {
    /// CSV, for spreadsheets.
    Csv,
    /// `{items, next_cursor}`, as in the API.
    Json,
}

impl AuditExportFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }

    /// Returns the media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
        }
    }

    /// Returns the value of `Content-Disposition`.
    #[must_use]
    pub fn disposition(self) -> &'static str {
        match self {
            Self::Csv => "attachment; filename=\"audit-log.csv\"",
            Self::Json => "attachment; filename=\"audit-log.json\"",
        }
    }
}

/// Returns an entry as in the API.
#[must_use]
pub fn to_json(listed: &AuditEventView) -> Value {
    let event = &listed.event;
    json!({
        "id": event.id,
        "created_at": event.created_at.rfc3339(),
        "actor": event.actor,
        "actor_name": listed.actor_name,
        "act": event.act,
        "target": event.target,
        "detail": event.detail,
    })
}

/// Exports all entries that match `filter`. Entries are read in batches. The file is built in memory and has at most
/// [`audit_events::MAX_EXPORT`] entries.
///
/// # Errors
/// The same as for [`audit_events::export`] and [`audit_events::AuditExport::next`].
pub async fn render(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &AuditFilter,
    format: AuditExportFormat,
) -> Result<Vec<u8>> {
    let mut export = audit_events::export(cx, ops, organization, filter, format.name()).await?;
    let mut file = match format {
        AuditExportFormat::Csv => {
            spreadsheet::row(["id", "created_at", "actor", "actor_name", "act", "target", "detail"])
        }
        AuditExportFormat::Json => b"{\"items\":[".to_vec(),
    };
    let mut first = true;
    loop {
        let page = export.next(ops).await?;
        if page.is_empty() {
            break;
        }
        for listed in &page {
            match format {
                AuditExportFormat::Csv => file.extend(cells(listed)),
                AuditExportFormat::Json => {
                    if !first {
                        file.push(b',');
                    }
                    file.extend(to_json(listed).to_string().into_bytes());
                }
            }
            first = false;
        }
    }
    if format == AuditExportFormat::Json {
        file.extend(b"],\"next_cursor\":null}");
    }
    Ok(file)
}

fn cells(listed: &AuditEventView) -> Vec<u8> {
    let event = &listed.event;
    let detail = if event.detail.is_empty() { String::new() } else { Value::from(event.detail.clone()).to_string() };
    spreadsheet::row([
        event.id.as_str(),
        &event.created_at.rfc3339(),
        &event.actor,
        listed.actor_name.as_deref().unwrap_or_default(),
        &event.act,
        &event.target,
        &detail,
    ])
}
