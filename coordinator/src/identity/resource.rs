//! What this server says of itself to clients that look for its authorization server (RFC 9728).

use serde::{Deserialize, Serialize};

use super::issuer::IssuerConfig;
use super::scopes::{Scope, Scopes};

/// The metadata of the protected resource, to be served at `/.well-known/oauth-protected-resource`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedResourceMetadata {
    /// What tokens must be for.
    pub resource: String,
    /// Who issues them.
    pub authorization_servers: Vec<String>,
    /// What may be asked for.
    pub scopes_supported: Vec<String>,
    /// How tokens are sent: in the header alone, never in an address or a body.
    pub bearer_methods_supported: Vec<String>,
    /// This server's name for people.
    pub resource_name: String,
}

impl ProtectedResourceMetadata {
    /// The metadata of a server that trusts this issuer.
    pub(super) fn new(config: &IssuerConfig) -> Self {
        let offered: Scopes = [Scope::Tools, Scope::Sessions, Scope::Admin].into_iter().collect();
        Self {
            resource: config.audience.clone(),
            authorization_servers: vec![config.issuer.to_string()],
            scopes_supported: offered.iter().map(|scope| scope.prefixed().to_owned()).collect(),
            bearer_methods_supported: vec!["header".to_owned()],
            resource_name: "CodeGen-MCP".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_metadata_name_issuer_resource_and_scopes() {
        let config = IssuerConfig {
            issuer: "https://id.example".parse().unwrap(),
            audience: "https://code.example".to_owned(),
            jwks_url: None,
            principal_claim: "sub".to_owned(),
        };
        let metadata = ProtectedResourceMetadata::new(&config);
        let expected = json!({
            "resource": "https://code.example",
            "authorization_servers": ["https://id.example"],
            "scopes_supported": ["codegen:tools", "codegen:sessions", "codegen:admin"],
            "bearer_methods_supported": ["header"],
            "resource_name": "CodeGen-MCP",
        });
        assert_eq!(serde_json::to_value(metadata).unwrap(), expected);
    }
}
