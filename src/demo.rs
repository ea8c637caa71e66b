//! The demo: an organisation, a server and three walkthroughs, created once.

use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use rust_embed::RustEmbed;
use waypost_content::transfer;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::{Ops, organizations, servers};
use waypost_store::{Db, system};

/// Slug of the demo organisation and of its server.
const SLUG: &str = "demo";

/// The walkthroughs, in display order.
const ORDER: &[&str] = &["waypost-in-ten-minutes.json", "git-from-zero.json", "install-a-service.json"];

#[derive(RustEmbed)]
#[folder = "demo"]
struct Files;

/// Creates the demo, unless its organisation exists. Later changes and deletions are not reverted.
///
/// # Errors
/// If the database fails, or another organisation uses the slug of the server.
pub async fn create(db: &Db) -> anyhow::Result<()> {
    let (cx, ops) = (Ctx::operator(), Ops::new(db.clone()));
    if system::find_organization_by_slug(&mut db.read().await?, SLUG).await?.is_some() {
        return Ok(());
    }
    let organization = organizations::create(&cx, &ops, SLUG, Some("Demo")).await?;
    if let Err(error) = create_content(&cx, &ops, &organization.id).await {
        // Delete a partial demo, which the next start would mistake for a complete one.
        organizations::delete(&cx, &ops, &organization.id).await?;
        return Err(error);
    }
    Ok(())
}

async fn create_content(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> anyhow::Result<()> {
    let settings = servers::ServerSettings {
        name: Some("Waypost demo".to_owned()),
        product_name: Some("Waypost".to_owned()),
        ..servers::ServerSettings::default()
    };
    servers::create(cx, ops, organization, SLUG, &settings).await?;
    for name in ORDER {
        let file = Files::get(name).with_context(|| format!("{name} is not included in this program"))?;
        let text = std::str::from_utf8(&file.data)?;
        let parsed = transfer::parse(name, text).map_err(|error| anyhow!("{name}: {error}"))?;
        let options = ImportOptions { server: Some(SLUG.to_owned()), publish: true, ..ImportOptions::default() };
        import::import(cx, ops, organization, parsed, options).await?;
    }
    Ok(())
}

/// Returns the line with the URL of the demo server's public page.
#[must_use]
pub fn page_hint(public_url: &PublicUrl) -> String {
    format!("open in a browser: {}/s/{SLUG}", public_url.origin())
}

/// Returns the instructions for playing the demo in a terminal.
#[must_use]
pub fn usage_hint(address: SocketAddr) -> String {
    format!(
        "\n\
         The demo server is ready. Open its page in a browser to see how to connect your AI client,\n\
         or play a walkthrough in another terminal:\n\
         \n\
         \x20   waypost walk http://{address}/s/{SLUG}/mcp\n"
    )
}
