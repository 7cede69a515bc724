//! Things that a program showed beside its output: the value of its last expression, and pictures.

use std::fmt::Write;

use codegen_types::Display;

use super::excerpt::{Whole, excerpt};
use super::result::{Content, ToolResult};
use super::words;
use crate::session::Captured;

/// The most pictures in a result.
const IMAGES_MAX: usize = 4;
/// The largest picture, in bytes; the worker scales what it can.
const IMAGE_BYTES_MAX: usize = 1 << 20;
/// The most pictures that are named.
const IMAGES_NAMED_MAX: usize = 20;

/// The values in the result's text, at most so many characters; how many they took.
pub(super) fn values(text: &mut String, displays: &[Display], chars: usize) -> usize {
    let shown: Vec<&[u8]> = displays.iter().filter(|shown| shown.mime == "text/plain").map(|d| &*d.data).collect();
    if shown.is_empty() {
        return 0;
    }
    let all = Captured { head: shown.join(&b'\n'), ..Captured::default() };
    let value = excerpt(&all, chars, &Whole::Nowhere);
    let _ = write!(text, "\n\nvalue:\n{}", value.trim_end_matches('\n'));
    value.chars().count().min(chars)
}

/// Names the pictures in the result's text, and where the workspace keeps them.
pub(super) fn named(text: &mut String, displays: &[Display]) {
    let all: Vec<(&Display, bool)> = chosen(displays).collect();
    if all.is_empty() {
        return;
    }
    text.push_str("\n\nimages:");
    for (Display { mime, path, data }, is_shown) in all.iter().take(IMAGES_NAMED_MAX) {
        let name = path.as_ref().map_or("not kept in the workspace", |path| path.as_str());
        let _ = match data.len() {
            // The result is older than its pictures are kept.
            0 => write!(text, "\n  {name} ({mime})"),
            bytes => write!(text, "\n  {name} ({mime}, {})", words::bytes(bytes as u64)),
        };
        if !is_shown {
            text.push_str(", not shown here");
        }
    }
    if all.len() > IMAGES_NAMED_MAX {
        let _ = write!(text, "\n  and {} more", all.len() - IMAGES_NAMED_MAX);
    }
}

/// Adds the pictures themselves, a block each.
pub(super) fn blocks(result: &mut ToolResult, displays: &[Display]) {
    for (Display { mime, data, .. }, _) in chosen(displays).filter(|(_, is_shown)| *is_shown) {
        result.content.push(Content::Image { mime: mime.clone(), data: data.clone() });
    }
}

/// The pictures, and whether each is among those that are shown. Only what a worker has drawn is one.
fn chosen(displays: &[Display]) -> impl Iterator<Item = (&Display, bool)> {
    let mut room = IMAGES_MAX;
    let is_drawn = |shown: &&Display| matches!(shown.mime.as_str(), "image/png" | "image/jpeg");
    displays.iter().filter(is_drawn).map(move |shown| {
        let is_shown = room > 0 && shown.data.len() <= IMAGE_BYTES_MAX && !shown.data.is_empty();
        room -= usize::from(is_shown);
        (shown, is_shown)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use codegen_types::WorkspacePath;

    fn display(mime: &str, path: Option<&str>, data: Vec<u8>) -> Display {
        Display { mime: mime.to_owned(), path: path.map(|path| WorkspacePath::parse(path).expect("a path")), data }
    }

    #[test]
    fn pictures_are_few_and_small_and_all_are_named() {
        let mut displays = vec![display("image/png", Some("plots/big.png"), vec![0; IMAGE_BYTES_MAX + 1])];
        displays.extend((0..5).map(|n| display("image/png", Some(&format!("plots/{n}.png")), vec![n; 10])));
        displays.push(display("application/json", None, b"{}".to_vec()));
        displays.splice(
            0..0,
            ["image/gif", "image/png ", "image/svg+xml", "IMAGE/PNG"].map(|mime| display(mime, None, vec![1])),
        );
        let mut result = ToolResult::text("");
        blocks(&mut result, &displays);
        assert_eq!(result.content.len(), 1 + IMAGES_MAX);
        let mut text = String::new();
        named(&mut text, &displays);
        assert!(text.contains("plots/big.png (image/png, 1.0 MiB), not shown here"), "{text}");
        assert!(
            text.contains("plots/3.png (image/png, 10 B)\n")
                && text.ends_with("4.png (image/png, 10 B), not shown here")
        );
        assert_eq!(text.lines().count(), 2 + 1 + 6);
        let mut text = String::new();
        named(&mut text, &[display("image/png", Some("plots/kept.png"), Vec::new())]);
        assert!(text.ends_with("plots/kept.png (image/png), not shown here"), "{text}");
    }

    #[test]
    fn a_value_is_shown_within_its_budget() {
        let mut text = String::new();
        assert_eq!(values(&mut text, &[display("text/plain", None, b"42".to_vec())], 100), 2);
        assert_eq!(text, "\n\nvalue:\n42");
        let mut text = String::new();
        assert!(values(&mut text, &[display("text/plain", None, vec![b'x'; 10_000])], 100) <= 100);
        assert!(text.len() < 300 && text.contains("bytes left out"), "{text}");
    }
}
