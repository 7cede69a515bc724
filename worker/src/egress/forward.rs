//! Passing a request on to its host, and the answer back.
//!
//! Requests are read and written by one library, which frames each body anew: what two readers could take for different
//! requests never leaves here.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::refusal::Body;
use super::watched::{Watched, Watcher};

/// The longest head of an answer, in bytes; no more of an answer is held at once, either.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;
/// How much a host may say until its answer has come, in bytes: as much as the head again that only announces one.
const UNTIL_ANSWER_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// Headers that are between two neighbours alone, beside those that `Connection` names.
const OF_ONE_HOP: [HeaderName; 6] = [CONNECTION, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const OF_ONE_HOP_BY_NAME: [&str; 4] = ["keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"];

/// What requests to a host are sent through.
pub(super) struct Sender {
    requests: SendRequest<Incoming>,
    awaited: Awaited,
}

impl Sender {
    /// Takes a connection to a host; `drivers` carries it and ends with whoever has it.
    pub async fn over<S>(stream: S, drivers: &mut JoinSet<()>) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut client = http1::Builder::new();
        client.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        let awaited = Awaited::default();
        let stream = Watched::new(stream, awaited.clone());
        let (requests, connection) = client.handshake(TokioIo::new(stream)).await.ok()?;
        drivers.spawn(async move {
            // What goes wrong is seen where an answer is awaited.
            let _ = connection.await;
        });
        Some(Self { requests, awaited })
    }

    /// Whether another request can be sent, once the one before is through.
    pub async fn is_ready(&mut self) -> bool {
        self.requests.ready().await.is_ok()
    }

    /// Sends a request and gives its answer as the program gets it; none when it cannot be understood, or begins another
    /// protocol, for which nobody asked.
    pub async fn send(&mut self, request: Request<Incoming>) -> Option<Response<Body>> {
        *self.awaited.0.lock() = Some(0);
        let answer = self.requests.send_request(request).await.ok()?;
        *self.awaited.0.lock() = None;
        back(answer)
    }
}

/// How much a host has said since it was asked, in bytes; nothing when no answer of it is awaited. Announcements of an answer
/// are passed over by the library, however many there are.
#[derive(Clone, Default)]
struct Awaited(Arc<Mutex<Option<usize>>>);

impl Watcher for Awaited {
    fn carried(&self, read: usize, _written: usize) {
        if let Some(bytes) = self.0.lock().as_mut() {
            *bytes += read;
        }
    }

    fn may_read(&self) -> bool {
        self.0.lock().is_none_or(|bytes| bytes < UNTIL_ANSWER_BYTES_MAX)
    }
}

/// A request as its host gets it: with its own path and headers, for this host alone.
pub(super) fn onward(mut request: Request<Incoming>, authority: HeaderValue) -> Option<Request<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().ok()?;
    *request.version_mut() = Version::HTTP_11;
    strip(request.headers_mut());
    request.headers_mut().insert(HOST, authority);
    Some(request)
}

fn back(answer: Response<Incoming>) -> Option<Response<Body>> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let mut answer = answer.map(|body| body.boxed());
    strip(answer.headers_mut());
    Some(answer)
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_ONE_HOP) {
        headers.remove(name);
    }
    for name in OF_ONE_HOP_BY_NAME {
        headers.remove(name);
    }
}
