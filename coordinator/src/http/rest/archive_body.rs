//! The bytes of an archive, read piece by piece as the client takes them.

use std::io;

use axum::body::{Body, Bytes};
use codegen_types::event::{FileKind, FileStat};
use futures::stream;
use tar::{Builder, EntryType, Header};

use super::archive::{BYTES_MAX, Source, concerns_one};
use super::places::Place;

/// Bytes that are read at once.
const PIECE_BYTES: u64 = 4 << 20;
/// Everything in a tar is a multiple of it, in bytes.
const BLOCK_BYTES: u64 = 512;
/// The longest name in a header of its own, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// The latest time that a header holds, in seconds since the Unix epoch.
const SECONDS_MAX: u64 = 0o77_777_777_777;

/// Why an archive breaks off.
#[derive(Debug, thiserror::Error)]
enum BrokeOff {
    #[error("the files could not be read further")]
    Unreadable,
    #[error("the files grew beyond what an archive holds")]
    Outgrown,
    #[error("an entry cannot be described")]
    Undescribed(#[from] io::Error),
}

/// The pieces of an archive that is being sent.
pub(super) struct Pieces {
    source: Source,
    left: std::vec::IntoIter<FileStat>,
    /// The file that is in the middle of being sent.
    now: Option<Reading>,
    /// What the files sent so far hold, in bytes.
    bytes: u64,
    is_over: bool,
    _place: Place,
}

/// How far a file is sent.
struct Reading {
    path: String,
    /// Its size in the header, in bytes.
    size: u64,
    at: u64,
}

impl Pieces {
    pub(super) fn new(source: Source, entries: Vec<FileStat>, place: Place) -> Self {
        Self { source, left: entries.into_iter(), now: None, bytes: 0, is_over: false, _place: place }
    }

    /// The archive as a body. Nothing is read before the client took what came before.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(self, |mut this| async move {
            let piece = this.next().await?;
            Ok::<_, BrokeOff>(piece.map(|piece| (Bytes::from(piece), this)))
        }))
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, BrokeOff> {
        if let Some(reading) = self.now.take() {
            return self.go_on(reading).await.map(Some);
        }
        while let Some(entry) = self.left.next() {
            if entry.kind != FileKind::File {
                return Ok(Some(describe(&entry.path, &entry)?));
            }
            if let Some(piece) = self.begin(entry.path).await? {
                return Ok(Some(piece));
            }
        }
        let is_over = std::mem::replace(&mut self.is_over, true);
        // Two empty blocks are the end.
        Ok((!is_over).then(|| zeros(2 * BLOCK_BYTES)))
    }

    /// A file's header and how it begins, if it is still there.
    async fn begin(&mut self, path: String) -> Result<Option<Vec<u8>>, BrokeOff> {
        let (contents, stat) = match self.source.read(&path, 0, PIECE_BYTES).await {
            Ok(read) => read,
            Err(error) if concerns_one(error.code()) => return Ok(None),
            Err(_) => return Err(BrokeOff::Unreadable),
        };
        self.bytes = self.bytes.saturating_add(stat.size);
        if self.bytes > BYTES_MAX {
            return Err(BrokeOff::Outgrown);
        }
        let mut piece = describe(&path, &stat)?;
        self.add(&mut piece, contents, Reading { path, size: stat.size, at: 0 });
        Ok(Some(piece))
    }

    /// The next part of a file, which has as many bytes as its header says, whatever became of it.
    async fn go_on(&mut self, reading: Reading) -> Result<Vec<u8>, BrokeOff> {
        let limit = PIECE_BYTES.min(reading.size - reading.at);
        let read = self.source.read(&reading.path, reading.at, limit).await;
        let (mut contents, _) = read.map_err(|_| BrokeOff::Unreadable)?;
        if contents.is_empty() {
            contents = zeros(limit);
        }
        let mut piece = Vec::new();
        self.add(&mut piece, contents, reading);
        Ok(piece)
    }

    fn add(&mut self, piece: &mut Vec<u8>, mut contents: Vec<u8>, mut reading: Reading) {
        contents.truncate(usize::try_from(reading.size - reading.at).unwrap_or(usize::MAX));
        piece.extend_from_slice(&contents);
        reading.at += contents.len() as u64;
        if reading.at < reading.size {
            self.now = Some(reading);
        } else {
            piece.extend(zeros(reading.size.next_multiple_of(BLOCK_BYTES) - reading.size));
        }
    }
}

