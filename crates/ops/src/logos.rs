//! Logos of organisations: decoded and written anew, so that what browsers get was made here.

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

/// Bytes of a file at most.
pub const MAX_BYTES: usize = 1_000_000;
/// Pixels of a side at most.
const MAX_SIDE: u32 = 4_096;
/// Pixels at most: a file of 130 kB can hold a picture that takes 150 MB when decoded.
const MAX_PIXELS: u64 = 4_000_000;
/// Pixels of a side that are kept.
const KEPT_SIDE: u32 = 256;
/// Bytes of memory for decoding: the largest picture with 16 bits in each of four channels, and as much again for what
/// the decoder needs itself.
const MAX_DECODED: u64 = 2 * MAX_PIXELS * 8;
/// Uploads that wait for their turn to be decoded, at most; each holds its file of up to [`MAX_BYTES`].
const MAX_WAITING: usize = 32;

/// Decoding happens one picture at a time in the whole process, so that the memory for it is bounded.
static TURN: LazyLock<Turn> = LazyLock::new(Turn::new);

/// How the pages of an organisation look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branding {
    /// The name of the organisation.
    pub name: String,
    /// When its logo was set; none when it has none.
    pub logo: Option<Timestamp>,
}

/// Sets the logo of an organisation from a file of a picture.
///
/// # Errors
/// `not_found` and `forbidden` as for the organisation itself; `invalid_arguments` naming `logo`, with the reason, if
/// the file is no picture that is accepted; `rate_limited` if too many uploads are waiting.
pub async fn set(cx: &Ctx, ops: &Ops, org: &OrganizationId, file: Vec<u8>) -> Result<()> {
    authorize(&cx.caller, Operation::OrganizationUpdate, org)?;
    let png = TURN.recode(file).await?;
    let mut tx = ops.db.begin().await?;
    organization::find(&mut tx, org).await?.ok_or_else(|| Error::not_found("organisation"))?;
    store::set(&mut tx, org, &png, cx.now()).await?;
    let detail = json!({ "logo": "set", "bytes": png.len() });
    record(cx, &mut tx, org, Entry { action: "organization.logo", target: org.as_str(), detail }).await?;
    Ok(tx.commit().await?)
}

