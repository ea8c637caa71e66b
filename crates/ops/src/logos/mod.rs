//! Logos of organisations. They are decoded and re-encoded, so that browsers receive only images that Waypost has
//! created.

mod picture;
mod resize;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use serde_json::json;
use tokio::sync::Semaphore;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::{logo as store, organization};

use self::picture::{Format, Reader};
use self::resize::shrink;
use crate::Ops;
use crate::audit::{Entry, record};

/// The maximum size of a file, in bytes.
pub const MAX_BYTES: usize = 1_000_000;
/// The maximum length of a side, in pixels.
const MAX_SIDE: u32 = 4_096;
/// The maximum number of pixels: a file of 130 kB can contain an image that takes 150 MB when decoded.
const MAX_PIXELS: u64 = 4_000_000;
/// The maximum length of a side of the stored image, in pixels.
const KEPT_SIDE: u32 = 256;
/// The memory limit for decoding, in bytes: the largest image with 16 bits in each of four channels, and as much again
/// for the decoder.
const MAX_DECODED: usize = 2 * MAX_PIXELS as usize * 8;
/// The maximum number of uploads that wait to be decoded. Each holds its file of up to [`MAX_BYTES`].
const MAX_WAITING: usize = 32;

/// One image is decoded at a time in the whole process, so that memory use is bounded.
static DECODE_QUEUE: LazyLock<DecodeQueue> = LazyLock::new(DecodeQueue::new);

/// The branding of an organisation's pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branding {
    /// The name of the organisation.
    pub name: String,
    /// The time at which its logo was set. `None` if it has none.
    pub logo: Option<Timestamp>,
}

/// Sets the logo of an organisation from an image file.
///
/// # Errors
/// `not_found` and `forbidden` as for the organisation itself; `invalid_arguments` with `logo` and the reason if the
/// file is not an accepted image; `rate_limited` if too many uploads are waiting.
pub async fn set(cx: &Ctx, ops: &Ops, org: &OrganizationId, file: Vec<u8>) -> Result<()> {
    authorize(&cx.caller, Operation::OrganizationUpdate, org)?;
    let png = DECODE_QUEUE.recode(file).await?;
    let mut tx = ops.store.begin().await?;
    organization::find(&mut tx, org).await?.ok_or_else(|| Error::not_found("organisation"))?;
    store::set(&mut tx, org, &png, cx.now()).await?;
    let detail = json!({ "logo": "set", "bytes": png.len() });
    record(cx, &mut tx, org, Entry { action: "organization.logo", target: org.as_str(), detail }).await?;
    Ok(tx.commit().await?)
}

