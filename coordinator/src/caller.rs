//! Who makes a call, as far as the layers below the transport need to know.

use codegen_types::Principal;

/// Who makes a call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// On whose behalf. A handle works only for its principal.
    pub principal: Principal,
    /// The client program, as it named itself; for diagnostics and client quirks, never for authorisation.
    pub client: Option<String>,
    /// W3C trace context, when the client sent one.
    pub trace: Option<String>,
}
