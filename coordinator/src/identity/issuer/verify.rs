//! Whether a token is good, given the key that it names. Decides; asks nobody.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::endpoint::Endpoint;
use super::{IssuerConfig, Refused, principal};
use crate::identity::authenticator::Identity;
use crate::identity::{Scopes, Unauthenticated, Validity};

/// What tokens may be signed with. No secret that both sides know is among them, and never none.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// How far clocks may be apart, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// What a token must say.
pub(super) struct Expected {
    issuer: Endpoint,
    audience: String,
    principal_claim: String,
}

/// What a token says, beside what the library checks.
#[derive(Deserialize)]
struct Claims {
    /// A text; the library would let a list pass.
    #[expect(dead_code, reason = "that it can be read is what is needed")]
    iss: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What a token says of its signature, before anything of it is believed.
pub(super) fn header(token: &str) -> Result<Header, Refused> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::invalid("form"))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(Refused::invalid("algorithm"));
    }
    // What a token calls critical must be understood (RFC 7515 §4.1.11), and nothing is.
    if header.crit.is_some() {
        return Err(Refused::invalid("critical header"));
    }
    let kinds = ["jwt", "at+jwt", "application/at+jwt"];
    let of_kind = |kind: &String| kinds.iter().any(|known| kind.eq_ignore_ascii_case(known));
    if header.typ.as_ref().is_none_or(of_kind) { Ok(header) } else { Err(Refused::invalid("type")) }
}

impl Expected {
    pub(super) fn of(config: &IssuerConfig) -> Self {
        let IssuerConfig { issuer, audience, principal_claim, .. } = config.clone();
        Self { issuer, audience, principal_claim }
    }

    /// Who a token speaks for, if it is good.
    pub(super) fn identity(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Identity, Refused> {
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation(algorithm));
        let claims = claims.map_err(|error| refused(error.kind()))?.claims.rest;
        let user = claims.get(&self.principal_claim).and_then(Value::as_str).filter(|user| !user.is_empty());
        let principal = user.and_then(|user| principal(&self.issuer, user)).ok_or(Refused::invalid("principal"))?;
        let validity = Validity { expires_ms: expires_ms(&claims), revoked: None };
        Ok(Identity { principal, scopes: scopes(&claims), validity })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[self.issuer.as_str()]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        validation
    }
}

/// When a token is let in no more, in milliseconds since 1970.
fn expires_ms(claims: &Map<String, Value>) -> Option<i64> {
    let seconds = claims.get("exp").and_then(Value::as_f64)?;
    #[expect(clippy::cast_possible_truncation, reason = "a time beyond what can be counted is the last that can")]
    Some(((seconds + LEEWAY_SECONDS as f64) * 1_000.0) as i64)
}

/// The scopes of ours: from `scope`, a text (RFC 8693 §4.2), and from `scp`, a text or a list.
fn scopes(claims: &Map<String, Value>) -> Scopes {
    let said = ["scope", "scp"].into_iter().filter_map(|name| claims.get(name));
    let words = said.flat_map(|said| match said {
        Value::String(text) => text.split(' ').collect::<Vec<_>>(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    });
    Scopes::of_issuer(words)
}

fn refused(kind: &ErrorKind) -> Refused {
    match kind {
        ErrorKind::ExpiredSignature => Refused { why: Unauthenticated::Expired, about: "exp" },
        ErrorKind::InvalidAudience => Refused { why: Unauthenticated::WrongAudience, about: "aud" },
        ErrorKind::ImmatureSignature => Refused::invalid("nbf"),
        ErrorKind::InvalidIssuer => Refused::invalid("iss"),
        ErrorKind::InvalidSignature => Refused::invalid("signature"),
        ErrorKind::MissingRequiredClaim(_) => Refused::invalid("a claim that is missing"),
        _ => Refused::invalid("form"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::Scope;

    #[test]
    fn scopes_come_from_a_text_or_a_list() {
        let of = |claims: Value| scopes(claims.as_object().unwrap());
        assert_eq!(of(json!({"scope": "openid codegen:tools codegen:sessions"})), Scopes::USER);
        assert_eq!(of(json!({"scp": ["codegen:tools", 7, "email"]})), Scope::Tools.into());
        assert_eq!(of(json!({"scp": "codegen:admin"})), Scope::Admin.into());
        assert_eq!(of(json!({"scope": ["tools"], "scp": {"a": 1}, "roles": ["codegen:admin"]})), Scopes::NONE);
        assert_eq!(of(json!({})), Scopes::NONE);
    }
}
