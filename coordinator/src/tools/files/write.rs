//! `fs_write`: a whole file, written atomically.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use codegen_types::operation::{Write, WriteMode};
use codegen_types::{ErrorCode, Failure, Limits, Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::read::Encoding;
use super::reply::{file_reply, line};
use crate::tools::args;
use crate::tools::call::{Act, Answer, Call};
use crate::tools::result::ToolResult;

/// The longest etag that is looked at, in bytes.
pub(super) const ETAG_BYTES_MAX: usize = 256;

/// Takes base64 with or without its padding, since models leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsWriteInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The file, relative to the workspace; missing directories are made.
    path: String,
    /// What to write.
    #[serde(alias = "content")]
    contents: String,
    /// How `contents` is written: `utf8` (the default), or `base64` for bytes that are no text.
    encoding: Option<Encoding>,
    /// `overwrite` (the default) replaces or makes the file, `create` fails if there is one, `append` adds to its end.
    mode: Option<Mode>,
    /// Write only if the file's present etag is this one, as fs_stat, fs_read or fs_write gave it.
    if_match: Option<String>,
    /// At most 128 bytes. The same key and arguments again get the first result.
    idempotency_key: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Overwrite,
    Create,
    Append,
}

pub(in crate::tools) fn write<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsWriteInput = call.input()?;
        let idempotency_key = args::key(input.idempotency_key)?;
        let path = args::path("path", &input.path)?;
        let contents = decoded(input.contents, input.encoding.unwrap_or_default(), &call.connection.limits)?;
        input.if_match.as_deref().map_or(Ok(()), |etag| args::bounded("if_match", etag, ETAG_BYTES_MAX))?;
        let mode = match input.mode.unwrap_or_default() {
            Mode::Overwrite => WriteMode::Overwrite,
            Mode::Create => WriteMode::Create,
            Mode::Append => WriteMode::Append,
        };
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let operation = Operation::Write(Write { path, contents, mode, if_match: input.if_match });
        let outcome = call.act(session, Act { operation, timeout: None, idempotency_key }).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Write { stat, created } => {
                let verb = if *created { "created" } else { "wrote" };
                let facts = serde_json::json!({"size": stat.size, "etag": stat.etag, "created": created});
                Some(ToolResult::text(format!("{verb} {}", line(stat))).with_meta("codegen/file", facts))
            }
            _ => None,
        }))
    }
    .boxed()
}

fn decoded(contents: String, encoding: Encoding, limits: &Limits) -> Result<Vec<u8>, Failure> {
    let bytes = match encoding {
        Encoding::Utf8 => contents.into_bytes(),
        Encoding::Base64 => {
            let mut digits = contents.into_bytes();
            digits.retain(|b| !b.is_ascii_whitespace());
            BASE64.decode(digits).map_err(|error| args::invalid("contents", format!("not base64: {error}")))?
        }
    };
    if bytes.len() as u64 <= limits.file_bytes {
        return Ok(bytes);
    }
    let message = format!("`contents`: {} bytes are too many, a file may have {}", bytes.len(), limits.file_bytes);
    Err(Failure::new(ErrorCode::FileTooLarge, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_taken_with_and_without_padding_and_line_breaks() {
        let limits = Limits::default();
        for text in ["//4=", "//4", "/\n/4=\n"] {
            assert_eq!(decoded(text.into(), Encoding::Base64, &limits), Ok(vec![0xff, 0xfe]), "{text:?}");
        }
        let refused = decoded("not base64!".into(), Encoding::Base64, &limits);
        assert_eq!(refused.map_err(|f| f.code), Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn a_file_larger_than_the_limit_is_refused_before_it_is_sent() {
        let limits = Limits { file_bytes: 3, ..Limits::default() };
        assert!(decoded("abc".into(), Encoding::Utf8, &limits).is_ok());
        assert_eq!(decoded("abcd".into(), Encoding::Utf8, &limits).map_err(|f| f.code), Err(ErrorCode::FileTooLarge));
    }
}
