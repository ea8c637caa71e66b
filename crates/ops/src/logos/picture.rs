//! Decoding of the accepted image formats, and encoding as PNG. The crate `image` is not used, because its colour
//! management takes longer to compile than all decoders together.

use std::io::Cursor;

use gif::{ColorOutput, MemoryLimit};
use png::{BitDepth, ColorType, Transformations};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    Gif,
    WebP,
}

impl Format {
    /// Returns the format that the first bytes of `file` identify.
    pub(super) fn detect(file: &[u8]) -> Option<Self> {
        match file {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            _ => None,
        }
    }
}

/// The file cannot be decoded: it is damaged, or decoding it takes more memory than permitted.
#[derive(Debug)]
pub(super) struct DamagedPicture;

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dimensions {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Dimensions {
    /// Returns the number of pixels.
    pub(super) fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Pixels with red, green, blue and alpha, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) dimensions: Dimensions,
    pub(super) rgba: Vec<u8>,
}

/// A decoder that has read the header of a file.
pub(super) enum Reader<'a> {
    Png(Box<png::Reader<Cursor<&'a [u8]>>>),
    Jpeg(Box<zune_jpeg::JpegDecoder<ZCursor<&'a [u8]>>>),
    Gif(Box<gif::Decoder<Cursor<&'a [u8]>>>),
    WebP(Box<image_webp::WebPDecoder<Cursor<&'a [u8]>>>),
}

impl<'a> Reader<'a> {
    /// Reads the header of `file`. Decoders that allocate more than the pixels fail above `max_memory` bytes.
    ///
    /// # Errors
    /// [`DamagedPicture`] if the header is invalid.
    pub(super) fn open(file: &'a [u8], format: Format, max_memory: usize) -> Result<Self, DamagedPicture> {
        let cursor = Cursor::new(file);
        Ok(match format {
            Format::Png => {
                let mut decoder = png::Decoder::new_with_limits(cursor, png::Limits { bytes: max_memory });
                decoder.set_transformations(Transformations::normalize_to_color8() | Transformations::ALPHA);
                decoder.set_ignore_text_chunk(true);
                decoder.set_ignore_iccp_chunk(true);
                Self::Png(Box::new(decoder.read_info().map_err(|_| DamagedPicture)?))
            }
            Format::Jpeg => {
                // The caller checks the dimensions before it decodes.
                let options = DecoderOptions::default()
                    .set_strict_mode(false)
                    .set_max_width(usize::from(u16::MAX))
                    .set_max_height(usize::from(u16::MAX))
                    .jpeg_set_out_colorspace(ColorSpace::RGB);
                let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(file), options);
                decoder.decode_headers().map_err(|_| DamagedPicture)?;
                if decoder.input_colorspace() == Some(ColorSpace::Luma) {
                    let options = decoder.options().jpeg_set_out_colorspace(ColorSpace::Luma);
                    decoder.set_options(options);
                }
                Self::Jpeg(Box::new(decoder))
            }
            Format::Gif => {
                let mut options = gif::DecodeOptions::new();
                options.set_color_output(ColorOutput::RGBA);
                let limit = std::num::NonZeroU64::new(max_memory as u64).ok_or(DamagedPicture)?;
                options.set_memory_limit(MemoryLimit::Bytes(limit));
                Self::Gif(Box::new(options.read_info(cursor).map_err(|_| DamagedPicture)?))
            }
            Format::WebP => {
                let mut decoder = image_webp::WebPDecoder::new(cursor).map_err(|_| DamagedPicture)?;
                decoder.set_memory_limit(max_memory);
                Self::WebP(Box::new(decoder))
            }
        })
    }

    /// Returns the dimensions that the header states.
    ///
    /// # Errors
    /// [`DamagedPicture`] if one of them is 0.
    pub(super) fn dimensions(&self) -> Result<Dimensions, DamagedPicture> {
        let (width, height) = match self {
            Self::Png(reader) => reader.info().size(),
            Self::Jpeg(decoder) => {
                let (width, height) = decoder.dimensions().ok_or(DamagedPicture)?;
                (u32::try_from(width).map_err(|_| DamagedPicture)?, u32::try_from(height).map_err(|_| DamagedPicture)?)
            }
            Self::Gif(decoder) => (decoder.width().into(), decoder.height().into()),
            Self::WebP(decoder) => decoder.dimensions(),
        };
        if width == 0 || height == 0 { Err(DamagedPicture) } else { Ok(Dimensions { width, height }) }
    }

    /// Decodes the image, or the first frame of an animation.
    ///
    /// # Errors
    /// [`DamagedPicture`] if the file is incomplete or invalid, or if decoding takes too much memory.
    pub(super) fn decode(self) -> Result<Picture, DamagedPicture> {
        let dimensions = self.dimensions()?;
        let rgba = match self {
            Self::Png(reader) => decode_png(*reader)?,
            Self::Jpeg(mut decoder) => {
                let pixels = decoder.decode().map_err(|_| DamagedPicture)?;
                let is_gray = decoder.output_colorspace() == Some(ColorSpace::Luma);
                if is_gray { gray_to_rgba(&pixels) } else { rgb_to_rgba(&pixels) }
            }
            Self::Gif(decoder) => decode_gif(*decoder, dimensions)?,
            Self::WebP(mut decoder) => {
                let mut pixels = vec![0; decoder.output_buffer_size().ok_or(DamagedPicture)?];
                decoder.read_image(&mut pixels).map_err(|_| DamagedPicture)?;
                if decoder.has_alpha() { pixels } else { rgb_to_rgba(&pixels) }
            }
        };
        if rgba.len() as u64 == 4 * dimensions.pixels() {
            Ok(Picture { dimensions, rgba })
        } else {
            Err(DamagedPicture)
        }
    }
}

fn decode_png(mut reader: png::Reader<Cursor<&[u8]>>) -> Result<Vec<u8>, DamagedPicture> {
    let mut pixels = vec![0; reader.output_buffer_size().ok_or(DamagedPicture)?];
    let frame = reader.next_frame(&mut pixels).map_err(|_| DamagedPicture)?;
    pixels.truncate(frame.buffer_size());
    match frame.color_type {
        ColorType::Rgba => Ok(pixels),
        ColorType::GrayscaleAlpha => {
            Ok(pixels.chunks_exact(2).flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]]).collect())
        }
        // Impossible with the transformation `ALPHA`.
        ColorType::Rgb | ColorType::Grayscale | ColorType::Indexed => Err(DamagedPicture),
    }
}

