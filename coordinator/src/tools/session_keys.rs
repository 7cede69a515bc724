//! Idempotency keys of the tools that act on sessions that there are: the same key acts once. Each of them, done twice, comes
//! to the same, so that they are kept for as long as the server lives; the key of a session's making is kept with it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, Failure, Principal, SessionId};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How many keys of one principal are remembered. When they are that many, a call with a new key is refused.
const OF_ONE_MAX: usize = 1_000;
/// How many keys of all principals are remembered. When they are that many, a call with a new key is refused.
const OF_ALL_MAX: usize = 10_000;

/// The tools whose keys are kept here.
const TOOLS: [&str; 4] = ["session_update", "session_close", "session_share", "session_unshare"];

/// The keys under which sessions were updated, shared and closed, for as long as the server lives.
#[derive(Default)]
pub struct SessionKeys {
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    of: HashMap<Principal, HashMap<Place, Remembered>>,
    count: usize,
}

/// Where a key counts: for one session.
type Place = (SessionId, String);

/// What a key was used for: SHA-256 over the tool and its arguments, which may be long.
type CallDigest = [u8; 32];

/// A call with a key.
pub(super) struct Keyed<'a> {
    pub(super) principal: &'a Principal,
    /// The session that is acted on.
    pub(super) session: SessionId,
    pub(super) tool: &'static str,
    pub(super) key: &'a str,
    pub(super) args: &'a Value,
}

struct Remembered {
    digest: CallDigest,
    since: Instant,
    made: Arc<OnceCell<SessionId>>,
}

impl Remembered {
    fn is_old(&self) -> bool {
        self.since.elapsed() >= KEPT
    }
}

impl SessionKeys {
    /// Whether the keys of a tool are kept here.
    pub(super) fn keeps(tool: &str) -> bool {
        TOOLS.contains(&tool)
    }

    /// Whether a principal used a key in that session.
    pub(super) fn knows(&self, principal: &Principal, session: SessionId, key: &str) -> bool {
        let keys = self.keys.lock();
        let own = keys.of.get(principal);
        own.and_then(|own| own.get(&(session, key.to_owned()))).is_some_and(|remembered| !remembered.is_old())
    }

    /// The session acted on under this key, by this call or an earlier one. Calls that arrive together act
    /// once; a call that failed, or that its client gave up, is forgotten.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the key was used with other arguments, `RATE_LIMITED` when too many keys are in use,
    /// and whatever `act` gives.
    pub(super) async fn once<F, E>(&self, call: Keyed<'_>, act: impl FnOnce() -> F) -> Result<SessionId, E>
    where
        F: Future<Output = Result<SessionId, E>>,
        E: From<Failure>,
    {
        let (principal, place) = (call.principal.clone(), (call.session, call.key.to_owned()));
        let made = self.keys.lock().cell(&principal, &place, digest(call.tool, call.args))?;
        let waiting = Waiting { keys: self, principal, place, made };
        waiting.made.get_or_try_init(act).await.copied()
    }
}

/// A call that waits for what becomes of its key.
struct Waiting<'a> {
    keys: &'a SessionKeys,
    principal: Principal,
    place: Place,
    made: Arc<OnceCell<SessionId>>,
}

impl Drop for Waiting<'_> {
    /// Forgets a key under which nothing was done, unless another call is about to.
    fn drop(&mut self) {
        let mut keys = self.keys.keys.lock();
        // The table has it, and this call.
        let is_alone = Arc::strong_count(&self.made) == 2;
        if is_alone && !self.made.initialized() {
            keys.forget(&self.principal, &self.place);
        }
    }
}

