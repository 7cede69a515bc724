//! Diagnostics: rolling files for the operator, lines on stderr for a client that asked with `--debug`; never stdout.
//!
//! The appender may drop lines under load, which is right for diagnostics; the audit log never goes through it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, Targets, dynamic_filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;
use crate::server::client_io::ClientOutput;
use crate::supervisor::{OnEnd, Supervisor};

/// Daily files that are kept.
const FILES_KEPT: usize = 7;
/// Lines that wait for one client's stderr. When it is full, lines are lost to that client alone.
const TAP_LINES_MAX: usize = 512;
/// How long a client may leave its stderr unread before it is given up.
const TAP_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that panics may write to stderr in one life of the process.
const PANIC_BYTES_MAX: usize = 256 << 10;
/// Our own crates, whose level is the configured one; libraries speak up only when something is wrong.
const OWN_TARGETS: [&str; 6] =
    ["coordinator", "coordinator_core", "codegen_audit", "codegen_proto", "codegen_types", "worker"];

/// Why diagnostics cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("diagnostics cannot be written to {dir}")]
pub struct DiagnosticsError {
    dir: PathBuf,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Keeps the diagnostics of this process going; dropping it writes what is left.
#[derive(Debug)]
pub struct Diagnostics {
    taps: Taps,
    _flush: WorkerGuard,
}

impl Diagnostics {
    /// Starts writing diagnostics, once per process.
    pub fn init(dir: &Path, level: LogLevel) -> Result<Self, DiagnosticsError> {
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| DiagnosticsError { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(|error| failed(error.into()))?;
        let appender = RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix("coordinator")
            .filename_suffix("log")
            .max_log_files(FILES_KEPT)
            .build(dir)
            .map_err(|error| failed(error.into()))?;
        let (file, flush) = tracing_appender::non_blocking(appender);
        let taps = Taps::default();
        let for_file = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(file).with_filter(targets(level));
        let tapped = taps.clone();
        let for_taps = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(taps.clone()).with_filter(
            dynamic_filter_fn(move |metadata, _| *metadata.level() <= Level::DEBUG && tapped.any())
                .with_max_level_hint(LevelFilter::DEBUG)
                .and(targets(LogLevel::Debug)),
        );
        let subscriber = tracing_subscriber::registry().with(for_file).with(for_taps);
        subscriber.try_init().map_err(|error| failed(error.into()))?;
        report_panics();
        Ok(Self { taps, _flush: flush })
    }

    /// The stderrs of clients that want to read along.
    pub fn taps(&self) -> &Taps {
        &self.taps
    }
}

fn targets(level: LogLevel) -> Targets {
    let (own, others) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(others).with_targets(OWN_TARGETS.map(|target| (target, own)))
}

/// A panic goes to the diagnostics and to stderr. stdout may be a client's protocol, so nothing else may print.
fn report_panics() {
    static LEFT: AtomicUsize = AtomicUsize::new(PANIC_BYTES_MAX);
    std::panic::set_hook(Box::new(|info| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(panic = %info, %backtrace, "a part of the process panicked");
        let text = format!("coordinator: {info}\n");
        let fits = LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(text.len()));
        if fits.is_ok() {
            // Where stderr is gone there is nobody left to tell.
            let _unheard = io::stderr().write_all(text.as_bytes());
        }
    }));
}

/// The stderrs of clients that want to read along.
#[derive(Debug, Clone, Default)]
pub struct Taps(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    open: AtomicUsize,
    senders: RwLock<BTreeMap<u64, mpsc::Sender<Arc<[u8]>>>>,
}

/// One client reading along, until it is dropped.
#[derive(Debug)]
pub struct Tap {
    taps: Taps,
    id: u64,
}

impl Taps {
    /// Copies diagnostics to a client's stderr from now on. A slow reader loses lines and delays nobody.
    pub fn open(&self, stderr: OwnedFd, supervisor: &Supervisor) -> io::Result<Tap> {
        let mut output = ClientOutput::new(stderr)?;
        let (sender, mut lines) = mpsc::channel::<Arc<[u8]>>(TAP_LINES_MAX);
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.senders.write().insert(id, sender);
        self.0.open.fetch_add(1, Ordering::Relaxed);
        supervisor.spawn("client stderr", OnEnd::Ignore, async move {
            while let Some(line) = lines.recv().await {
                let written = async { output.write_all(&line).await.and(output.flush().await) };
                if !matches!(tokio::time::timeout(TAP_PATIENCE, written).await, Ok(Ok(()))) {
                    return;
                }
            }
        });
        Ok(Tap { taps: self.clone(), id })
    }

    fn any(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.taps.0.senders.write().remove(&self.id).is_some() {
            self.taps.0.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Taps {
    type Writer = TapWriter<'a>;

    fn make_writer(&'a self) -> TapWriter<'a> {
        TapWriter(self)
    }
}

/// Writes one formatted line to every tap that has room.
#[derive(Debug)]
pub struct TapWriter<'a>(&'a Taps);

impl Write for TapWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shared: Arc<[u8]> = line.into();
        for sender in self.0.0.senders.read().values() {
            // A full queue means a client that does not read its stderr; it misses this line.
            let _missed = sender.try_send(Arc::clone(&shared));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::server::client_io::ClientInput;

    const LOGS: &str = "DIAGNOSTICS_TEST_LOGS";

    /// Run by the test below, in a process of its own, since panics and subscribers are the whole process's.
    #[test]
    fn panics_when_told_to() {
        let Some(dir) = std::env::var_os(LOGS) else { return };
        let diagnostics = Diagnostics::init(Path::new(&dir), LogLevel::Trace).unwrap();
        std::thread::spawn(|| panic!("told to")).join().unwrap_err();
        drop(diagnostics);
    }

    #[test]
    fn a_panic_is_told_to_the_operator_and_never_on_stdout() {
        let dir = tempfile::tempdir().unwrap();
        let name = "diagnostics::tests::panics_when_told_to";
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", name, "--nocapture"]).env(LOGS, dir.path()).output().unwrap();
        assert!(output.status.success());
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("told to");
        assert!(said(&output.stderr) && !said(&output.stdout), "{output:?}");
        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
        assert!(said(&std::fs::read(file.path()).unwrap()));
    }

    #[tokio::test]
    async fn a_client_reads_along_until_its_tap_is_dropped() {
        let taps = Taps::default();
        let (reader, writer) = io::pipe().unwrap();
        let tap = taps.open(writer.into(), &Supervisor::default()).unwrap();
        assert!(taps.any());
        taps.make_writer().write_all(b"one\n").unwrap();
        drop(tap);
        taps.make_writer().write_all(b"two\n").unwrap();
        let mut text = String::new();
        ClientInput::new(reader.into()).unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one\n");
        assert!(!taps.any());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_delays_nobody() {
        let taps = Taps::default();
        let (_reader, writer) = io::pipe().unwrap();
        let _tap = taps.open(writer.into(), &Supervisor::default()).unwrap();
        let line = vec![b'x'; 4096];
        for _ in 0..10 * TAP_LINES_MAX {
            taps.make_writer().write_all(&line).unwrap();
        }
    }
}