fn zeros(count: u64) -> Vec<u8> {
    vec![0; usize::try_from(count).unwrap_or_default()]
}

/// The header of a file, directory or link. A name that does not fit stands in a pax record before it.
fn describe(path: &str, stat: &FileStat) -> io::Result<Vec<u8>> {
    let (name, kind, size) = match stat.kind {
        FileKind::Directory => (format!("{path}/"), EntryType::Directory, 0),
        FileKind::Symlink => (path.to_owned(), EntryType::Symlink, 0),
        FileKind::File | FileKind::Other => (path.to_owned(), EntryType::Regular, stat.size),
    };
    let target = stat.target.as_deref().filter(|_| kind == EntryType::Symlink).unwrap_or_default();
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    // Nobody who unpacks it gets a program that runs as somebody else.
    header.set_mode(stat.mode & 0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(stat.modified_ms / 1_000).unwrap_or_default().min(SECONDS_MAX));
    let mut builder = Builder::new(Vec::new());
    let fits = |text: &str| text.len() <= NAME_BYTES_MAX && text.is_ascii();
    let long = [("path", name.as_str()), ("linkpath", target)].into_iter().filter(|(_, text)| !fits(text));
    let long: Vec<(&str, &[u8])> = long.map(|(key, text)| (key, text.as_bytes())).collect();
    if !long.is_empty() {
        builder.append_pax_extensions(long)?;
    }
    let fields = header.as_old_mut();
    put(&mut fields.name, &name);
    put(&mut fields.linkname, target);
    header.set_cksum();
    // Only whole archives get an end, which `finish` would write.
    builder.get_mut().extend_from_slice(header.as_bytes());
    Ok(std::mem::take(builder.get_mut()))
}

/// What of a text fits into a field, which others show who do not know pax.
fn put(field: &mut [u8; NAME_BYTES_MAX], text: &str) {
    let short = text.bytes().map(|byte| if byte.is_ascii() { byte } else { b'_' });
    field.iter_mut().zip(short).for_each(|(place, byte)| *place = byte);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn stat(kind: FileKind, size: u64, modified_ms: i64) -> FileStat {
        FileStat { path: String::new(), kind, size, modified_ms, etag: None, mode: 0o104_755, target: None }
    }

    #[test]
    fn any_link_comes_back_and_holds_nothing() {
        let long = vec!["d".repeat(255); 4].join("/");
        for target in ["a", "../a b", "new\nline", "漢字/é", &"e".repeat(100), &long] {
            let link = FileStat { target: Some(target.to_owned()), ..stat(FileKind::Symlink, 9, 0) };
            let written = [describe("d/link", &link).expect("a header"), zeros(1024)].concat();
            let mut archive = tar::Archive::new(written.as_slice());
            let mut entries = archive.entries().expect("entries");
            let entry = entries.next().expect("one").expect("it is whole");
            assert_eq!((entry.header().entry_type(), entry.size()), (EntryType::Symlink, 0));
            assert_eq!(entry.path_bytes().as_ref(), b"d/link");
            assert_eq!(entry.link_name_bytes().expect("a target").as_ref(), target.as_bytes());
            assert!(entries.next().is_none());
        }
    }

    #[test]
    fn any_name_comes_back_and_no_right_beyond_those_of_files() {
        let exactly = "e".repeat(100);
        let long = vec!["d".repeat(255); 15].join("/");
        for name in ["a", "new\nline", "漢字/é", "..a", &exactly, &format!("{exactly}e"), &long] {
            for (kind, time) in [(FileKind::File, i64::MAX), (FileKind::Directory, i64::MIN)] {
                let is_file = kind == FileKind::File;
                let mut written = describe(name, &stat(kind, 3, time)).expect("a header");
                written.extend(if is_file { [b"abc".to_vec(), zeros(509)].concat() } else { Vec::new() });
                written.extend(zeros(1024));
                let mut archive = tar::Archive::new(written.as_slice());
                let mut entries = archive.entries().expect("entries");
                let mut entry = entries.next().expect("one").expect("it is whole");
                let shown = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
                assert_eq!(shown.trim_end_matches('/'), name);
                assert_eq!(entry.header().mode().expect("a mode"), 0o755);
                assert_eq!(entry.header().mtime().expect("a time"), if is_file { SECONDS_MAX } else { 0 });
                let mut contents = String::new();
                entry.read_to_string(&mut contents).expect("contents");
                assert_eq!(contents, if is_file { "abc" } else { "" });
                assert!(entries.next().is_none());
            }
        }
    }
}
