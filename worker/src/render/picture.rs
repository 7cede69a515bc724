//! Decoding, scaling and encoding.

use anyhow::Context;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use resvg::{tiny_skia, usvg};
use std::io::Cursor;

use super::{PICTURE_BYTES_MAX, Picture, SIDE_PIXELS_MAX};

/// The longest side of a picture that is decoded, in pixels.
const DECODED_SIDE_MAX: u32 = 20_000;
/// What decoding may take, in bytes.
const DECODED_BYTES_MAX: u64 = 400 << 20;
/// The largest vector graphic, in bytes.
const SVG_BYTES_MAX: usize = 8 << 20;
/// Encodings as JPEG that are tried for a picture that is too large as PNG.
const QUALITIES: [u8; 3] = [85, 70, 50];
/// How often a picture is made smaller still.
const HALVINGS_MAX: u32 = 4;

/// It may be a picture, but takes more than drawing may.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TooLarge(pub String);

/// The picture as a model can take it: at most so many pixels a side and so many bytes. One that fits stays as it is.
///
/// # Errors
/// When it is none of that media type; [`TooLarge`].
pub(super) fn fit(mime: &str, data: Vec<u8>) -> anyhow::Result<Picture> {
    let picture = match mime {
        "image/png" => decode(&data, ImageFormat::Png)?,
        "image/jpeg" => decode(&data, ImageFormat::Jpeg)?,
        "image/svg+xml" => return encode(drawn(&data)?),
        other => anyhow::bail!("{other:?} is no media type of pictures that can be drawn"),
    };
    let side = picture.width().max(picture.height());
    if side <= SIDE_PIXELS_MAX && data.len() <= PICTURE_BYTES_MAX {
        return Ok(Picture { mime: mime.to_owned(), data });
    }
    encode(scaled(picture, SIDE_PIXELS_MAX))
}

fn decode(data: &[u8], format: ImageFormat) -> anyhow::Result<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(DECODED_SIDE_MAX);
    limits.max_image_height = Some(DECODED_SIDE_MAX);
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(data), format);
    reader.limits(limits);
    let name = format.extensions_str().first().copied().unwrap_or("picture");
    reader.decode().map_err(|error| match error {
        ImageError::Limits(limit) => TooLarge(format!("it is too large to be decoded: {limit}")).into(),
        error => anyhow::Error::new(error).context(format!("it is no {name} that can be decoded")),
    })
}

fn scaled(picture: DynamicImage, side: u32) -> DynamicImage {
    if picture.width().max(picture.height()) <= side {
        return picture;
    }
    picture.resize(side, side, FilterType::Triangle)
}

/// Draws a vector graphic. Nothing that it refers to is loaded.
fn drawn(data: &[u8]) -> anyhow::Result<DynamicImage> {
    anyhow::ensure!(data.len() <= SVG_BYTES_MAX, TooLarge(format!("it has more than {SVG_BYTES_MAX} bytes")));
    let image_href_resolver =
        usvg::ImageHrefResolver { resolve_data: Box::new(|_, _, _| None), resolve_string: Box::new(|_, _| None) };
    let options = usvg::Options { image_href_resolver, ..usvg::Options::default() };
    let tree = usvg::Tree::from_data(data, &options).context("it is no SVG that can be drawn")?;
    let (width, height) = (tree.size().width(), tree.size().height());
    #[expect(clippy::cast_precision_loss, reason = "the bound is far below 2^24")]
    let scale = (SIDE_PIXELS_MAX as f32 / width.max(height)).min(2.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    let pixels = |length: f32| (length * scale).ceil().clamp(1.0, 1_568.0) as u32;
    let mut canvas = tiny_skia::Pixmap::new(pixels(width), pixels(height)).context("it has no size")?;
    canvas.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut canvas.as_mut());
    let (width, height) = (canvas.width(), canvas.height());
    let rgb: Vec<u8> = canvas.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    let image = RgbImage::from_raw(width, height, rgb).context("it has no size")?;
    Ok(DynamicImage::ImageRgb8(image))
}

