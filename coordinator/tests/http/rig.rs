//! A server on a port of the loopback interface, and a client that says exactly what it is told to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use codegen_audit::Audit;
use codegen_types::Principal;
use coordinator::admission::Admission;
use coordinator::approvals::Approvals;
use coordinator::config::HttpConfig;
use coordinator::http::{Check, HttpServer, HttpServices, Plant, Readiness};
use coordinator::identity::{Authenticator, NewToken, Requirement, Scopes, Tokens};
use coordinator::mcp::{Options, Services};
use coordinator::operators::Operators;
use coordinator::reload::Reload;
use coordinator::session::{SessionOptions, SessionsDeps};
use coordinator::store::{CordonRow, CordonStore as _, Memory};
use coordinator::supervisor::Supervisor;
use coordinator::telemetry::{Metrics, Moment, Now};
use coordinator::workers::{Workers, WorkersOptions};
use coordinator_core::worker::Admittance;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::double::{Double, Sessions};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What a client of 2026-07-28 says with every request.
pub const STATELESS: &str = "2026-07-28";

/// The plant, and where its log is.
struct Ready(Approvals, Option<PathBuf>, Operators);

impl Readiness for Ready {
    fn look(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { vec![Check { name: "worker", problem: None }] })
    }
}

impl Plant for Ready {
    fn operators(&self) -> &Operators {
        &self.2
    }

    fn approvals(&self) -> &Approvals {
        &self.0
    }

    fn audit_dir(&self) -> Option<PathBuf> {
        self.1.clone()
    }
}

impl Now for Ready {
    fn moment(&self) -> Moment {
        Moment { sessions: [("ready", 2)].into(), tasks_running: 1, log_writable: true, workers: Vec::new() }
    }
}

/// Workers that are gone, of which an operator's word is left.
pub const CORDONED: [&str; 3] = ["gone-a", "gone-b", "gone-c"];

/// Operators of a server without workers.
async fn operators(audit: &Audit) -> Operators {
    let (supervisor, store) = (Supervisor::default(), Arc::<Memory>::default());
    for name in CORDONED {
        let (worker, set_by) = (name.parse().expect("a name"), Principal::os_user("op"));
        let row = CordonRow { worker, admittance: Admittance::Cordoned, set_by, since_ms: 0 };
        store.put_cordon(row).await.expect("the rig works");
    }
    let workers = Workers::new(WorkersOptions::default(), audit.clone(), supervisor.clone());
    let (workers, _unheard) = workers.expect("the rig works");
    let sessions = SessionsDeps {
        audit: audit.clone(),
        audit_dir: None,
        sessions: store.clone(),
        tasks: store.clone(),
        fleet: Arc::new(workers.clone()),
        supervisor,
        options: SessionOptions::default(),
    };
    let sessions = coordinator::session::Sessions::start(sessions).await.expect("the rig works");
    Operators::start(workers, sessions, store, audit.clone()).await.expect("the rig works")
}

