//! Whose tokens are let in over HTTP.

use axum::http::Uri;

use super::layers::{ConfigError, Layers, Source};
use super::settings;
use super::values::Why;
use crate::identity::{Endpoint, IssuerConfig};

/// The longest audience, in bytes.
const AUDIENCE_BYTES_MAX: usize = 512;

/// The issuer, if there is one. An issuer needs an audience: without one, a token for any of its other services would
/// open this one.
pub(super) fn read(layers: &mut Layers) -> Result<Option<IssuerConfig>, ConfigError> {
    let issuer = layers.get(&settings::OAUTH_ISSUER, issuer)?;
    let audience = layers.get(&settings::OAUTH_AUDIENCE, audience)?;
    let jwks_url = layers.get(&settings::OAUTH_JWKS_URL, endpoint)?;
    let principal_claim = layers.require(&settings::OAUTH_PRINCIPAL_CLAIM, claim)?;
    match (issuer, audience) {
        (None, None) if jwks_url.is_none() => Ok(None),
        (Some(issuer), Some(audience)) => Ok(Some(IssuerConfig { issuer, audience, jwks_url, principal_claim })),
        (None, _) => Err(missing(&settings::OAUTH_ISSUER, "what is said of its tokens means nothing without it")),
        (Some(_), None) => {
            Err(missing(&settings::OAUTH_AUDIENCE, "tokens for any other service of the issuer would be let in"))
        }
    }
}

fn missing(key: &super::Key, why: &str) -> ConfigError {
    ConfigError::NotAllowed {
        name: key.name.to_owned(),
        value: String::new(),
        source_of_value: Source::Default,
        why: why.to_owned(),
        allowed: key.allowed.to_owned(),
    }
}

fn endpoint(text: &str) -> Result<Endpoint, Why> {
    text.parse::<Endpoint>().map_err(|error| error.to_string())
}

/// An issuer has no query (RFC 8414 §2).
fn issuer(text: &str) -> Result<Endpoint, Why> {
    if text.contains('?') { Err("an issuer has no query".to_owned()) } else { endpoint(text) }
}

fn audience(text: &str) -> Result<String, Why> {
    let fits = text.len() <= AUDIENCE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    let uri = text.parse::<Uri>().ok();
    let is_url = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    // Clients ask the issuer for a token for this URL (RFC 8707), and find it in the metadata (RFC 9728).
    if fits && is_url && !text.contains('#') {
        Ok(text.to_owned())
    } else {
        Err("an audience is the http or https URL of this server".to_owned())
    }
}

fn claim(text: &str) -> Result<String, Why> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
    if fits { Ok(text.to_owned()) } else { Err("no name of a claim".to_owned()) }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment, Flags};

    fn load(more: &[(&str, &str)]) -> Result<Config, String> {
        let home = [("HOME", "/nowhere")];
        let environment = Environment::from_pairs(home.iter().chain(more).copied());
        Config::load(&Flags::default(), &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn an_issuer_needs_an_audience_and_the_audience_an_issuer() {
        assert_eq!(load(&[]).unwrap().oauth, None);
        let (issuer, audience) =
            (("OAUTH_ISSUER", "https://id.example/"), ("OAUTH_AUDIENCE", "https://code.example/mcp"));
        let both = load(&[issuer, audience]).unwrap().oauth.unwrap();
        assert_eq!((both.issuer.as_str(), both.principal_claim.as_str()), ("https://id.example/", "sub"));
        for no_url in ["api-7", "code.example/mcp", "https://", "https://code.example/#a", "urn:code"] {
            let said = load(&[issuer, ("OAUTH_AUDIENCE", no_url)]).unwrap_err();
            assert!(said.contains("URL"), "{said}");
        }
        assert!(load(&[issuer]).unwrap_err().contains("oauth_audience"));
        assert!(load(&[audience]).unwrap_err().contains("oauth_issuer"));
        assert!(load(&[("OAUTH_JWKS_URL", "https://id.example/keys")]).unwrap_err().contains("oauth_issuer"));
    }

    #[test]
    fn what_could_be_changed_on_the_way_is_refused() {
        let audience = ("OAUTH_AUDIENCE", "a");
        for bad in ["http://id.example", "id.example", "https://id.example?tenant=1"] {
            assert!(load(&[("OAUTH_ISSUER", bad), audience]).unwrap_err().contains("OAUTH_ISSUER"), "{bad}");
        }
        let issuer = ("OAUTH_ISSUER", "https://id.example");
        assert!(load(&[issuer, ("OAUTH_AUDIENCE", "a \"b\"")]).is_err());
        assert!(load(&[issuer, audience, ("OAUTH_JWKS_URL", "http://id.example/keys")]).is_err());
        assert!(load(&[issuer, audience, ("OAUTH_PRINCIPAL_CLAIM", "a b")]).is_err());
    }
}