/// Decodes the first frame and draws it on a transparent background, because it may cover only a part of the image.
fn decode_gif(mut decoder: gif::Decoder<Cursor<&[u8]>>, dimensions: Dimensions) -> Result<Vec<u8>, DamagedPicture> {
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let frame = decoder.read_next_frame().map_err(|_| DamagedPicture)?.ok_or(DamagedPicture)?;
    let mut rgba = vec![0; usize::try_from(4 * dimensions.pixels()).map_err(|_| DamagedPicture)?];
    let left = usize::from(frame.left).min(width);
    let visible = usize::from(frame.width).min(width - left);
    let rows = frame.buffer.chunks_exact((4 * usize::from(frame.width)).max(1));
    for (y, row) in (usize::from(frame.top)..height).zip(rows) {
        let start = 4 * (y * width + left);
        rgba[start..start + 4 * visible].copy_from_slice(&row[..4 * visible]);
    }
    Ok(rgba)
}

fn gray_to_rgba(pixels: &[u8]) -> Vec<u8> {
    pixels.iter().flat_map(|gray| [*gray, *gray, *gray, u8::MAX]).collect()
}

fn rgb_to_rgba(pixels: &[u8]) -> Vec<u8> {
    pixels.chunks_exact(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], u8::MAX]).collect()
}

impl Picture {
    /// Returns the image as a PNG file.
    ///
    /// # Errors
    /// None in practice, because the encoder writes to memory.
    pub(super) fn to_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.dimensions.width, self.dimensions.height);
        encoder.set_color(ColorType::Rgba);
        encoder.set_depth(BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgba)?;
        writer.finish()?;
        Ok(file)
    }
}
