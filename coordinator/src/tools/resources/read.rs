//! Reading a resource: a file whole, or a directory's listing.

use std::fmt::Write;

use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::{List, Pictures, Read};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult};

use super::{Asked, ResourceUri, another_result};
use crate::tools::connection::Connection;
use crate::tools::files::ENTRIES_MAX;
use crate::tools::resource_uri::WorkspaceUri;
use crate::tools::{media, words};

/// The largest file that is given whole, in bytes. What is larger is read in parts, by fs_read.
pub const RESOURCE_BYTES_MAX: u64 = 4 << 20;

/// What a resource holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceContents {
    /// Its address in its one form.
    pub uri: ResourceUri,
    /// Its media type.
    pub media: &'static str,
    /// What is in it.
    pub body: ResourceBody,
}

/// What is in a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceBody {
    /// Text.
    Text(String),
    /// Anything else.
    Blob(Vec<u8>),
}

impl Connection {
    /// Reads a file of a workspace, the listing of a directory, or a session's transcript.
    ///
    /// # Errors
    /// As [`follow_resource`](Self::follow_resource), and whatever reading the file gives: `NOT_FOUND`,
    /// `FILE_TOO_LARGE`, `SESSION_CLOSED` and so on.
    pub async fn read_resource(&self, uri: &str, asked: &Asked) -> Result<ResourceContents, Failure> {
        let address = match ResourceUri::parse(uri) {
            Ok(ResourceUri::File(address)) => address,
            Ok(ResourceUri::Transcript(session)) => return self.transcript(session, uri, asked).await,
            Err(failure) => {
                let (request, begun) = (asked.request(None, uri), std::time::Instant::now());
                let refused = self.counted(asked).err().unwrap_or(failure);
                return Err(self.refused(&request, refused, begun).await);
            }
        };
        if address.path.is_root() {
            return self.listed(address, uri, asked).await;
        }
        let read = Read {
            path: address.path.clone(),
            offset: 0,
            limit: Some(RESOURCE_BYTES_MAX + 1),
            pictures: Pictures::AsBytes,
        };
        match self.look(asked, &address, uri, Operation::Read(read)).await {
            Ok(OperationResult::Read { contents, stat }) => whole(address, contents, &stat),
            Ok(_) => Err(another_result()),
            Err(failure) if failure.code == ErrorCode::NotAFile => {
                // A FIFO is neither, and what was said of it first stands.
                self.listed(address, uri, asked).await.map_err(|other| match other.code {
                    ErrorCode::NotADirectory => failure,
                    _ => other,
                })
            }
            Err(failure) => Err(failure),
        }
    }

    async fn listed(&self, address: WorkspaceUri, uri: &str, asked: &Asked) -> Result<ResourceContents, Failure> {
        let path = address.path.clone();
        let list = List { path, recursive: false, pattern: None, entries_max: ENTRIES_MAX };
        match self.look(asked, &address, uri, Operation::List(list)).await? {
            OperationResult::List { entries, truncated } => {
                let body = ResourceBody::Text(listing(&entries, truncated));
                Ok(ResourceContents { uri: ResourceUri::File(address), media: "text/plain", body })
            }
            _ => Err(another_result()),
        }
    }
}

fn whole(uri: WorkspaceUri, contents: Vec<u8>, stat: &FileStat) -> Result<ResourceContents, Failure> {
    let size = stat.size.max(contents.len() as u64);
    if size > RESOURCE_BYTES_MAX {
        let message = format!(
            "{} has {size} bytes, and a resource is given whole only up to {RESOURCE_BYTES_MAX}; read it in parts with \
             fs_read, offset and limit",
            uri.path
        );
        return Err(Failure::new(ErrorCode::FileTooLarge, message));
    }
    let body = match String::from_utf8(contents) {
        Ok(text) if !text.contains('\0') => ResourceBody::Text(text),
        Ok(text) => ResourceBody::Blob(text.into_bytes()),
        Err(error) => ResourceBody::Blob(error.into_bytes()),
    };
    let media = media::of_contents(uri.path.as_str(), matches!(body, ResourceBody::Text(_)));
    Ok(ResourceContents { uri: ResourceUri::File(uri), media, body })
}

fn listing(entries: &[FileStat], truncated: bool) -> String {
    let mut text = String::new();
    for entry in entries {
        let _ = match entry.kind {
            FileKind::Directory => writeln!(text, "{}/", entry.path),
            FileKind::File => writeln!(text, "{} ({})", entry.path, words::bytes(entry.size)),
            FileKind::Symlink | FileKind::Other => writeln!(text, "{}", entry.path),
        };
    }
    if truncated {
        let _ = writeln!(text, "[only the first {}; fs_list with a pattern finds the rest]", entries.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use codegen_types::{SessionId, WorkspacePath};

    use super::*;

    fn read(name: &str, contents: &[u8], size: u64) -> Result<ResourceContents, Failure> {
        let path = WorkspacePath::parse(name).unwrap();
        let stat = FileStat {
            path: name.to_owned(),
            kind: FileKind::File,
            size,
            modified_ms: 0,
            etag: None,
            mode: 0o644,
            target: None,
        };
        whole(WorkspaceUri { session: SessionId::mint(), path }, contents.to_vec(), &stat)
    }

    #[test]
    fn text_is_given_as_text_and_the_rest_as_bytes() {
        for (name, contents, media, is_text) in [
            ("a.csv", "é,1\n".as_bytes(), "text/csv", true),
            ("a.png", &b"\x89PNG"[..], "image/png", false),
            ("a", b"", "text/plain", true),
            ("a.csv", b"a\0b", "application/octet-stream", false),
        ] {
            let read = read(name, contents, contents.len() as u64).expect(name);
            assert_eq!((read.media, matches!(read.body, ResourceBody::Text(_))), (media, is_text), "{name}");
        }
    }

    #[test]
    fn what_is_too_large_names_the_way_to_read_it() {
        assert!(read("a", b"x", RESOURCE_BYTES_MAX).is_ok());
        let failure = read("a", b"x", RESOURCE_BYTES_MAX + 1).expect_err("too large");
        assert_eq!(failure.code, ErrorCode::FileTooLarge);
        assert!(failure.message.contains("fs_read, offset"), "{failure}");
    }
}
