//! Asking an issuer where its keys are and what they are, within bounds of time and size.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::endpoint::{Endpoint, InvalidEndpoint};
use super::keys::KeySet;

/// How long one request may take, from connecting to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// There are no certificates by which a server could be known.
#[derive(Debug, thiserror::Error)]
#[error(
    "this machine has no certificates of authorities by which an issuer could be known; SSL_CERT_FILE may name some"
)]
pub struct NoTrustedRoots(#[source] std::io::Error);

/// Why the keys are not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("`{url}` could not be asked")]
    Unreachable { url: String, source: hyper_util::client::legacy::Error },
    #[error("`{url}` did not answer in {} seconds", PATIENCE.as_secs())]
    TooSlow { url: String },
    #[error("`{url}` answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("the answer of `{url}` broke off or is longer than {ANSWER_BYTES_MAX} bytes: {why}")]
    Body { url: String, why: String },
    #[error("the answer of `{url}` is not what it should be")]
    NotJson { url: String, source: serde_json::Error },
    #[error("the metadata at `{url}` are of another issuer")]
    OtherIssuer { url: String },
    #[error("the metadata at `{url}` name no place for keys that can be trusted")]
    KeysElsewhere { url: String, source: InvalidEndpoint },
    #[error("`{url}` has no key that can be used")]
    NoKeys { url: String },
}

/// What is read of an issuer's metadata (RFC 8414 §2).
#[derive(Deserialize)]
struct IssuerMetadata {
    issuer: String,
    jwks_uri: String,
}

/// Asks issuers. Follows no redirection.
#[derive(Clone)]
pub(super) struct Fetcher(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Fetcher {
    pub(super) fn new() -> Result<Self, NoTrustedRoots> {
        let provider = rustls::crypto::ring::default_provider();
        let trusting = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(NoTrustedRoots)?;
        let connector = trusting.https_or_http().enable_http1().build();
        // Keys are asked for so rarely that no connection is kept.
        Ok(Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)))
    }

    /// The keys of an issuer.
    pub(super) async fn keys(&self, issuer: &Endpoint, jwks_url: Option<&Endpoint>) -> Result<KeySet, FetchError> {
        let discovered;
        let url = match jwks_url {
            Some(url) => url,
            None => {
                discovered = self.discover(issuer).await?;
                &discovered
            }
        };
        let keys = KeySet::parse(&self.get(url).await?)
            .map_err(|source| FetchError::NotJson { url: url.to_string(), source })?;
        if keys.is_empty() { Err(FetchError::NoKeys { url: url.to_string() }) } else { Ok(keys) }
    }

    /// Where the issuer's metadata say that its keys are. The places are those of RFC 8414 and of OpenID Connect.
    async fn discover(&self, issuer: &Endpoint) -> Result<Endpoint, FetchError> {
        let (base, path) = issuer.parts();
        let mut places = vec![
            format!("{base}/.well-known/oauth-authorization-server{path}"),
            format!("{base}/.well-known/openid-configuration{path}"),
            format!("{base}{path}/.well-known/openid-configuration"),
        ];
        places.dedup();
        let mut last = None;
        for place in places {
            let place: Endpoint = place.parse().expect("as good as the issuer's own address");
            match self.metadata(issuer, &place).await {
                // An issuer has its metadata at one of these places, and anything at the others.
                Err(error @ (FetchError::Status { .. } | FetchError::NotJson { .. })) => last = Some(error),
                found => return found,
            }
        }
        Err(last.expect("there is at least one place"))
    }

    async fn metadata(&self, issuer: &Endpoint, place: &Endpoint) -> Result<Endpoint, FetchError> {
        let url = || place.to_string();
        let text = self.get(place).await?;
        let metadata: IssuerMetadata =
            serde_json::from_slice(&text).map_err(|source| FetchError::NotJson { url: url(), source })?;
        if metadata.issuer != issuer.as_str() {
            return Err(FetchError::OtherIssuer { url: url() });
        }
        metadata.jwks_uri.parse().map_err(|source| FetchError::KeysElsewhere { url: url(), source })
    }

    async fn get(&self, place: &Endpoint) -> Result<Bytes, FetchError> {
        let asked = tokio::time::timeout(PATIENCE, self.get_patiently(place)).await;
        asked.unwrap_or_else(|_| Err(FetchError::TooSlow { url: place.to_string() }))
    }

    async fn get_patiently(&self, place: &Endpoint) -> Result<Bytes, FetchError> {
        let url = || place.to_string();
        let request = Request::get(place.uri().clone()).header(header::ACCEPT, "application/json").body(Empty::new());
        let request = request.expect("an address and one header make a request");
        let answer = self.0.request(request).await.map_err(|source| FetchError::Unreachable { url: url(), source })?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status { url: url(), status: answer.status() });
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|why| FetchError::Body { url: url(), why: why.to_string() })?.to_bytes())
    }
}
