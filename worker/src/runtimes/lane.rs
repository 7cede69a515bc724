//! Lanes of a prepared interpreter: who may use which next, and the spare that waits in each.

use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sandbox::datagram::{self, AsyncSocket, Datagram};
use serde::Deserialize;
use tokio::sync::Notify;

use super::StartError;
use super::vitals::Observed;

/// A lane that is asked for so soon after its last program ended is in the hands of somebody who does not think between
/// calls.
const HURRY: Duration = Duration::from_millis(4);

/// How long a lane whose program has ended is waited for before another one is made, which takes longer.
const CLOSING_MAX: Duration = Duration::from_millis(20);

/// Asks for a spare that has done all it can before somebody needs it.
const AHEAD: &[u8] = b"s";
/// Asks for one that takes its job as soon as it can.
const AT_ONCE: &[u8] = b"h";

/// The lanes of one interpreter. A lane has one program with a job at a time.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The first one makes the others, also while it is in use.
    first: Arc<AsyncSocket>,
    standing: Mutex<Standing>,
    /// Told when a lane is free, or will not be.
    news: Notify,
}

#[derive(Debug)]
struct Standing {
    free: Vec<Lane>,
    /// Lanes that are free as soon as their last program is taken apart.
    closing: usize,
    /// Those who wait for one of them.
    waiting: usize,
}

/// Somebody who waits for a lane; counted until dropped.
struct Waiting<'a>(&'a Lanes);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.standing.lock().waiting -= 1;
    }
}

#[derive(Debug)]
struct Lane {
    orders: Arc<AsyncSocket>,
    /// Whether a spare was asked for that did not come yet.
    asked: bool,
    /// A spare that came before it was needed.
    spare: Option<Box<Spare>>,
    /// When its last program ended.
    ended: Option<Instant>,
}

/// A lane in use. Dropped, it is free for others, so nothing may be left then of what ran in it.
#[derive(Debug)]
pub(super) struct Taken {
    /// Absent once it is given up.
    lane: Option<Lane>,
    home: Arc<Lanes>,
    hurried: bool,
    /// Since when it is worth waiting for.
    closing: Option<Instant>,
    /// Spares that were asked for ahead of need and refused.
    refused: u64,
}

/// A program that waits for its job.
#[derive(Debug)]
pub(super) struct Spare {
    /// Where the lane is told what to do with it, and says how it ended.
    pub control: OwnedFd,
    /// Where it gets its job and says how it ends.
    pub jobs: AsyncSocket,
    /// Itself, where the system has process descriptors.
    pub process: Option<Observed>,
}

/// What a lane says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Spare {},
    Failed { step: String, errno: i32 },
}

impl Lanes {
    /// The lanes of an interpreter that was just started, and asks for the first spare.
    pub async fn new(first: OwnedFd) -> Result<Arc<Self>, StartError> {
        let first = Arc::new(AsyncSocket::new(first).map_err(StartError::Descriptors)?);
        let mut lane = Lane::new(first.clone());
        lane.ask(AHEAD).await?;
        let standing = Mutex::new(Standing { free: vec![lane], closing: 0, waiting: 0 });
        Ok(Arc::new(Self { first, standing, news: Notify::new() }))
    }

    /// A lane that nobody uses.
    pub async fn take(self: &Arc<Self>) -> Result<Taken, StartError> {
        let asked = Instant::now();
        let lane = match tokio::time::timeout(CLOSING_MAX, self.take_free()).await {
            Ok(Some(lane)) => lane,
            Ok(None) | Err(_) => self.make().await?,
        };
        let hurried = lane.ended.is_some_and(|ended| asked.saturating_duration_since(ended) < HURRY);
        Ok(Taken { lane: Some(lane), home: self.clone(), hurried, closing: None, refused: 0 })
    }

    /// A lane that is free, or will be in a moment.
    async fn take_free(&self) -> Option<Lane> {
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            {
                let mut standing = self.standing.lock();
                if let Some(lane) = standing.free.pop() {
                    return Some(lane);
                }
                if standing.closing <= standing.waiting {
                    return None;
                }
                standing.waiting += 1;
            }
            let _waiting = Waiting(self);
            news.await;
        }
    }

    async fn make(&self) -> Result<Lane, StartError> {
        let (orders, theirs) = datagram::pair().map_err(StartError::Descriptors)?;
        self.first.send(b"l", &[theirs.as_fd()]).await.map_err(|_| StartError::InterpreterLost)?;
        let orders = Arc::new(AsyncSocket::new(orders).map_err(StartError::Descriptors)?);
        Ok(Lane::new(orders))
    }
}

