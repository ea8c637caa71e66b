//! The demo: an organisation, a server and three walkthroughs, made once, so that the first look needs no preparation.

use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use rust_embed::RustEmbed;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::transfer;
use waypost_ops::public_url::PublicUrl;
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
    let settings = servers::ServerSettings {
        name: Some("Waypost demo".to_owned()),
        product_name: Some("Waypost".to_owned()),
        ..servers::ServerSettings::default()
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

/// The line that leads to the public page of the demo server.
#[must_use]
pub fn invitation(public_url: &PublicUrl) -> String {
    format!("open in a browser: {}/s/{SLUG}", public_url.origin())
}

/// How to play the demo in a terminal.
#[must_use]
pub fn snippets(address: SocketAddr) -> String {
    format!(
        "\n\
         The demo server is ready. Open its page in a browser: it shows how to connect your AI client.\n\
         Or play it in another terminal:\n\
         \n\
         \x20   waypost walk http://{address}/s/{SLUG}/mcp\n"
    )
}
