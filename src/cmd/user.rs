//! `waypost user`: the users of an organisation.

use serde_json::{Value, json};
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Member, Role};
use waypost_ops::user_accounts::{self, AccountLink};
use waypost_ops::users;

use super::session::{Session, not_found_message, one_of};
use super::{App, output};

/// Subcommands of `waypost user`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a user to an organisation. Prints a setup link if the user cannot sign in yet.
    Create {
        /// Email of the user.
        email: String,
        #[command(flatten)]
        org: Org,
        /// Role of the user.
        #[arg(long, default_value = "member", value_parser = one_of(Role::ALL, Role::as_str))]
        role: Role,
    },
    /// Create a link with which a member sets their name and password. It works once and expires after 48 hours.
    Link {
        /// Email or ID of the user.
        user: String,
        #[command(flatten)]
        org: Org,
    },
    /// List the members of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show a member.
    Show {
        /// Email or ID of the user.
        user: String,
        #[command(flatten)]
        org: Org,
    },
    /// Change the role of a member.
    Update {
        /// Email or ID of the user.
        user: String,
        #[command(flatten)]
        org: Org,
        /// New role.
        #[arg(long, value_parser = one_of(Role::ALL, Role::as_str))]
        role: Role,
    },
    /// Remove a member from an organisation. An unverified user without another organisation is deleted.
    Delete {
        /// Email or ID of the user.
        user: String,
        #[command(flatten)]
        org: Org,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// The organisation to work on.
#[derive(Debug, clap::Args)]
pub struct Org {
    /// Organisation (slug or ID); required if there are several.
    #[arg(long, value_name = "SLUG")]
    pub org: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let (Command::Create { org, .. }
    | Command::Link { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }) = &command;
    let organization = session.organization(org.org.as_deref()).await?;
    let id = &organization.id;
    match command {
        Command::Create { email, role, .. } => {
            let member = users::create(cx, ops, id, &email, role).await?;
            let link = user_accounts::create_first_account_link(cx, ops, id, &member.user_id).await?;
            output::object(*json, &with_link(session, &member, link.as_ref()))
        }
        Command::Link { user, .. } => {
            let member = find(session, id, &user).await?;
            let link = user_accounts::create_account_link(cx, ops, id, &member.user_id).await?;
            output::object(*json, &with_link(session, &member, Some(&link)))
        }
        Command::List { .. } => print_list(*json, users::list(cx, ops, id).await?.iter().map(to_json).collect()),
        Command::Show { user, .. } => output::object(*json, &to_json(&find(session, id, &user).await?)),
        Command::Update { user, role, .. } => {
            let member = find(session, id, &user).await?;
            output::object(*json, &to_json(&users::update(cx, ops, id, &member.user_id, role).await?))
        }
        Command::Delete { user, yes, .. } => {
            let member = find(session, id, &user).await?;
            let slug = &organization.slug;
            confirm_deletion(yes, &member.email, slug)?;
            // Revokes the tokens of the connections of their agent.
            users::delete(cx, &session.deleting_ops(app), id, &member.user_id).await?;
            print_deleted(*json, member.user_id.as_str(), &member.email, slug)
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<Member> {
    let user = users::resolve(&session.cx, &session.ops, organization, text).await;
    user.map_err(|error| not_found_message(error, "user", text, "user"))
}

/// Returns the member, with the link if there is one.
fn with_link(session: &Session, member: &Member, link: Option<&AccountLink>) -> Value {
    let mut value = to_json(member);
    if let Some(link) = link {
        value["link"] = format!("{}/link?token={}", session.public_url.origin(), link.token).into();
        value["link_expires_at"] = link.expires_at.rfc3339().into();
    }
    value
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["email", "role", "verified", "id", "created_at"], items)
}

pub(super) fn confirm_deletion(yes: bool, email: &str, slug: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Remove {} from organisation {slug}?", output::clean(email)))
}

pub(super) fn print_deleted(json: bool, id: &str, email: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Removed {} from organisation {slug}.", output::clean(email)))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &["id", "email", "role", "verified", "created_at"];

fn to_json(member: &Member) -> Value {
    json!({
        "id": member.user_id,
        "email": member.email,
        "role": member.role.as_str(),
        "verified": member.is_verified,
        "created_at": member.created_at.rfc3339(),
    })
}
