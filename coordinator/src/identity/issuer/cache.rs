//! The issuer's keys, kept, and when they are asked for again.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Refused;
use super::endpoint::Endpoint;
use super::fetch::Fetcher;
use super::keys::KeySet;
use crate::identity::Unauthenticated;

/// After so long keys are asked for again, so that one that was withdrawn is not used for ever.
const FRESH: Duration = Duration::from_secs(3600);
/// Keys that could not be had anew for so long are used no more.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// The least time between two questions while there are keys: tokens that name unknown ones ask for no more.
const REST: Duration = Duration::from_secs(60);
/// The same while there are none.
const REST_WITHOUT_KEYS: Duration = Duration::from_secs(5);

/// What a token is told that may be good.
const WITHOUT_KEYS: Refused = Refused { why: Unauthenticated::KeysUnavailable, about: "keys" };

/// Keeps the keys of one issuer.
pub(super) struct Cache {
    source: Arc<Source>,
    /// Held by the one question that is being asked.
    asking: Arc<tokio::sync::Mutex<()>>,
}

struct Source {
    fetcher: Fetcher,
    issuer: Endpoint,
    jwks_url: Option<Endpoint>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The keys there are, and since when.
    keys: Option<(KeySet, Instant)>,
    asked: Option<Instant>,
}

/// What is to be done for a token's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// To use the keys there are.
    Use,
    /// To use them, and to ask for newer ones unless somebody does.
    UseAndAsk,
    /// To ask for keys, or to wait for whoever does.
    Ask,
    /// To refuse the token.
    Refuse(Refused),
}

impl State {
    /// `is_known`: whether the key is among the keys there are.
    fn step(&self, is_known: bool, now: Instant) -> Step {
        let age = self.keys.as_ref().map(|(_, fetched)| now - *fetched);
        let is_usable = self.is_usable(now);
        let rest = if is_usable { REST } else { REST_WITHOUT_KEYS };
        let may_ask = self.asked.is_none_or(|asked| now - asked >= rest);
        match (is_usable && is_known, may_ask) {
            (true, true) if age.is_some_and(|age| age >= FRESH) => Step::UseAndAsk,
            (true, _) => Step::Use,
            (false, true) => Step::Ask,
            (false, false) if is_usable => Step::Refuse(Refused::invalid("key")),
            (false, false) => Step::Refuse(WITHOUT_KEYS),
        }
    }

    /// Whether there are keys, and young enough.
    fn is_usable(&self, now: Instant) -> bool {
        self.keys.as_ref().is_some_and(|(_, fetched)| now - *fetched < USABLE)
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        self.keys.as_ref()?.0.find(id, algorithm).cloned()
    }
}

impl Cache {
    pub(super) fn new(fetcher: Fetcher, issuer: Endpoint, jwks_url: Option<Endpoint>) -> Self {
        let source = Source { fetcher, issuer, jwks_url, state: Mutex::default() };
        Self { source: Arc::new(source), asking: Arc::default() }
    }

    /// The key of this name for this algorithm.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Refused> {
        match self.look(id, algorithm) {
            (Step::Use, Some(key)) => return Ok(key),
            (Step::UseAndAsk, Some(key)) => {
                if let Ok(turn) = Arc::clone(&self.asking).try_lock_owned() {
                    drop(self.ask(turn));
                }
                return Ok(key);
            }
            (Step::Refuse(refused), _) => return Err(refused),
            (Step::Ask, _) | (Step::Use | Step::UseAndAsk, None) => {}
        }
        let turn = Arc::clone(&self.asking).lock_owned().await;
        // Whoever had the turn before may have asked already.
        if self.look(id, algorithm).0 == Step::Ask {
            // A fault in the asking leaves the keys as they are, of which the next look tells.
            drop(self.ask(turn).await);
        } else {
            drop(turn);
        }
        let state = self.source.state.lock();
        if !state.is_usable(Instant::now()) {
            return Err(WITHOUT_KEYS);
        }
        state.find(id, algorithm).ok_or(Refused::invalid("key"))
    }

    fn look(&self, id: Option<&str>, algorithm: Algorithm) -> (Step, Option<DecodingKey>) {
        let state = self.source.state.lock();
        let key = state.find(id, algorithm);
        (state.step(key.is_some(), Instant::now()), key)
    }

    /// Asks in a task of its own: a client that goes away takes the answer from nobody.
    fn ask(&self, turn: tokio::sync::OwnedMutexGuard<()>) -> tokio::task::JoinHandle<()> {
        let source = Arc::clone(&self.source);
        tokio::spawn(async move {
            let fetched = source.fetcher.keys(&source.issuer, source.jwks_url.as_ref()).await;
            let mut state = source.state.lock();
            // Only now: whoever comes while they are asked for waits for the answer.
            state.asked = Some(Instant::now());
            match fetched {
                Ok(keys) => state.keys = Some((keys, Instant::now())),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, issuer = %source.issuer, "the issuer's keys could not be fetched");
                }
            }
            drop(state);
            drop(turn);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Step = Step::Refuse(Refused::invalid("key"));
    const NONE: Step = Step::Refuse(WITHOUT_KEYS);

    fn keys() -> KeySet {
        KeySet::parse(b"{\"keys\":[]}").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_are_asked_for_once_a_minute() {
        let now = Instant::now();
        let state = State { keys: Some((keys(), now)), asked: Some(now) };
        assert_eq!(state.step(true, now), Step::Use);
        assert_eq!(state.step(false, now + REST - Duration::from_secs(1)), UNKNOWN);
        assert_eq!(state.step(false, now + REST), Step::Ask);
    }

    #[tokio::test(start_paused = true)]
    async fn old_keys_are_used_while_newer_ones_are_asked_for_and_very_old_ones_are_not() {
        let now = Instant::now();
        let state = State { keys: Some((keys(), now)), asked: Some(now) };
        assert_eq!(state.step(true, now + FRESH), Step::UseAndAsk);
        let in_vain = State { keys: Some((keys(), now)), asked: Some(now + USABLE) };
        assert_eq!(in_vain.step(true, now + USABLE - Duration::from_secs(1)), Step::Use);
        assert_eq!(in_vain.step(true, now + USABLE), NONE);
        assert_eq!(in_vain.step(true, now + USABLE + REST_WITHOUT_KEYS), Step::Ask);
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_gave_no_keys_is_asked_again_soon() {
        let now = Instant::now();
        assert_eq!(State::default().step(false, now), Step::Ask);
        let state = State { keys: None, asked: Some(now) };
        assert_eq!(state.step(false, now), NONE);
        assert_eq!(state.step(false, now + REST_WITHOUT_KEYS), Step::Ask);
    }
}
