//! The kernels of a session, by name: who may use which next, and what became of the last one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use codegen_types::event::KernelInfo;
use codegen_types::operation::Kernels as Asked;
use codegen_types::{ErrorCode, Failure, KernelName, OperationResult};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sandbox::SupervisorLost;
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
#[derive(Debug)]
pub(crate) struct Kernels {
    cells: Mutex<BTreeMap<KernelName, Arc<Cell>>>,
    /// Whether the session may have had kernels before this worker opened it.
    reopened: bool,
}

#[derive(Debug)]
struct Cell {
    name: KernelName,
    seat: Arc<tokio::sync::Mutex<Seat>>,
    waiting: AtomicU32,
    /// Kernels up to this one are to end.
    doomed: watch::Sender<u64>,
    facts: watch::Sender<Facts>,
}

/// What is known of a kernel without waiting for it.
#[derive(Debug, Default, Clone, Copy)]
struct Facts {
    /// Which kernel of this name it is, counted from 1; 0: there is none.
    kernel: u64,
    busy: bool,
    calls: u64,
    started_ms: i64,
    memory_bytes: u64,
}

#[derive(Debug, Default)]
struct Seat {
    kernel: Option<Kernel>,
    /// Kernels of this name so far.
    started: u64,
    /// Why the last one is no more.
    ended: Option<String>,
    /// The sandbox in which one was lost with whoever would end what it had started.
    unattended: Option<Arc<Live>>,
}

/// A place in the queue for a kernel; given up when dropped.
pub(crate) struct Place {
    cell: Arc<Cell>,
    waiting: Waiting,
    seat: Awaited,
    reopened: bool,
}

/// A kernel's seat, or its queue.
enum Awaited {
    Taken(OwnedMutexGuard<Seat>),
    Queued(BoxFuture<'static, OwnedMutexGuard<Seat>>),
}

/// The right to use a kernel; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    cell: Arc<Cell>,
    seat: OwnedMutexGuard<Seat>,
    reopened: bool,
}

impl Kernels {
    /// None yet. A session that is opened again may have had some.
    pub fn new(reopened: bool) -> Self {
        Self { cells: Mutex::default(), reopened }
    }

    /// Takes a place in the queue for a kernel; turns are given in the order of these.
    pub fn queue(&self, name: &KernelName) -> Result<Place, Failure> {
        let cell = self.cell(name);
        let waiting = Waiting::enter(&cell)?;
        let mut seat = cell.seat.clone().lock_owned().boxed();
        // Whoever asked for the seat has a place, and keeps it.
        let seat = match (&mut seat).now_or_never() {
            Some(taken) => Awaited::Taken(taken),
            None => Awaited::Queued(seat),
        };
        Ok(Place { cell, waiting, seat, reopened: self.reopened })
    }

    /// Lists them, or ends one.
    pub async fn perform(&self, asked: &Asked) -> Result<OperationResult, Failure> {
        if let Asked::Restart { name } = asked {
            self.restart(name).await?;
        }
        Ok(OperationResult::Kernels { kernels: self.list() })
    }

    /// Whether one lives, or what one left where nobody can tell any more what is its own.
    pub fn any_lives(&self) -> bool {
        self.all().iter().any(|cell| cell.lives())
    }

    fn list(&self) -> Vec<KernelInfo> {
        self.all().iter().filter_map(|cell| cell.info()).collect()
    }

    fn all(&self) -> Vec<Arc<Cell>> {
        self.cells.lock().values().cloned().collect()
    }

    async fn restart(&self, name: &KernelName) -> Result<(), Failure> {
        let unknown = || Failure::new(ErrorCode::NotFound, format!("There is no kernel `{name}` in this session."));
        let cell = self.cells.lock().get(name).cloned().ok_or_else(unknown)?;
        let Facts { kernel, busy, .. } = *cell.facts.borrow();
        if kernel == 0 {
            return if busy { Err(unknown()) } else { Ok(()) };
        }
        cell.doomed.send_modify(|upto| *upto = kernel.max(*upto));
        let mut facts = cell.facts.subscribe();
        let gone = async {
            tokio::select! {
                // Whoever has the turn, or gets it next, obeys; a cell that is kept here always has facts.
                _ = facts.wait_for(|facts| facts.kernel != kernel) => {}
                mut seat = cell.seat.lock() => {
                    seat.obey(&cell);
                    cell.note(&seat, false);
                }
            }
        };
        tokio::time::timeout(RESTART_DEADLINE, gone)
            .await
            .map_err(|_| Failure::new(ErrorCode::Internal, "The kernel did not end in time; close the session."))
    }

    fn cell(&self, name: &KernelName) -> Arc<Cell> {
        let mut cells = self.cells.lock();
        if cells.len() >= NAMES_MAX {
            cells.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.facts.borrow().kernel != 0);
        }
        let new = || Cell {
            name: name.clone(),
            seat: Arc::default(),
            waiting: AtomicU32::new(0),
            doomed: watch::Sender::new(0),
            facts: watch::Sender::default(),
        };
        cells.entry(name.clone()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// Refuses a further kernel when there are as many as may be.
    pub fn check_room(&self, turn: &Turn) -> Result<(), Failure> {
        let cells = self.cells.lock();
        let others = cells.values().filter(|cell| !Arc::ptr_eq(cell, &turn.cell) && cell.facts.borrow().kernel != 0);
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
        let facts = *self.facts.borrow();
        (facts.kernel != 0).then(|| KernelInfo {
            name: self.name.clone(),
            busy: facts.busy,
            waiting: self.waiting.load(Ordering::Relaxed),
            calls: facts.calls,
            started_ms: facts.started_ms,
            memory_bytes: facts.memory_bytes,
        })
    }

    fn lives(&self) -> bool {
        // A call that has it starts one if there is none.
        let Ok(mut seat) = self.seat.try_lock() else { return true };
        seat.look();
        self.note(&seat, false);
        seat.kernel.is_some() || seat.unattended.as_ref().is_some_and(|live| !live.is_lost())
    }

    fn note(&self, seat: &Seat, busy: bool) {
        self.facts.send_replace(match &seat.kernel {
            Some(kernel) => Facts {
                kernel: seat.started,
                busy,
                calls: kernel.calls(),
                started_ms: kernel.started_ms(),
                memory_bytes: kernel.memory_bytes(),
            },
            None => Facts { busy, ..Facts::default() },
        });
    }
}

impl Seat {
    fn end(&mut self, why: String) {
        if self.kernel.take().is_some() {
            self.ended = Some(why);
        }
    }

