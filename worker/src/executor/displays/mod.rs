//! What a program shows beside its output: values as text, pictures, reports.

mod frames;

use std::time::Duration;

use codegen_types::operation::{Write, WriteMode};
use codegen_types::{Display, EventBody, Operation, WorkspacePath};
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::program::{Clock, stopped};
use crate::files;
use crate::render::{self, NoPicture, Picture};
use crate::session::Session;
use crate::tasks::Task;
use frames::{Faulty, Frame, Frames};

/// Pictures that are passed on; further ones are only kept in the workspace.
const PICTURES_SHOWN_MAX: usize = 4;
/// Pictures of one task that are kept in the workspace.
const PICTURES_KEPT_MAX: usize = 16;
/// Texts that are passed on when they come; of those that follow only the last is.
const TEXTS_MAX: usize = 63;
/// Reports that are passed on when they come; of those that follow only the last is.
const REPORTS_MAX: usize = 7;
/// A picture, in bytes.
const PICTURE_BYTES_MAX: usize = 32 << 20;
/// A text, in bytes: a character may take four.
const TEXT_BYTES_MAX: usize = 512 << 10;
/// A report, in bytes.
const REPORT_BYTES_MAX: usize = 1 << 20;
/// All that is passed on of one task, in bytes: its events keep it as long as its outcome.
const SHOWN_BYTES_MAX: usize = 8 << 20;
/// How long pictures of one task are drawn, all together.
const DRAWING_TIME_MAX: Duration = Duration::from_secs(20);
/// Where the root element of a vector graphic begins at the latest, in bytes.
const SVG_ROOT_WITHIN: usize = 4 << 10;
/// Sentences for the client; there is room for others in its result.
const NOTES_MAX: usize = 20;

/// Why a picture is not shown.
struct NotShown {
    why: String,
    /// Whether it may be one all the same, which only could not be drawn now.
    may_be_one: bool,
}

/// Takes what one task shows.
pub(crate) struct Displays<'a> {
    task: &'a Task,
    session: &'a Session,
    clock: Clock,
    pictures: usize,
    drawing_left: Duration,
    texts: Row,
    reports: Row,
    bytes_left: usize,
    notes: Vec<String>,
    notes_more: usize,
}

/// Things of one kind: the first ones are passed on when they come, and the last one at the end.
#[derive(Debug)]
struct Row {
    left: usize,
    last: Option<Display>,
    dropped: usize,
}

impl Row {
    const fn of(left: usize) -> Self {
        Self { left, last: None, dropped: 0 }
    }

    /// Takes the next one; gives it back when it is to be passed on at once, which it can be when its bytes are `granted`.
    fn take(&mut self, display: Display, granted: impl FnOnce(usize) -> bool) -> Option<Display> {
        if self.last.is_none() && self.left > 0 && granted(display.data.len()) {
            self.left -= 1;
            return Some(display);
        }
        self.dropped += usize::from(self.last.replace(display).is_some());
        None
    }
}

impl<'a> Displays<'a> {
    pub fn new(task: &'a Task, session: &'a Session, clock: Clock) -> Self {
        let (texts, reports) = (Row::of(TEXTS_MAX), Row::of(REPORTS_MAX));
        // There is always room for the last ones.
        let bytes_left = SHOWN_BYTES_MAX - TEXT_BYTES_MAX - REPORT_BYTES_MAX;
        let (drawing_left, notes) = (DRAWING_TIME_MAX, Vec::new());
        Self { task, session, clock, pictures: 0, drawing_left, texts, reports, bytes_left, notes, notes_more: 0 }
    }

