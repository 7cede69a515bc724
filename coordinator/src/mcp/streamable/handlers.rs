//! What answers requests over HTTP: the product, or another server on the same transport, such as the fixture that the
//! protocol's conformance suite asks questions that the product has no answer to.

use std::sync::Arc;

use rmcp::ServerHandler;
use tokio::time::Instant;

use super::Era;
use super::rooms::Rooms;
use crate::caller::Caller;
use crate::identity::Identity;
use crate::mcp::Services;
use crate::mcp::calls::Calls;
use crate::mcp::handler::Handler;
use crate::tools::Handles;

/// Makes what answers requests.
pub trait Handlers: Clone + Send + Sync + 'static {
    /// What answers them.
    type Handler: ServerHandler;

    /// What answers one request of [`Era::Requests`], or those of a session that begins. `calls` is where it counts what
    /// has to end when the request, the session or the server does.
    fn handler(&self, identity: &Identity, era: Era, calls: Calls) -> Self::Handler;

    /// Forgets what nobody uses.
    fn sweep(&self, _now: Instant) {}
}

/// The product's.
#[derive(Clone)]
pub struct Product {
    services: Services,
    rooms: Arc<Rooms>,
}

impl Product {
    /// Answers with these services.
    pub fn new(services: Services) -> Self {
        Self { services, rooms: Arc::default() }
    }
}

impl Handlers for Product {
    type Handler = Handler;

    fn handler(&self, identity: &Identity, era: Era, calls: Calls) -> Handler {
        let connection = || self.services.connection(&identity.principal).with_handles(Handles::Required);
        let room = self.rooms.room(&identity.principal, connection);
        let room = match era {
            Era::Requests => room.part(calls),
            Era::Sessions => room.apart(connection(), calls),
        };
        let caller =
            Caller { principal: identity.principal.clone(), scopes: identity.scopes, client: None, trace: None };
        Handler::new(room, caller, self.services.options(), self.services.states())
    }

    fn sweep(&self, now: Instant) {
        self.rooms.sweep(now);
    }
}