    /// Ends the kernel if that was ordered.
    fn obey(&mut self, cell: &Cell) {
        if self.started <= *cell.doomed.borrow() {
            self.end("it was restarted".to_owned());
        }
    }

    /// Notices that the kernel ended while nobody used it.
    fn look(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        if kernel.live().is_lost() {
            let why = kernel.live().why_gone();
            self.end(why.to_owned());
        } else if let Some(ended) = kernel.ended_unseen() {
            let live = kernel.live().clone();
            let why = ended.unwrap_or_else(|SupervisorLost| {
                self.unattended = Some(live);
                "its processes were killed".to_owned()
            });
            self.end(why);
        }
    }
}

impl Place {
    /// The kernel's name.
    pub fn name(&self) -> &KernelName {
        &self.cell.name
    }

    /// Waits for the turn.
    pub async fn turn(self) -> Turn {
        let Self { cell, waiting, seat, reopened } = self;
        let seat = match seat {
            Awaited::Taken(seat) => seat,
            Awaited::Queued(seat) => seat.await,
        };
        drop(waiting);
        cell.facts.send_modify(|facts| facts.busy = true);
        Turn { cell, seat, reopened }
    }
}

impl Turn {
    /// The kernel's name.
    pub fn name(&self) -> &KernelName {
        &self.cell.name
    }

    /// Whether that ends a sandbox.
    pub fn must_clear(&mut self) -> bool {
        self.seat.look();
        self.seat.unattended.is_some()
    }

    /// Ends the sandbox in which a kernel was lost with whatever it had started, so that the next one is begun anew.
    pub async fn clear(&mut self) {
        self.seat.look();
        if let Some(live) = self.seat.unattended.take() {
            live.destroy().await;
        }
    }

    /// Whether the kernel runs in this life of the sandbox, so that none is started.
    pub fn is_ready(&mut self, live: &Arc<Live>) -> bool {
        self.seat.look();
        self.seat.obey(&self.cell);
        self.seat.kernel.as_ref().is_some_and(|kernel| Arc::ptr_eq(kernel.live(), live))
    }

    /// The kernel, started in this life of the sandbox when there is none, and a sentence about that.
    pub async fn ready(&mut self, live: &Arc<Live>) -> Result<(&mut Kernel, Option<String>), StartError> {
        self.seat.look();
        self.seat.obey(&self.cell);
        let gone = self.seat.kernel.as_ref().map(Kernel::live).filter(|gone| !Arc::ptr_eq(gone, live));
        if let Some(why) = gone.map(|gone| gone.why_gone()) {
            self.seat.end(why.to_owned());
        }
        let mut news = None;
        if self.seat.kernel.is_none() {
            let fresh = Kernel::start(live).await?;
            self.seat.kernel = Some(fresh);
            self.seat.started += 1;
            self.cell.note(&self.seat, true);
            news = Some(self.news());
        }
        Ok((self.seat.kernel.as_mut().expect("it was there or was just started"), news))
    }

    /// What the client should know of a kernel that was just started.
    fn news(&mut self) -> String {
        let name = &self.cell.name;
        match self.seat.ended.take() {
            Some(why) => format!("Kernel `{name}` was started anew, so earlier variables are gone: {why}."),
            None if self.reopened && self.seat.started == 1 => format!(
                "Kernel `{name}` was started. The session was reopened since it was created, which ended its processes: \
                 variables that a kernel of this name had before are gone."
            ),
            None => format!("Kernel `{name}` was started."),
        }
    }

    /// The kernel, once it is ready.
    pub fn kernel(&mut self) -> Option<&mut Kernel> {
        self.seat.kernel.as_mut()
    }

    /// Waits until it is ordered that the kernel be restarted.
    pub fn restarted(&self) -> impl Future<Output = ()> + use<> {
        let (mut doomed, kernel) = (self.cell.doomed.subscribe(), self.seat.started);
        async move {
            if doomed.wait_for(|upto| *upto >= kernel).await.is_err() {
                // The session is gone, and with it whoever might order that.
                std::future::pending().await
            }
        }
    }

    /// Ends the kernel if that was ordered.
    pub fn obey(&mut self) {
        self.seat.obey(&self.cell);
        self.cell.note(&self.seat, true);
    }

    /// Gives the kernel up, for this reason.
    pub fn end(&mut self, why: String) {
        self.seat.end(why);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // An order that came when the call was over is obeyed here.
        self.seat.obey(&self.cell);
        self.cell.note(&self.seat, false);
    }
}

/// Counts a call among those that wait.
struct Waiting(Arc<Cell>);

impl Waiting {
    fn enter(cell: &Arc<Cell>) -> Result<Self, Failure> {
        let this = Self(Arc::clone(cell));
        if cell.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            let message = format!("{WAITING_MAX} calls wait for kernel `{}`. Wait for some to end.", cell.name);
            return Err(Failure::new(ErrorCode::RateLimited, message));
        }
        Ok(this)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
