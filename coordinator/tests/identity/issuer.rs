//! An issuer on a free port, with keys of its own for each algorithm, and an authenticator that trusts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use codegen_audit::Audit;
use coordinator::identity::{Authenticator, Identity, Issuer, IssuerConfig, Requirement, Tokens, Unauthenticated};
use coordinator::store::Memory;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub const AUDIENCE: &str = "https://code.example/mcp";

/// How an issuer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Well,
    /// Not at all, until the client gives up.
    Never,
    /// Once it is let go on.
    WhenLet,
    /// With a status that says that it cannot.
    Unavailable,
    /// By sending the client elsewhere.
    Redirecting,
    /// With more than anybody should read.
    Endlessly,
    /// With metadata of somebody else.
    OfAnother,
    /// With metadata that name keys on another machine, without TLS.
    KeysElsewhere,
}

/// A key with its public half as the issuer publishes it.
#[derive(Clone)]
pub struct SigningKey {
    pub id: String,
    pub algorithm: Algorithm,
    pub key: EncodingKey,
    pub jwk: Value,
}

pub struct Place {
    url: String,
    manner: Mutex<Manner>,
    jwks: Mutex<Vec<Value>>,
    asked: AtomicUsize,
    go: Notify,
}

/// The issuer, serving until the test's runtime ends.
pub struct TestIssuer(pub Arc<Place>);

impl SigningKey {
    pub fn ed25519(id: &str) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        let der = key.to_pkcs8_der().unwrap();
        Self {
            id: id.to_owned(),
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(der.as_bytes()),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig", "alg": "EdDSA", "x": x}),
        }
    }

    pub fn p256(id: &str) -> Self {
        let key = p256::ecdsa::SigningKey::random(&mut rsa::rand_core::OsRng);
        let point = key.verifying_key().to_encoded_point(false);
        let (x, y) = (URL_SAFE_NO_PAD.encode(point.x().unwrap()), URL_SAFE_NO_PAD.encode(point.y().unwrap()));
        let der = key.to_pkcs8_der().unwrap();
        Self {
            id: id.to_owned(),
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(der.as_bytes()),
            jwk: json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": x, "y": y}),
        }
    }

    pub fn rsa(id: &str) -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
        let (n, e) = (URL_SAFE_NO_PAD.encode(key.n().to_bytes_be()), URL_SAFE_NO_PAD.encode(key.e().to_bytes_be()));
        let der = key.to_pkcs1_der().unwrap();
        Self {
            id: id.to_owned(),
            algorithm: Algorithm::RS256,
            key: EncodingKey::from_rsa_der(der.as_bytes()),
            jwk: json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": n, "e": e}),
        }
    }

    pub fn header(&self) -> Header {
        Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) }
    }

    pub fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&self.header(), claims, &self.key).unwrap()
    }
}

impl TestIssuer {
    /// An issuer with these keys.
    pub async fn with(keys: &[&SigningKey]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let jwks = Mutex::new(keys.iter().map(|key| key.jwk.clone()).collect());
        let place = Arc::new(Place {
            url,
            manner: Mutex::new(Manner::Well),
            jwks,
            asked: AtomicUsize::new(0),
            go: Notify::new(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(published))
            .fallback(|| async { StatusCode::NOT_FOUND })
            .with_state(Arc::clone(&place));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self(place)
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    pub fn behave(&self, manner: Manner) {
        *self.0.manner.lock() = manner;
    }

    /// Lets one answer go that was held back.
    pub fn let_go(&self) {
        self.0.go.notify_one();
    }

    pub fn publish(&self, keys: &[&SigningKey]) {
        *self.0.jwks.lock() = keys.iter().map(|key| key.jwk.clone()).collect();
    }

    /// How often the keys were asked for.
    pub fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// The claims of a good token.
    pub fn claims(&self, user: &str) -> Value {
        json!({
            "iss": self.url(), "aud": AUDIENCE, "sub": user, "exp": now() + 300, "nbf": now() - 10,
            "scope": "openid codegen:tools codegen:sessions",
        })
    }

    /// The claims of a good token, but for this one.
    pub fn claims_but(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims("alice");
        claims[name] = value;
        claims
    }

    pub fn config(&self) -> IssuerConfig {
        let (audience, principal_claim) = (AUDIENCE.to_owned(), "sub".to_owned());
        IssuerConfig { issuer: self.url().parse().unwrap(), audience, jwks_url: None, principal_claim }
    }

    pub async fn trusting(&self) -> Trusting {
        Trusting::new(self.config()).await
    }
}

/// An authenticator that trusts an issuer.
pub struct Trusting {
    pub authenticator: Authenticator,
    pub audit: Audit,
}

impl Trusting {
    pub async fn new(config: IssuerConfig) -> Self {
        let audit = Audit::in_memory();
        let tokens = Tokens::load(Arc::new(Memory::default()), audit.clone()).await.unwrap();
        let issuer = Issuer::new(config).unwrap();
        let authenticator = Authenticator::new(tokens, Some(issuer), Requirement::Auto, audit.clone());
        Self { authenticator, audit }
    }

    pub async fn ask(&self, token: &str) -> Result<Identity, Unauthenticated> {
        self.authenticator.authenticate(Some(token)).await
    }

    /// What was wrong with the token that was refused last, in the record of it.
    pub fn last_refusal(&self) -> String {
        let records = self.audit.memory_records();
        let detail = records.last().unwrap().detail.clone().unwrap();
        detail["about"].as_str().unwrap().to_owned()
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn metadata(State(place): State<Arc<Place>>) -> Response {
    let url = &place.url;
    let document = |issuer: &str, keys: &str| axum::Json(json!({"issuer": issuer, "jwks_uri": keys})).into_response();
    let manner = *place.manner.lock();
    match manner {
        Manner::OfAnother => document("https://other.example", &format!("{url}/keys")),
        Manner::KeysElsewhere => document(url, "http://192.0.2.1/keys"),
        _ => document(url, &format!("{url}/keys")),
    }
}

async fn published(State(place): State<Arc<Place>>) -> Response {
    place.asked.fetch_add(1, Ordering::SeqCst);
    let manner = *place.manner.lock();
    if manner == Manner::WhenLet {
        place.go.notified().await;
    }
    match manner {
        Manner::Never => std::future::pending().await,
        Manner::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Manner::Redirecting => Redirect::temporary("/.well-known/openid-configuration").into_response(),
        Manner::Endlessly => {
            let padding = "x".repeat(1 << 20);
            axum::Json(json!({"padding": padding, "keys": *place.jwks.lock()})).into_response()
        }
        Manner::Well | Manner::WhenLet | Manner::OfAnother | Manner::KeysElsewhere => {
            axum::Json(json!({"keys": *place.jwks.lock()})).into_response()
        }
    }
}
