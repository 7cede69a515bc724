//! Requests that are not meant for this server, or come from a page that may not make them.

use hyper::StatusCode;
use serde_json::json;

use coordinator::config::{Config, Environment, Flags};

use crate::rig::Rig;

#[tokio::test]
async fn a_foreign_host_alone_is_refused() {
    let rig = Rig::new().await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let port = rig.address.port();
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "user@localhost", "[::2]", "1"]
    {
        for asked in [rig.post(&list), rig.request("GET", "/mcp"), rig.request("GET", "/nowhere")] {
            let reply = asked.host(host).send().await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{host}");
            assert_eq!(reply.refusal().await, "PERMISSION_DENIED");
        }
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]", &format!("[::1]:{port}")] {
        let reply = rig.stateless("tools/list", json!({})).host(host).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn a_foreign_origin_alone_is_refused() {
    let rig = Rig::new().await;
    for origin in ["http://evil.example", "https://localhost.evil.example", "null", "file://localhost", "localhost"] {
        let reply = rig.stateless("tools/list", json!({})).header("origin", origin).send().await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{origin}");
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
        assert_eq!(reply.refusal().await, "PERMISSION_DENIED");
    }
    let own = format!("http://localhost:{}", rig.address.port());
    let two = rig.stateless("tools/list", json!({})).header("origin", &own).header("origin", "http://e.example");
    assert_eq!(two.send().await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_page_of_another_server_of_this_machine_is_foreign_and_the_server_s_own_is_not() {
    let rig = Rig::new().await;
    let port = rig.address.port();
    for other in ["http://localhost", "http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://127.0.0.1"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("https://127.0.0.1:{port}"), format!("http://127.0.0.2:{port}")])
    {
        let reply = rig.stateless_tool("session_create", json!({})).header("origin", &other).send().await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{other}");
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{other}");
    }
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        let own = format!("http://{name}:{port}");
        let reply = rig.stateless("tools/list", json!({})).header("origin", &own).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{own}");
        assert_eq!(reply.headers["access-control-allow-origin"], own.as_str());
    }
    // Through a forwarded port its pages come from where it was reached.
    let reached =
        rig.stateless("tools/list", json!({})).host("localhost:9000").header("origin", "http://localhost:9000");
    assert_eq!(reached.send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_page_is_asked_for_its_origin_before_it_is_told_what_it_may_do() {
    let rig = Rig::new().await;
    let preflight = |origin: &str| {
        rig.request("OPTIONS", "/mcp")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,mcp-protocol-version")
    };
    let own = format!("http://localhost:{}", rig.address.port());
    let permitted = preflight(&own).send().await;
    assert_eq!(permitted.status, StatusCode::OK);
    assert_eq!(permitted.headers["access-control-allow-origin"], own.as_str());
    assert!(!permitted.headers.contains_key("access-control-allow-credentials"));
    for foreign in ["http://evil.example", "http://localhost:5173"] {
        assert_eq!(preflight(foreign).send().await.status, StatusCode::FORBIDDEN, "{foreign}");
    }
}

#[tokio::test]
async fn hosts_and_origins_that_the_operator_permits_are_let_in() {
    let given = [
        ("--http", "127.0.0.1:0"),
        ("--http-allowed-host", "code.example"),
        ("--http-allowed-origin", "https://app.example"),
        ("--state-dir", "/nonexistent"),
    ];
    let flags = Flags { values: given.map(|(flag, value)| (flag, value.to_owned())).into(), file: None };
    let config = Config::load(&flags, &Environment::default()).unwrap().http.unwrap();
    let rig = Rig::with(|rig| *rig = config).await;
    let list = || rig.stateless("tools/list", json!({}));
    let both = list().host("code.example").header("origin", "https://app.example").send().await;
    assert_eq!(both.status, StatusCode::OK);
    let own = list().host("code.example").header("origin", "http://code.example").send().await;
    assert_eq!(own.status, StatusCode::OK);
    for other in ["http://app.example", "https://code.example"] {
        let other = list().host("code.example").header("origin", other).send().await;
        assert_eq!(other.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn whoever_watches_the_server_may_call_it_what_it_likes() {
    let rig = Rig::new().await;
    rig.token("ann", coordinator::identity::Scopes::USER).await;
    for path in ["/healthz", "/readyz"] {
        let reply = rig.request("GET", path).host("10.1.2.3:8080").send().await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert_eq!(reply.json().await["status"], "ok");
    }
}
