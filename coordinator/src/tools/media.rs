//! Media types of files, by their names.

/// Names end with these, in lower case.
const TYPES: &[(&str, &str)] = &[
    ("csv", "text/csv"),
    ("css", "text/css"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html"),
    ("html", "text/html"),
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
    ("npy", "application/octet-stream"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("py", "text/x-python"),
    ("sh", "text/x-shellscript"),
    ("sql", "application/sql"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
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

/// The media type of a file whose contents are text, or are not. A name that says otherwise is not believed.
pub(super) fn of_contents(path: &str, is_text: bool) -> &'static str {
    let textual = |media: &str| media.starts_with("text/") || TEXTUAL.contains(&media);
    match by_name(path).filter(|media| textual(media) == is_text) {
        Some(media) => media,
        None if is_text => "text/plain",
        None => "application/octet-stream",
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
        assert_eq!(of_contents("a.png", false), "image/png");
        assert_eq!(of_contents("a.png", true), "text/plain");
        assert_eq!(of_contents("a.svg", true), "image/svg+xml");
        assert_eq!(of_contents("a.csv", false), "application/octet-stream");
    }
}