/// Deletes the logo of an organisation.
///
/// # Errors
/// `not_found` and `forbidden` as for the organisation itself.
pub async fn delete(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<()> {
    authorize(&cx.caller, Operation::OrganizationUpdate, org)?;
    let mut tx = ops.store.begin().await?;
    organization::find(&mut tx, org).await?.ok_or_else(|| Error::not_found("organisation"))?;
    if store::delete(&mut tx, org).await? {
        let entry = Entry { action: "organization.logo", target: org.as_str(), detail: json!({ "logo": "none" }) };
        record(cx, &mut tx, org, entry).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Returns the logo of an organisation as a PNG, for visitors to its pages. Returns `None` if it has none.
///
/// # Errors
/// `not_found` for an organisation other than the caller's; `unavailable` if the database cannot be reached.
pub async fn find_public(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Vec<u8>>> {
    authorize(&cx.caller, Operation::EndUserSignIn, org)?;
    Ok(store::find(&mut ops.store.read().await?, org).await?)
}

/// Returns the logo of an organisation as a PNG, for its members. Returns `None` if it has none.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access; `unavailable` if the database cannot be reached.
pub async fn find(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Vec<u8>>> {
    authorize(&cx.caller, Operation::OrganizationRead, org)?;
    Ok(store::find(&mut ops.store.read().await?, org).await?)
}

/// Returns the time at which the logo of an organisation was set, for its members. Returns `None` if it has none.
///
/// # Errors
/// The same as for [`find`].
pub async fn find_updated_at(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Timestamp>> {
    authorize(&cx.caller, Operation::OrganizationRead, org)?;
    Ok(store::find_updated_at(&mut ops.store.read().await?, org).await?)
}

/// Returns the branding of an organisation's pages.
///
/// # Errors
/// The same as for [`find_public`].
pub async fn get_branding(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Branding> {
    authorize(&cx.caller, Operation::EndUserSignIn, org)?;
    let mut conn = ops.store.read().await?;
    let name = organization::find(&mut conn, org).await?.ok_or_else(|| Error::not_found("organisation"))?.name;
    Ok(Branding { name, logo: store::find_updated_at(&mut conn, org).await? })
}

/// The queue of uploads to decode.
struct DecodeQueue {
    decoding: Arc<Semaphore>,
    waiting: Semaphore,
}

impl DecodeQueue {
    fn new() -> Self {
        Self { decoding: Arc::new(Semaphore::new(1)), waiting: Semaphore::new(MAX_WAITING) }
    }

    /// Checks the dimensions of the image in `file`, then waits for its turn and re-encodes it with [`recode`].
    async fn recode(&self, file: Vec<u8>) -> Result<Vec<u8>> {
        check_dimensions(&file).inspect_err(|_| count("not_accepted"))?;
        self.wait(move || recode(&file).inspect_err(|_| count("not_accepted"))).await
    }

    /// Waits for a turn, then runs the memory-intensive `work` on a blocking thread.
    async fn wait<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let Ok(_place) = self.waiting.try_acquire() else {
            count("queue_full");
            return Err(Error::new(
                Code::RateLimited,
                "Too many logos are being uploaded. Try again in a few seconds.",
            )
            .with("retry_after_seconds", 5));
        };
        let turn = Arc::clone(&self.decoding).acquire_owned().await.map_err(Error::internal)?;
        let work = move || {
            // Decoding continues if the client disconnects, so the turn ends with the work and not with this future.
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

fn count(reason: &'static str) {
    metrics::counter!("waypost_logos_rejected_total", "reason" => reason).increment(1);
}

fn invalid_logo(reason: &str) -> Error {
    Error::invalid("logo", format!("This logo cannot be used: {reason}"))
}

/// Checks the dimensions. Reads only the header of the image.
///
/// # Errors
/// `invalid_arguments` if the file or the image is too large, or its format is not accepted.
fn check_dimensions(file: &[u8]) -> Result<()> {
    open(file).map(|_| ())
}

/// Returns a reader of the image in `file`, whose dimensions are within the limits.
fn open(file: &[u8]) -> Result<Reader<'_>> {
    if file.len() > MAX_BYTES {
        return Err(invalid_logo("the file is larger than 1 MB."));
    }
    let Some(format) = Format::detect(file) else {
        let is_svg = is_svg(file);
        return Err(invalid_logo(if is_svg {
            "an SVG can contain scripts. Save it as PNG."
        } else {
            "it is not a PNG, JPEG, GIF or WebP image."
        }));
    };
    let reader = Reader::open(file, format, MAX_DECODED).map_err(|_| damaged())?;
    let dimensions = reader.dimensions().map_err(|_| damaged())?;
    if dimensions.width > MAX_SIDE || dimensions.height > MAX_SIDE {
        return Err(invalid_logo("it has more than 4096 pixels on a side."));
    }
    if dimensions.pixels() > MAX_PIXELS {
        return Err(invalid_logo("it has more than 4 megapixels. Make it smaller; 256 by 256 pixels are sufficient."));
    }
    Ok(reader)
}

fn damaged() -> Error {
    invalid_logo("the file is damaged.")
}

/// Returns the image in `file` as a PNG of at most 256 by 256 pixels, without anything else in the file.
fn recode(file: &[u8]) -> Result<Vec<u8>> {
    let picture = open(file)?.decode().map_err(|_| damaged())?;
    let logo = shrink(picture, KEPT_SIDE).map_err(Error::internal)?;
    logo.to_png().map_err(Error::internal)
}

fn is_svg(file: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&file[..file.len().min(1_024)]).to_ascii_lowercase();
    start.contains("<svg")
}