    /// Passes on what comes through the pipe until it ends; sentences for the client about what was not. Once `exited`
    /// is cancelled what is in the pipe is read, and nothing is waited for.
    pub async fn pump(mut self, pipe: pipe::Receiver, exited: &CancellationToken) -> Vec<String> {
        let mut frames = Frames::of(pipe, exited);
        loop {
            match frames.next(bytes_max).await {
                Ok(Some(frame)) => self.take(frame).await,
                Ok(None) => break,
                Err(Faulty(why)) => {
                    self.note(format!("What the program showed was cut off: {why}."));
                    break;
                }
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Vec<String> {
        if self.pictures > PICTURES_KEPT_MAX {
            let more = self.pictures - PICTURES_KEPT_MAX;
            self.note(format!("{more} more pictures were shown and not kept."));
        }
        if self.texts.dropped > 0 {
            let dropped = self.texts.dropped;
            self.note(format!("Before the last value {dropped} more were shown that are left out here."));
        }
        for display in [self.texts.last.take(), self.reports.last.take()].into_iter().flatten() {
            self.task.push(EventBody::Display(display));
        }
        if self.notes_more > 0 {
            self.notes.push(format!("{} more notes like these are left out.", self.notes_more));
        }
        self.notes
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX { self.notes.push(note) } else { self.notes_more += 1 }
    }

    async fn take(&mut self, Frame { mime, data }: Frame) {
        if is_called_picture(&mime) {
            self.pictures += 1;
            if self.pictures <= PICTURES_KEPT_MAX {
                self.picture(mime, data).await;
            }
            return;
        }
        let row = if mime == "text/plain" { &mut self.texts } else { &mut self.reports };
        let granted = |bytes| grant(&mut self.bytes_left, bytes);
        if let Some(display) = row.take(Display { mime, path: None, data }, granted) {
            self.task.push(EventBody::Display(display));
        }
    }

    async fn picture(&mut self, mime: String, data: Vec<u8>) {
        let Picture { mime: shown_as, data: shown } = match self.drawn(&mime, data.clone()).await {
            Ok(picture) => picture,
            Err(NotShown { why, may_be_one }) => {
                tracing::info!(task = %self.task.id, mime, why, "a picture is not shown");
                let kept = if may_be_one && begins_as(&mime, &data) { self.keep(&mime, data).await } else { None };
                let kept = kept.map(|path| format!(" It is in {path}.")).unwrap_or_default();
                return self.note(format!("A picture of type {} was not shown: {why}.{kept}", mime.escape_debug()));
            }
        };
        let loses_text = mime == "image/svg+xml" && has_text(&data);
        let path = self.keep(&mime, data).await;
        let has_room = self.pictures <= PICTURES_SHOWN_MAX && grant(&mut self.bytes_left, shown.len());
        if !has_room {
            return if let Some(path) = path {
                self.note(format!("One more picture is in {path}."))
            };
        }
        if loses_text {
            let which = path.as_ref().map_or_else(|| "an SVG".to_owned(), ToString::to_string);
            self.note(format!("Text in {which} is not drawn in the picture shown here; the SVG has it."));
        }
        self.task.push(EventBody::Display(Display { mime: shown_as, path, data: shown }));
    }

    /// Draws a picture while there is time for it; else why not.
    async fn drawn(&mut self, mime: &str, data: Vec<u8>) -> Result<Picture, NotShown> {
        if !is_picture(mime) {
            let why = "only image/png, image/jpeg and image/svg+xml can be".to_owned();
            return Err(NotShown { why, may_be_one: false });
        }
        let undrawn = |why: String| Err(NotShown { why, may_be_one: true });
        let begun = Instant::now();
        let drawn = tokio::select! {
            biased;
            _ = stopped(self.task, self.clock) => undrawn("its task had to end".to_owned()),
            () = tokio::time::sleep(self.drawing_left) => {
                undrawn(format!("drawing the task's pictures took more than {} s", DRAWING_TIME_MAX.as_secs()))
            }
            drawn = render::render(mime, data) => drawn.map_err(NotShown::of),
        };
        self.drawing_left = self.drawing_left.saturating_sub(begun.elapsed());
        drawn
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
                self.note(format!("A picture could not be kept as {path}: {failure}"));
                None
            }
        }
    }
}

impl NotShown {
    fn of(error: NoPicture) -> Self {
        let may_be_one = match error {
            NoPicture::Refused(_) => false,
            NoPicture::TooLarge(_) | NoPicture::TooLong | NoPicture::Process(_) => true,
        };
        Self { why: error.to_string(), may_be_one }
    }
}

/// Takes so many bytes from what is left, or none.
fn grant(left: &mut usize, bytes: usize) -> bool {
    let rest = left.checked_sub(bytes);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

/// Whether a client might take it for a picture.
fn is_called_picture(mime: &str) -> bool {
    mime.trim().get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case("image/"))
}

/// Whether it is a picture that can be checked.
fn is_picture(mime: &str) -> bool {
    matches!(mime, "image/png" | "image/jpeg" | "image/svg+xml")
}

/// Whether it looks like what it is called, as far as its beginning says.
fn begins_as(mime: &str, data: &[u8]) -> bool {
    match mime {
        "image/png" => data.starts_with(b"\x89PNG\r\n\x1a\n"),
        "image/jpeg" => data.starts_with(b"\xff\xd8\xff"),
        "image/svg+xml" => data[..data.len().min(SVG_ROOT_WITHIN)].windows(4).any(|part| part == b"<svg"),
        _ => false,
    }
}

/// Whether a vector graphic has text, which cannot be drawn without fonts.
fn has_text(svg: &[u8]) -> bool {
    svg.windows(5).any(|part| matches!(part, b"<text" | b":text"))
}

fn bytes_max(mime: &str) -> usize {
    match mime {
        mime if is_called_picture(mime) => PICTURE_BYTES_MAX,
        "text/plain" => TEXT_BYTES_MAX,
        _ => REPORT_BYTES_MAX,
    }
}
