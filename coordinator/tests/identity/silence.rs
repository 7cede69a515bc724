//! Tokens are in no diagnostics and no record, whatever becomes of them.

use std::io::Write;
use std::sync::Arc;

use codegen_types::Principal;
use coordinator::identity::{NewToken, Scopes};
use jsonwebtoken::Header;
use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::issuer::{SigningKey, TestIssuer, now};

/// Everything that is logged.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Heard {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_token_is_logged_or_recorded_whatever_becomes_of_it() {
    let heard = Heard::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(heard.clone()).finish();
    let _listening = tracing::subscriber::set_default(subscriber);
    let (key, stranger) = (SigningKey::ed25519("e"), SigningKey::ed25519("e"));
    let issuer = TestIssuer::with(&[&key]).await;
    let trusting = issuer.trusting().await;
    let tokens = trusting.authenticator.tokens();
    let operator = Principal::os_user("op");
    let new = NewToken { principal: "ann".to_owned(), scopes: Scopes::USER, lifetime_seconds: None, note: None };
    let (revoked, text) = tokens.create(new.clone(), &operator).await.unwrap();
    let (_, good) = tokens.create(new, &operator).await.unwrap();
    tokens.revoke(&revoked.id, &operator).await.unwrap();
    let unknown = Header { kid: Some("unknown".to_owned()), ..key.header() };
    let sent = [
        text.expose().to_owned(),
        good.expose().to_owned(),
        format!("{}0", good.expose()),
        key.sign(&issuer.claims("alice")),
        key.sign(&issuer.claims_but("exp", json!(now() - 60))),
        key.sign(&issuer.claims_but("aud", json!("x"))),
        stranger.sign(&issuer.claims("alice")),
        jsonwebtoken::encode(&unknown, &issuer.claims("alice"), &key.key).unwrap(),
    ];
    let mut let_in = 0;
    for token in &sent {
        let_in += usize::from(trusting.ask(token).await.is_ok());
    }
    assert_eq!(let_in, 2);
    let logged = String::from_utf8_lossy(&heard.0.lock()).into_owned();
    assert!(logged.contains("hyper"), "what libraries say is heard, too");
    let records: String = trusting.audit.memory_records().iter().map(|record| record.line.clone()).collect();
    assert!(records.matches("authentication.refused").count() == 6, "{records}");
    for token in &sent {
        // Any part that could be used: the secret of a static token, payload and signature of another.
        for part in token.split(['.', '_']).filter(|part| part.len() > 30) {
            assert!(!logged.contains(part) && !records.contains(part), "{part}");
        }
    }
}