impl Taken {
    /// The spare of the lane, as soon as there is one.
    pub async fn spare(&mut self) -> Result<Spare, StartError> {
        let lane = self.lane.as_mut().ok_or(StartError::InterpreterLost)?;
        let ahead = lane.asked;
        match lane.spare().await {
            // What could not be had then may be had now.
            Err(StartError::Fork { .. }) if ahead => lane.spare().await,
            other => other,
        }
    }

    /// Whether it was taken as soon as it was free, so that it probably will be again.
    pub fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// Says that its program has ended, so that it is worth waiting for.
    pub fn close(&mut self) {
        if self.closing.is_none() {
            self.closing = Some(Instant::now());
            self.home.standing.lock().closing += 1;
        }
    }

    /// Waits until the spare that was asked for is there, or is not to be had: what of the lane waits for its next job.
    /// Cancel-safe.
    pub async fn settled(&mut self) -> Option<&Observed> {
        let lane = self.lane.as_mut()?;
        if lane.asked {
            match lane.receive().await {
                Ok(spare) => lane.spare = Some(Box::new(spare)),
                // It is asked for once more when it is needed.
                Err(StartError::Fork { .. }) => self.refused += 1,
                Err(_) => {}
            }
        }
        lane.spare.as_ref()?.process.as_ref()
    }

    /// How many spares were refused since it was taken, as far as it has settled: they are none of its program's.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Lets the lane make its next spare, ahead of need.
    pub async fn refill(&mut self) {
        let order = if self.hurried { AT_ONCE } else { AHEAD };
        if let Some(lane) = &mut self.lane {
            // One that is gone is noticed by whoever needs the spare.
            let _ = lane.ask(order).await;
        }
    }

    /// Leaves the lane to nobody, since what became of its last program is not known.
    pub fn give_up(mut self) {
        self.lane = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut standing = self.home.standing.lock();
        standing.closing -= usize::from(self.closing.is_some());
        if let Some(mut lane) = self.lane.take() {
            lane.ended = Some(self.closing.unwrap_or_else(Instant::now));
            // One that is free is enough; the first cannot be had again.
            if Arc::ptr_eq(&lane.orders, &self.home.first) {
                standing.free.clear();
            }
            if standing.free.is_empty() {
                standing.free.push(lane);
            }
        }
        drop(standing);
        self.home.news.notify_waiters();
    }
}

impl Lane {
    fn new(orders: Arc<AsyncSocket>) -> Self {
        Self { orders, asked: false, spare: None, ended: None }
    }

    async fn ask(&mut self, order: &[u8]) -> Result<(), StartError> {
        if !self.asked && self.spare.is_none() {
            self.orders.send(order, &[]).await.map_err(|_| StartError::InterpreterLost)?;
            self.asked = true;
        }
        Ok(())
    }

    async fn spare(&mut self) -> Result<Spare, StartError> {
        let spare = match self.spare.take() {
            Some(spare) => *spare,
            None => {
                self.ask(AT_ONCE).await?;
                self.receive().await?
            }
        };
        // One that was made ahead of need would run with nobody who answers for it. Without a job it ends by itself.
        if self.orders.is_hung_up() {
            return Err(StartError::InterpreterLost);
        }
        Ok(spare)
    }