pub struct Rig {
    pub double: Arc<Double>,
    pub audit: Audit,
    pub address: SocketAddr,
    pub tokens: Tokens,
    pub reload: Reload,
    pub stop: CancellationToken,
    pub served: JoinHandle<()>,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut HttpConfig)) -> Self {
        Self::with_admission(adjust, Admission::default()).await
    }

    pub async fn with_admission(adjust: impl FnOnce(&mut HttpConfig), admission: Admission) -> Self {
        Self::logging_to(adjust, admission, Audit::in_memory(), None).await
    }

    /// With a log in files.
    pub async fn with_log(dir: &Path) -> Self {
        Self::with_log_and(dir, |_| {}).await
    }

    pub async fn with_log_and(dir: &Path, adjust: impl FnOnce(&mut HttpConfig)) -> Self {
        let (audit, _) = Audit::open(codegen_audit::Options::new(dir)).await.expect("the rig works");
        Self::logging_to(adjust, Admission::default(), audit, Some(dir.to_owned())).await
    }

    async fn logging_to(
        adjust: impl FnOnce(&mut HttpConfig),
        admission: Admission,
        audit: Audit,
        audit_dir: Option<PathBuf>,
    ) -> Self {
        let approvals = admission.gate().map_or_else(|| Approvals::new(audit.clone()), |gate| gate.approvals().clone());
        let mut config = HttpConfig::at(SocketAddr::from(([127, 0, 0, 1], 0)));
        adjust(&mut config);
        let double = Arc::<Double>::default();
        let tokens = Tokens::load(Arc::new(Memory::default()), audit.clone()).await.expect("the rig works");
        let authenticator = Authenticator::new(tokens.clone(), None, Requirement::Auto, audit.clone());
        let reload = Reload::default();
        let server = HttpServer::bind(config, authenticator).await.expect("the rig works").reloaded_by(&reload);
        let address = server.address();
        let mcp = Services::new(Arc::new(Sessions(Arc::clone(&double))), audit.clone(), Options::default())
            .admitted_by(admission);
        let stop = CancellationToken::new();
        let ready = Arc::new(Ready(approvals, audit_dir, operators(&audit).await));
        let services = HttpServices {
            mcp,
            readiness: Arc::clone(&ready) as Arc<dyn Readiness>,
            metrics: Metrics::new(Arc::clone(&ready) as Arc<dyn Now>),
            plant: ready,
        };
        let served = tokio::spawn(server.run(services, stop.clone()));
        Self { double, audit, address, tokens, reload, stop, served }
    }

    /// A token for a user, after which nobody gets in without one.
    pub async fn token(&self, user: &str, scopes: Scopes) -> String {
        let new = NewToken { principal: user.to_owned(), scopes, lifetime_seconds: None, note: None };
        let (_, text) = self.tokens.create(new, &Principal::os_user("op")).await.expect("the rig works");
        text.expose().to_owned()
    }

    /// A request to `path` as a well-behaved client makes it.
    pub fn request(&self, method: &str, path: &str) -> Asked {
        let builder = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("accept", "application/json, text/event-stream");
        Asked { address: self.address, builder, body: Bytes::new() }
    }

    /// A message to `/mcp`.
    pub fn post(&self, message: &Value) -> Asked {
        self.request("POST", "/mcp").header("content-type", "application/json").body(message.to_string())
    }

    /// A request of a client of 2026-07-28.
    pub fn stateless(&self, method: &str, params: Value) -> Asked {
        self.stateless_by("t", method, params)
    }

    /// A request of a client of 2026-07-28 that calls itself so.
    pub fn stateless_by(&self, client: &str, method: &str, mut params: Value) -> Asked {
        let name = ["name", "uri"].iter().find_map(|key| params[key].as_str().map(str::to_owned));
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": STATELESS,
            "io.modelcontextprotocol/clientInfo": {"name": client, "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
            "progressToken": "p",
        });
        let asked = self
            .post(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
            .header("mcp-protocol-version", STATELESS)
            .header("mcp-method", method);
        match name {
            Some(name) => asked.header("mcp-name", &name),
            None => asked,
        }
    }

    /// A call of a tool by a client of 2026-07-28.
    pub fn stateless_tool(&self, name: &str, arguments: Value) -> Asked {
        self.stateless("tools/call", json!({"name": name, "arguments": arguments}))
    }

    /// A session of a client of 2025.
    pub async fn session(&self, revision: &str, token: Option<&str>) -> Session<'_> {
        self.session_of("t", revision, token).await
    }

    /// A session of a client of 2025 that calls itself so.
    pub async fn session_of(&self, client: &str, revision: &str, token: Option<&str>) -> Session<'_> {
        let params =
            json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": client, "version": "1"}});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let mut reply = self.post(&hello).bearer(token).send().await;
        assert_eq!(reply.status, StatusCode::OK);
        let id = reply.headers["mcp-session-id"].to_str().expect("the rig works").to_owned();
        let hello = reply.message().await.expect("the rig works");
        assert_eq!(hello["result"]["protocolVersion"], revision);
        let session = Session { rig: self, id, revision: revision.to_owned(), token: token.map(str::to_owned) };
        let noted = session.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send().await;
        assert_eq!(noted.status, StatusCode::ACCEPTED);
        session
    }
}

/// A session of the protocol.
pub struct Session<'a> {
    rig: &'a Rig,
    pub id: String,
    revision: String,
    token: Option<String>,
}

