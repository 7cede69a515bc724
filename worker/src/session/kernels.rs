//! The kernels of a session, by name: who may use which next, and what became of the last one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use codegen_types::event::KernelInfo;
use codegen_types::operation::Kernels as Asked;
use codegen_types::{ErrorCode, Failure, KernelName, OperationResult};
use parking_lot::Mutex;
use sandbox::{ChildEnd, SupervisorLost};
use tokio::sync::{OwnedMutexGuard, watch};

use super::Live;
use crate::runtimes::{Kernel, StartError};

/// Kernels of one session that live at once.
const LIVING_MAX: usize = 8;
/// Names that are remembered, with what became of their kernels.
const NAMES_MAX: usize = 64;
/// Calls that wait for one kernel; further ones are refused with `RATE_LIMITED`.
const WAITING_MAX: u32 = 32;
/// How long a kernel that is restarted may take to end.
const RESTART_DEADLINE: Duration = Duration::from_secs(10);

/// The kernels of one session.
#[derive(Debug, Default)]
pub(crate) struct Kernels(Mutex<BTreeMap<KernelName, Arc<Cell>>>);

#[derive(Debug)]
struct Cell {
    name: KernelName,
    seat: Arc<tokio::sync::Mutex<Seat>>,
    waiting: AtomicU32,
    /// Counts the orders to end what runs.
    restarts: watch::Sender<u64>,
    facts: Mutex<Facts>,
}

/// What is known of a kernel without waiting for it.
#[derive(Debug, Default, Clone, Copy)]
struct Facts {
    alive: bool,
    busy: bool,
    calls: u64,
    started_ms: i64,
    memory_bytes: u64,
}

#[derive(Debug, Default)]
struct Seat {
    kernel: Option<Kernel>,
    /// Why the last one is no more.
    ended: Option<String>,
}

/// The right to use a kernel; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    cell: Arc<Cell>,
    seat: OwnedMutexGuard<Seat>,
    restarts: watch::Receiver<u64>,
}

impl Kernels {
    /// Waits for a kernel's turn; turns are given in the order in which they were asked for.
    pub async fn turn(&self, name: &KernelName) -> Result<Turn, Failure> {
        let cell = self.cell(name);
        let waiting = Waiting::enter(&cell)?;
        let seat = cell.seat.clone().lock_owned().await;
        drop(waiting);
        cell.facts.lock().busy = true;
        let mut restarts = cell.restarts.subscribe();
        restarts.mark_unchanged();
        Ok(Turn { cell, seat, restarts })
    }

    /// Lists them, or ends one.
    pub async fn perform(&self, asked: &Asked) -> Result<OperationResult, Failure> {
        if let Asked::Restart { name } = asked {
            self.restart(name).await?;
        }
        Ok(OperationResult::Kernels { kernels: self.list() })
    }

    fn list(&self) -> Vec<KernelInfo> {
        let cells: Vec<Arc<Cell>> = self.0.lock().values().cloned().collect();
        cells.iter().filter_map(|cell| cell.info()).collect()
    }

    async fn restart(&self, name: &KernelName) -> Result<(), Failure> {
        let unknown = || Failure::new(ErrorCode::NotFound, format!("There is no kernel `{name}` in this session."));
        let cell = self.0.lock().get(name).cloned().ok_or_else(unknown)?;
        if let Ok(mut seat) = cell.seat.try_lock() {
            seat.end("it was restarted".to_owned());
            cell.note(&seat, false);
            return Ok(());
        }
        if !cell.facts.lock().alive {
            return Err(unknown());
        }
        let mut restarts = cell.restarts.subscribe();
        let order = *restarts.borrow_and_update();
        cell.restarts.send_modify(|count| *count += 1);
        // The call that is ended counts once more when its kernel is gone.
        let gone = restarts.wait_for(|count| *count >= order + 2);
        if tokio::time::timeout(RESTART_DEADLINE, gone).await.is_err() {
            return Err(Failure::new(ErrorCode::Internal, "The kernel did not end in time; close the session."));
        }
        Ok(())
    }

