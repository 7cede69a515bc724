//! The start message: what a worker is told at its start, as one line of JSON on standard input. The embedded worker gets
//! it of its coordinator, a remote one of itself.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;

use codegen_types::{IsolationLevel, Limits, PackageAccess, WorkerId};
use serde::{Deserialize, Serialize};

/// The longest start message, in bytes.
const START_BYTES_MAX: usize = 64 << 10;

/// What a worker is told at its start. It holds a secret, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartMessage {
    /// Proves to the coordinator that this is the worker it started. Secret. Absent in a remote worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where the coordinator listens: `unix:/path` or `host:port`.
    pub coordinator: String,
    /// The name of this worker.
    pub worker_id: WorkerId,
    /// The directory that holds one workspace for each session.
    pub base_workspace: PathBuf,
    /// Directories above it, closed to everybody else but where sessions with user ids of their own must pass them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_above: Vec<PathBuf>,
    /// How many sessions may be open at once.
    pub sessions_max: u32,
    /// Sessions are refused when less than this isolation is to be had.
    pub isolation_minimum: IsolationLevel,
    /// How many of them where sessions share the worker's user id, which is so at level reduced.
    #[serde(default = "one")]
    pub reduced_sessions: u32,
    /// What is logged to standard error: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    /// Directories to search for interpreters, separated by colons; the system's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_path: Option<String>,
    /// The limits that sessions will have: sandboxes with these are made ahead of need. None are when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_limits: Option<Limits>,
    /// How package indexes are reached; none are when absent.
    #[serde(default)]
    pub packages: PackageAccess,
    /// How it joins a coordinator on another host; absent in the embedded worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStart>,
}

fn one() -> u32 {
    1
}

/// What only a remote worker is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteStart {
    /// The file with the token that lets it join; without it, its certificate does.
    pub token_file: Option<PathBuf>,
    /// Its operator's labels.
    pub labels: BTreeMap<String, String>,
    /// How the coordinator is spoken to privately, if it is.
    pub tls: Option<TlsStart>,
    /// Where the coordinator dials; otherwise the worker does.
    pub advertise: Option<AdvertiseStart>,
    /// How long running tasks may go on after SIGTERM, in milliseconds.
    pub drain_ms: u64,
}

/// The files of TLS, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsStart {
    /// The certificates of the authority that says who the coordinator is.
    pub authority: PathBuf,
    /// What the worker shows of itself.
    pub pair: Option<TlsPair>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPair {
    /// The certificate, and those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where the coordinator dials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvertiseStart {
    /// What the coordinator is told, `host:port`.
    pub address: String,
    /// Where the worker listens.
    pub listen: SocketAddr,
}

/// Why there is no start message.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Standard input could not be read.
    #[error("standard input cannot be read")]
    Read(#[source] io::Error),
    /// Standard input ended before a whole line had come.
    #[error("standard input ended before the start message did; a coordinator starts this process")]
    Ended,
    /// The line is too long.
    #[error("the start message is longer than {START_BYTES_MAX} bytes")]
    TooLong,
    /// The line is not a start message. The cause is not kept: it could quote the secret.
    #[error("the start message is malformed near column {column}")]
    Malformed {
        /// Where parsing stopped, in bytes from 1.
        column: usize,
    },
}

impl StartMessage {
    /// Reads one line, byte by byte, so that nothing after it is taken from the stream.
    pub fn read(input: &mut impl Read) -> Result<Self, StartError> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            match input.read(&mut byte) {
                Ok(0) => return Err(StartError::Ended),
                Ok(_) if byte[0] == b'\n' => break,
                Ok(_) if line.len() == START_BYTES_MAX => return Err(StartError::TooLong),
                Ok(_) => line.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StartError::Read(error)),
            }
        }
        serde_json::from_slice(&line).map_err(|error| StartError::Malformed { column: error.column() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"token":"t","coordinator":"unix:/x","worker_id":"embedded","base_workspace":"/w","sessions_max":4,"isolation_minimum":"full","log_level":"info"}"#;

    #[test]
    fn one_line_is_read_and_nothing_after_it() {
        let text = format!("{LINE}\nrest");
        let mut input = text.as_bytes();
        let start = StartMessage::read(&mut input).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(start.worker_id.as_str(), "embedded");
        assert_eq!(input, b"rest");
    }

    #[test]
    fn an_unknown_field_an_endless_line_and_an_early_end_are_refused() {
        let unknown = LINE.replace("\"token\"", "\"tokn\":1,\"token\"") + "\n";
        assert!(matches!(StartMessage::read(&mut unknown.as_bytes()), Err(StartError::Malformed { .. })));
        let endless = vec![b'x'; START_BYTES_MAX + 2];
        assert!(matches!(StartMessage::read(&mut endless.as_slice()), Err(StartError::TooLong)));
        assert!(matches!(StartMessage::read(&mut LINE.as_bytes()), Err(StartError::Ended)));
    }
}
