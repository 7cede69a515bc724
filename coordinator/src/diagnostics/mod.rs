//! Diagnostics: rolling files for the operator, lines on stderr for a client that asked with `--debug`; never stdout.
//!
//! The appender may drop lines under load, which is right for diagnostics; the audit log never goes through it.

mod capped;
mod taps;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, Targets, dynamic_filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;
use capped::Capped;
pub use taps::{Tap, TapWriter, Taps};

/// Daily files that are kept.
const FILES_KEPT: usize = 7;
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
        let (file, flush) = tracing_appender::non_blocking(Capped::new(appender));
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
