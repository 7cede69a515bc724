//! `Idempotency-Key`: a request that is repeated is carried out once.
//!
//! The tools remember what a key did, and give it again; tasks also after a restart. What is remembered here is which
//! request a key stands for, so that another one under the same key is refused, and one that is still in flight, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use codegen_types::{ErrorCode, Failure, Principal};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::api::Api;
use crate::http::error::ApiError;
use crate::identity::Identity;

/// Where the key is.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 128;
/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Keys of all principals that are remembered; the oldest make room, since the tools remember, too.
const KEYS_MAX: usize = 10_000;
/// Keys of one principal that may be in flight or remembered. One more is refused.
const KEYS_OF_ONE_MAX: usize = 1_000;

type Place = (Principal, String);
type Fingerprint = [u8; 32];

/// The header as it is described.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes the header")]
pub(super) struct Repeatable {
    /// Names this request, so that it is carried out once however often it is sent within 24 hours.
    #[param(
        rename = "idempotency-key",
        min_length = 1,
        max_length = 130,
        pattern = "^(\"[!-~]{1,128}\"|[!-~]{1,128})$"
    )]
    key: Option<String>,
}

/// The keys that were used lately. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Arc<Mutex<HashMap<Place, Known>>>);

#[derive(Debug)]
struct Known {
    fingerprint: Fingerprint,
    since: Instant,
    in_flight: bool,
}

/// A request in flight; forgotten when dropped, unless it was carried out.
#[derive(Debug)]
pub(super) struct InFlight {
    keys: Keys,
    place: Place,
    was_carried_out: AtomicBool,
}

/// The key of a request, when it has one.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let text = first.to_str().unwrap_or_default();
    // The draft has a string of structured fields, and most clients leave the quotation marks out.
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let fits = (1..=KEY_BYTES_MAX).contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits || given.next().is_some() {
        let message = format!("`Idempotency-Key`: one key of 1 to {KEY_BYTES_MAX} visible ASCII characters");
        return Err(ApiError::bad_request(message));
    }
    Ok(Some(bare.to_owned()))
}

/// The key of one of the calls that a request consists of.
pub(super) fn key_of_part(key: &str, number: usize) -> String {
    let hash = Sha256::new().chain_update(key).chain_update([0]).chain_update(number.to_le_bytes());
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Lets a request through unless its key stands for another one, or for one that is in flight.
pub(super) async fn once(State(api): State<Api>, request: Request, next: Next) -> Result<Response, ApiError> {
    let acts = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let (true, Some(place)) = (acts, place_of(&request)?) else { return Ok(next.run(request).await) };
    let (parts, body) = request.into_parts();
    // It is whole already, so that this neither waits nor copies.
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(|_| ApiError::bad_request("no body"))?;
    let fingerprint = fingerprint(&parts, &body);
    run_once(&api, place, fingerprint, Request::from_parts(parts, Body::from(body)), next).await
}

/// As [`once`], of a request whose body is still to come: what is in it, its parts stand for ([`key_of_part`]).
pub(super) async fn once_without_body(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(place) = place_of(&request)? else { return Ok(next.run(request).await) };
    let (parts, body) = request.into_parts();
    let fingerprint = fingerprint(&parts, b"");
    run_once(&api, place, fingerprint, Request::from_parts(parts, body), next).await
}

fn place_of(request: &Request) -> Result<Option<Place>, ApiError> {
    let identity = request.extensions().get::<Identity>();
    Ok(key(request.headers())?.zip(identity).map(|(key, identity)| (identity.principal.clone(), key)))
}

fn fingerprint(parts: &Parts, body: &[u8]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in [parts.method.as_str(), &parts.uri.to_string()] {
        hash.update(part);
        hash.update([0]);
    }
    for name in [header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH] {
        hash.update(parts.headers.get(name).map(|value| value.as_bytes()).unwrap_or_default());
        hash.update([0]);
    }
    hash.update(body);
    hash.finalize().into()
}

async fn run_once(
    api: &Api,
    place: Place,
    fingerprint: Fingerprint,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let in_flight = Arc::new(api.keys().begin(place, fingerprint, Instant::now())?);
    // A call outlives the client that goes away, and so does its key.
    request.extensions_mut().insert(Arc::clone(&in_flight));
    let response = next.run(request).await;
    if response.status().is_success() {
        in_flight.carried_out();
    }
    Ok(response)
}

impl Keys {
    fn begin(&self, place: Place, fingerprint: Fingerprint, now: Instant) -> Result<InFlight, ApiError> {
        let mut keys = self.0.lock();
        let fresh = |known: &Known| known.in_flight || now.duration_since(known.since) < KEPT;
        match keys.get_mut(&place).filter(|known| fresh(known)) {
            Some(known) if known.fingerprint != fingerprint => {
                let message = "this Idempotency-Key was used for another request within the last 24 hours";
                return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::InvalidArgument, message));
            }
            Some(known) if known.in_flight => {
                let message = "the request with this Idempotency-Key is still being carried out; try again later";
                return Err(ApiError::new(StatusCode::CONFLICT, ErrorCode::InvalidArgument, message));
            }
            Some(known) => known.in_flight = true,
            None => {
                make_room(&mut keys, &place.0, now)?;
                keys.insert(place.clone(), Known { fingerprint, since: now, in_flight: true });
            }
        }
        drop(keys);
        Ok(InFlight { keys: self.clone(), place, was_carried_out: AtomicBool::new(false) })
    }
}