impl Keys {
    fn cell(
        &mut self,
        principal: &Principal,
        place: &Place,
        digest: CallDigest,
    ) -> Result<Arc<OnceCell<SessionId>>, Failure> {
        let own = self.of.get(principal);
        if let Some(remembered) = own.and_then(|own| own.get(place)).filter(|remembered| !remembered.is_old()) {
            if remembered.digest != digest {
                let message = "`idempotency_key`: this key was used with other arguments within the last 24 hours";
                return Err(Failure::new(ErrorCode::InvalidArgument, message));
            }
            return Ok(Arc::clone(&remembered.made));
        }
        if self.count >= OF_ALL_MAX || own.is_some_and(|own| own.len() >= OF_ONE_MAX) {
            self.make_room(principal)?;
        }
        let made = Arc::<OnceCell<SessionId>>::default();
        let remembered = Remembered { digest, since: Instant::now(), made: Arc::clone(&made) };
        let earlier = self.of.entry(principal.clone()).or_default().insert(place.clone(), remembered);
        self.count += usize::from(earlier.is_none());
        Ok(made)
    }

    /// Forgets what is old; then there is room, or it is said when there will be.
    fn make_room(&mut self, principal: &Principal) -> Result<(), Failure> {
        self.of.retain(|_, own| {
            own.retain(|_, remembered| !remembered.is_old());
            !own.is_empty()
        });
        self.count = self.of.values().map(HashMap::len).sum();
        let wait = |since: Instant| KEPT.saturating_sub(since.elapsed());
        let own = self.of.get(principal);
        if let Some(own) = own.filter(|own| own.len() >= OF_ONE_MAX) {
            let oldest = own.values().map(|remembered| remembered.since).min().map_or(KEPT, wait);
            let message = format!("{OF_ONE_MAX} idempotency keys of yours are remembered, the most there may be");
            return Err(Failure::new(ErrorCode::RateLimited, message).retry_after(oldest));
        }
        if self.count >= OF_ALL_MAX {
            let all = self.of.values().flat_map(HashMap::values);
            let oldest = all.map(|remembered| remembered.since).min().map_or(KEPT, wait);
            let message = "too many idempotency keys are remembered for everybody; a call without one is served";
            return Err(Failure::new(ErrorCode::RateLimited, message).retry_after(oldest));
        }
        Ok(())
    }

    fn forget(&mut self, principal: &Principal, place: &Place) {
        let Some(own) = self.of.get_mut(principal) else { return };
        self.count -= usize::from(own.remove(place).is_some());
        if own.is_empty() {
            self.of.remove(principal);
        }
    }
}

/// What is said when nothing was done under a key after all, just as a repetition comes.
pub(super) fn forgotten() -> Failure {
    let message = "what was done under this `idempotency_key` failed or was forgotten just now; nothing was done again. \
                   Made once more, the call counts as a new one";
    Failure::new(ErrorCode::PreconditionFailed, message)
}

