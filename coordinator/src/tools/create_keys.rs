//! `session_create` with an idempotency key: the same key gives the same session.

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

/// The keys under which sessions were made, for as long as the server lives.
#[derive(Default)]
pub struct CreateKeys {
    keys: Mutex<HashMap<(Principal, String), Remembered>>,
}

struct Remembered {
    args: Value,
    since: Instant,
    made: Arc<OnceCell<SessionId>>,
}

impl CreateKeys {
    /// The session made under this key, by this call or an earlier one. Calls that arrive together make one session;
    /// a call that failed is forgotten.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the key was used with other arguments, `RATE_LIMITED` when too many keys are in use,
    /// and whatever `make` gives.
    pub(super) async fn once<F>(
        &self,
        principal: &Principal,
        key: &str,
        args: &Value,
        make: impl FnOnce() -> F,
    ) -> Result<SessionId, Failure>
    where
        F: Future<Output = Result<SessionId, Failure>>,
    {
        let made = self.cell(principal, key, args)?;
        made.get_or_try_init(make).await.copied()
    }

    fn cell(&self, principal: &Principal, key: &str, args: &Value) -> Result<Arc<OnceCell<SessionId>>, Failure> {
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS_MAX {
            keys.retain(|_, remembered| remembered.since.elapsed() < KEPT);
        }
        let full = keys.len() >= KEYS_MAX;
        let place = (principal.clone(), key.to_owned());
        if let Some(remembered) = keys.get(&place)
            && remembered.since.elapsed() < KEPT
        {
            if remembered.args != *args {
                let message = "`idempotency_key`: this key was used with other arguments within the last 24 hours";
                return Err(Failure::new(ErrorCode::InvalidArgument, message));
            }
            return Ok(Arc::clone(&remembered.made));
        }
        if full {
            return Err(Failure::new(ErrorCode::RateLimited, "too many idempotency keys are in use"));
        }
        let made = Arc::<OnceCell<SessionId>>::default();
        keys.insert(place, Remembered { args: args.clone(), since: Instant::now(), made: Arc::clone(&made) });
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_key_makes_one_session_and_is_bound_to_its_arguments() {
        let keys = CreateKeys::default();
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let make = || async { Ok(SessionId::mint()) };
        let first = keys.once(&ann, "k", &json!({"name": "a"}), make).await;
        assert_eq!(keys.once(&ann, "k", &json!({"name": "a"}), make).await, first);
        assert_ne!(keys.once(&bob, "k", &json!({"name": "a"}), make).await, first);
        let other = keys.once(&ann, "k", &json!({"name": "b"}), make).await;
        assert_eq!(other.map_err(|f| f.code), Err(ErrorCode::InvalidArgument));
    }

    #[tokio::test]
    async fn a_key_whose_call_failed_can_be_used_again() {
        let keys = CreateKeys::default();
        let ann = Principal::os_user("ann");
        let refused = Failure::new(ErrorCode::NoCapacity, "full");
        let failed = keys.once(&ann, "k", &json!({}), || std::future::ready(Err(refused.clone()))).await;
        assert_eq!(failed, Err(refused));
        assert!(keys.once(&ann, "k", &json!({}), || async { Ok(SessionId::mint()) }).await.is_ok());
    }
}
