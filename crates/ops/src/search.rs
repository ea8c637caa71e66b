//! Searches the walkthroughs that a server offers.

use std::sync::Arc;

use waypost_content::search::{Document, Query, fold, rank};
use waypost_core::Result;
use waypost_core::access::authorize_play;
use waypost_core::caller::Ctx;
use waypost_store::offer;

use crate::hosting::Hosting;
use crate::offers::Offers;

/// Returns the positions in `offers.list()` of the matching walkthroughs, best match first. Returns `None` if the query
/// contains no word and therefore matches everything. Reads step titles that are not cached, but no content.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn rank_offers(cx: &Ctx, hosting: &Hosting, offers: &Offers, query: &str) -> Result<Option<Vec<usize>>> {
    let server = &offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    let Some(query) = Query::parse(query) else { return Ok(None) };
    let cache = &hosting.step_titles.0;
    let mut titles: Vec<Option<Arc<str>>> = offers.list().iter().map(|offer| cache.get(&offer.version_id)).collect();
    if titles.iter().any(Option::is_none) {
        let read = offer::list_step_titles(&mut hosting.read().await?, &server.organization_id, &server.id).await?;
        for (offer, titles) in offers.list().iter().zip(&mut titles).filter(|(_, titles)| titles.is_none()) {
            // A version that was published or withdrawn in the meantime is missing. It is not cached.
            let Some(read) = read.get(&offer.version_id) else { continue };
            let folded: Arc<str> = fold(&read.join("\n")).into();
            cache.insert(offer.version_id.clone(), Arc::clone(&folded));
            *titles = Some(folded);
        }
    }
    let documents = offers.list().iter().zip(&titles).map(|(offer, titles)| Document {
        title: &offer.title,
        description: &offer.description,
        tags: &offer.tags,
        folded_steps: titles.as_deref().unwrap_or_default(),
    });
    Ok(Some(rank(&query, documents)))
}
