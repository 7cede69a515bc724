//! Passing a request on to its host, and the answer back.
//!
//! Requests are read and written by one library, which frames each body anew: what two readers could take for different
//! requests never leaves here.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::refusal::Body;

/// The longest head of an answer, in bytes; no more of an answer is held at once, either.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;
/// Headers that are between two neighbours alone, beside those that `Connection` names.
const OF_ONE_HOP: [HeaderName; 6] = [CONNECTION, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const OF_ONE_HOP_BY_NAME: [&str; 4] = ["keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"];

/// What requests to a host are sent through; `drivers` carries it and ends with whoever has it.
pub(super) async fn sender<S>(stream: S, drivers: &mut JoinSet<()>) -> Option<SendRequest<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.ok()?;
    drivers.spawn(async move {
        // What goes wrong is seen where an answer is awaited.
        let _ = connection.await;
    });
    Some(sender)
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

/// An answer as the program gets it; none when it begins another protocol, for which nobody asked.
pub(super) fn back(answer: Response<Incoming>) -> Option<Response<Body>> {
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