impl Session<'_> {
    pub fn post(&self, message: &Value) -> Asked {
        self.of_session(self.rig.post(message))
    }

    pub fn get(&self) -> Asked {
        self.of_session(self.rig.request("GET", "/mcp"))
    }

    pub fn delete(&self) -> Asked {
        self.of_session(self.rig.request("DELETE", "/mcp"))
    }

    fn of_session(&self, asked: Asked) -> Asked {
        asked
            .header("mcp-session-id", &self.id)
            .header("mcp-protocol-version", &self.revision)
            .bearer(self.token.as_deref())
    }

    pub fn tool(&self, id: u64, name: &str, arguments: Value) -> Asked {
        let params = json!({"name": name, "arguments": arguments, "_meta": {"progressToken": id}});
        self.post(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}))
    }

    /// Makes a session of the product's and gives its handle.
    pub async fn handle(&self) -> String {
        let made = self.tool(900, "session_create", json!({})).send().await.answer().await;
        made["result"]["structuredContent"]["session_id"].as_str().expect("a handle").to_owned()
    }
}

/// A request that is about to be made.
pub struct Asked {
    address: SocketAddr,
    builder: hyper::http::request::Builder,
    body: Bytes,
}

impl Asked {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    /// Another host than the server's own.
    pub fn host(mut self, host: &str) -> Self {
        self.builder.headers_mut().expect("the rig works").insert("host", host.parse().expect("a header"));
        self
    }

    pub fn bearer(self, token: Option<&str>) -> Self {
        match token {
            Some(token) => self.header("authorization", &format!("Bearer {token}")),
            None => self,
        }
    }

    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Makes the request on a connection of its own, which ends when the reply is dropped.
    pub async fn send(self) -> Reply {
        let stream = TcpStream::connect(self.address).await.expect("the rig works");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("the rig works");
        let connection = tokio::spawn(async move {
            let _over = connection.await;
        });
        let request = self.builder.body(Full::new(self.body)).expect("the rig works");
        let sent = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time");
        let (parts, body) = sent.expect("the rig works").into_parts();
        Reply { status: parts.status, headers: parts.headers, body, text: String::new(), connection: Some(connection) }
    }
}

/// An answer.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    connection: Option<JoinHandle<()>>,
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.connection.take().into_iter().for_each(|connection| connection.abort());
    }
}

/// One event of a stream.
#[derive(Debug)]
pub struct Event {
    pub id: Option<String>,
    pub data: String,
}

impl Reply {
    /// The next event of a stream; `None` at its end.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let values: Vec<_> =
                        block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).collect();
                    (!values.is_empty()).then(|| values.join("\n").trim().to_owned())
                };
                let event = field("data").map(|data| Event { id: field("id"), data });
                self.text = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("something in time")?;
            let bytes = frame.ok()?.into_data().unwrap_or_default();
            self.text.push_str(std::str::from_utf8(&bytes).expect("the rig works"));
        }
    }

    /// Where the deprecated transport's messages are to be posted.
    pub async fn endpoint(&mut self) -> String {
        assert_eq!(self.status, StatusCode::OK);
        self.event().await.expect("the first event").data
    }

    /// The next message of a stream; `None` at its end.
    pub async fn message(&mut self) -> Option<Value> {
        loop {
            let event = self.event().await?;
            if !event.data.is_empty() {
                return Some(serde_json::from_str(&event.data).expect("the rig works"));
            }
        }
    }

    /// The answer to the request, whether it comes alone or after other messages.
    pub async fn answer(mut self) -> Value {
        if !self.headers["content-type"].to_str().expect("the rig works").starts_with("text/event-stream") {
            return self.json().await;
        }
        loop {
            let message = self.message().await.expect("an answer before the end");
            if message.get("id").is_some() && message.get("method").is_none() {
                return message;
            }
        }
    }

    pub async fn text(mut self) -> String {
        while let Some(bytes) = self.piece().await {
            self.text.push_str(std::str::from_utf8(&bytes.expect("the rig works")).expect("the rig works"));
        }
        std::mem::take(&mut self.text)
    }

    /// The next bytes of the body, or that it broke off; `None` at its end.
    pub async fn piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("something in time")?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// The whole body, or `None` when it broke off.
    pub async fn bytes(mut self) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await {
            all.extend_from_slice(&piece.ok()?);
        }
        Some(all)
    }

    pub async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    /// The code of a refusal, which has the one shape.
    pub async fn refusal(self) -> String {
        let body = self.json().await;
        assert!(body["error"]["message"].is_string() && body["error"]["details"].is_object(), "{body}");
        body["error"]["code"].as_str().expect("a code").to_owned()
    }
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The text of a tool's result.
pub fn text_of(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}
