//! Tests of the decoding of logos.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbaImage};

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
    let mut file = picture(8, 8, ImageFormat::Png);
    file.extend_from_slice(b"<script>alert(1)</script>");
    let png = recode(&file).unwrap();
    assert!(!png.windows(7).any(|window| window == b"<script"), "only the image is kept");
}

/// Returns a PNG of one pixel whose header states the given dimensions.
fn png_with_dimensions(width: u32, height: u32) -> Vec<u8> {
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
async fn one_image_is_decoded_at_a_time_after_its_header_is_checked() {
    let queue = DecodeQueue::new();
    let picture = picture(64, 64, ImageFormat::Png);
    let held = queue.decoding.acquire().await.unwrap();
    let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(queue.recode(picture.clone()))).collect();
    for upload in &mut waiting {
        assert!(futures::poll!(upload).is_pending());
    }
    // Neither of these uploads waits: one is too large, and the queue has no room for the other.
    let error = queue.recode(png_with_dimensions(4_096, 4_096)).await.unwrap_err();
    assert!(error.message.contains("4 megapixels"), "{error}");
    assert_eq!(queue.recode(picture.clone()).await.unwrap_err().code, Code::RateLimited);
    drop(held);
    for upload in waiting {
        upload.await.unwrap();
    }
    queue.recode(picture).await.unwrap();
}

#[test]
fn a_cancelled_upload_keeps_its_turn_until_it_is_decoded() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.max_blocking_threads(1).build().unwrap().block_on(async {
        let queue = DecodeQueue::new();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let mut upload = Box::pin(queue.recode(picture(64, 64, ImageFormat::Png)));
        assert!(futures::poll!(&mut upload).is_pending());
        drop(upload);
        assert!(queue.decoding.try_acquire().is_err(), "it waits for a thread");
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        drop(queue.decoding.acquire().await.unwrap());
    });
}

/// The turn ends with the work, even if the upload is cancelled.
#[tokio::test]
async fn a_turn_lasts_until_the_work_is_done() {
    for is_cancelled in [false, true] {
        let queue = DecodeQueue::new();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let mut upload = Box::pin(queue.wait(move || {
            begin.send(()).unwrap();
            released.recv().map_err(Error::internal)
        }));
        assert!(futures::poll!(&mut upload).is_pending());
        begun.await.unwrap();
        let upload = (!is_cancelled).then_some(upload);
        assert!(queue.decoding.try_acquire().is_err(), "while it is being decoded");
        release.send(()).unwrap();
        if let Some(upload) = upload {
            upload.await.unwrap();
        }
        drop(queue.decoding.acquire().await.unwrap());
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
        (png_with_dimensions(2_000, 2_001), "4 megapixels"),
        (png_with_dimensions(4_096, 4_096), "4 megapixels"),
        (png_with_dimensions(2_000, 2_000), "damaged"),
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

/// Returns an image whose colour and alpha change slowly, so that lossy formats keep it.
fn gradient(width: u32, height: u32, has_alpha: bool) -> DynamicImage {
    let pixel = |x, y| {
        let value = |position: u32, side: u32| u8::try_from(255 * position / side).unwrap();
        let alpha = if has_alpha { 255 - value(x, width) / 2 } else { 255 };
        image::Rgba([value(x, width), value(y, height), 128, alpha])
    };
    DynamicImage::ImageRgba8(RgbaImage::from_fn(width, height, pixel))
}

fn decode(file: &[u8]) -> picture::Picture {
    open(file).unwrap().decode().unwrap()
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Vec::new();
    image.write_to(&mut Cursor::new(&mut file), format).unwrap();
    file
}

/// Asserts that no channel differs by more than `tolerance`.
fn assert_similar(actual: &[u8], expected: &[u8], tolerance: u8, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let difference = actual.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(difference <= Some(tolerance), "{what}: {difference:?}");
}

#[test]
fn decoding_matches_another_library_for_every_pixel_format() {
    let (opaque, transparent) = (gradient(40, 30, false), gradient(40, 30, true));
    for (what, image, format) in [
        ("rgba", transparent.clone(), ImageFormat::Png),
        ("rgb", DynamicImage::ImageRgb8(opaque.to_rgb8()), ImageFormat::Png),
        ("gray", DynamicImage::ImageLuma8(opaque.to_luma8()), ImageFormat::Png),
        ("gray with alpha", DynamicImage::ImageLumaA8(transparent.to_luma_alpha8()), ImageFormat::Png),
        ("16 bits", DynamicImage::ImageRgba16(transparent.to_rgba16()), ImageFormat::Png),
        ("16 bits gray", DynamicImage::ImageLuma16(opaque.to_luma16()), ImageFormat::Png),
        ("jpeg", DynamicImage::ImageRgb8(opaque.to_rgb8()), ImageFormat::Jpeg),
        ("gray jpeg", DynamicImage::ImageLuma8(opaque.to_luma8()), ImageFormat::Jpeg),
        ("gif", opaque.clone(), ImageFormat::Gif),
        ("webp", transparent.clone(), ImageFormat::WebP),
        ("rgb webp", DynamicImage::ImageRgb8(opaque.to_rgb8()), ImageFormat::WebP),
    ] {
        let file = encode(&image, format);
        let expected = image::load_from_memory_with_format(&file, format).unwrap().into_rgba8();
        // The libraries round 16 bits differently.
        assert_similar(&decode(&file).rgba, &expected, 1, what);
    }
}

#[test]
fn resizing_matches_another_library() {
    for (width, height) in [(512, 128), (300, 777), (257, 1), (4_000, 16)] {
        let image = gradient(width, height, false);
        let resized = shrink(decode(&encode(&image, ImageFormat::Png)), KEPT_SIDE).unwrap();
        let expected = image.resize(KEPT_SIDE, KEPT_SIDE, image::imageops::FilterType::Lanczos3).into_rgba8();
        assert_eq!((resized.dimensions.width, resized.dimensions.height), expected.dimensions());
        assert_similar(&resized.rgba, &expected, 1, &format!("{width} by {height}"));
    }
}

#[test]
fn the_colour_of_transparent_pixels_has_no_effect() {
    let half = |x, _| if x < 256 { image::Rgba([200, 0, 0, 255]) } else { image::Rgba([0, 255, 0, 0]) };
    let image = DynamicImage::ImageRgba8(RgbaImage::from_fn(512, 8, half));
    let resized = shrink(decode(&encode(&image, ImageFormat::Png)), KEPT_SIDE).unwrap();
    for pixel in resized.rgba.chunks_exact(4).filter(|pixel| pixel[3] > 0) {
        assert_eq!(pixel[1], 0, "{pixel:?}");
    }
}

#[test]
fn a_gif_frame_that_covers_a_part_of_the_image_is_drawn_there() {
    let mut file = Vec::new();
    let mut encoder = gif::Encoder::new(&mut file, 4, 3, &[9, 8, 7]).unwrap();
    let pixels = vec![0; 6];
    let frame = gif::Frame { left: 2, top: 1, width: 3, height: 2, buffer: pixels.into(), ..gif::Frame::default() };
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    let drawn = decode(&file).rgba;
    for (index, pixel) in drawn.chunks_exact(4).enumerate() {
        let is_inside = index % 4 >= 2 && index / 4 >= 1;
        assert_eq!(pixel, if is_inside { [9, 8, 7, 255] } else { [0; 4] }, "pixel {index}");
    }
}
