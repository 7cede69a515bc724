//! The process that draws one picture, from its standard input to its standard output.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::picture::{self, TooLarge};

/// The largest picture that is looked at, in bytes.
const INPUT_BYTES_MAX: u64 = 32 << 20;
/// Memory of this process, in bytes.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Processor time of this process, in seconds.
const CPU_SECONDS_MAX: u64 = 8;

/// The exit code for what may be a picture and is too large to be drawn.
pub(super) const TOO_LARGE: u8 = 2;

/// How this process ends when it refuses a picture.
pub(crate) fn exit_code(refusal: &anyhow::Error) -> ExitCode {
    if refusal.is::<TooLarge>() { TOO_LARGE.into() } else { ExitCode::FAILURE }
}

/// Reads a picture of that media type and writes it as a model can take it: its media type, a line feed, its bytes.
///
/// # Errors
/// When it is no picture of that type, or is too large; the text is for the client.
pub(crate) fn run(mime: &str) -> anyhow::Result<()> {
    confine().context("the process that draws pictures cannot be confined")?;
    let mut data = Vec::new();
    io::stdin().take(INPUT_BYTES_MAX + 1).read_to_end(&mut data).context("it cannot be read")?;
    anyhow::ensure!(
        data.len() as u64 <= INPUT_BYTES_MAX,
        TooLarge(format!("it has more than {INPUT_BYTES_MAX} bytes"))
    );
    let drawn = picture::fit(mime, data)?;
    let mut out = io::stdout().lock();
    out.write_all(drawn.mime.as_bytes()).and_then(|()| out.write_all(b"\n")).context("it cannot be passed on")?;
    out.write_all(&drawn.data).and_then(|()| out.flush()).context("it cannot be passed on")
}

/// Gives up what a decoder needs none of.
fn confine() -> io::Result<()> {
    let limit = |max| Rlimit { current: Some(max), maximum: Some(max) };
    setrlimit(Resource::As, limit(MEMORY_BYTES_MAX))?;
    setrlimit(Resource::Cpu, limit(CPU_SECONDS_MAX))?;
    setrlimit(Resource::Fsize, limit(0))?;
    setrlimit(Resource::Core, limit(0))?;
    sandbox::without_files()?;
    sandbox::only_computing()
}
