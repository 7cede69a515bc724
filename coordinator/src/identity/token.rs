//! The text of a static token, and what is kept of it.
//!
//! `cgm_` ID `_` SECRET CHECK, all lower-case hexadecimal: 12 digits name the token, 64 are its 256 secret bits, and the
//! last 8 are a CRC-32 of what stands before, by which a scanner for leaked secrets tells a token from noise.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every token begins with.
pub const PREFIX: &str = "cgm_";

const ID_DIGITS: usize = 12;
const SECRET_DIGITS: usize = 64;
const CHECK_DIGITS: usize = 8;

/// A token's name, which is no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

impl TokenId {
    /// A new one.
    pub fn mint() -> Self {
        Self(random_hex(ID_DIGITS))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no token's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token's id has {ID_DIGITS} hexadecimal digits, as `tokens ls` shows it")]
pub struct InvalidTokenId;

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(text: &str) -> Result<Self, InvalidTokenId> {
        if is_hex(text, ID_DIGITS) { Ok(Self(text.to_owned())) } else { Err(InvalidTokenId) }
    }
}

impl TryFrom<String> for TokenId {
    type Error = InvalidTokenId;

    fn try_from(text: String) -> Result<Self, InvalidTokenId> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

/// The text of a token, shown once to whoever made it. Prints as nothing that could be used.
pub struct TokenText(String);

impl TokenText {
    /// A new secret for this id.
    pub(super) fn mint(id: &TokenId) -> Self {
        let body = format!("{PREFIX}{id}_{}", random_hex(SECRET_DIGITS));
        let check = crc32fast::hash(body.as_bytes());
        Self(format!("{body}{check:08x}"))
    }

    /// The text itself, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

/// What is kept of a token: enough to know it again, not enough to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub [u8; 32]);

impl TokenDigest {
    /// The digest of a token's whole text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether this is the text; takes as long for any text of that length.
    pub fn matches(&self, text: &str) -> bool {
        self.0.ct_eq(&Self::of(text).0).into()
    }
}

/// Whether credentials are meant to be a static token, whole or not.
pub(crate) fn is_static(credentials: &str) -> bool {
    credentials.starts_with(PREFIX)
}

/// The id in a token's text, when the text is whole.
pub(super) fn id_in(text: &str) -> Option<TokenId> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    if !is_hex(secret, SECRET_DIGITS + CHECK_DIGITS) {
        return None;
    }
    let (body, check) = text.split_at(text.len() - CHECK_DIGITS);
    if u32::from_str_radix(check, 16) != Ok(crc32fast::hash(body.as_bytes())) {
        return None;
    }
    id.parse().ok()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// So many random digits; `digits` is even.
fn random_hex(digits: usize) -> String {
    let mut bits = vec![0; digits / 2];
    getrandom::fill(&mut bits).expect("the operating system has a random source");
    bits.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_form_and_any_change_to_it_is_seen() {
        let id = TokenId::mint();
        let text = TokenText::mint(&id);
        let text = text.expose();
        let form = regex::Regex::new("^cgm_[0-9a-f]{12}_[0-9a-f]{72}$").unwrap();
        assert!(form.is_match(text), "{text}");
        assert_eq!(id_in(text), Some(id));
        for at in 0..text.len() {
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(id_in(&changed), None, "{changed}");
        }
        for bad in ["", "cgm_", &text[..text.len() - 1], &text.to_uppercase(), &format!("{text}0"), "cgm_é_é"] {
            assert_eq!(id_in(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_digest_matches_its_text_alone_and_nothing_prints_the_text() {
        let id = TokenId::mint();
        let (one, other) = (TokenText::mint(&id), TokenText::mint(&id));
        let digest = TokenDigest::of(one.expose());
        assert!(digest.matches(one.expose()) && !digest.matches(other.expose()));
        assert_eq!(format!("{one:?}"), "TokenText(…)");
    }
}
