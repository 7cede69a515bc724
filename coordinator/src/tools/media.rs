//! Media types of files: by their names, and of pictures by their first bytes.

/// Names end with these, in lower case.
const TYPES: &[(&str, &str)] = &[
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ini", "text/plain"),
    ("ipynb", "application/x-ipynb+json"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("log", "text/plain"),
    ("md", "text/markdown"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("ndjson", "application/jsonl"),
    ("npy", "application/octet-stream"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("py", "text/x-python"),
    ("sh", "text/x-shellscript"),
    ("sql", "application/sql"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("toml", "application/toml"),
    ("ts", "text/x-typescript"),
    ("tsv", "text/tab-separated-values"),
    ("txt", "text/plain"),
    ("wav", "audio/wav"),
    ("webp", "image/webp"),
    ("whl", "application/zip"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
];

/// What is said of a file of which nothing is known.
const UNKNOWN: &str = "application/octet-stream";

/// Media types that are text although they do not begin with `text/`.
const TEXTUAL: &[&str] = &[
    "application/json",
    "application/jsonl",
    "application/sql",
    "application/toml",
    "application/x-ipynb+json",
    "application/xml",
    "application/yaml",
    "image/svg+xml",
];

/// What a file of that name is said to be; what it holds may be something else.
pub(super) fn by_name(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
    TYPES.iter().find(|(known, _)| *known == ending).map(|(_, media)| *media)
}

/// What a file of that name is said to be where something has to be said.
pub(super) fn of_name(path: &str) -> &'static str {
    by_name(path).unwrap_or(UNKNOWN)
}

/// The media type of a file whose contents are text, or are not. A name that says otherwise is not believed.
pub(super) fn of_contents(path: &str, is_text: bool) -> &'static str {
    let textual = |media: &str| media.starts_with("text/") || TEXTUAL.contains(&media);
    match by_name(path).filter(|media| textual(media) == is_text) {
        Some(media) => media,
        None if is_text => "text/plain",
        None => UNKNOWN,
    }
}

/// The media type of a picture that clients show, whatever its name says.
pub(super) fn of_picture(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_a_file_is_unless_its_contents_say_otherwise() {
        assert_eq!(by_name("a/b.PNG"), Some("image/png"));
        for nothing in ["", "a", "a.b/c", "x.", "x.unheard-of", ".png/x"] {
            assert_eq!(by_name(nothing), None, "{nothing}");
        }
        assert_eq!(of_name("artifacts/a.png/README"), UNKNOWN);
        assert_eq!(of_contents("a.png", false), "image/png");
        assert_eq!(of_contents("a.png", true), "text/plain");
        assert_eq!(of_contents("a.svg", true), "image/svg+xml");
        assert_eq!(of_contents("a.csv", false), "application/octet-stream");
    }

    #[test]
    fn a_picture_is_known_by_its_bytes() {
        assert_eq!(of_picture(b"\x89PNG\r\n\x1a\nrest"), Some("image/png"));
        assert_eq!(of_picture(b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(of_picture(b"GIF89a"), Some("image/gif"));
        assert_eq!(of_picture(b"RIFF\0\0\0\0WEBPVP8 "), Some("image/webp"));
        for none in [&b""[..], b"\x89PNG", b"RIFF\0\0\0\0WAVE", b"GIF88a", b"<svg/>"] {
            assert_eq!(of_picture(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_names_nothing_twice() {
        assert!(TYPES.is_sorted_by(|(one, _), (next, _)| one < next));
    }
}
