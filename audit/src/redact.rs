//! Arguments as the log keeps them: what is long or looks like a secret becomes a length and a digest.

use codegen_types::Principal;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::escape;
use crate::hash::hex;

/// Strings up to so many bytes are kept as they are.
pub const TEXT_BYTES_MAX: usize = 256;
/// Paths up to so many bytes are kept as they are.
pub const PATH_BYTES_MAX: usize = 4_096;
const KEY_BYTES_MAX: usize = 128;
const DEPTH_MAX: usize = 32;
const SECRET_WORDS: [&str; 14] = [
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "env",
    "key",
    "keys",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "secrets",
    "stdin",
    "token",
];

/// Shortens values. Short secrets go through a keyed digest, since a plain one could be guessed from a word list.
pub(crate) struct Redactor {
    key: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sensitivity {
    Plain,
    Secret,
}

impl Redactor {
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The value with every long or secret-looking leaf replaced.
    pub(crate) fn value(&self, value: &Value) -> Value {
        self.shorten(value, Sensitivity::Plain, 0, None)
    }

    fn shorten(&self, value: &Value, sensitivity: Sensitivity, depth: usize, within: Option<&str>) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Number(number) if sensitivity == Sensitivity::Secret => self.secret(&number.to_string()),
            Value::Number(_) => value.clone(),
            Value::String(text) if sensitivity == Sensitivity::Secret => self.secret(text),
            Value::String(text) if text.len() > TEXT_BYTES_MAX => digest_of(text),
            Value::String(_) => value.clone(),
            Value::Array(_) | Value::Object(_) if depth >= DEPTH_MAX => digest_of(&escape::to_json(value)),
            Value::Array(items) => items.iter().map(|item| self.shorten(item, sensitivity, depth + 1, None)).collect(),
            Value::Object(fields) => self.object(fields, sensitivity, depth, within),
        }
    }

    fn object(&self, fields: &Map<String, Value>, outer: Sensitivity, depth: usize, within: Option<&str>) -> Value {
        let shortened = fields.iter().map(|(name, value)| {
            let inner = if looks_secret(name, within) { Sensitivity::Secret } else { outer };
            (clip(name, KEY_BYTES_MAX), self.shorten(value, inner, depth + 1, (depth == 0).then_some(name)))
        });
        Value::Object(shortened.collect())
    }

    fn secret(&self, text: &str) -> Value {
        if text.len() > TEXT_BYTES_MAX {
            return digest_of(text);
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        json!({ "len": text.len(), "hmac_sha256": hex(&mac.finalize().into_bytes()) })
    }
}

/// A text as its length in bytes and its SHA-256.
pub(crate) fn digest_of(text: &str) -> Value {
    json!({ "len": text.len(), "sha256": hex(&Sha256::digest(text)) })
}

/// The text when it is short enough, else its beginning and its SHA-256.
pub(crate) fn clip(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let kept = &text[..text.floor_char_boundary(bytes_max / 2)];
    format!("{kept}… ({} bytes, sha256 {})", text.len(), hex(&Sha256::digest(text)))
}

pub(crate) fn clip_principal(principal: &Principal) -> String {
    clip(principal.as_str(), TEXT_BYTES_MAX)
}

/// Whether one of the words of a field's name says that its value is nobody's business. `within` is the argument that the field
/// is directly in, if it is in one.
pub fn looks_secret(name: &str, within: Option<&str>) -> bool {
    // Neither holds a secret: a client's own name for a call, and the operator's names of the secrets a session may use.
    if name == "idempotency_key" || (within, name) == (Some("network"), "secrets") {
        return false;
    }
    let mut word = String::new();
    let mut after_lower_case = false;
    for c in name.chars() {
        let begins_word = !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && after_lower_case);
        if begins_word && is_secret_word(&word) {
            return true;
        }
        if begins_word {
            word.clear();
        }
        if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_lowercase());
        }
        after_lower_case = c.is_ascii_lowercase();
    }
    is_secret_word(&word)
}

fn is_secret_word(word: &str) -> bool {
    SECRET_WORDS.contains(&word)
        || ["token", "tokens", "password", "secret", "apikey"].iter().any(|end| word.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_long_values_never_reach_the_log() {
        let code = "x".repeat(257);
        let args = json!({
            "code": code, "path": "a.py", "env": {"HOME": "/root", "N": 7}, "stdin": "hunter2", "Authorization": "Bearer abc",
            "apiKey": ["k1", {"inner": "k2"}], "metadata": {"network": {"secrets": ["k3"]}, "secrets": ["k4"]},
            "network": {"allow": ["example.org:443"], "secrets": ["deploy"], "token": "k5"}, "GITHUB_TOKEN": "ghp", "monkey": "banana", "idempotency_key": "retry-1",
        });
        let kept = Redactor::new([7; 32]).value(&args);
        let text = kept.to_string();
        for secret in ["xxx", "/root", "hunter2", "Bearer", "k1", "k2", "k3", "k4", "k5", "ghp", "\"N\":7"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert_eq!(kept["code"]["len"], 257);
        assert_eq!(kept["stdin"]["len"], 7);
        assert_eq!(kept["monkey"], "banana");
        assert_eq!(kept["path"], "a.py");
        assert_eq!(kept["idempotency_key"], "retry-1");
        assert_eq!(kept["network"]["secrets"], json!(["deploy"]), "names of secrets are none");
    }

    #[test]
    fn a_short_secret_cannot_be_found_by_hashing_guesses() {
        let guess = hex(&Sha256::digest("hunter2"));
        let kept = Redactor::new([7; 32]).value(&json!({"password": "hunter2"}));
        assert!(!kept.to_string().contains(&guess));
        assert_ne!(kept, Redactor::new([8; 32]).value(&json!({"password": "hunter2"})));
    }

    #[test]
    fn deep_values_are_bounded() {
        let mut deep = json!("end");
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert!(Redactor::new([0; 32]).value(&deep).to_string().len() < 200);
    }
}