    fn cell(&self, name: &KernelName) -> Arc<Cell> {
        let mut cells = self.0.lock();
        if cells.len() >= NAMES_MAX {
            cells.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.facts.lock().alive);
        }
        let new = || Cell {
            name: name.clone(),
            seat: Arc::default(),
            waiting: AtomicU32::new(0),
            restarts: watch::Sender::new(0),
            facts: Mutex::default(),
        };
        cells.entry(name.clone()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// Refuses a further kernel when there are as many as may be.
    pub fn check_room(&self, turn: &Turn) -> Result<(), Failure> {
        let cells = self.0.lock();
        let others = cells.values().filter(|cell| !Arc::ptr_eq(cell, &turn.cell) && cell.facts.lock().alive);
        let names: Vec<&str> = others.map(|cell| cell.name.as_str()).collect();
        if names.len() < LIVING_MAX {
            return Ok(());
        }
        let message = format!(
            "This session has {LIVING_MAX} kernels ({}), as many as it may. Use one of them, or end one with \
             kernel_restart.",
            names.join(", ")
        );
        Err(Failure::new(ErrorCode::ProcessLimit, message))
    }
}

impl Cell {
    fn info(&self) -> Option<KernelInfo> {
        if let Ok(mut seat) = self.seat.try_lock() {
            seat.look();
            self.note(&seat, false);
        }
        let facts = *self.facts.lock();
        facts.alive.then(|| KernelInfo {
            name: self.name.clone(),
            busy: facts.busy,
            waiting: self.waiting.load(Ordering::Relaxed),
            calls: facts.calls,
            started_ms: facts.started_ms,
            memory_bytes: facts.memory_bytes,
        })
    }

    fn note(&self, seat: &Seat, busy: bool) {
        *self.facts.lock() = match &seat.kernel {
            Some(kernel) => Facts {
                alive: true,
                busy,
                calls: kernel.calls(),
                started_ms: kernel.started_ms(),
                memory_bytes: kernel.memory_bytes(),
            },
            None => Facts { busy, ..Facts::default() },
        };
    }
}

impl Seat {
    fn end(&mut self, why: String) {
        if self.kernel.take().is_some() {
            self.ended = Some(why);
        }
    }

    /// Notices that the kernel ended while nobody used it.
    fn look(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        if kernel.live().is_lost() {
            self.end("the session's sandbox was replaced".to_owned());
        } else if let Some(end) = kernel.ended_unseen() {
            self.end(match end {
                Ok(end) => how(&end),
                Err(SupervisorLost) => "its processes were killed".to_owned(),
            });
        }
    }
}

impl Turn {
    /// The kernel's name.
    pub fn name(&self) -> &KernelName {
        &self.cell.name
    }

    /// The kernel, started in this life of the sandbox when there is none, and a sentence about that.
    pub async fn ready(&mut self, live: &Arc<Live>) -> Result<(&mut Kernel, Option<String>), StartError> {
        self.seat.look();
        if self.seat.kernel.as_ref().is_some_and(|kernel| !Arc::ptr_eq(kernel.live(), live)) {
            self.seat.end("the session's sandbox was replaced".to_owned());
        }
        let news = match &self.seat.kernel {
            Some(_) => None,
            None => {
                let fresh = Kernel::start(live).await?;
                self.seat.kernel = Some(fresh);
                self.cell.note(&self.seat, true);
                Some(match self.seat.ended.take() {
                    Some(why) => {
                        format!("Kernel `{}` was started anew, so earlier variables are gone: {why}.", self.cell.name)
                    }
                    None => format!("Kernel `{}` was started.", self.cell.name),
                })
            }
        };
        Ok((self.seat.kernel.as_mut().expect("it was there or was just started"), news))
    }

    /// The kernel, once it is ready.
    pub fn kernel(&mut self) -> Option<&mut Kernel> {
        self.seat.kernel.as_mut()
    }

    /// Changes when somebody orders the kernel to be restarted.
    pub fn restarts(&self) -> watch::Receiver<u64> {
        self.restarts.clone()
    }

    /// Gives the kernel up, for this reason.
    pub fn end(&mut self, why: String) {
        self.seat.end(why);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.cell.note(&self.seat, false);
        if self.restarts.has_changed().unwrap_or(false) {
            self.cell.restarts.send_modify(|count| *count += 1);
        }
    }
}

/// How a kernel ended, in words.
pub(crate) fn how(end: &ChildEnd) -> String {
    match (end.signal, end.code) {
        _ if end.memory_limit_hit => "it was killed for using more memory than the session may".to_owned(),
        (Some(signal), _) => format!("it was killed by signal {signal}"),
        (None, Some(code)) => format!("it ended with exit code {code}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Counts a call among those that wait.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn enter(cell: &'a Cell) -> Result<Self, Failure> {
        let this = Self(&cell.waiting);
        if cell.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            let message = format!("{WAITING_MAX} calls wait for kernel `{}`. Wait for some to end.", cell.name);
            return Err(Failure::new(ErrorCode::RateLimited, message));
        }
        Ok(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
