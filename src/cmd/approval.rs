//! `waypost approval`: the definitions that tool servers list, and the admins' decisions about them. The commands use
//! the API of the running `serve`.

use waypost_core::tool_definition::{ApprovalState, Class};

use super::user::Org;

/// Subcommands of `waypost approval`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the tools, prompts and resources that tool servers have listed, with their approvals.
    List {
        /// Only those in this state: `pending`, `approved` or `rejected`.
        #[arg(long)]
        state: Option<ApprovalState>,
        /// Only those of this instance: slug, name or ID.
        #[arg(long)]
        instance: Option<String>,
        #[command(flatten)]
        org: Org,
    },
    /// Show a definition, and the difference from the one before.
    Show {
        /// ID of the approval.
        approval: String,
        #[command(flatten)]
        org: Org,
    },
    /// Approve a definition. Agents that were granted it can use it from then on.
    Approve {
        /// ID of the approval.
        approval: String,
        /// Effect: `read`, `write` or `destructive`. Grants with `read_only` cover only `read`.
        #[arg(long)]
        class: Class,
        /// Digest of the definition that was reviewed. Without it, the definition that the approval has is approved.
        #[arg(long)]
        digest: Option<String>,
        #[command(flatten)]
        org: Org,
    },
    /// Reject a definition, also one that was approved before.
    Reject {
        /// ID of the approval.
        approval: String,
        /// Reason, for other admins.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        org: Org,
    },
    /// Read what the server of an instance lists at present.
    Check {
        /// Slug, name or ID of the instance.
        instance: String,
        #[command(flatten)]
        org: Org,
    },
}

impl Command {
    /// Returns the organisation given by `--org`.
    pub fn organization(&self) -> Option<&str> {
        let (Self::List { org, .. }
        | Self::Show { org, .. }
        | Self::Approve { org, .. }
        | Self::Reject { org, .. }
        | Self::Check { org, .. }) = self;
        org.org.as_deref()
    }
}
