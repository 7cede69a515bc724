//! Idempotency keys of the tools that act on sessions themselves: the same key acts once and gives the same session.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, Failure, Principal, SessionId};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How many keys are remembered, over all principals. When they are that many, a call with a new key is refused.
const KEYS_MAX: usize = 10_000;

/// The keys under which sessions were made, updated and closed, for as long as the server lives.
#[derive(Default)]
pub struct SessionKeys {
    keys: Mutex<HashMap<Place, Remembered>>,
}

/// Where a key counts: for a principal, and for one of its sessions unless it is to make one.
type Place = (Principal, Option<SessionId>, String);

/// A call with a key.
pub(super) struct Keyed<'a> {
    pub(super) principal: &'a Principal,
    /// The session that is acted on; none: it is to be made.
    pub(super) session: Option<SessionId>,
    pub(super) tool: &'static str,
    pub(super) key: &'a str,
    pub(super) args: &'a Value,
}

struct Remembered {
    tool: &'static str,
    args: Value,
    since: Instant,
    made: Arc<OnceCell<SessionId>>,
}

impl SessionKeys {
    /// The session made or acted on under this key, by this call or an earlier one. Calls that arrive together act
    /// once; a call that failed is forgotten.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the key was used with other arguments, `RATE_LIMITED` when too many keys are in use,
    /// and whatever `act` gives.
    pub(super) async fn once<F, E>(&self, call: Keyed<'_>, act: impl FnOnce() -> F) -> Result<SessionId, E>
    where
        F: Future<Output = Result<SessionId, E>>,
        E: From<Failure>,
    {
        self.cell(call)?.get_or_try_init(act).await.copied()
    }

    fn cell(&self, call: Keyed<'_>) -> Result<Arc<OnceCell<SessionId>>, Failure> {
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS_MAX {
            keys.retain(|_, remembered| remembered.since.elapsed() < KEPT);
        }
        let full = keys.len() >= KEYS_MAX;
        let place = (call.principal.clone(), call.session, call.key.to_owned());
        if let Some(remembered) = keys.get(&place)
            && remembered.since.elapsed() < KEPT
        {
            if remembered.tool != call.tool || remembered.args != *call.args {
                let message = "`idempotency_key`: this key was used with other arguments within the last 24 hours";
                return Err(Failure::new(ErrorCode::InvalidArgument, message));
            }
            return Ok(Arc::clone(&remembered.made));
        }
        if full {
            return Err(Failure::new(ErrorCode::RateLimited, "too many idempotency keys are in use"));
        }
        let made = Arc::<OnceCell<SessionId>>::default();
        let (tool, args) = (call.tool, call.args.clone());
        keys.insert(place, Remembered { tool, args, since: Instant::now(), made: Arc::clone(&made) });
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn create(keys: &SessionKeys, principal: &Principal, args: &Value) -> Result<SessionId, Failure> {
        let call = Keyed { principal, session: None, tool: "session_create", key: "k", args };
        keys.once(call, || async { Ok(SessionId::mint()) }).await
    }

    #[tokio::test]
    async fn a_key_makes_one_session_and_is_bound_to_its_arguments() {
        let keys = SessionKeys::default();
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let first = create(&keys, &ann, &json!({"name": "a"})).await;
        assert_eq!(create(&keys, &ann, &json!({"name": "a"})).await, first);
        assert_ne!(create(&keys, &bob, &json!({"name": "a"})).await, first);
        let other = create(&keys, &ann, &json!({"name": "b"})).await;
        assert_eq!(other.map_err(|f| f.code), Err(ErrorCode::InvalidArgument));
    }

    #[tokio::test]
    async fn a_key_counts_for_its_session_and_its_tool() {
        let keys = SessionKeys::default();
        let (ann, session, args) = (Principal::os_user("ann"), SessionId::mint(), json!({}));
        let call = |session, tool| Keyed { principal: &ann, session: Some(session), tool, key: "k", args: &args };
        let act = |session| move || std::future::ready(Ok::<_, Failure>(session));
        assert_eq!(keys.once(call(session, "session_update"), act(session)).await, Ok(session));
        let closed = keys.once(call(session, "session_close"), act(session)).await;
        assert_eq!(closed.map_err(|f| f.code), Err(ErrorCode::InvalidArgument));
        let other = SessionId::mint();
        assert_eq!(keys.once(call(other, "session_close"), act(other)).await, Ok(other));
    }

    #[tokio::test]
    async fn a_key_whose_call_failed_can_be_used_again() {
        let keys = SessionKeys::default();
        let ann = Principal::os_user("ann");
        let refused = Failure::new(ErrorCode::NoCapacity, "full");
        let call = Keyed { principal: &ann, session: None, tool: "session_create", key: "k", args: &json!({}) };
        let failed = keys.once(call, || std::future::ready(Err(refused.clone()))).await;
        assert_eq!(failed, Err(refused));
        assert!(create(&keys, &ann, &json!({})).await.is_ok());
    }
}
