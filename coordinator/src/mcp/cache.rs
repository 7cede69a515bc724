//! How long clients of 2026-07-28 may keep what is the same for everybody. Of everything else rmcp says that it is their own
//! and stale at once.

use rmcp::model::{CacheScope, ProtocolVersion};
use rmcp::service::{RequestContext, RoleServer};

/// How long, in milliseconds. A server that is started anew may list others, of which nobody tells.
pub(super) const FRESH_MS: u64 = 300_000;

/// What is said with a list that is the same for everybody, for as long as the server runs; nothing to a client of an
/// earlier revision, which has no words for it.
pub(super) fn hints(context: &RequestContext<RoleServer>) -> (Option<u64>, Option<CacheScope>) {
    let knows = context.protocol_version().is_some_and(|spoken| spoken >= ProtocolVersion::V_2026_07_28);
    if knows { (Some(FRESH_MS), Some(CacheScope::Public)) } else { (None, None) }
}