/// Takes the logo of an organisation away.
///
/// # Errors
/// `not_found` and `forbidden` as for the organisation itself.
pub async fn remove(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<()> {
    authorize(&cx.caller, Operation::OrganizationUpdate, org)?;
    let mut tx = ops.db.begin().await?;
    organization::find(&mut tx, org).await?.ok_or_else(|| Error::not_found("organisation"))?;
    if store::delete(&mut tx, org).await? {
        let entry = Entry { action: "organization.logo", target: org.as_str(), detail: json!({ "logo": "none" }) };
        record(cx, &mut tx, org, entry).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The logo of an organisation, a PNG, for everybody who comes to its pages.
///
/// # Errors
/// `not_found` in an organisation that is not the caller's; `unavailable` when the database is away.
pub async fn get(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Vec<u8>>> {
    authorize(&cx.caller, Operation::EndUserSignIn, org)?;
    Ok(store::find(&mut ops.db.read().await?, org).await?)
}

/// The logo of an organisation, a PNG, for its members.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of; `unavailable` when the database is away.
pub async fn show(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Vec<u8>>> {
    authorize(&cx.caller, Operation::OrganizationRead, org)?;
    Ok(store::find(&mut ops.db.read().await?, org).await?)
}

/// When the logo of an organisation was set, for its members; none when it has none.
///
/// # Errors
/// As [`show`].
pub async fn updated_at(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Option<Timestamp>> {
    authorize(&cx.caller, Operation::OrganizationRead, org)?;
    Ok(store::find_updated_at(&mut ops.db.read().await?, org).await?)
}

/// How the pages of an organisation look.
///
/// # Errors
/// As [`get`].
pub async fn branding(cx: &Ctx, ops: &Ops, org: &OrganizationId) -> Result<Branding> {
    authorize(&cx.caller, Operation::EndUserSignIn, org)?;
    let mut conn = ops.db.read().await?;
    let name = organization::find(&mut conn, org).await?.ok_or_else(|| Error::not_found("organisation"))?.name;
    Ok(Branding { name, logo: store::find_updated_at(&mut conn, org).await? })
}

/// The right to decode a picture.
struct Turn {
    decoding: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Turn {
    fn new() -> Self {
        Self { decoding: Arc::new(Semaphore::new(1)), waiting: Semaphore::new(MAX_WAITING) }
    }

    /// Checks the size of the picture in `file`, then waits for its turn and decodes it, as [`recode`] says.
    async fn recode(&self, file: Vec<u8>) -> Result<Vec<u8>> {
        check_dimensions(&file).inspect_err(|_| count("not_accepted"))?;
        self.wait(move || recode(&file).inspect_err(|_| count("not_accepted"))).await
    }

    /// Waits for a turn, then does `work`, which takes memory, on a thread of its own.
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
            // Decoding goes on if the client disconnects, so the turn ends with it and not with this future.
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

fn count(reason: &'static str) {
    metrics::counter!("waypost_logos_rejected_total", "reason" => reason).increment(1);
}

fn refused(why: &str) -> Error {
    Error::invalid("logo", format!("This logo cannot be used: {why}"))
}

/// Reads only the header of the picture.
///
/// # Errors
/// `invalid_arguments` if the file or the picture is too large, or of no format that is accepted.
fn check_dimensions(file: &[u8]) -> Result<()> {
    let too_long = || refused("it has more than 4096 pixels on a side.");
    let (width, height) = reader(file)?.into_dimensions().map_err(|error| match error {
        ImageError::Limits(_) => too_long(),
        _ => refused("the file is damaged."),
    })?;
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(too_long());
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(refused("it has more than 4 megapixels. Make it smaller; 256 by 256 pixels are kept."));
    }
    Ok(())
}

fn reader(file: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>> {
    if file.len() > MAX_BYTES {
        return Err(refused("the file is larger than 1 MB."));
    }
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(Error::internal)?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP) => {}
        _ if is_svg(file) => return Err(refused("an SVG can hold scripts. Save it as PNG.")),
        _ => return Err(refused("it is none of PNG, JPEG, GIF and WebP.")),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    Ok(reader)
}

/// The picture in `file` as a PNG of at most 256 by 256 pixels, without anything else that stood in the file.
fn recode(file: &[u8]) -> Result<Vec<u8>> {
    check_dimensions(file)?;
    let picture = reader(file)?.decode().map_err(|_| refused("the file is damaged."))?;
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
    fn pictures_become_small_pngs() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let png = recode(&picture(512, 128, format)).unwrap();
            let kept = image::load_from_memory_with_format(&png, ImageFormat::Png).unwrap();
            assert_eq!((kept.width(), kept.height()), (256, 64), "{format:?}");
        }
        let small = recode(&picture(20, 10, ImageFormat::Png)).unwrap();
        assert_eq!(image::load_from_memory(&small).unwrap().width(), 20, "small ones are not blown up");
        let mut tail = picture(8, 8, ImageFormat::Png);
        tail.extend_from_slice(b"<script>alert(1)</script>");
        let png = recode(&tail).unwrap();
        assert!(!png.windows(7).any(|window| window == b"<script"), "nothing but the picture is kept");
    }

    /// The header of a PNG, without any pixels.
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
    async fn one_picture_is_decoded_at_a_time_and_the_header_is_read_before() {
        let turn = Turn::new();
        let picture = picture(64, 64, ImageFormat::Png);
        let held = turn.decoding.acquire().await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(turn.recode(picture.clone()))).collect();
        for upload in &mut waiting {
            assert!(futures::poll!(upload).is_pending());
        }
        // Neither of these waits: one is too large, for the other one there is no place.
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
    fn an_upload_that_is_given_up_keeps_its_turn_until_it_is_decoded() {
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

    /// The turn ends with the work, also if nobody waits for it any more.
    #[tokio::test]
    async fn a_turn_lasts_until_the_work_is_done() {
        for is_given_up in [false, true] {
            let turn = Turn::new();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let (release, released) = std::sync::mpsc::channel::<()>();
            let mut upload = Box::pin(turn.wait(move || {
                begin.send(()).unwrap();
                released.recv().map_err(Error::internal)
            }));
            assert!(futures::poll!(&mut upload).is_pending());
            begun.await.unwrap();
            let upload = (!is_given_up).then_some(upload);
            assert!(turn.decoding.try_acquire().is_err(), "while it is being decoded");
            release.send(()).unwrap();
            if let Some(upload) = upload {
                upload.await.unwrap();
            }
            drop(turn.decoding.acquire().await.unwrap());
        }
    }

    #[test]
    fn the_rest_is_refused_with_a_reason() {
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
            (b"hello".to_vec(), "none of PNG"),
            (Vec::new(), "none of PNG"),
            (b"BM______________".to_vec(), "none of PNG"),
            (damaged, "damaged"),
        ] {
            let error = recode(&file).unwrap_err();
            assert!(error.message.contains(words), "{error}");
            assert_eq!(error.details["field"], "logo");
        }
    }
}
