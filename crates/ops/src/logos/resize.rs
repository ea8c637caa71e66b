//! Resizing with the Lanczos filter.

use resize::Pixel::RGBA8P;
use resize::Type::Lanczos3;
use rgb::FromSlice;

use super::picture::{Dimensions, Picture};

/// Returns `picture` with at most `max_side` pixels on each side and the same aspect ratio. Does not enlarge it.
///
/// # Errors
/// None in practice: the dimensions are positive and fit the pixels.
pub(super) fn shrink(picture: Picture, max_side: u32) -> resize::Result<Picture> {
    let Dimensions { width, height } = picture.dimensions;
    if width <= max_side && height <= max_side {
        return Ok(picture);
    }
    let ratio = f64::from(max_side) / f64::from(width.max(height));
    let scale = |side: u32| ((f64::from(side) * ratio).round() as u32).max(1);
    let target = Dimensions { width: scale(width), height: scale(height) };

    let (target_width, target_height) = (target.width as usize, target.height as usize);
    let mut rgba = vec![0; 4 * target_width * target_height];
    // `RGBA8P` weights colours by their alpha, so that those of transparent pixels have no effect.
    let mut resizer = resize::new(width as usize, height as usize, target_width, target_height, RGBA8P, Lanczos3)?;
    resizer.resize(picture.rgba.as_rgba(), rgba.as_rgba_mut())?;
    Ok(Picture { dimensions: target, rgba })
}
