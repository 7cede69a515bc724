//! Which tokens are let in, and which are not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coordinator::identity::{Identity, IssuerConfig, Scopes, Unauthenticated};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::issuer::{AUDIENCE, SigningKey, TestIssuer, Trusting, now};

#[tokio::test]
async fn a_token_under_each_permitted_algorithm_speaks_for_its_user() {
    let keys = [SigningKey::rsa("r"), SigningKey::p256("p"), SigningKey::ed25519("e")];
    let issuer = TestIssuer::with(&keys.each_ref()).await;
    let trusting = issuer.trusting().await;
    let place = issuer.url().trim_start_matches("http://");
    for key in &keys {
        let principal = format!("oidc:{place}/alice").parse().unwrap();
        let expected = Identity::new(principal, Scopes::USER);
        assert_eq!(trusting.ask(&key.sign(&issuer.claims("alice"))).await, Ok(expected), "{:?}", key.algorithm);
        let other = trusting.ask(&key.sign(&issuer.claims("bob"))).await.unwrap();
        assert!(other.principal.as_str().ends_with("/bob"));
    }
    assert_eq!(issuer.asked(), 1, "the keys are fetched once");
}

#[tokio::test]
async fn times_audience_and_issuer_are_checked() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    let trusting = issuer.trusting().await;
    let wrong = [
        ("exp", json!(now() - 60), Unauthenticated::Expired, "exp"),
        ("exp", Value::Null, Unauthenticated::Invalid, "a claim that is missing"),
        ("exp", json!("never"), Unauthenticated::Invalid, "a claim that is missing"),
        ("nbf", json!(now() + 60), Unauthenticated::Invalid, "nbf"),
        ("aud", json!("https://other.example"), Unauthenticated::WrongAudience, "aud"),
        ("aud", json!(format!("{AUDIENCE}/more")), Unauthenticated::WrongAudience, "aud"),
        ("aud", json!([]), Unauthenticated::WrongAudience, "aud"),
        ("aud", Value::Null, Unauthenticated::Invalid, "a claim that is missing"),
        ("iss", json!("https://other.example"), Unauthenticated::Invalid, "iss"),
        ("iss", json!(format!("{}/", issuer.url())), Unauthenticated::Invalid, "iss"),
        ("iss", json!([issuer.url()]), Unauthenticated::Invalid, "form"),
        ("sub", Value::Null, Unauthenticated::Invalid, "principal"),
        ("sub", json!(""), Unauthenticated::Invalid, "principal"),
    ];
    // The log takes ten refusals in ten seconds, so that the reasons are looked at one authenticator at a time.
    for (name, value, why, about) in &wrong {
        let trusting = issuer.trusting().await;
        let token = key.sign(&issuer.claims_but(name, value.clone()));
        assert_eq!(trusting.ask(&token).await, Err(*why), "{name} = {value}");
        assert_eq!(trusting.last_refusal(), *about, "{name} = {value}");
    }
    for (name, value) in [("exp", json!(now() - 5)), ("nbf", json!(now() + 5)), ("aud", json!(["x", AUDIENCE]))] {
        let token = key.sign(&issuer.claims_but(name, value.clone()));
        assert!(trusting.ask(&token).await.is_ok(), "{name} = {value}: clocks differ, and a token may be for several");
    }
}

#[tokio::test]
async fn no_token_is_let_in_unsigned_or_signed_with_what_everybody_knows() {
    let (rsa, ed) = (SigningKey::rsa("r"), SigningKey::ed25519("e"));
    let issuer = TestIssuer::with(&[&rsa, &ed]).await;
    let trusting = issuer.trusting().await;
    let claims = issuer.claims("alice");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for none in ["none", "None", "NONE", ""] {
        let unsigned = format!("{}.{}.", part(&json!({"alg": none, "typ": "JWT", "kid": "r"})), part(&claims));
        assert_eq!(trusting.ask(&unsigned).await, Err(Unauthenticated::Invalid), "{none}");
    }
    let public = [
        rsa.jwk.to_string().into_bytes(),
        rsa.jwk["n"].as_str().unwrap().as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(rsa.jwk["n"].as_str().unwrap()).unwrap(),
        URL_SAFE_NO_PAD.decode(ed.jwk["x"].as_str().unwrap()).unwrap(),
    ];
    for (kid, secret) in ["r", "r", "r", "e"].into_iter().zip(public) {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        let trusting = issuer.trusting().await;
        assert_eq!(trusting.ask(&token).await, Err(Unauthenticated::Invalid));
        assert_eq!(trusting.last_refusal(), "algorithm");
    }
}

