//! Logos of organisations. They are decoded and re-encoded, so that browsers only get images that were created here.

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use image::imageops::FilterType;
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits};
use serde_json::json;
use tokio::sync::Semaphore;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::{logo as store, organization};

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
const MAX_DECODED: u64 = 2 * MAX_PIXELS * 8;
/// The maximum number of uploads that wait to be decoded. Each holds its file of up to [`MAX_BYTES`].
const MAX_WAITING: usize = 32;

/// One image is decoded at a time in the whole process, so that the memory is bounded.
static TURN: LazyLock<Turn> = LazyLock::new(Turn::new);

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
    let png = TURN.recode(file).await?;
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

/// Returns the logo of an organisation, a PNG, for visitors of its pages.
///
/// # Errors
/// `not_found` for an organisation other than the caller's; `unavailable` if the database cannot be reached.
pub async fn find_public(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Vec<u8>>> {
    authorize(&cx.caller, Operation::EndUserSignIn, org)?;
    Ok(store::find(&mut ops.store.read().await?, org).await?)
}

/// Returns the logo of an organisation, a PNG, for its members.
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
/// As [`find`].
pub async fn find_updated_at(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Timestamp>> {
    authorize(&cx.caller, Operation::OrganizationRead, org)?;
    Ok(store::find_updated_at(&mut ops.store.read().await?, org).await?)
}

/// The branding of an organisation's pages.
///
/// # Errors
/// As [`find_public`].
pub async fn get_branding(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Branding> {
    authorize(&cx.caller, Operation::EndUserSignIn, org)?;
    let mut conn = ops.store.read().await?;
    let name = organization::find(&mut conn, org).await?.ok_or_else(|| Error::not_found("organisation"))?.name;
    Ok(Branding { name, logo: store::find_updated_at(&mut conn, org).await? })
}

/// The queue of uploads to decode.
struct Turn {
    decoding: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Turn {
    fn new() -> Self {
        Self { decoding: Arc::new(Semaphore::new(1)), waiting: Semaphore::new(MAX_WAITING) }
    }

    /// Checks the dimensions of the image in `file`, then waits for its turn and re-encodes it with [`recode`].
    async fn recode(&self, file: Vec<u8>) -> Result<Vec<u8>> {
        check_dimensions(&file).inspect_err(|_| count("not_accepted"))?;
        self.wait(move || recode(&file).inspect_err(|_| count("not_accepted"))).await
    }

    /// Waits for a turn, then runs `work`, which takes memory, on a blocking thread.
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
    let too_long = || invalid_logo("it has more than 4096 pixels on a side.");
    let (width, height) = reader(file)?.into_dimensions().map_err(|error| match error {
        ImageError::Limits(_) => too_long(),
        _ => invalid_logo("the file is damaged."),
    })?;
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(too_long());
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(invalid_logo("it has more than 4 megapixels. Make it smaller; 256 by 256 pixels are sufficient."));
    }
    Ok(())
}

fn reader(file: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>> {
    if file.len() > MAX_BYTES {
        return Err(invalid_logo("the file is larger than 1 MB."));
    }
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(Error::internal)?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP) => {}
        _ if is_svg(file) => return Err(invalid_logo("an SVG can contain scripts. Save it as PNG.")),
        _ => return Err(invalid_logo("it is not a PNG, JPEG, GIF or WebP image.")),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    Ok(reader)
}

/// Returns the image in `file` as a PNG of at most 256 by 256 pixels, without anything else in the file.
fn recode(file: &[u8]) -> Result<Vec<u8>> {
    check_dimensions(file)?;
    let picture = reader(file)?.decode().map_err(|_| invalid_logo("the file is damaged."))?;
    let picture = if picture.width() > KEPT_SIDE || picture.height() > KEPT_SIDE {
        picture.resize(KEPT_SIDE, KEPT_SIDE, FilterType::Lanczos3)
    } else {
        picture
    };
    let mut png = Vec::new();
    DynamicImage::ImageRgba8(picture.into_rgba8())
        .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
        .map_err(Error::internal)?;
    Ok(png)
}

fn is_svg(file: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&file[..file.len().min(1_024)]).to_ascii_lowercase();
    start.contains("<svg")
}

#[cfg(test)]
mod tests {
    use image::RgbaImage;

    use super::*;

    fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        let image = DynamicImage::ImageRgba8(RgbaImage::from_pixel(width, height, image::Rgba([200, 30, 60, 255])));
        let image = if format == ImageFormat::Jpeg { DynamicImage::ImageRgb8(image.into_rgb8()) } else { image };
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    #[test]
    fn images_become_small_pngs() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let png = recode(&picture(512, 128, format)).unwrap();
            let kept = image::load_from_memory_with_format(&png, ImageFormat::Png).unwrap();
            assert_eq!((kept.width(), kept.height()), (256, 64), "{format:?}");
        }
        let small = recode(&picture(20, 10, ImageFormat::Png)).unwrap();
        assert_eq!(image::load_from_memory(&small).unwrap().width(), 20, "small images are not enlarged");
        let mut tail = picture(8, 8, ImageFormat::Png);
        tail.extend_from_slice(b"<script>alert(1)</script>");
        let png = recode(&tail).unwrap();
        assert!(!png.windows(7).any(|window| window == b"<script"), "only the image is kept");
    }

    /// Returns the header of a PNG without pixels.
    fn header(width: u32, height: u32) -> Vec<u8> {
        let mut png = picture(1, 1, ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        png
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[tokio::test]
    async fn one_image_is_decoded_at_a_time_and_its_header_is_checked_before() {
        let turn = Turn::new();
        let picture = picture(64, 64, ImageFormat::Png);
        let held = turn.decoding.acquire().await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(turn.recode(picture.clone()))).collect();
        for upload in &mut waiting {
            assert!(futures::poll!(upload).is_pending());
        }
        // Neither of these uploads waits: one is too large, and there is no place for the other.
        let error = turn.recode(header(4_096, 4_096)).await.unwrap_err();
        assert!(error.message.contains("4 megapixels"), "{error}");
        assert_eq!(turn.recode(picture.clone()).await.unwrap_err().code, Code::RateLimited);
        drop(held);
        for upload in waiting {
            upload.await.unwrap();
        }
        turn.recode(picture).await.unwrap();
    }

    #[test]
    fn a_cancelled_upload_keeps_its_turn_until_it_is_decoded() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.max_blocking_threads(1).build().unwrap().block_on(async {
            let turn = Turn::new();
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let mut upload = Box::pin(turn.recode(picture(64, 64, ImageFormat::Png)));
            assert!(futures::poll!(&mut upload).is_pending());
            drop(upload);
            assert!(turn.decoding.try_acquire().is_err(), "it waits for a thread");
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            drop(turn.decoding.acquire().await.unwrap());
        });
    }

    /// The turn ends with the work, even if the upload is cancelled.
    #[tokio::test]
    async fn a_turn_lasts_until_the_work_is_done() {
        for is_cancelled in [false, true] {
            let turn = Turn::new();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let (release, released) = std::sync::mpsc::channel::<()>();
            let mut upload = Box::pin(turn.wait(move || {
                begin.send(()).unwrap();
                released.recv().map_err(Error::internal)
            }));
            assert!(futures::poll!(&mut upload).is_pending());
            begun.await.unwrap();
            let upload = (!is_cancelled).then_some(upload);
            assert!(turn.decoding.try_acquire().is_err(), "while it is being decoded");
            release.send(()).unwrap();
            if let Some(upload) = upload {
                upload.await.unwrap();
            }
            drop(turn.decoding.acquire().await.unwrap());
        }
    }

    #[test]
    fn other_files_are_rejected_with_a_reason() {
        let mut damaged = picture(64, 64, ImageFormat::Png);
        damaged.truncate(60);
        let svg = b"<?xml version=\"1.0\"?><SVG xmlns=\"http://www.w3.org/2000/svg\"><script/></SVG>".to_vec();
        for (file, words) in [
            (picture(4_097, 1, ImageFormat::Png), "4096 pixels"),
            (picture(1, 4_097, ImageFormat::Gif), "4096 pixels"),
            (header(2_000, 2_001), "4 megapixels"),
            (header(4_096, 4_096), "4 megapixels"),
            (header(2_000, 2_000), "damaged"),
            (vec![0; MAX_BYTES + 1], "1 MB"),
            (svg, "SVG"),
            (b"hello".to_vec(), "not a PNG"),
            (Vec::new(), "not a PNG"),
            (b"BM______________".to_vec(), "not a PNG"),
            (damaged, "damaged"),
        ] {
            let error = recode(&file).unwrap_err();
            assert!(error.message.contains(words), "{error}");
            assert_eq!(error.details["field"], "logo");
        }
    }
}
