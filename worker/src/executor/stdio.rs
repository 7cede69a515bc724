//! The three standard streams of a program.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;

/// The ends that the program gets.
#[derive(Debug)]
pub(crate) struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// The ends that the worker keeps.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Absent when there is nothing to write.
    pub stdin: Option<pipe::Sender>,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
}

impl Stdio {
    /// Makes the pipes. `owner` is the user id under which the program runs, when it is not the worker's: a pipe belongs
    /// to whoever made it, and a program that opens `/dev/stderr` must be allowed to.
    pub fn make(with_stdin: bool, owner: Option<u32>) -> io::Result<(Self, Streams)> {
        let (stdin, feed) = if with_stdin {
            let (read, write) = pipe_for(owner)?;
            (read, Some(pipe::Sender::from_owned_fd(write)?))
        } else {
            (OwnedFd::from(File::open("/dev/null")?), None)
        };
        let (stdout_read, stdout) = pipe_for(owner)?;
        let (stderr_read, stderr) = pipe_for(owner)?;
        let streams = Streams { stdin: feed, stdout: receiver(stdout_read)?, stderr: receiver(stderr_read)? };
        Ok((Self { stdin, stdout, stderr }, streams))
    }
}

/// A pipe through which a program says something beside its streams: its end, and ours.
pub(crate) fn one_way(owner: Option<u32>) -> io::Result<(OwnedFd, pipe::Receiver)> {
    let (read, write) = pipe_for(owner)?;
    Ok((write, receiver(read)?))
}

/// The reading end of a pipe that was just made, so that nobody needs to ask what it is.
fn receiver(read: OwnedFd) -> io::Result<pipe::Receiver> {
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    pipe::Receiver::from_owned_fd_unchecked(read)
}

fn pipe_for(owner: Option<u32>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    if let Some(id) = owner {
        rustix::fs::fchown(&read, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    }
    Ok((read, write))
}