    async fn receive(&mut self) -> Result<Spare, StartError> {
        let Datagram { bytes, descriptors } =
            self.orders.recv().await.ok().flatten().ok_or(StartError::InterpreterLost)?;
        self.asked = false;
        match serde_json::from_slice(&bytes) {
            Ok(Word::Spare {}) => {
                let mut descriptors = descriptors.into_iter();
                let (Some(control), Some(jobs)) = (descriptors.next(), descriptors.next()) else {
                    return Err(StartError::InterpreterLost);
                };
                let jobs = AsyncSocket::new(jobs).map_err(StartError::Descriptors)?;
                Ok(Spare { control, jobs, process: descriptors.next().and_then(Observed::new) })
            }
            Ok(Word::Failed { step, errno }) => {
                Err(StartError::Fork { step, source: std::io::Error::from_raw_os_error(errno) })
            }
            Err(_) => Err(StartError::InterpreterLost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn order(interpreter: &AsyncSocket) -> Vec<u8> {
        interpreter.recv().await.unwrap().unwrap().bytes
    }

    #[tokio::test]
    async fn a_lane_that_gave_no_program_is_free_again_and_others_are_made_only_when_none_is() {
        let (ours, theirs) = datagram::pair().unwrap();
        let interpreter = AsyncSocket::new(theirs).unwrap();
        let lanes = Lanes::new(ours).await.unwrap();
        assert_eq!(order(&interpreter).await, b"s");
        let mut first = lanes.take().await.unwrap();
        interpreter.send(br#"{"failed":{"step":"fork","errno":11}}"#, &[]).await.unwrap();
        interpreter.send(br#"{"failed":{"step":"fork","errno":12}}"#, &[]).await.unwrap();
        let refused = first.spare().await;
        assert!(matches!(refused, Err(StartError::Fork { source, .. }) if source.raw_os_error() == Some(12)));
        assert_eq!(order(&interpreter).await, b"h", "what was refused ahead of need is asked for once more");
        drop(first);
        let first = lanes.take().await.unwrap();
        let second = lanes.take().await.unwrap();
        assert_eq!(order(&interpreter).await, b"l", "only the second needs a lane of its own");
        drop((second, first));
        assert_eq!(lanes.standing.lock().free.len(), 1);
        drop((lanes.take().await.unwrap(), lanes));
        assert!(interpreter.recv().await.unwrap().is_none(), "the first is the last to go");
    }

    #[tokio::test]
    async fn a_lane_whose_program_has_ended_is_waited_for() {
        let (ours, theirs) = datagram::pair().unwrap();
        let interpreter = AsyncSocket::new(theirs).unwrap();
        let lanes = Lanes::new(ours).await.unwrap();
        let mut first = lanes.take().await.unwrap();
        first.close();
        let mut next = pin!(lanes.take());
        assert!(futures::poll!(&mut next).is_pending());
        let other = lanes.take().await.unwrap();
        assert_eq!(order(&interpreter).await, b"s");
        assert_eq!(order(&interpreter).await, b"l", "one lane is not waited for by two");
        other.give_up();
        drop(first);
        let next = next.await.unwrap();
        assert!(next.lane.as_ref().unwrap().ended.is_some(), "it is the one that was closed");
        assert!(futures::poll!(pin!(interpreter.recv())).is_pending(), "no other lane is asked for");
        let mut lost = next;
        lost.close();
        let mut waiting = pin!(lanes.take());
        assert!(futures::poll!(&mut waiting).is_pending());
        lost.give_up();
        waiting.await.unwrap();
        assert_eq!(order(&interpreter).await, b"l", "one that will not be free is not waited for");
    }

    #[tokio::test]
    async fn a_spare_that_comes_before_it_is_needed_is_kept_and_one_that_is_refused_is_asked_for_again() {
        let (ours, theirs) = datagram::pair().unwrap();
        let interpreter = AsyncSocket::new(theirs).unwrap();
        let mut lane = Lanes::new(ours).await.unwrap().take().await.unwrap();
        let (control, jobs) = datagram::pair().unwrap();
        let itself = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
        let spare = [control.as_fd(), jobs.as_fd(), itself.as_ref().unwrap().as_fd()];
        assert_eq!(order(&interpreter).await, b"s");
        interpreter.send(br#"{"spare":{}}"#, &spare).await.unwrap();
        assert!(lane.settled().await.is_some(), "it waits for a job");
        lane.refill().await;
        assert!(lane.spare().await.unwrap().process.is_some());
        assert!(lane.settled().await.is_none(), "none was asked for while there was one");
        lane.refill().await;
        assert_eq!(order(&interpreter).await, b"s");
        interpreter.send(br#"{"failed":{"step":"fork","errno":11}}"#, &[]).await.unwrap();
        assert!(lane.settled().await.is_none());
        assert_eq!(lane.refused(), 1);
        interpreter.send(br#"{"spare":{}}"#, &spare).await.unwrap();
        lane.spare().await.unwrap();
        assert_eq!(order(&interpreter).await, b"h");
    }

    #[tokio::test]
    async fn a_spare_of_a_lane_that_is_gone_gets_no_job() {
        let (ours, theirs) = datagram::pair().unwrap();
        let interpreter = AsyncSocket::new(theirs).unwrap();
        let lanes = Lanes::new(ours).await.unwrap();
        let (control, jobs) = datagram::pair().unwrap();
        interpreter.send(br#"{"spare":{}}"#, &[control.as_fd(), jobs.as_fd()]).await.unwrap();
        drop(interpreter);
        let spare = lanes.take().await.unwrap().spare().await;
        assert!(matches!(spare, Err(StartError::InterpreterLost)));
    }
}
