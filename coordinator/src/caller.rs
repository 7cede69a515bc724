//! Who makes a call, as far as the layers below the transport need to know.

use codegen_types::{Principal, TraceContext};

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
    /// The trace that its requests belong to, when they do not say so themselves.
    pub trace: Option<TraceContext>,
}

/// The user of this process, by name where the id has one.
pub(crate) fn this_user() -> Principal {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => Principal::os_user(&user.name),
        Ok(None) | Err(_) => Principal::os_user(&uid.to_string()),
    }
}
