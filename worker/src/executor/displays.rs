//! What a program shows beside its output: values as text, pictures, reports.

use codegen_types::operation::{Write, WriteMode};
use codegen_types::{Display, EventBody, Operation, WorkspacePath};
use rustix::io::Errno;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::files;
use crate::render::{self, Picture};
use crate::session::Session;
use crate::tasks::Task;

/// Pictures that are passed on; further ones are only kept in the workspace.
const PICTURES_SHOWN_MAX: usize = 4;
/// Pictures of one task that are kept in the workspace.
const PICTURES_KEPT_MAX: usize = 16;
/// Things other than pictures that are passed on.
const OTHERS_MAX: usize = 64;
/// The description of a frame, in bytes.
const HEADER_BYTES_MAX: usize = 1 << 10;
/// A picture, in bytes.
const PICTURE_BYTES_MAX: usize = 32 << 20;
/// A text, in bytes: a character may take four.
const TEXT_BYTES_MAX: usize = 512 << 10;
/// A report, in bytes.
const REPORT_BYTES_MAX: usize = 4 << 20;

/// Takes what one task shows.
pub(crate) struct Displays<'a> {
    task: &'a Task,
    session: &'a Session,
    pictures: usize,
    others: usize,
    notes: Vec<String>,
}

/// What a program says of a thing that it shows.
#[derive(Debug, Deserialize)]
struct Header {
    mime: String,
}

/// What comes through the pipe is not what was agreed, or is too much.
struct Faulty(&'static str);

impl<'a> Displays<'a> {
    pub fn new(task: &'a Task, session: &'a Session) -> Self {
        Self { task, session, pictures: 0, others: 0, notes: Vec::new() }
    }

    /// Passes on what comes through the pipe until it ends; sentences for the client about what was not. Once `exited`
    /// is cancelled what is in the pipe is read, and nothing is waited for.
    pub async fn pump(mut self, mut pipe: pipe::Receiver, exited: &CancellationToken) -> Vec<String> {
        loop {
            match frame(&mut pipe, exited).await {
                Ok(Some((mime, data))) => self.take(mime, data).await,
                Ok(None) => break,
                Err(Faulty(why)) => {
                    self.notes.push(format!("What the program showed was cut off: {why}."));
                    break;
                }
            }
        }
        if self.pictures > PICTURES_KEPT_MAX {
            let more = self.pictures - PICTURES_KEPT_MAX;
            self.notes.push(format!("{more} more pictures were shown and not kept."));
        }
        self.notes
    }

    async fn take(&mut self, mime: String, data: Vec<u8>) {
        if is_picture(&mime) {
            self.pictures += 1;
            if self.pictures <= PICTURES_KEPT_MAX {
                self.picture(mime, data).await;
            }
            return;
        }
        self.others += 1;
        if self.others <= OTHERS_MAX {
            self.task.push(EventBody::Display(Display { mime, path: None, data }));
        }
    }

    async fn picture(&mut self, mime: String, data: Vec<u8>) {
        let Picture { mime: shown_as, data: shown } = match render::render(&mime, data.clone()).await {
            Ok(picture) => picture,
            Err(error) => {
                tracing::info!(task = %self.task.id, mime, %error, "a picture is not shown");
                return self.notes.push(format!("A picture of type {mime} was not shown: {error}."));
            }
        };
        let path = self.keep(&mime, data).await;
        if self.pictures > PICTURES_SHOWN_MAX {
            return self.notes.extend(path.map(|path| format!("One more picture is in {path}.")));
        }
        self.task.push(EventBody::Display(Display { mime: shown_as, path, data: shown }));
    }

    /// Keeps a picture in the workspace as it came.
    async fn keep(&mut self, mime: &str, contents: Vec<u8>) -> Option<WorkspacePath> {
        let extension = match mime {
            "image/svg+xml" => "svg",
            "image/jpeg" => "jpg",
            _ => "png",
        };
        let id = self.task.id.to_string();
        let name = format!("artifacts/{}-{}.{extension}", &id[id.len().saturating_sub(8)..], self.pictures);
        let path = WorkspacePath::parse(&name).ok()?;
        let write = Write { path: path.clone(), contents, mode: WriteMode::Overwrite, if_match: None };
        match files::perform(self.session.workspace(), Operation::Write(write)).await {
            Ok(_) => Some(path),
            Err(failure) => {
                self.notes.push(format!("A picture could not be kept as {path}: {failure}"));
                None
            }
        }
    }
}

fn is_picture(mime: &str) -> bool {
    matches!(mime, "image/png" | "image/jpeg" | "image/svg+xml")
}

/// The next thing that is shown, with its media type; `None` at the end.
async fn frame(pipe: &mut pipe::Receiver, exited: &CancellationToken) -> Result<Option<(String, Vec<u8>)>, Faulty> {
    let mut lengths = [0; 8];
    if !fill(pipe, &mut lengths, exited).await {
        return Ok(None);
    }
    let length = |bytes: &[u8]| bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    let (header_len, data_len) = (length(&lengths[..4]), length(&lengths[4..]));
    if header_len > HEADER_BYTES_MAX {
        return Err(Faulty("it was not in the form that was agreed"));
    }
    let mut header = vec![0; header_len];
    if !fill(pipe, &mut header, exited).await {
        return Ok(None);
    }
    let header = serde_json::from_slice::<Header>(&header);
    let Header { mime } = header.map_err(|_| Faulty("it was not in the form that was agreed"))?;
    let max = match mime.as_str() {
        mime if is_picture(mime) => PICTURE_BYTES_MAX,
        "text/plain" => TEXT_BYTES_MAX,
        _ => REPORT_BYTES_MAX,
    };
    if mime.is_empty() || mime.len() > 128 || data_len > max {
        return Err(Faulty("one thing was larger than may be"));
    }
    let mut data = vec![0; data_len];
    Ok(fill(pipe, &mut data, exited).await.then_some((mime, data)))
}

/// Reads so many bytes; false when the pipe ends before. What is there when `exited` is cancelled is read by the system
/// call itself, since the event loop may not have heard of it yet.
async fn fill(pipe: &mut pipe::Receiver, buffer: &mut [u8], exited: &CancellationToken) -> bool {
    let mut len = 0;
    while len < buffer.len() {
        let read = tokio::select! {
            biased;
            read = pipe.read(&mut buffer[len..]) => read.ok(),
            () = exited.cancelled() => match rustix::io::read(&*pipe, &mut buffer[len..]) {
                Ok(count) => Some(count),
                Err(Errno::INTR) => continue,
                Err(_) => None,
            },
        };
        match read {
            Some(count) if count > 0 => len += count,
            _ => return false,
        }
    }
    true
}