/// What a key stands for: SHA-256 over the tool and its arguments, in whatever order they come.
pub(super) fn digest(tool: &str, args: &Value) -> CallDigest {
    let mut args = args.clone();
    args.sort_all_objects();
    Sha256::new().chain_update(tool).chain_update([0]).chain_update(args.to_string()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SESSION: SessionId = SessionId::from_uuid(uuid::Uuid::from_u128(7));

    /// Acts in [`SESSION`] under the key `k`; gives a session that tells one act from another.
    async fn act(keys: &SessionKeys, principal: &Principal, args: &Value) -> Result<SessionId, Failure> {
        let call = Keyed { principal, session: SESSION, tool: "session_update", key: "k", args };
        keys.once(call, || async { Ok(SessionId::mint()) }).await
    }

    #[tokio::test]
    async fn a_key_acts_once_and_is_bound_to_its_arguments() {
        let keys = SessionKeys::default();
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let first = act(&keys, &ann, &json!({"name": "a"})).await;
        assert_eq!(act(&keys, &ann, &json!({"name": "a"})).await, first);
        assert_ne!(act(&keys, &bob, &json!({"name": "a"})).await, first);
        let other = act(&keys, &ann, &json!({"name": "b"})).await;
        assert_eq!(other.map_err(|f| f.code), Err(ErrorCode::InvalidArgument));
    }

    #[tokio::test]
    async fn a_key_counts_for_its_session_and_its_tool() {
        let keys = SessionKeys::default();
        let (ann, session, args) = (Principal::os_user("ann"), SessionId::mint(), json!({}));
        let call = |session, tool| Keyed { principal: &ann, session, tool, key: "k", args: &args };
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
        let call = Keyed { principal: &ann, session: SESSION, tool: "session_update", key: "k", args: &json!({}) };
        let failed = keys.once(call, || std::future::ready(Err(refused.clone()))).await;
        assert_eq!(failed, Err(refused));
        assert!(act(&keys, &ann, &json!({})).await.is_ok());
    }

    #[tokio::test]
    async fn only_what_was_done_is_remembered() {
        let keys = SessionKeys::default();
        let (ann, args) = (Principal::os_user("ann"), json!({}));
        for number in 0..2 * OF_ONE_MAX {
            let key = number.to_string();
            let call = |key| Keyed { principal: &ann, session: SESSION, tool: "session_update", key, args: &args };
            let refused = || std::future::ready(Err(Failure::new(ErrorCode::NoCapacity, "full")));
            assert_eq!(keys.once(call(&key), refused).await.map_err(|f| f.code), Err(ErrorCode::NoCapacity));
            let never = keys.once(call(&key), std::future::pending::<Result<_, Failure>>);
            assert!(futures::FutureExt::now_or_never(never).is_none(), "its client goes away");
        }
        let keys = keys.keys.lock();
        assert_eq!((keys.count, keys.of.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_call_that_waits_for_one_that_fails_acts_itself_and_is_remembered() {
        let keys = SessionKeys::default();
        let (ann, args) = (Principal::os_user("ann"), json!({}));
        let call = || Keyed { principal: &ann, session: SESSION, tool: "session_update", key: "k", args: &args };
        let made = SessionId::mint();
        let fails = keys.once(call(), || async {
            tokio::task::yield_now().await;
            Err(Failure::new(ErrorCode::NoCapacity, "full"))
        });
        let waits = keys.once(call(), || std::future::ready(Ok::<_, Failure>(made)));
        let (failed, waited) = tokio::join!(fails, waits);
        assert_eq!((failed.map_err(|f| f.code), waited), (Err(ErrorCode::NoCapacity), Ok(made)));
        assert_eq!(act(&keys, &ann, &args).await, Ok(made));
    }

    #[tokio::test]
    async fn one_principal_s_keys_leave_room_for_others_and_the_refusal_says_when_there_is_room_again() {
        let keys = SessionKeys::default();
        let (ann, bob, args) = (Principal::os_user("ann"), Principal::os_user("bob"), json!({}));
        let make = async |principal: &Principal, number: usize| {
            let key = &number.to_string();
            let call = Keyed { principal, session: SESSION, tool: "session_update", key, args: &args };
            keys.once(call, || async { Ok::<_, Failure>(SessionId::mint()) }).await
        };
        for number in 0..OF_ONE_MAX {
            make(&ann, number).await.unwrap();
        }
        let refused = make(&ann, OF_ONE_MAX).await.unwrap_err();
        let wait = Duration::from_millis(refused.retry_after_ms.unwrap());
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert!(wait <= KEPT && wait > KEPT - Duration::from_secs(60), "{wait:?}");
        assert!(make(&ann, 0).await.is_ok() && make(&bob, 0).await.is_ok());
    }

    #[tokio::test]
    async fn the_order_of_arguments_is_no_other_call() {
        let keys = SessionKeys::default();
        let ann = Principal::os_user("ann");
        let first = act(&keys, &ann, &json!({"name": "a", "labels": {"x": 1, "y": 2}})).await;
        assert_eq!(act(&keys, &ann, &json!({"labels": {"y": 2, "x": 1}, "name": "a"})).await, first);
    }
}
