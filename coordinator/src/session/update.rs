//! What a session may be called and noted, and how a change is merged.

use std::collections::BTreeMap;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure};
use serde_json::Value;

use super::call::UpdateSession;
use crate::store::SessionRow;

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 128;
/// The largest metadata, in bytes of JSON.
const METADATA_BYTES_MAX: usize = 16 << 10;
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

type Metadata = BTreeMap<String, Value>;

/// The name and metadata of a session after a change.
pub(super) fn apply(row: &SessionRow, update: &UpdateSession) -> Result<(Option<String>, Metadata), Failure> {
    let name = update.name.clone().or_else(|| row.name.clone());
    let metadata = match &update.metadata {
        None if update.replace_metadata => return Err(invalid("`replace_metadata` needs `metadata`")),
        None => row.metadata.clone(),
        Some(new) if update.replace_metadata => new.clone(),
        Some(new) => merged(row.metadata.clone(), new),
    };
    check(name.as_deref(), &metadata)?;
    Ok((name, metadata))
}

/// Sets the keys of `new`; a null removes its key.
fn merged(mut old: Metadata, new: &Metadata) -> Metadata {
    for (key, value) in new {
        match value {
            Value::Null => old.remove(key),
            value => old.insert(key.clone(), value.clone()),
        };
    }
    old
}

/// Checks a description.
pub(super) fn check(name: Option<&str>, metadata: &Metadata) -> Result<(), Failure> {
    if let Some(name) = name
        && (name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control))
    {
        return Err(invalid(&format!("`name` is 1 to {NAME_CHARS_MAX} characters, none of them a control character")));
    }
    let size = serde_json::to_vec(metadata).map_or(usize::MAX, |text| text.len());
    if size > METADATA_BYTES_MAX {
        return Err(invalid(&format!("`metadata` is {size} bytes of JSON, more than {METADATA_BYTES_MAX}")));
    }
    Ok(())
}

/// Checks an idle time, and gives it in milliseconds.
pub(super) fn ttl_ms(ttl: Option<Duration>) -> Result<Option<u64>, Failure> {
    match ttl {
        Some(ttl) if !(TTL_MIN..=TTL_MAX).contains(&ttl) => {
            Err(invalid("`ttl_seconds` is between 1 second and 7 days (604800)"))
        }
        ttl => Ok(ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))),
    }
}

fn invalid(text: &str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, text)
}
