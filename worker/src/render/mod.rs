//! Pictures that programs show, made fit for a model: checked, scaled and encoded again in a process of its own.
//!
//! What a program calls a picture is the session's own, hostile word. It is decoded by a short-lived process without
//! files, environment or a user of its own, under limits of memory and processor time, and killed at the first system
//! call that decoding does not need: a picture that is a trap costs that process.

mod picture;
mod process;

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, oneshot};

pub(crate) use process::{exit_code, run};

/// The longest side of a picture for a model, in pixels.
const SIDE_PIXELS_MAX: u32 = 1_568;
/// A picture for a model, in bytes.
const PICTURE_BYTES_MAX: usize = 1_000_000;
/// How long a picture may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pictures that are drawn at once, whoever they are for; further ones wait for their turn. Each may take a processor for
/// seconds, and memory.
static AT_ONCE: Semaphore = Semaphore::const_new(2);
/// Who decodes pictures when the worker is root: nobody.
const NOBODY: u32 = 65_534;
/// How much of a refusal is read, in bytes.
const REFUSAL_BYTES_MAX: u64 = 512;

/// A picture fit for a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// `image/png` or `image/jpeg`.
    pub mime: String,
    /// Its bytes, at most 1 MB.
    pub data: Vec<u8>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPicture {
    /// It is none.
    #[error("{0}")]
    Refused(String),
    /// It may be one, but takes more than drawing may.
    #[error("{0}")]
    TooLarge(String),
    /// It took too long.
    #[error("it took longer than {} s to draw", DEADLINE.as_secs())]
    TooLong,
    /// The process that draws it failed.
    #[error("it could not be drawn")]
    Process(#[from] io::Error),
}

/// Makes a picture of that media type fit for a model. How long it waits for its turn is up to the caller.
///
/// # Errors
/// When it is no picture of that type, or cannot be drawn within bounds.
pub(crate) async fn render(mime: &str, data: Vec<u8>) -> Result<Picture, NoPicture> {
    let turn = AT_ONCE.acquire().await.map_err(io::Error::other)?;
    let mut child = command(mime).spawn()?;
    let mime = mime.to_owned();
    let (mut wanted, picture) = oneshot::channel();
    tokio::spawn(async move {
        let drawn = tokio::select! {
            drawn = draw(&mut child, &mime, data) => drawn,
            () = tokio::time::sleep(DEADLINE) => Err(NoPicture::TooLong),
            () = wanted.closed() => Err(NoPicture::TooLong),
        };
        // Its turn ends when the process is gone: until then it holds its memory.
        let _ = child.start_kill();
        let _ = child.wait().await;
        drop(turn);
        let _ = wanted.send(drawn);
    });
    picture.await.map_err(io::Error::other)?
}

async fn draw(child: &mut Child, mime: &str, data: Vec<u8>) -> Result<Picture, NoPicture> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("three pipes were asked for").into());
    };
    let feed = async move {
        // A process that refuses early reads no more.
        let _ = stdin.write_all(&data).await;
    };
    let (mut drawn, mut refusal) = (Vec::new(), String::new());
    let mut bounded = stdout.take(PICTURE_BYTES_MAX as u64 + 64);
    let mut complaints = stderr.take(REFUSAL_BYTES_MAX);
    let ((), read, _) = tokio::join!(feed, bounded.read_to_end(&mut drawn), complaints.read_to_string(&mut refusal));
    read?;
    let status = child.wait().await?;
    if status.signal() == Some(libc::SIGSYS) {
        tracing::warn!(mime, "a picture made its decoder ask for what no picture needs");
        return Err(NoPicture::Refused("it made its decoder do what no picture needs".to_owned()));
    }
    if !status.success() {
        let why = refusal.trim().to_owned();
        return Err(match status.code() {
            // It was killed for what it used.
            _ if why.is_empty() => NoPicture::TooLarge("it is too large to draw".to_owned()),
            Some(code) if code == i32::from(process::TOO_LARGE) => NoPicture::TooLarge(why),
            _ => NoPicture::Refused(why),
        });
    }
    let malformed = || io::Error::other("the process that draws pictures gave none");
    let line = drawn.iter().position(|byte| *byte == b'\n').ok_or_else(malformed)?;
    let data = drawn.split_off(line + 1);
    let mime = String::from_utf8(drawn[..line].to_vec()).map_err(|_| malformed())?;
    Ok(Picture { mime, data })
}

/// This program in its role as the one that draws pictures.
fn command(mime: &str) -> Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    // The one binary of the product is a worker only with this word.
    command.args(std::env::args_os().nth(1).filter(|role| role == "worker"));
    command.arg("--render").arg(mime).env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}
