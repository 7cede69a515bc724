//! Secrets that go beside a message and not in it, so that whoever sends it is known before the message is read.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

use crate::bounds::TOKEN_BYTES_MAX;
use crate::secret::Secret;

/// Beside `RegisterWorker`: proves that the worker may join. Absent when its certificate does.
pub const JOIN_TOKEN_KEY: &str = "codegen-join-token";
/// Beside every later call of a worker: the worker session that joining gave.
pub const WORKER_SESSION_KEY: &str = "codegen-worker-session";

/// A call with a secret beside its message.
///
/// # Errors
/// `Internal` when the secret has characters that metadata cannot carry.
pub fn with_secret<T>(message: T, key: &'static str, secret: &Secret) -> Result<Request<T>, Status> {
    let mut value = MetadataValue::try_from(secret.expose())
        .map_err(|_| Status::internal(format!("{key} cannot be sent as metadata")))?;
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert(key, value);
    Ok(request)
}

/// The secret that goes with a call; none where it is longer than any of ours.
pub fn secret_of<'a>(metadata: &'a MetadataMap, key: &'static str) -> Option<&'a str> {
    let text = metadata.get(key)?.to_str().ok()?;
    (text.len() <= TOKEN_BYTES_MAX).then_some(text)
}
