//! The demo: an organisation, a server and three walkthroughs, made once, so that the first look needs no preparation.

use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use rust_embed::RustEmbed;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::transfer;
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::{Ops, organizations, servers};
use waypost_store::{Db, system};

/// Slug of the demo's organisation and of its server.
const SLUG: &str = "demo";

/// The walkthroughs that come along, in the order in which they are offered.
const ORDER: &[&str] = &["waypost-in-ten-minutes.json", "git-from-zero.json", "install-a-service.json"];

#[derive(RustEmbed)]
#[folder = "demo"]
struct Files;

/// Makes the demo, unless its organisation is there: what was changed or deleted since stays as it is.
///
/// # Errors
/// When the database fails, or the slug of the server is taken by another organisation.
pub async fn create(db: &Db) -> anyhow::Result<()> {
    let (cx, ops) = (Ctx::operator(), Ops::new(db.clone()));
    if system::find_organization(&mut db.read().await?, SLUG).await?.is_some() {
        return Ok(());
    }
    let organization = organizations::create(&cx, &ops, SLUG, Some("Demo")).await?;
    if let Err(error) = fill(&cx, &ops, &organization.id).await {
        // All of it or nothing: otherwise the next start would take the half for the whole.
        organizations::delete(&cx, &ops, &organization.id).await?;
        return Err(error);
    }
    Ok(())
}

async fn fill(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> anyhow::Result<()> {
    let settings = servers::Settings {
        name: Some("Waypost demo".to_owned()),
        product_name: Some("Waypost".to_owned()),
        ..servers::Settings::default()
    };
    servers::create(cx, ops, organization, SLUG, &settings).await?;
    for name in ORDER {
        let file = Files::get(name).with_context(|| format!("{name} is not part of this program"))?;
        let text = std::str::from_utf8(&file.data)?;
        let parsed = transfer::parse(name, text).map_err(|error| anyhow!("{name}: {error}"))?;
        let options = ImportOptions { server: Some(SLUG.to_owned()), publish: true, ..ImportOptions::default() };
        import::import(cx, ops, organization, parsed, options).await?;
    }
    Ok(())
}

/// What to paste into clients, and what to type to play at once.
#[must_use]
pub fn snippets(origin: &str, address: SocketAddr) -> String {
    let url = format!("{origin}/s/{SLUG}/mcp");
    format!(
        "\n\
         The demo server is ready. Play it in another terminal:\n\
         \n\
         \x20   waypost walk http://{address}/s/{SLUG}/mcp\n\
         \n\
         or connect a coding agent:\n\
         \n\
         Claude Code\n\
         \x20   claude mcp add --transport http waypost-demo {url}\n\
         \n\
         VS Code, .vscode/mcp.json\n\
         \x20   {{ \"servers\": {{ \"waypost-demo\": {{ \"type\": \"http\", \"url\": \"{url}\" }} }} }}\n\
         \n\
         Cursor, .cursor/mcp.json\n\
         \x20   {{ \"mcpServers\": {{ \"waypost-demo\": {{ \"url\": \"{url}\" }} }} }}\n\
         \n\
         Then ask the agent: \"Which walkthroughs are there?\"\n"
    )
}