/// The smallest loss that fits: PNG, then JPEG, then fewer pixels.
fn encode(mut picture: DynamicImage) -> anyhow::Result<Picture> {
    for _ in 0..=HALVINGS_MAX {
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).context("it cannot be encoded")?;
        if png.get_ref().len() <= PICTURE_BYTES_MAX {
            return Ok(Picture { mime: "image/png".to_owned(), data: png.into_inner() });
        }
        for quality in QUALITIES {
            let mut jpeg = Vec::new();
            let opaque = picture.to_rgb8();
            opaque
                .write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, quality))
                .context("it cannot be encoded")?;
            if jpeg.len() <= PICTURE_BYTES_MAX {
                return Ok(Picture { mime: "image/jpeg".to_owned(), data: jpeg });
            }
        }
        picture = scaled(picture.clone(), picture.width().max(picture.height()) / 2);
    }
    Err(TooLarge("it is too large".to_owned()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels that do not compress.
    fn noise(side: u32) -> DynamicImage {
        let mut state = 1_u32;
        DynamicImage::ImageRgb8(RgbImage::from_fn(side, side, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bytes = state.to_be_bytes();
            image::Rgb([bytes[0], bytes[1], bytes[2]])
        }))
    }

    fn png(picture: &DynamicImage) -> Vec<u8> {
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).unwrap();
        png.into_inner()
    }

    #[test]
    fn a_picture_that_fits_stays_as_it_is() {
        let data = png(&noise(64));
        assert_eq!(fit("image/png", data.clone()).unwrap(), Picture { mime: "image/png".to_owned(), data });
    }

    #[test]
    fn a_picture_that_is_too_large_is_made_to_fit() {
        for (side, mime) in [(2_000, "image/png"), (700, "image/png")] {
            let fitted = fit(mime, png(&noise(side))).unwrap();
            assert!(fitted.data.len() <= PICTURE_BYTES_MAX, "{}", fitted.data.len());
            let decoded = image::load_from_memory(&fitted.data).unwrap();
            assert!(decoded.width().max(decoded.height()) <= SIDE_PIXELS_MAX);
        }
    }

    #[test]
    fn a_picture_that_lies_about_its_type_or_size_is_refused() {
        let data = png(&noise(8));
        assert!(fit("image/jpeg", data.clone()).is_err());
        assert!(fit("image/gif", data.clone()).is_err());
        assert!(fit("image/png", data[..data.len() / 2].to_vec()).is_err_and(|error| !error.is::<TooLarge>()));
        // The header says 60,000 pixels a side.
        let mut huge = data;
        huge[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        assert!(fit("image/png", huge).is_err_and(|error| !error.is::<TooLarge>()));
        let wide = png(&DynamicImage::new_luma8(DECODED_SIDE_MAX + 1, 1));
        assert!(fit("image/png", wide).is_err_and(|error| error.is::<TooLarge>()));
        assert!(fit("image/svg+xml", b"<html/>".to_vec()).is_err());
    }

    #[test]
    fn a_vector_graphic_is_drawn_and_loads_nothing() {
        let secret = tempfile::NamedTempFile::with_suffix(".png").unwrap();
        std::fs::write(secret.path(), png(&noise(64))).unwrap();
        let svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="64">
            <image xlink:href="{}" width="64" height="64"/><rect x="0" y="0" width="8" height="8" fill="#ff0000"/></svg>"##,
            secret.path().display()
        );
        let drawn = fit("image/svg+xml", svg.into_bytes()).unwrap();
        let drawn = image::load_from_memory(&drawn.data).unwrap().to_rgb8();
        assert_eq!(drawn.get_pixel(4, 4).0, [255, 0, 0]);
        assert_eq!(drawn.get_pixel(100, 100).0, [255, 255, 255], "nothing of the file is there");
    }
}
