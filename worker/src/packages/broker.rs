//! Makes the connections of one installation, and notes what came of it.
//!
//! The program at the other end of the channel is not trusted: it may ask for anything, as often as it likes, and say
//! anything about what it installed.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codegen_types::Package;
use codegen_types::packages::{HostPort, canonical_name};
use parking_lot::Mutex;
use sandbox::datagram::AsyncSocket;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::gate::Gate;
use crate::upstream::{self, WayOut};

/// Connections of one installation that are open at once.
const CONNECTIONS_OPEN_MAX: usize = 16;
/// Connections of one installation.
const CONNECTIONS_MAX: u32 = 500;
/// What one installation may fetch, in bytes.
const FETCHED_BYTES_MAX: u64 = 4 << 30;
/// What one installation may send, in bytes: requests are short, and nothing else is meant to leave.
const SENT_BYTES_MAX: u64 = 8 << 20;
/// Hosts, packages and notes of one installation that are told.
const HOSTS_MAX: usize = 64;
const PACKAGES_MAX: usize = 1_000;
const NOTES_MAX: usize = 16;
/// The longest name or version of a package, in bytes.
const WORD_BYTES_MAX: usize = 128;
const PUMP_BYTES: usize = 64 << 10;

/// What came of an installation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Hosts that were reached.
    pub hosts: BTreeSet<String>,
    /// Packages that were installed.
    pub packages: Vec<Package>,
    /// Whether the program said what it installed.
    pub reported: bool,
    /// What the client should know beside, a sentence each.
    pub notes: Vec<String>,
}

/// What the program says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    Connect { host: String, port: u16 },
    Report(Report),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    installed: Vec<(String, String)>,
    present: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer<'a> {
    Connected,
    Refused(&'a str),
}

/// Serves one installation until its program is gone. Dropping the future ends every connection.
pub(super) struct Broker {
    pub way_out: WayOut,
    pub gate: Gate,
    pub told: Arc<Mutex<Told>>,
}

impl Broker {
    /// Answers until the channel ends.
    pub async fn serve(self, channel: AsyncSocket) {
        let meter = Arc::new(Meter::default());
        let mut pumps = JoinSet::new();
        let (mut asked, mut junk) = (0, 0);
        // An error is the end of the channel, too.
        while let Ok(Some(datagram)) = channel.recv().await {
            match serde_json::from_slice(&datagram.bytes) {
                Ok(Said::Connect { host, port }) => {
                    while pumps.try_join_next().is_some() {}
                    asked += 1;
                    let room = asked <= CONNECTIONS_MAX && pumps.len() < CONNECTIONS_OPEN_MAX;
                    let made =
                        if room { self.connect(&host, port).await } else { Err("too many connections".to_owned()) };
                    let sent = match made {
                        Ok((inside, pump)) => {
                            pumps.spawn(pump.run(Arc::clone(&meter)));
                            say(&channel, &Answer::Connected, Some(inside)).await
                        }
                        Err(why) => say(&channel, &Answer::Refused(&why), None).await,
                    };
                    if sent.is_err() {
                        return;
                    }
                }
                Ok(Said::Report(report)) => self.take(report),
                Err(error) if junk > 0 => {
                    tracing::warn!(%error, "an installation says what means nothing; it is heard no more");
                    return;
                }
                Err(error) => {
                    junk += 1;
                    tracing::warn!(%error, "an installation said something that means nothing");
                }
            }
        }
    }

    /// Connects to a host if it is permitted; else the reason, which is noted, too.
    async fn connect(&self, name: &str, port: u16) -> Result<(OwnedFd, Pump), String> {
        let Some(host) = HostPort::new(name, port) else { return Err("that is no host".to_owned()) };
        let Some(reach) = self.gate.reach(&host) else {
            self.note(format!("{host} was not reached: it is not among the hosts that the operator permits."));
            return Err(format!("{host} is not among the hosts that the operator permits"));
        };
        let encrypted = self.gate.index.as_ref().is_none_or(|index| index.host() != &host || index.is_encrypted());
        let outside = upstream::connect(&self.way_out, &host, encrypted, reach).await.map_err(|error| {
            tracing::info!(%host, error = &error as &dyn std::error::Error, "a package host was not reached");
            self.note(format!("{host} was not reached: {error}."));
            format!("{host}: {error}")
        })?;
        let (ours, inside) = std::os::unix::net::UnixStream::pair()
            .and_then(|(ours, inside)| {
                ours.set_nonblocking(true)?;
                Ok((UnixStream::from_std(ours)?, inside))
            })
            .map_err(|_| "the worker has no descriptor left".to_owned())?;
        let mut told = self.told.lock();
        if told.hosts.len() < HOSTS_MAX {
            told.hosts.insert(host.to_string());
        }
        Ok((inside.into(), Pump { inside: ours, outside }))
    }

