//! Who makes a call, as far as the layers below the transport need to know.

use codegen_types::Principal;

use crate::identity::Scopes;

/// Who makes a call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// On whose behalf. A handle works only for its principal.
    pub principal: Principal,
    /// What the credentials permit; over stdio everything.
    pub scopes: Scopes,
    /// The client program, as it named itself; for diagnostics and client quirks, never for authorisation.
    pub client: Option<String>,
    /// W3C trace context, when the client sent one.
    pub trace: Option<String>,
}
