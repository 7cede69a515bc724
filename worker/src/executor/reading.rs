//! Reading a file whose picture is wanted besides, if it is one.

use codegen_types::operation::{Pictures, Read};
use codegen_types::{Display, EventBody, Failure, Operation, OperationResult};

use super::program::{Clock, stopped};
use crate::files;
use crate::render;
use crate::session::Session;
use crate::tasks::Task;

/// The largest picture that is drawn, in bytes.
const PICTURE_BYTES_MAX: u64 = 32 << 20;

/// Reads a file. What is in it is the session's own word: a picture that cannot be drawn in time is none.
pub(super) async fn read(task: &Task, session: &Session, read: Read, clock: Clock) -> Result<OperationResult, Failure> {
    let wanted = Read { pictures: Pictures::AsBytes, ..read };
    let result = files::perform(session.workspace(), Operation::Read(wanted.clone())).await?;
    let OperationResult::Read { contents, stat } = &result else { return Ok(result) };
    if read.pictures == Pictures::AsBytes || wanted.offset > 0 || stat.size > PICTURE_BYTES_MAX {
        return Ok(result);
    }
    let Some(mime) = mime(contents) else { return Ok(result) };
    let data = if contents.len() as u64 == stat.size {
        contents.clone()
    } else {
        let whole = Read { limit: Some(PICTURE_BYTES_MAX), ..wanted.clone() };
        match files::perform(session.workspace(), Operation::Read(whole)).await? {
            OperationResult::Read { contents, .. } => contents,
            _ => return Ok(result),
        }
    };
    let drawn = tokio::select! {
        drawn = render::render(mime, data) => drawn,
        _ = stopped(task, clock) => return Ok(result),
    };
    match drawn {
        Ok(picture) => {
            let display = Display { mime: picture.mime, path: Some(wanted.path), data: picture.data };
            task.push(EventBody::Display(display));
        }
        Err(error) => tracing::info!(task = %task.id, mime, %error, "a file is no picture"),
    }
    Ok(result)
}

/// What a file seems to be by its first bytes.
fn mime(contents: &[u8]) -> Option<&'static str> {
    match contents {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        _ => None,
    }
}
