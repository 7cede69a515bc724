//! An issuer's keys (RFC 7517): those that can check a signature here, each for one algorithm.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Keys that are looked at; an issuer has a handful.
const KEYS_MAX: usize = 64;
/// The shortest and the longest modulus of an RSA key, in bytes.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// The keys of an issuer.
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// One key as it is written.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set. A key of a kind that is not used here is passed over.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(text)?;
        let written = document.keys.into_iter().take(KEYS_MAX).filter_map(|key| serde_json::from_value(key).ok());
        Ok(Self(written.filter_map(Written::usable).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of this name for this algorithm; without a name, the only one for it.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).map(|key| &key.key),
            None => fitting.next().filter(|_| fitting.next().is_none()).map(|key| &key.key),
        }
    }
}

impl Written {
    fn usable(self) -> Option<Key> {
        let for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures || !verifies {
            return None;
        }
        let (algorithm, name, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, "RS256", rsa(self.n.as_deref()?, self.e.as_deref()?)?),
            ("EC", Some("P-256")) => {
                let (x, y) = (coordinate(self.x.as_deref()?)?, coordinate(self.y.as_deref()?)?);
                (Algorithm::ES256, "ES256", DecodingKey::from_ec_components(x, y).ok()?)
            }
            ("OKP", Some("Ed25519")) => {
                let key = DecodingKey::from_ed_components(coordinate(self.x.as_deref()?)?).ok()?;
                (Algorithm::EdDSA, "EdDSA", key)
            }
            _ => return None,
        };
        // RFC 9864 has a second name for the last one.
        let named = |alg: &str| alg == name || (alg == "Ed25519" && name == "EdDSA");
        self.alg.as_deref().is_none_or(named).then_some(Key { id: self.kid, algorithm, key })
    }
}

fn rsa(modulus: &str, exponent: &str) -> Option<DecodingKey> {
    let (n, e) = (URL_SAFE_NO_PAD.decode(modulus).ok()?, URL_SAFE_NO_PAD.decode(exponent).ok()?);
    // An exponent of more than four bytes only makes each check slower.
    let fits = MODULUS_BYTES.contains(&n.len()) && (1..=4).contains(&e.len());
    fits.then(|| DecodingKey::from_rsa_raw_components(&n, &e))
}

/// A number of 32 bytes.
fn coordinate(text: &str) -> Option<&str> {
    URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == 32).map(|_| text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xc5; bytes])
    }

    fn set(keys: Value) -> KeySet {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_key_serves_one_algorithm_under_its_name() {
        let keys = set(json!([
            {"kty": "RSA", "kid": "a", "n": number(256), "e": "AQAB", "use": "sig", "alg": "RS256"},
            {"kty": "EC", "kid": "a", "crv": "P-256", "x": number(32), "y": number(32)},
            {"kty": "OKP", "kid": "b", "crv": "Ed25519", "x": number(32), "key_ops": ["verify"]},
            {"kty": "EC", "crv": "P-256", "x": number(32), "y": number(32)},
            {"kty": "unheard of", "kid": 7},
        ]));
        assert_eq!(keys.0.len(), 4);
        assert!(keys.find(Some("a"), Algorithm::RS256).is_some() && keys.find(Some("a"), Algorithm::ES256).is_some());
        assert!(keys.find(Some("a"), Algorithm::EdDSA).is_none() && keys.find(Some("c"), Algorithm::RS256).is_none());
        assert!(keys.find(None, Algorithm::RS256).is_some() && keys.find(None, Algorithm::EdDSA).is_some());
        assert!(keys.find(None, Algorithm::ES256).is_none(), "there are two");
        assert!(keys.find(Some("a"), Algorithm::HS256).is_none());
    }

    #[test]
    fn keys_for_other_ends_and_weak_ones_are_passed_over() {
        let unusable = json!([
            {"kty": "RSA", "n": number(255), "e": "AQAB"},
            {"kty": "RSA", "n": number(513), "e": "AQAB"},
            {"kty": "RSA", "n": number(256), "e": number(5)},
            {"kty": "RSA", "n": number(256), "e": "AQAB", "use": "enc"},
            {"kty": "RSA", "n": number(256), "e": "AQAB", "alg": "PS256"},
            {"kty": "RSA", "n": number(256), "e": "AQAB", "key_ops": ["encrypt"]},
            {"kty": "oct", "k": number(32)},
            {"kty": "EC", "crv": "P-384", "x": number(48), "y": number(48)},
            {"kty": "EC", "crv": "P-256", "x": number(31), "y": number(32)},
            {"kty": "OKP", "crv": "X25519", "x": number(32)},
        ]);
        assert!(set(unusable).is_empty());
        assert!(KeySet::parse(b"{}").is_err() && KeySet::parse(b"<html>").is_err());
    }
}
