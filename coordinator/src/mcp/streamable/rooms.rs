//! What the requests of one principal share: places for calls, and which sessions they used last.

use std::collections::HashMap;
use std::time::Duration;

use codegen_types::Principal;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::mcp::calls::Calls;
use crate::mcp::handler::Room;
use crate::tools::Connection;

/// Calls of one principal that run at once, of all its sessions and requests. One more is refused.
const CALLS_MAX: usize = 256;
/// How long a room is kept that nobody uses.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// The rooms of all principals. As many as there are credentials in use.
#[derive(Default)]
pub(super) struct Rooms(Mutex<HashMap<Principal, Used>>);

struct Used {
    room: Room,
    last: Instant,
}

impl Rooms {
    /// The room of a principal, made on first need.
    pub(super) fn room(&self, principal: &Principal, connection: impl FnOnce() -> Connection) -> Room {
        let mut rooms = self.0.lock();
        if let Some(used) = rooms.get_mut(principal) {
            used.last = Instant::now();
            return used.room.clone();
        }
        // Each handler has calls of its own.
        let room = Room::new(connection(), Calls::default(), CALLS_MAX);
        rooms.insert(principal.clone(), Used { room: room.clone(), last: Instant::now() });
        room
    }

    /// Forgets rooms that nobody uses.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.lock().retain(|_, used| used.room.is_shared() || now.duration_since(used.last) < IDLE_MAX);
    }
}
