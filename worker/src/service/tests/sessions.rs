//! Opening and closing sessions while others are opened and closed, end slowly, or cannot be put away.

use std::path::{Path, PathBuf};

use codegen_proto::{Egress, EgressHost};
use codegen_types::packages::HostPort;
use codegen_types::{Contact, ContactOutcome, Reach};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn reaching(names: &[&str]) -> Option<Egress> {
    let host = |name: &&str| EgressHost { host: HostPort::new(name, 443).unwrap(), reach: Reach::Public };
    Some(Egress { hosts: names.iter().map(host).collect(), secrets: Vec::new() })
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} in time"))
}

/// Waits until a session's processes are being ended.
async fn is_ending(bench: &Bench, session: SessionId) {
    in_time("the session ends", async {
        let lives = |held: &codegen_types::HeldSession| held.session == session && held.open;
        while bench.service.pool().held().await.unwrap().iter().any(lives) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_processes_do_not_die_holds_up_no_other_that_is_opened_or_permitted_less() {
    let bench = Arc::new(Bench::new(prints("")).await);
    let other = bench.opening(SessionId::mint(), 1);
    bench.mortal.send_replace(false);
    let again = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.open(3).await }
    });
    is_ending(&bench, bench.session).await;
    let open = |egress| bench.open_as(OpenSession { egress, ..other.clone() });
    assert_eq!(in_time("another is opened", open(reaching(&["a.example", "b.example"]))).await, Ok(true));
    assert_eq!(in_time("it is permitted less", open(reaching(&["a.example"]))).await, Ok(true));
    let third = in_time("a third is refused", bench.open_session(SessionId::mint(), 1, IsolationLevel::Full)).await;
    assert_eq!(third.err(), Some(ErrorCode::NoCapacity), "what is opened again keeps its place");
    assert!(!again.is_finished(), "its earlier life is not over");
    bench.mortal.send_replace(true);
    assert_eq!(in_time("it is opened again", again).await.unwrap(), Ok(false), "its files are there already");
}

#[tokio::test]
async fn a_session_that_is_opened_by_several_at_once_has_one_life_under_the_highest_epoch() {
    let bench = Arc::new(Bench::new(prints("")).await);
    bench.mortal.send_replace(false);
    let opening = |epoch| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.open(epoch).await })
    };
    let third = opening(3);
    is_ending(&bench, bench.session).await;
    let (fifth, fourth) = (opening(5), opening(4));
    bench.mortal.send_replace(true);
    assert_eq!(in_time("the third", third).await.unwrap(), Ok(false));
    assert_eq!(in_time("the fifth", fifth).await.unwrap(), Ok(false));
    // Whichever came first, the epoch does not go back.
    let _either = in_time("the fourth", fourth).await.unwrap();
    assert_eq!(bench.service.pool().open_now(), [(bench.session, Epoch(5))]);
    assert_eq!(bench.open(4).await.err(), Some(ErrorCode::PermissionDenied));
}

#[tokio::test]
async fn what_is_closed_while_it_is_opened_is_closed_in_the_end() {
    let bench = Arc::new(Bench::new(prints("")).await);
    bench.mortal.send_replace(false);
    let again = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.open(3).await }
    });
    is_ending(&bench, bench.session).await;
    let closed = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.close(3, true).await }
    });
    in_time("the lease is over at once", async {
        while bench.execute(bench.request(TaskId::mint(), 3)).await.err() != Some(ErrorCode::PermissionDenied) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    bench.mortal.send_replace(true);
    // It was opened before it was closed, or came upon its end.
    let _either = in_time("it was opened", again).await.unwrap();
    assert_eq!(in_time("it is closed", closed).await.unwrap(), Ok(0));
    assert_eq!(bench.service.pool().open_now(), []);
    assert!(bench.service.pool().held().await.unwrap().is_empty(), "its workspace is gone");
}

/// A file system at a directory, which cannot be moved meanwhile.
struct Mounted(PathBuf);

impl Mounted {
    /// None where tests may not mount.
    fn at(directory: &Path) -> Option<Self> {
        let mounted = mount("tmpfs", directory, "tmpfs", MountFlags::NOSUID, None);
        mounted.inspect_err(|errno| println!("SKIPPED: it needs to mount a file system: {errno}")).ok()?;
        Some(Self(directory.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn contacts_of_a_session_whose_workspace_cannot_be_deleted_are_told_by_the_close_that_can() {
    let bench = Bench::without_session(prints(""), IsolationLevel::Full).await;
    let egress = reaching(&["a.example"]);
    assert_eq!(bench.open_as(OpenSession { egress, ..bench.opening(bench.session, 2) }).await, Ok(true));
    let session = bench.service.pool().get(bench.session, &bench.lease(2)).unwrap();
    session.egress().unwrap().contacts().refuse_stranger(HostPort::new("c.example", 443).as_ref());
    let workspace = bench.directory.path().join("workspaces").join(bench.session.to_string());
    let Some(mounted) = Mounted::at(&workspace) else { return };
    assert_eq!(bench.close_as(2, true).await, Err(ErrorCode::Internal));
    drop(mounted);
    let Contact { host, outcome, connections, .. } = &bench.close_as(2, true).await.unwrap().contacts[0];
    assert_eq!((host.as_str(), *outcome, *connections), ("c.example:443", ContactOutcome::Refused, 1));
    assert_eq!(bench.close_as(2, true).await.unwrap().contacts, [], "once");
}

#[tokio::test]
async fn contacts_that_nobody_was_told_of_are_told_of_the_next_life_of_their_session() {
    let bench = Bench::without_session(prints(""), IsolationLevel::Full).await;
    let open = |epoch| {
        let egress = reaching(&["a.example"]);
        bench.open_as(OpenSession { egress, ..bench.opening(bench.session, epoch) })
    };
    assert_eq!(open(2).await, Ok(true));
    let session = bench.service.pool().get(bench.session, &bench.lease(2)).unwrap();
    session.egress().unwrap().contacts().refuse_stranger(None);
    assert_eq!(open(3).await, Ok(false));
    assert_eq!(bench.close_as(3, true).await.unwrap().contacts.len(), 1);
}
