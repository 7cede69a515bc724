//! Against an API server of our own that speaks real HTTP, with and without TLS, by the real client.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch};
use axum::{Json, Router};
use base64::Engine as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::ClusterError;
use super::cluster::Cluster;
use crate::config::TlsFiles;
use crate::tls::{Purpose, Tls};

/// What the API server has of one StatefulSet, and what it does about requests.
#[derive(Debug, Clone, Default)]
struct Set {
    replicas: Option<u32>,
    start: Option<u32>,
    present: u32,
    version: u64,
    refuses: Option<u16>,
}

type Shared = Arc<Mutex<Set>>;

const PATH: &str = "/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}";

async fn cluster(set: Set, name: &str) -> (Cluster, Shared) {
    let shared = Arc::new(Mutex::new(set));
    let router = router(&shared);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = Config::new(format!("http://{address}").parse().expect("a URL"));
    config.default_namespace = "agents".to_owned();
    (Cluster::of(Client::try_from(config).expect("a client"), name), shared)
}

fn router(shared: &Shared) -> Router {
    let routes = Router::new().route(PATH, get(show)).route(&format!("{PATH}/scale"), patch(scale));
    routes.with_state(Arc::clone(shared))
}

async fn show(State(set): State<Shared>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let set = set.lock().clone();
    if let Some(code) = set.refuses {
        return refusal(code);
    }
    if (namespace.as_str(), name.as_str()) != ("agents", "worker") {
        return refusal(404);
    }
    let mut spec = json!({"replicas": set.replicas, "selector": {}, "serviceName": "worker", "template": {}});
    if let Some(start) = set.start {
        spec["ordinals"] = json!({"start": start});
    }
    let metadata = json!({"name": name, "resourceVersion": set.version.to_string()});
    let kinds = json!({"apiVersion": "apps/v1", "kind": "StatefulSet"});
    let mut shown = json!({"metadata": metadata, "spec": spec, "status": {"replicas": set.present}});
    shown["apiVersion"] = kinds["apiVersion"].clone();
    shown["kind"] = kinds["kind"].clone();
    Json(shown).into_response()
}

/// As the API server does: a merge patch of a scale, good for the version that it names alone.
async fn scale(State(set): State<Shared>, Path((_, name)): Path<(String, String)>, body: String) -> Response {
    let mut set = set.lock();
    let asked: Value = serde_json::from_str(&body).expect("JSON");
    if let Some(code) = set.refuses {
        return refusal(code);
    }
    let is_current = asked["metadata"]["resourceVersion"].as_str() == Some(&set.version.to_string());
    if !is_current {
        return refusal(409);
    }
    let replicas = asked["spec"]["replicas"].as_u64().and_then(|pods| u32::try_from(pods).ok());
    (set.replicas, set.version) = (replicas, set.version + 1);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name}, "spec": {"replicas": replicas}});
    Json(scale).into_response()
}

fn refusal(code: u16) -> Response {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let message = format!("said by the API server: {reason}");
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code,
    });
    (StatusCode::from_u16(code).expect("a status"), Json(status)).into_response()
}

#[tokio::test]
async fn a_set_is_given_another_number_of_pods() {
    let set = Set { replicas: Some(2), start: Some(5), present: 3, version: 7, ..Set::default() };
    let (cluster, shared) = cluster(set, "worker").await;
    let standing = cluster.look().await.unwrap();
    assert_eq!((standing.first, standing.wanted, standing.present), (5, 2, 3));
    assert_eq!(cluster.worker(standing.first), "worker-5");
    cluster.scale(&standing, 4).await.unwrap();
    assert_eq!(shared.lock().replicas, Some(4));
}

#[tokio::test]
async fn a_set_that_says_no_number_has_one_pod() {
    let (cluster, _) = cluster(Set { version: 1, ..Set::default() }, "worker").await;
    let standing = cluster.look().await.unwrap();
    assert_eq!((standing.first, standing.wanted, standing.present), (0, 1, 0));
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_not_changed_back() {
    let (cluster, shared) = cluster(Set { replicas: Some(2), version: 7, ..Set::default() }, "worker").await;
    let standing = cluster.look().await.unwrap();
    *shared.lock() = Set { replicas: Some(9), version: 8, ..Set::default() };
    assert!(matches!(cluster.scale(&standing, 3).await, Err(ClusterError::Conflict)));
    assert_eq!(shared.lock().replicas, Some(9));
}

#[tokio::test]
async fn what_is_missing_is_named_with_the_way_to_get_it() {
    let (cluster, shared) = cluster(Set { replicas: Some(2), version: 7, ..Set::default() }, "worker").await;
    let standing = cluster.look().await.unwrap();
    for (code, parts) in [
        (403, &["patch statefulsets/scale worker", "agents", "k8s/coordinator-rbac.yaml", "said by"][..]),
        (401, &["token"]),
        (404, &["StatefulSet worker", "agents", "k8s/worker-statefulset.yaml"]),
        (500, &["does not do what is needed"]),
    ] {
        shared.lock().refuses = Some(code);
        let refused = cluster.scale(&standing, 3).await.unwrap_err().to_string();
        assert!(parts.iter().all(|part| refused.contains(part)), "{code}: {refused}");
    }
    shared.lock().refuses = Some(403);
    let refused = cluster.look().await.unwrap_err().to_string();
    assert!(refused.contains("get statefulsets worker"), "{refused}");
}

#[tokio::test]
async fn another_name_is_not_found() {
    let (cluster, _) = cluster(Set { replicas: Some(2), version: 7, ..Set::default() }, "other").await;
    assert!(matches!(cluster.look().await, Err(ClusterError::NotFound { name, .. }) if name == "other"));
}

/// Lets in whoever shows the account's token.
async fn authenticated(request: Request, next: Next) -> Response {
    let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if shown == Some("Bearer of-the-account") { next.run(request).await } else { refusal(401) }
}

#[tokio::test]
async fn the_api_server_is_held_to_its_certificate_and_shown_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: dir.path().join("crt"), key: dir.path().join("key") };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    let tls = Tls::load(files, Purpose::Http).unwrap();
    let shared: Shared = Arc::new(Mutex::new(Set { replicas: Some(2), version: 7, ..Set::default() }));
    let router = router(&shared).layer(from_fn(authenticated));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = tls.accept(stream).await else { continue };
            let service = TowerToHyperService::new(router.clone());
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    let asked = async |authority: &str, token: &str| {
        let authority = base64::engine::general_purpose::STANDARD.encode(authority);
        let server = json!({"server": format!("https://localhost:{port}"), "certificate-authority-data": authority});
        let config = json!({
            "clusters": [{"name": "c", "cluster": server}], "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "agents"}}],
            "current-context": "x",
        });
        let config = Kubeconfig::from_yaml(&config.to_string()).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        Cluster::of(Client::try_from(config).unwrap(), "worker").look().await
    };
    assert_eq!(asked(&cert.pem(), "of-the-account").await.unwrap().wanted, 2);
    assert!(matches!(asked(&cert.pem(), "of-nobody").await, Err(ClusterError::Unauthenticated(_))));
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    assert!(matches!(asked(&other.cert.pem(), "of-the-account").await, Err(ClusterError::Refused(_))));
}
