//! What the issuer is asked, how often, and what an issuer cannot make of it.

use std::time::Duration;

use coordinator::identity::{IssuerConfig, Unauthenticated};
use jsonwebtoken::Header;

use crate::issuer::{Manner, SigningKey, TestIssuer, Trusting};

/// Moves the clock that intervals are measured by.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_storm_of_unknown_keys_asks_the_issuer_once_a_minute() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    let trusting = issuer.trusting().await;
    let unknown = |number: usize| {
        let header = Header { kid: Some(format!("unknown-{number}")), ..key.header() };
        jsonwebtoken::encode(&header, &issuer.claims("alice"), &key.key).unwrap()
    };
    for minute in 1..=3 {
        let storm: Vec<String> = (0..200).map(unknown).collect();
        let answers = futures::future::join_all(storm.iter().map(|token| trusting.ask(token))).await;
        assert!(answers.iter().all(|answer| *answer == Err(Unauthenticated::Invalid)));
        assert!(trusting.ask(&key.sign(&issuer.claims("alice"))).await.is_ok(), "users are served in the storm");
        assert_eq!(issuer.asked(), minute);
        pass(60).await;
    }
}

#[tokio::test]
async fn users_who_come_while_keys_are_asked_for_wait_for_them() {
    let (old, new) = (SigningKey::ed25519("old"), SigningKey::ed25519("new"));
    let issuer = TestIssuer::with(&[&old]).await;
    issuer.behave(Manner::WhenLet);
    let trusting = issuer.trusting().await;
    for (asked, key) in [(1, &old), (2, &new)] {
        issuer.publish(&[key]);
        let token = key.sign(&issuer.claims("alice"));
        let first = trusting.ask(&token);
        let later = async {
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while issuer.asked() < asked {
                assert!(std::time::Instant::now() < deadline, "the issuer is asked");
                tokio::task::yield_now().await;
            }
            let all = futures::future::join_all((0..20).map(|_| trusting.ask(&token)));
            let answered = async {
                tokio::task::yield_now().await;
                issuer.let_go();
            };
            tokio::join!(all, answered).0
        };
        let (first, later) = tokio::join!(first, later);
        assert!(first.is_ok() && later.iter().all(Result::is_ok), "{first:?} {later:?}");
        assert_eq!(issuer.asked(), asked);
        pass(60).await;
    }
}

#[tokio::test]
async fn new_keys_are_found_when_a_token_names_them_and_withdrawn_ones_are_forgotten() {
    let (old, new) = (SigningKey::ed25519("old"), SigningKey::p256("new"));
    let issuer = TestIssuer::with(&[&old]).await;
    let trusting = issuer.trusting().await;
    assert!(trusting.ask(&old.sign(&issuer.claims("alice"))).await.is_ok());
    issuer.publish(&[&new]);
    let token = new.sign(&issuer.claims("alice"));
    assert_eq!(trusting.ask(&token).await, Err(Unauthenticated::Invalid), "the issuer was asked just now");
    pass(60).await;
    assert!(trusting.ask(&token).await.is_ok());
    assert_eq!(trusting.ask(&old.sign(&issuer.claims("alice"))).await, Err(Unauthenticated::Invalid));
}

#[tokio::test]
async fn a_withdrawn_key_is_used_for_about_an_hour_at_the_longest() {
    let (old, new) = (SigningKey::ed25519("old"), SigningKey::ed25519("new"));
    let issuer = TestIssuer::with(&[&old]).await;
    let trusting = issuer.trusting().await;
    let claims = || issuer.claims("alice");
    assert!(trusting.ask(&old.sign(&claims())).await.is_ok());
    issuer.publish(&[&new]);
    pass(3_600).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    // The first one asks beside itself for newer keys.
    while trusting.ask(&old.sign(&claims())).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "the key is withdrawn");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_reason_to_let_anybody_in_or_to_turn_users_away() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    let trusting = issuer.trusting().await;
    let token = || key.sign(&issuer.claims("alice"));
    issuer.behave(Manner::Unavailable);
    assert_eq!(trusting.ask(&token()).await, Err(Unauthenticated::KeysUnavailable));
    issuer.behave(Manner::Well);
    assert_eq!(trusting.ask(&token()).await, Err(Unauthenticated::KeysUnavailable), "it was asked just now");
    pass(5).await;
    assert!(trusting.ask(&token()).await.is_ok());
    issuer.behave(Manner::Unavailable);
    pass(2 * 3_600).await;
    assert!(trusting.ask(&token()).await.is_ok(), "the keys of a moment ago are good enough");
}

#[tokio::test]
async fn what_an_issuer_cannot_mean_is_not_followed() {
    let key = SigningKey::ed25519("e");
    let manners =
        [Manner::Redirecting, Manner::Endlessly, Manner::OfAnother, Manner::KeysElsewhere, Manner::Unavailable];
    for manner in manners {
        let issuer = TestIssuer::with(&[&key]).await;
        issuer.behave(manner);
        let trusting = issuer.trusting().await;
        let answer = trusting.ask(&key.sign(&issuer.claims("alice"))).await;
        assert_eq!(answer, Err(Unauthenticated::KeysUnavailable), "{manner:?}");
        assert!(issuer.asked() <= 1, "{manner:?}");
    }
    let empty = TestIssuer::with(&[]).await;
    let answer = empty.trusting().await.ask(&key.sign(&empty.claims("alice"))).await;
    assert_eq!(answer, Err(Unauthenticated::KeysUnavailable));
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_waited_for_five_seconds() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    issuer.behave(Manner::Never);
    let trusting = issuer.trusting().await;
    let token = key.sign(&issuer.claims("alice"));
    let asking = trusting.ask(&token);
    let passing = async {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while issuer.asked() == 0 {
            assert!(std::time::Instant::now() < deadline, "the issuer is asked");
            tokio::task::yield_now().await;
        }
        pass(5).await;
    };
    let (answer, ()) = tokio::join!(asking, passing);
    assert_eq!(answer, Err(Unauthenticated::KeysUnavailable));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_the_keys_from_nobody() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    let trusting = issuer.trusting().await;
    let token = key.sign(&issuer.claims("alice"));
    // One look at it, in which it begins to ask, and it is dropped.
    assert!(futures::FutureExt::now_or_never(trusting.ask(&token)).is_none());
    assert!(trusting.ask(&token).await.is_ok());
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn keys_at_an_address_of_their_own_are_fetched_without_metadata() {
    let key = SigningKey::ed25519("e");
    let issuer = TestIssuer::with(&[&key]).await;
    issuer.behave(Manner::OfAnother);
    let jwks_url = Some(format!("{}/keys", issuer.url()).parse().unwrap());
    let trusting = Trusting::new(IssuerConfig { jwks_url, ..issuer.config() }).await;
    assert!(trusting.ask(&key.sign(&issuer.claims("alice"))).await.is_ok());
}