#[tokio::test]
async fn a_signature_of_anybody_else_is_none() {
    let (key, stranger) = (SigningKey::ed25519("e"), SigningKey::ed25519("e"));
    let issuer = TestIssuer::with(&[&key]).await;
    let trusting = issuer.trusting().await;
    let good = key.sign(&issuer.claims("alice"));
    assert!(trusting.ask(&good).await.is_ok());
    assert_eq!(trusting.ask(&stranger.sign(&issuer.claims("alice"))).await, Err(Unauthenticated::Invalid));
    assert_eq!(trusting.last_refusal(), "signature");
    let [header, _, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = URL_SAFE_NO_PAD.encode(issuer.claims("root").to_string());
    assert_eq!(trusting.ask(&format!("{header}.{other}.{signature}")).await, Err(Unauthenticated::Invalid));
    // A token that brings its own key, or says where one is, is checked with the issuer's all the same.
    let own = serde_json::from_value(stranger.jwk.clone()).unwrap();
    let jku = Some(format!("{}/keys", issuer.url()));
    let with_key = Header { jwk: Some(own), jku, ..stranger.header() };
    let token = jsonwebtoken::encode(&with_key, &issuer.claims("alice"), &stranger.key).unwrap();
    assert_eq!(trusting.ask(&token).await, Err(Unauthenticated::Invalid));
    for bad in ["", ".", "..", "a.b.c", "eyJhbGciOiJFZERTQSJ9..", &format!("{good}.x"), &good[..good.len() - 2]] {
        assert_eq!(trusting.ask(bad).await, Err(Unauthenticated::Invalid), "{bad}");
    }
}

#[tokio::test]
async fn a_header_that_demands_or_is_something_else_is_refused() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    let headers = [
        (Header { crit: Some(vec!["b64".to_owned()]), ..key.header() }, "critical header"),
        (Header { typ: Some("logout+jwt".to_owned()), ..key.header() }, "type"),
        (Header { kid: Some("unknown".to_owned()), ..key.header() }, "key"),
    ];
    for (header, about) in headers {
        let trusting = issuer.trusting().await;
        let token = jsonwebtoken::encode(&header, &issuer.claims("alice"), &key.key).unwrap();
        assert_eq!(trusting.ask(&token).await, Err(Unauthenticated::Invalid));
        assert_eq!(trusting.last_refusal(), about);
    }
    let trusting = issuer.trusting().await;
    for header in [Header { typ: Some("at+jwt".to_owned()), ..key.header() }, Header { kid: None, ..key.header() }] {
        let token = jsonwebtoken::encode(&header, &issuer.claims("alice"), &key.key).unwrap();
        assert!(trusting.ask(&token).await.is_ok(), "{header:?}");
    }
}

#[tokio::test]
async fn another_claim_may_name_the_user_and_no_token_names_a_user_of_the_machine() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    let by_mail = Trusting::new(IssuerConfig { principal_claim: "email".to_owned(), ..issuer.config() }).await;
    let named = by_mail.ask(&key.sign(&issuer.claims_but("email", json!("a@b.example")))).await.unwrap();
    assert!(named.principal.as_str().ends_with("/a@b.example"));
    assert_eq!(by_mail.ask(&key.sign(&issuer.claims("alice"))).await, Err(Unauthenticated::Invalid));
    let root = issuer.trusting().await.ask(&key.sign(&issuer.claims("os:root"))).await.unwrap();
    assert!(root.principal.as_str().starts_with("oidc:") && root.principal.as_str().ends_with("/os%3Aroot"));
}
