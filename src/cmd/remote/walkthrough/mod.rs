//! `waypost walkthrough` through the REST API.

mod import;

use serde_json::{Value, json};
use waypost_core::id::WalkthroughId;

use super::{RemoteSession, find_item, not_found_message, text, without_nulls};
use crate::cmd::output;
use crate::cmd::walkthrough::{
    Command, Format, MEMBERS, STEP_MEMBERS, TRASH_MEMBERS, Update, VERSION_MEMBERS, WalkthroughArg, confirm_deletion,
    print_deleted, print_draft, print_list, print_published, write_export,
};

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    match command {
        Command::Import(args) => import::run(remote, args).await,
        Command::Lint { .. } => anyhow::bail!("`waypost walkthrough lint` does not support --url"),
        Command::List { org, trash: true, .. } => {
            remote.check_organization(org.org.as_deref())?;
            let items = client.list(&["walkthroughs", "trash"], &[]).await?;
            output::list(remote.json, TRASH_MEMBERS, remote.select_all(&items, TRASH_MEMBERS))
        }
        Command::Restore { walkthrough, org } => {
            remote.check_organization(org.org.as_deref())?;
            let restored = client.post(&["walkthroughs", walkthrough.as_str(), "restore"], json!({})).await?;
            print_head(remote, &restored)
        }
        Command::List { org, state, .. } => {
            remote.check_organization(org.org.as_deref())?;
            let query: Vec<_> = state.iter().map(|state| ("state", state.as_str())).collect();
            let items = client.list_paged(&["walkthroughs"], &query).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Export { one, format, output } => {
            let head = resolve(remote, &one).await?;
            let path = ["walkthroughs", text(&head, "id"), "export"];
            let file = match Format::choose(format, output.as_deref()) {
                Format::Json => format!("{:#}\n", client.get(&path).await?),
                Format::Markdown => client.get_text(&path, &[("format", Format::Markdown.as_str())]).await?,
            };
            write_export(remote.json, output, &file, text(&head, "id"), text(&head, "title"))
        }
        Command::Show(one) => {
            let head = resolve(remote, &one).await?;
            let draft = client.get(&["walkthroughs", text(&head, "id")]).await?;
            let steps = draft["steps"].as_array().map(|steps| remote.select_all(steps, STEP_MEMBERS));
            print_draft(remote.json, remote.select(&draft, MEMBERS), steps.unwrap_or_default())
        }
        Command::Update(update) => update_walkthrough(remote, *update).await,
        Command::Publish { one, confirm_bidi } => {
            let head = resolve(remote, &one).await?;
            let options = json!({"confirm_bidi": confirm_bidi});
            let published = client.post(&["walkthroughs", text(&head, "id"), "publish"], options).await?;
            let output = remote.select(&published, &["version_id", "number", "created"]);
            let servers = client.list(&["assignments"], &[("walkthrough_id", text(&head, "id"))]).await?;
            let unassigned = servers.is_empty().then(|| text(&head, "slug"));
            print_published(remote.json, &output, text(&head, "title"), unassigned)
        }
        Command::Versions(one) => {
            let head = resolve(remote, &one).await?;
            let items = client.list(&["walkthroughs", text(&head, "id"), "versions"], &[]).await?;
            output::list(remote.json, VERSION_MEMBERS, remote.select_all(&items, VERSION_MEMBERS))
        }
        Command::Withdraw { one, version, reason } => {
            let head = resolve(remote, &one).await?;
            let (id, number) = (text(&head, "id"), version.to_string());
            client.post(&["walkthroughs", id, "versions", &number, "withdraw"], json!({"reason": reason})).await?;
            print_head(remote, &client.get(&["walkthroughs", id]).await?)
        }
        Command::Unpublish(one) => change_state(remote, &one, "unpublish").await,
        Command::Archive(one) => change_state(remote, &one, "archive").await,
        Command::Unarchive(one) => change_state(remote, &one, "unarchive").await,
        Command::Delete { one, yes } => {
            let head = resolve(remote, &one).await?;
            let (id, title) = (text(&head, "id"), text(&head, "title"));
            confirm_deletion(yes, title)?;
            client.delete(&["walkthroughs", id]).await?;
            print_deleted(remote.json, id, title)
        }
    }
}

async fn update_walkthrough(remote: &RemoteSession, update: Update) -> anyhow::Result<()> {
    let head = resolve(remote, &update.one).await?;
    let mut changes = without_nulls(json!({
        "title": update.title,
        "slug": update.slug,
        "description": update.description,
        "type": update.kind.map(|kind| kind.as_str()),
        "tags": update.tags.map(|tags| tags.into_iter().filter(|tag| !tag.trim().is_empty()).collect::<Vec<_>>()),
    }));
    if let Some(minutes) = update.minutes {
        changes["estimated_duration_minutes"] = json!(Some(minutes).filter(|minutes| *minutes > 0));
    }
    print_head(remote, &remote.client.patch(&["walkthroughs", text(&head, "id")], changes).await?)
}

/// Changes the state of a walkthrough with an action that has no parameters.
async fn change_state(remote: &RemoteSession, one: &WalkthroughArg, action: &str) -> anyhow::Result<()> {
    let head = resolve(remote, one).await?;
    print_head(remote, &remote.client.post(&["walkthroughs", text(&head, "id"), action], json!({})).await?)
}

fn print_head(remote: &RemoteSession, head: &Value) -> anyhow::Result<()> {
    output::object(remote.json, &remote.select(head, MEMBERS))
}

async fn resolve(remote: &RemoteSession, one: &WalkthroughArg) -> anyhow::Result<Value> {
    remote.check_organization(one.org.org.as_deref())?;
    find(remote, &one.walkthrough).await
}

/// Returns a walkthrough by ID or slug.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let client = &remote.client;
    if text.parse::<WalkthroughId>().is_ok() {
        let found = client.find(&["walkthroughs", text]).await?;
        return found.ok_or_else(|| anyhow::anyhow!(not_found_message("walkthrough", text, "walkthrough")));
    }
    let candidates = client.list_paged(&["walkthroughs"], &[("q", text)]).await?;
    find_item(candidates, |head| head["slug"] == text, "walkthrough", text, "walkthrough")
}