    fn note(&self, note: String) {
        let mut told = self.told.lock();
        if told.notes.len() < NOTES_MAX && !told.notes.contains(&note) {
            told.notes.push(note);
        }
    }

    /// Keeps what is well formed of a report.
    fn take(&self, report: Report) {
        let packages = |list: Vec<(String, String)>| list.into_iter().take(PACKAGES_MAX).filter_map(package);
        let present: Vec<String> =
            packages(report.present).map(|package| format!("{} {}", package.name, package.version)).collect();
        let installed = packages(report.installed).collect();
        let mut told = self.told.lock();
        (told.packages, told.reported) = (installed, true);
        drop(told);
        if !present.is_empty() {
            let shown: String = present.join(", ").chars().take(2_000).collect();
            self.note(format!("Already there: {shown}."));
        }
    }
}

/// A package as a report names it, if that can be one.
pub(super) fn package((name, version): (String, String)) -> Option<Package> {
    let plain = |text: &str, more: &[u8]| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
        (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
    };
    let fits = plain(&name, b"._-") && plain(&version, b"._-+!");
    fits.then(|| Package { name: canonical_name(&name), version })
}

async fn say(channel: &AsyncSocket, answer: &Answer<'_>, descriptor: Option<OwnedFd>) -> std::io::Result<()> {
    let text = serde_json::to_vec(answer)?;
    let passed: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
    channel.send(&text, &passed).await
}

/// What all connections of an installation carried.
#[derive(Debug, Default)]
struct Meter {
    fetched: AtomicU64,
    sent: AtomicU64,
}

/// One connection: what comes from one side goes to the other.
struct Pump {
    inside: UnixStream,
    outside: tokio::net::TcpStream,
}

impl Pump {
    async fn run(self, meter: Arc<Meter>) {
        let (from_inside, to_inside) = self.inside.into_split();
        let (from_outside, to_outside) = self.outside.into_split();
        let fetch = carry(from_outside, to_inside, &meter.fetched, FETCHED_BYTES_MAX);
        let send = carry(from_inside, to_outside, &meter.sent, SENT_BYTES_MAX);
        tokio::select! {
            // What was asked for is over when the outside ends, or when too much was carried.
            () = fetch => {}
            exceeded = async { send.await; std::future::pending::<()>().await } => exceeded,
        }
    }
}

/// Copies until one side ends or the budget is used up.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, carried: &AtomicU64, max: u64) {
    let mut buffer = vec![0; PUMP_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let before = carried.fetch_add(count as u64, Ordering::Relaxed);
        if before + count as u64 > max || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    // A side that is gone needs no farewell.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_checked_as_anything_from_outside() {
        let broker = Broker { way_out: WayOut::default(), gate: Gate::default(), told: Arc::default() };
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let long = "x".repeat(200);
        let installed = vec![
            pair("A_b", "1.0+x"),
            pair("", "1"),
            pair("x", ""),
            pair("a\n", "1"),
            pair(&long, "1"),
            pair("x", "1\u{1b}"),
        ];
        broker.take(Report { installed, present: vec![pair("numpy", "2.0"), pair("../x", "1")] });
        let told = broker.told.lock().clone();
        assert_eq!(told.packages, [Package { name: "a-b".to_owned(), version: "1.0+x".to_owned() }]);
        assert_eq!(told.notes, ["Already there: numpy 2.0."]);
    }

    #[tokio::test]
    async fn nothing_is_reached_that_the_gate_does_not_permit() {
        let (ours, theirs) = sandbox::datagram::pair().unwrap();
        let told: Arc<Mutex<Told>> = Arc::default();
        let broker = Broker { way_out: WayOut::default(), gate: Gate::default(), told: told.clone() };
        let serving = tokio::spawn(broker.serve(AsyncSocket::new(ours).unwrap()));
        let program = AsyncSocket::new(theirs).unwrap();
        for question in [
            r#"{"connect":{"host":"127.0.0.1","port":22}}"#,
            r#"{"connect":{"host":"a b","port":1}}"#,
            "x",
            r#"{"connect":{"host":"h","port":99999}}"#,
        ] {
            program.send(question.as_bytes(), &[]).await.unwrap();
        }
        for _ in 0..2 {
            let answer = program.recv().await.unwrap().unwrap();
            assert!(answer.descriptors.is_empty() && answer.bytes.starts_with(b"{\"refused\""), "{answer:?}");
        }
        drop(program);
        serving.await.unwrap();
        assert!(told.lock().hosts.is_empty());
        assert_eq!(told.lock().notes.len(), 1);
    }
}
