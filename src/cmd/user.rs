//! `waypost user`: the people who operate an organisation.

use serde_json::{Value, json};
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Member, Role};
use waypost_ops::user_accounts::{self, AccountLink};
use waypost_ops::users;

use super::output;
use super::session::{Session, named, one_of};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes a person a member of an organisation, and a link for those who cannot sign in yet.
    Create {
        /// E-mail address.
        email: String,
        #[command(flatten)]
        org: Org,
        /// What they may do.
        #[arg(long, default_value = "member", value_parser = one_of(Role::ALL, Role::as_str))]
        role: Role,
    },
    /// Makes a link for a member to set name and password with; it works once, for 48 hours.
    Link {
        /// E-mail address or id.
        user: String,
        #[command(flatten)]
        org: Org,
    },
    /// Lists the members of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Shows a member.
    Show {
        /// E-mail address or id.
        user: String,
        #[command(flatten)]
        org: Org,
    },
    /// Changes the role of a member.
    Update {
        /// E-mail address or id.
        user: String,
        #[command(flatten)]
        org: Org,
        /// What they may do from now on.
        #[arg(long, value_parser = one_of(Role::ALL, Role::as_str))]
        role: Role,
    },
    /// Takes a member out of an organisation; without another one, the user is deleted.
    Delete {
        /// E-mail address or id.
        user: String,
        #[command(flatten)]
        org: Org,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Which organisation.
#[derive(Debug, clap::Args)]
pub struct Org {
    /// The organisation, by slug or id; needed when there are several.
    #[arg(long, value_name = "SLUG")]
    pub org: Option<String>,
}

/// Does it.
///
/// # Errors
/// When the act is refused.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
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
            let made = users::create(cx, ops, id, &email, role).await?;
            let link = user_accounts::create_first_account_link(cx, ops, id, &made.user_id).await?;
            output::object(*json, &with_link(session, &made, link.as_ref()))
        }
        Command::Link { user, .. } => {
            let member = find(session, id, &user).await?;
            let link = user_accounts::create_account_link(cx, ops, id, &member.user_id).await?;
            output::object(*json, &with_link(session, &member, Some(&link)))
        }
        Command::List { .. } => print_list(*json, users::list(cx, ops, id).await?.iter().map(shape).collect()),
        Command::Show { user, .. } => output::object(*json, &shape(&find(session, id, &user).await?)),
        Command::Update { user, role, .. } => {
            let member = find(session, id, &user).await?;
            output::object(*json, &shape(&users::update(cx, ops, id, &member.user_id, role).await?))
        }
        Command::Delete { user, yes, .. } => {
            let member = find(session, id, &user).await?;
            let slug = &organization.slug;
            confirm_deletion(yes, &member.email, slug)?;
            users::delete(cx, ops, id, &member.user_id).await?;
            deleted(*json, member.user_id.as_str(), (&member.email, slug))
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<Member> {
    let found = users::find(&session.cx, &session.ops, organization, text).await;
    found.map_err(|error| named(error, "user", text, "user"))
}

/// The member with their link, when there is one.
fn with_link(session: &Session, member: &Member, link: Option<&AccountLink>) -> Value {
    let mut value = shape(member);
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
    output::confirm(yes, &format!("Take {} out of the organisation {slug}?", output::clean(email)))
}

pub(super) fn deleted(json: bool, id: &str, (email, slug): (&str, &str)) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Took {} out of the organisation {slug}.", output::clean(email)))
}

/// What is shown of one, as [`shape`] writes it.
pub(super) const MEMBERS: &[&str] = &["id", "email", "role", "verified", "created_at"];

fn shape(member: &Member) -> Value {
    json!({
        "id": member.user_id,
        "email": member.email,
        "role": member.role.as_str(),
        "verified": member.is_verified,
        "created_at": member.created_at.rfc3339(),
    })
}
