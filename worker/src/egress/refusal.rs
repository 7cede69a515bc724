//! Refusals of the proxy, in plain words.

use bytes::Bytes;
use codegen_types::packages::HostPort;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::places;
use crate::upstream::UpstreamError;

/// The body of any answer.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// Why a request is not carried out. Written for whoever reads what a program got.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0} is not on the list of hosts that this session may reach")]
    NotListed(HostPort),
    #[error("the request names no host with its port")]
    NoHost,
    #[error("only CONNECT and requests for http:// are carried out here")]
    NotProxied,
    #[error("{host}: {source}")]
    Unreached {
        host: HostPort,
        #[source]
        source: UpstreamError,
    },
    #[error("this connection is for {0} alone, by the name that was asked for and in every request")]
    AnotherHost(HostPort),
    #[error("{0} gets a secret of the operator, so it is reached inside TLS alone")]
    OnlyEncrypted(HostPort),
    #[error("{0} gets a secret of the operator, which {1} could show")]
    ShowsSecret(HostPort, hyper::Method),
    #[error("{0} did not prove who it is")]
    Untrusted(HostPort),
    #[error("{0} gave no answer that can be understood")]
    NoAnswer(HostPort),
    #[error("{0}")]
    Full(places::Full),
}

impl Refusal {
    /// The answer that the program gets.
    pub fn answer(&self) -> Response<Body> {
        let status = match self {
            Self::AnotherHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::NotListed(_) | Self::OnlyEncrypted(_) | Self::Unreached { source: UpstreamError::Private, .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::NotProxied | Self::ShowsSecret(..) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unreached { source: UpstreamError::Late, .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreached { .. } | Self::Untrusted(_) | Self::NoAnswer(_) => StatusCode::BAD_GATEWAY,
        };
        let mut answer = Response::new(text(format!("{self}\n")));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

/// A body of plain text.
pub(super) fn text(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}
