//! What a file is: by its name for a listing, by its first bytes where it matters.

/// The media type that a file's name suggests.
pub(super) fn of_name(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "txt" | "log" | "py" | "toml" | "ini" | "sh" => "text/plain",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "html" | "htm" => "text/html",
        "xml" => "application/xml",
        "json" | "ipynb" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "yaml" | "yml" => "application/yaml",
        "pdf" => "application/pdf",
        "zip" | "whl" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "tar" => "application/x-tar",
        "parquet" => "application/vnd.apache.parquet",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "mp4" => "video/mp4",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        _ => "application/octet-stream",
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
    fn a_picture_is_known_by_its_bytes_and_a_name_by_its_ending() {
        assert_eq!(of_picture(b"\x89PNG\r\n\x1a\nrest"), Some("image/png"));
        assert_eq!(of_picture(b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(of_picture(b"GIF89a"), Some("image/gif"));
        assert_eq!(of_picture(b"RIFF\0\0\0\0WEBPVP8 "), Some("image/webp"));
        for none in [&b""[..], b"\x89PNG", b"RIFF\0\0\0\0WAVE", b"GIF88a", b"<svg/>"] {
            assert_eq!(of_picture(none), None, "{none:?}");
        }
        assert_eq!(of_name("artifacts/a.b/Plot.PNG"), "image/png");
        assert_eq!(of_name("artifacts/a.png/README"), "application/octet-stream");
    }
}
