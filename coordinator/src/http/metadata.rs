//! Where clients learn whom to ask for a token (RFC 9728).

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;
use crate::identity::Authenticator;

/// Where the metadata of a resource are, between its host and its path.
pub(super) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// What is said of the issuer, and where. Cheap to clone.
#[derive(Clone)]
pub(super) struct Metadata {
    authenticator: Authenticator,
}

impl Metadata {
    pub(super) fn new(authenticator: Authenticator) -> Self {
        Self { authenticator }
    }

    /// The address of the metadata, for a challenge. There is one where there is an issuer.
    pub(super) fn address(&self) -> Option<String> {
        well_known(&self.authenticator.metadata()?.resource)
    }
}

/// The address of a resource's metadata: RFC 9728 §3.1 puts the well-known part before its path.
fn well_known(resource: &str) -> Option<String> {
    let resource = Uri::try_from(resource).ok()?;
    let (scheme, authority) = (resource.scheme_str()?, resource.authority()?);
    let path = resource.path().trim_end_matches('/');
    Some(format!("{scheme}://{authority}{WELL_KNOWN}{path}"))
}

/// Answers with the metadata, for whichever path of this server is asked about.
pub(super) async fn metadata(State(metadata): State<Metadata>) -> Response {
    match metadata.authenticator.metadata() {
        Some(metadata) => Json(metadata).into_response(),
        None => ApiError::not_found().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_part_stands_between_host_and_path() {
        let at = |resource| well_known(resource).unwrap();
        assert_eq!(at("https://a.example/mcp"), "https://a.example/.well-known/oauth-protected-resource/mcp");
        assert_eq!(at("https://a.example:1"), "https://a.example:1/.well-known/oauth-protected-resource");
        assert_eq!(well_known("api-7"), None);
    }
}
