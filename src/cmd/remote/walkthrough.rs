//! `waypost walkthrough` through the API.

mod import;

use serde_json::{Value, json};
use waypost_core::id::WalkthroughId;

use super::{RemoteSession, given, only, text, unknown};
use crate::cmd::output;
use crate::cmd::walkthrough::{
    Command, Format, MEMBERS, STEP_MEMBERS, TRASH_MEMBERS, Update, VERSION_MEMBERS, WalkthroughArg, confirm_deletion,
    deleted, print_draft, print_list, print_published, write_export,
};

/// Does it.
///
/// # Errors
/// When a file cannot be read, or it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    match command {
        Command::Import(args) => import::run(remote, args).await,
        Command::Lint { .. } => anyhow::bail!("files are checked on this machine: leave --url out"),
        Command::List { org, trash: true, .. } => {
            remote.organization(org.org.as_deref())?;
            let items = client.list(&["walkthroughs", "trash"], &[]).await?;
            output::list(remote.json, TRASH_MEMBERS, remote.shapes(&items, TRASH_MEMBERS))
        }
        Command::Restore { walkthrough, org } => {
            remote.organization(org.org.as_deref())?;
            let restored = client.post(&["walkthroughs", walkthrough.as_str(), "restore"], json!({})).await?;
            print_head(remote, &restored)
        }
        Command::List { org, state, .. } => {
            remote.organization(org.org.as_deref())?;
            let query: Vec<_> = state.iter().map(|state| ("state", state.as_str())).collect();
            let items = client.pages(&["walkthroughs"], &query).await?;
            print_list(remote.json, remote.shapes(&items, MEMBERS))
        }
        Command::Export { one, format, output } => {
            let head = named(remote, &one).await?;
            let path = ["walkthroughs", text(&head, "id"), "export"];
            let file = match Format::choose(format, output.as_deref()) {
                Format::Json => format!("{:#}\n", client.get(&path).await?),
                Format::Markdown => client.get_text(&path, &[("format", Format::Markdown.as_str())]).await?,
            };
            write_export(remote.json, output, &file, (text(&head, "id"), text(&head, "title")))
        }
        Command::Show(one) => {
            let head = named(remote, &one).await?;
            let draft = client.get(&["walkthroughs", text(&head, "id")]).await?;
            let steps = draft["steps"].as_array().map(|steps| remote.shapes(steps, STEP_MEMBERS));
            print_draft(remote.json, remote.shape(&draft, MEMBERS), steps.unwrap_or_default())
        }
        Command::Update(update) => change(remote, *update).await,
        Command::Publish { one, confirm_bidi } => {
            let head = named(remote, &one).await?;
            let how = json!({"confirm_bidi": confirm_bidi});
            let published = client.post(&["walkthroughs", text(&head, "id"), "publish"], how).await?;
            let shown = remote.shape(&published, &["version_id", "number", "created"]);
            let servers = client.list(&["assignments"], &[("walkthrough_id", text(&head, "id"))]).await?;
            let unassigned = servers.is_empty().then(|| text(&head, "slug"));
            print_published(remote.json, &shown, text(&head, "title"), unassigned)
        }
        Command::Versions(one) => {
            let head = named(remote, &one).await?;
            let items = client.list(&["walkthroughs", text(&head, "id"), "versions"], &[]).await?;
            output::list(remote.json, VERSION_MEMBERS, remote.shapes(&items, VERSION_MEMBERS))
        }
        Command::Withdraw { one, version, reason } => {
            let head = named(remote, &one).await?;
            let (id, number) = (text(&head, "id"), version.to_string());
            client.post(&["walkthroughs", id, "versions", &number, "withdraw"], json!({"reason": reason})).await?;
            print_head(remote, &client.get(&["walkthroughs", id]).await?)
        }
        Command::Unpublish(one) => act(remote, &one, "unpublish").await,
        Command::Archive(one) => act(remote, &one, "archive").await,
        Command::Unarchive(one) => act(remote, &one, "unarchive").await,
        Command::Delete { one, yes } => {
            let head = named(remote, &one).await?;
            let (id, title) = (text(&head, "id"), text(&head, "title"));
            confirm_deletion(yes, title)?;
            client.delete(&["walkthroughs", id]).await?;
            deleted(remote.json, id, title)
        }
    }
}

async fn change(remote: &RemoteSession, update: Update) -> anyhow::Result<()> {
    let head = named(remote, &update.one).await?;
    let mut changes = given(json!({
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

/// What needs no more than a word.
async fn act(remote: &RemoteSession, one: &WalkthroughArg, act: &str) -> anyhow::Result<()> {
    let head = named(remote, one).await?;
    print_head(remote, &remote.client.post(&["walkthroughs", text(&head, "id"), act], json!({})).await?)
}

fn print_head(remote: &RemoteSession, head: &Value) -> anyhow::Result<()> {
    output::object(remote.json, &remote.shape(head, MEMBERS))
}

async fn named(remote: &RemoteSession, one: &WalkthroughArg) -> anyhow::Result<Value> {
    remote.organization(one.org.org.as_deref())?;
    find(remote, &one.walkthrough).await
}

/// By id or slug.
pub(super) async fn find(remote: &RemoteSession, wanted: &str) -> anyhow::Result<Value> {
    let client = &remote.client;
    if wanted.parse::<WalkthroughId>().is_ok() {
        let found = client.find(&["walkthroughs", wanted]).await?;
        return found.ok_or_else(|| anyhow::anyhow!(unknown("walkthrough", wanted, "walkthrough")));
    }
    let similar = client.pages(&["walkthroughs"], &[("q", wanted)]).await?;
    only(similar, |head| head["slug"] == wanted, ("walkthrough", wanted, "walkthrough"))
}