/// Makes room for one more key of a principal.
fn make_room(keys: &mut HashMap<Place, Known>, principal: &Principal, now: Instant) -> Result<(), ApiError> {
    if keys.len() < KEYS_OF_ONE_MAX {
        return Ok(());
    }
    keys.retain(|_, known| known.in_flight || now.duration_since(known.since) < KEPT);
    let own = || keys.iter().filter(|((whose, _), _)| whose == principal).map(|(_, known)| known.since);
    if own().count() >= KEYS_OF_ONE_MAX {
        let message = format!("you have {KEYS_OF_ONE_MAX} idempotency keys; each is kept for 24 hours");
        let oldest = own().min().map_or(KEPT, |since| KEPT.saturating_sub(now.duration_since(since)));
        return Err(Failure::new(ErrorCode::RateLimited, message).retry_after(oldest).into());
    }
    if keys.len() >= KEYS_MAX {
        let idle = keys.iter().filter(|(_, known)| !known.in_flight).min_by_key(|(_, known)| known.since);
        let oldest = idle.map(|(place, _)| place.clone());
        oldest.map(|place| keys.remove(&place)).ok_or_else(|| ApiError::busy("too many requests are in flight"))?;
    }
    Ok(())
}

impl InFlight {
    /// What the key stands for is done.
    pub(super) fn carried_out(&self) {
        self.was_carried_out.store(true, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut keys = self.keys.0.lock();
        if !*self.was_carried_out.get_mut() {
            keys.remove(&self.place);
        } else if let Some(known) = keys.get_mut(&self.place) {
            known.in_flight = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(user: &str) -> Place {
        (Principal::os_user(user), "k".to_owned())
    }

    fn status(begun: Result<InFlight, ApiError>) -> Option<u16> {
        use axum::response::IntoResponse as _;
        begun.err().map(|error| error.into_response().status().as_u16())
    }

    #[test]
    fn a_key_stands_for_one_request_of_one_principal() {
        let (keys, now) = (Keys::default(), Instant::now());
        let first = keys.begin(place("ann"), [1; 32], now).unwrap();
        assert_eq!(status(keys.begin(place("ann"), [1; 32], now)), Some(409));
        assert_eq!(status(keys.begin(place("ann"), [2; 32], now)), Some(422));
        assert_eq!(status(keys.begin(place("bob"), [2; 32], now)), None);
        first.carried_out();
        drop(first);
        assert_eq!(status(keys.begin(place("ann"), [2; 32], now)), Some(422));
        assert_eq!(status(keys.begin(place("ann"), [2; 32], now + KEPT)), None);
    }

    #[test]
    fn a_request_that_failed_is_forgotten() {
        let (keys, now) = (Keys::default(), Instant::now());
        drop(keys.begin(place("ann"), [1; 32], now).unwrap());
        assert_eq!(status(keys.begin(place("ann"), [2; 32], now)), None);
        assert!(keys.0.lock().is_empty());
    }

    #[test]
    fn one_principal_leaves_room_for_others_and_the_refusal_says_when_the_oldest_key_is_forgotten() {
        let (keys, now) = (Keys::default(), Instant::now());
        let many = |user: &str, n: usize| (Principal::os_user(user), n.to_string());
        let second = Duration::from_secs(1);
        keys.begin(many("bob", 0), [1; 32], now).unwrap().carried_out();
        for n in 0..KEYS_OF_ONE_MAX {
            let since = if n == 7 { now + 3 * second } else { now + 5 * second };
            keys.begin(many("ann", n), [1; 32], since).unwrap().carried_out();
        }
        let one_more = |now: Instant| keys.begin(many("ann", KEYS_OF_ONE_MAX), [1; 32], now);
        let refused = one_more(now + 10 * second).unwrap_err();
        assert_eq!(refused.retry_after(), KEPT - 7 * second, "not when another's is");
        assert_eq!(status(Err(refused)), Some(429));
        assert_eq!(status(keys.begin(many("bob", 1), [1; 32], now)), None);
        assert_eq!(status(one_more(now + 3 * second + KEPT)), None, "whoever waits so long has a place");
    }

    #[test]
    fn a_key_is_read_with_and_without_its_quotation_marks() {
        let with = |value: &str| key(&HeaderMap::from_iter([(HEADER, value.parse().unwrap())]));
        assert_eq!(with("\"a-1\"").unwrap(), Some("a-1".to_owned()));
        assert_eq!(with("a-1").unwrap(), Some("a-1".to_owned()));
        for wrong in ["", "\"\"", "a b", &"k".repeat(129)] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }
}
