//! What a process of ours is asked by signals: to stop (SIGTERM, SIGINT), and to read its files again (SIGHUP).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::reload::Reload;

/// Listens for all three from the moment it is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    reload: Option<Reload>,
}

impl Signals {
    /// Takes the signals over from their default, which would end the process at once. SIGHUP has `reload` tell its
    /// parts; without it the process has nothing to read again, and is asked to stop: its terminal is gone.
    pub fn listen(reload: Option<Reload>) -> io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup?, reload })
    }

    /// Waits until the process is asked to stop. What else it is asked is done meanwhile.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => match &self.reload {
                    Some(reload) => reload.tell(),
                    None => return,
                },
            }
        }
    }
}
