//! `coordinator top`: the workers, sessions and running tasks of the server, live.
//!
//! The terminal is as it was before however it ends: by a key, a signal, or the server's end.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::asked::{AskedError, ask};
use super::columns::shortened;
use super::{complain, json, print, tasks, workers};
use crate::control::{Ask, OperateAsk};
use crate::operators::Top;

/// The shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A screen of its own, without cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The cursor, and the screen that was there.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Ctrl-C as it arrives while the terminal sends no signals for it.
const CTRL_C: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Print once and end; so it does also when stdout is no terminal
    #[arg(long)]
    once: bool,

    /// How often to look, such as 2s
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,

    /// Print JSON, once
    #[arg(long)]
    json: bool,
}

/// Why the view ended.
#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error(transparent)]
    Asked(#[from] AskedError),
    #[error("the terminal cannot be used")]
    Terminal(#[from] io::Error),
}

pub(super) fn run(args: &TopArgs, state_dir: &Path) -> ExitCode {
    if args.json || args.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return match look(state_dir) {
            Ok((top, _)) if args.json => print(&json::pretty(&top), ExitCode::SUCCESS),
            Ok((top, _)) => print(&(lines(&top, None, None).join("\n") + "\n"), ExitCode::SUCCESS),
            Err(error) => complain(&error, 1),
        };
    }
    // What went wrong is said once the terminal is as it was.
    match watch(state_dir, args.interval.max(INTERVAL_MIN)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

/// What was seen, and when.
type Look = (Top, Instant);

fn look(state_dir: &Path) -> Result<Look, AskedError> {
    let top = serde_json::from_value(ask(state_dir, Ask::Operate(OperateAsk::Top))?)?;
    Ok((top, Instant::now()))
}

/// Looks and draws until a key or a signal ends it.
fn watch(state_dir: &Path, interval: Duration) -> Result<(), TopError> {
    let mut before: Option<Look> = None;
    let mut now = look(state_dir)?;
    let screen = Screen::enter()?;
    loop {
        screen.draw(&now, before.as_ref())?;
        match screen.wait(interval)? {
            Told::Leave => return Ok(()),
            Told::Draw => {}
            Told::Nothing => before = Some(std::mem::replace(&mut now, look(state_dir)?)),
        }
    }
}

/// What happened while the view waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// The terminal has another size.
    Draw,
    Leave,
}

/// The terminal, while the view has it.
struct Screen {
    before: Termios,
    signals: SignalFd,
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut wanted = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH] {
            wanted.add(signal);
        }
        // From here on they come as something to read, so that none ends the process before the terminal is restored.
        wanted.thread_block()?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let screen = Self { before, signals };
        let mut raw = screen.before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        screen.write(ENTER)?;
        Ok(screen)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    fn draw(&self, now: &Look, before: Option<&Look>) -> io::Result<()> {
        let size = tcgetwinsize(io::stdout())?;
        let (width, height) = (usize::from(size.ws_col.max(20)), usize::from(size.ws_row.max(5)));
        let mut frame = String::from("\x1b[H");
        let lines = lines(&now.0, before.map(|before| Rates::between(before, now)), Some(width));
        for (at, line) in lines.iter().take(height - 1).enumerate() {
            let end = if at == 0 { "" } else { "\r\n" };
            frame.push_str(&format!("{end}{}\x1b[K", shortened(line, width)));
        }
        frame.push_str("\r\n\x1b[Kq leaves\x1b[J");
        self.write(&frame)
    }

    /// Waits for a key or a signal, at most so long.
    fn wait(&self, interval: Duration) -> io::Result<Told> {
        let stdin = io::stdin();
        let mut ready = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        let timeout = Timespec::try_from(interval).map_err(io::Error::other)?;
        if poll(&mut ready, Some(&timeout))? == 0 {
            return Ok(Told::Nothing);
        }
        let [keys, signals] = ready.map(|fd| !fd.revents().is_empty());
        if signals {
            let signal = self.signals.read_signal()?.map(|signal| signal.ssi_signo);
            let is_size = signal == u32::try_from(Signal::SIGWINCH as i32).ok();
            return Ok(if is_size { Told::Draw } else { Told::Leave });
        }
        let mut pressed = [0; 64];
        let count = if keys { rustix::io::read(&stdin, &mut pressed)? } else { 0 };
        let leaves = keys && (count == 0 || pressed[..count].iter().any(|key| matches!(*key, b'q' | b'Q' | CTRL_C)));
        Ok(if leaves { Told::Leave } else { Told::Draw })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = self.write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// What happened between two looks, for each second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rates {
    calls: f64,
    syncs: f64,
    /// How long a sync took on average, in milliseconds.
    sync_ms: f64,
}

impl Rates {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    fn between((before, then): &Look, (after, now): &Look) -> Self {
        let seconds = now.duration_since(*then).as_secs_f64().max(0.001);
        let syncs = after.log.syncs.saturating_sub(before.log.syncs) as f64;
        let took = after.log.sync_seconds - before.log.sync_seconds;
        Self {
            calls: after.calls.saturating_sub(before.calls) as f64 / seconds,
            syncs: syncs / seconds,
            sync_ms: if syncs > 0.0 { took / syncs * 1_000.0 } else { 0.0 },
        }
    }
}

/// Everything as lines. Without rates, what happened so far is counted.
fn lines(top: &Top, rates: Option<Rates>, width: Option<usize>) -> Vec<String> {
    let up = humantime::format_duration(Duration::from_secs_f64(top.up_seconds.max(0.0).floor()));
    let sessions: Vec<String> = top.sessions.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let sessions = if sessions.is_empty() { "none".to_owned() } else { sessions.join(", ") };
    let log = if top.log.writable { "writable" } else { "CANNOT BE WRITTEN" };
    let (calls, syncs) = match rates {
        Some(rates) => {
            let syncs = format!("{:.1} syncs/s of {:.2} ms", rates.syncs, rates.sync_ms);
            (format!("{:.1} calls/s", rates.calls), syncs)
        }
        None => (format!("{} calls", top.calls), format!("{} syncs", top.log.syncs)),
    };
    let mut lines = vec![
        format!("coordinator {}, process {}, up {up}", top.version, top.pid),
        format!("{calls}; {} tasks running; sessions: {sessions}", top.tasks_running),
        format!("log {log}, {syncs}"),
        String::new(),
    ];
    lines.extend(workers::rows(&top.workers, width).lines().map(str::to_owned));
    lines.push(String::new());
    if top.tasks.is_empty() {
        lines.push("No task runs.".to_owned());
    } else {
        lines.extend(tasks::rows(&top.tasks, width).lines().map(str::to_owned));
    }
    lines
}
