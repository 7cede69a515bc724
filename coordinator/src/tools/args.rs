//! Arguments: read once, bounded, and refused with the name of the field that is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use codegen_types::egress::{SESSION_HOSTS_MAX, SESSION_SECRETS_MAX};
use codegen_types::packages::HostPort;
use codegen_types::{ErrorCode, Failure, Limits, SessionNetwork, WorkspacePath};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest Python source text, in bytes.
pub const CODE_BYTES_MAX: usize = 1 << 20;
/// The longest command line, in bytes.
pub const COMMAND_BYTES_MAX: usize = 128 << 10;
/// The longest standard input, in bytes.
pub const STDIN_BYTES_MAX: usize = 1 << 20;
/// All environment variables of a call together, in bytes.
pub const ENV_BYTES_MAX: usize = 64 << 10;
/// The most arguments of a program.
pub const ARGS_MAX: usize = 1_000;
/// All arguments of a program together, in bytes.
pub const ARGS_BYTES_MAX: usize = 128 << 10;
/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// The longest idle time that a session may ask for, in seconds.
pub const TTL_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// The longest time that a new session waits for a slot, in seconds.
pub const WAIT_FOR_SLOT_SECONDS_MAX: u64 = 300;
/// The most labels that a session may ask for.
pub const LABELS_MAX: usize = 16;
/// The longest name and the longest value of a label, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;
/// The longest text of a fault that is shown; what a client sent may be any size.
const FAULT_CHARS_MAX: usize = 300;

/// Reads a tool's input.
///
/// # Errors
/// `INVALID_ARGUMENT` that names the field and what is allowed.
pub(super) fn parse<T: DeserializeOwned>(args: &Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(args).map_err(|error| {
        let place = error.path().to_string();
        let fault = in_json_words(&error.into_inner().to_string());
        if place == "." { invalid_argument(fault) } else { invalid(&place, fault) }
    })
}

/// The refusal of a field.
pub(super) fn invalid(field: &str, fault: impl AsRef<str>) -> Failure {
    let field: String = field.chars().take(FAULT_CHARS_MAX).collect();
    invalid_argument(format!("`{field}`: {}", fault.as_ref()))
}

fn invalid_argument(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message)
}

/// The words of JSON instead of Rust's, and a bounded length.
fn in_json_words(fault: &str) -> String {
    let (said, expected) = fault.split_once(", expected ").unwrap_or((fault, ""));
    let mut text: String = said.chars().take(FAULT_CHARS_MAX).collect();
    if said.chars().nth(FAULT_CHARS_MAX).is_some() {
        text.push('…');
    }
    let expected = match expected {
        "" => return text,
        "u64" | "u32" => "a whole number, 0 or more",
        "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "an array",
        "a boolean" => "true or false",
        other => other,
    };
    text.push_str(", expected ");
    text.extend(expected.chars().take(FAULT_CHARS_MAX));
    text
}

/// A path inside the workspace.
///
/// # Errors
/// `PATH_VIOLATION`.
pub(super) fn path(field: &str, text: &str) -> Result<WorkspacePath, Failure> {
    WorkspacePath::parse(text).map_err(|e| Failure::new(ErrorCode::PathViolation, format!("`{field}`: {e}")))
}

/// A text of at most so many bytes.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn bounded(field: &str, text: &str, bytes_max: usize) -> Result<(), Failure> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    Err(invalid(field, format!("{} bytes are too many, at most {bytes_max} are allowed", text.len())))
}

/// A text that becomes part of a program's arguments or environment, where a NUL would end it early.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn without_nul(field: &str, text: &str) -> Result<(), Failure> {
    if text.contains('\0') { Err(invalid(field, "a NUL character is not allowed")) } else { Ok(()) }
}

/// An idempotency key.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn key(key: Option<String>) -> Result<Option<String>, Failure> {
    match &key {
        Some(text) if text.is_empty() => Err(invalid("idempotency_key", "an empty key is not allowed")),
        Some(text) => bounded("idempotency_key", text, KEY_BYTES_MAX).map(|()| key),
        None => Ok(None),
    }
}

/// The wall time of a task.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn timeout(seconds: Option<f64>, limits: &Limits) -> Result<Option<Duration>, Failure> {
    let Some(seconds) = seconds else { return Ok(None) };
    let longest = Duration::from_millis(limits.task_ms_max);
    match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if timeout >= Duration::from_millis(1) && timeout <= longest => Ok(Some(timeout)),
        _ => Err(invalid("timeout_seconds", format!("must be more than 0 and at most {}", longest.as_secs_f64()))),
    }
}

/// The idle time of a session.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn ttl(seconds: Option<u64>) -> Result<Option<Duration>, Failure> {
    match seconds {
        None => Ok(None),
        Some(seconds) if (1..=TTL_SECONDS_MAX).contains(&seconds) => Ok(Some(Duration::from_secs(seconds))),
        Some(_) => Err(invalid("ttl_seconds", format!("must be from 1 to {TTL_SECONDS_MAX}"))),
    }
}

/// Labels that a worker must carry.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn labels(labels: Option<BTreeMap<String, String>>) -> Result<BTreeMap<String, String>, Failure> {
    let labels = labels.unwrap_or_default();
    let is_short = |text: &str| text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
    let are_fine = labels.iter().all(|(name, value)| !name.is_empty() && is_short(name) && is_short(value));
    if labels.len() > LABELS_MAX || !are_fine {
        let fault = format!("must be at most {LABELS_MAX}, names and values of at most {LABEL_BYTES_MAX} bytes");
        return Err(invalid("labels", fault));
    }
    Ok(labels)
}

/// What a new session is to reach.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkInput {
    /// Hosts, `name` or `name:port`.
    allow: Vec<String>,
    /// Names of the operator's secrets.
    secrets: Option<Vec<String>>,
}

/// What a new session is to reach.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn network(input: Option<NetworkInput>) -> Result<SessionNetwork, Failure> {
    let Some(NetworkInput { allow, secrets }) = input else { return Ok(SessionNetwork::default()) };
    let mut secrets = secrets.unwrap_or_default();
    if allow.len() > SESSION_HOSTS_MAX || secrets.len() > SESSION_SECRETS_MAX {
        let fault = format!("has at most {SESSION_HOSTS_MAX} hosts and {SESSION_SECRETS_MAX} secrets");
        return Err(invalid("network", fault));
    }
    let host = |text: &String| {
        let name: String = text.chars().take(300).collect();
        HostPort::parse(text, 443).map_err(|error| invalid("network", format!("{name:?}: {error}")))
    };
    let mut allow = allow.iter().map(host).collect::<Result<Vec<_>, _>>()?;
    allow.sort();
    allow.dedup();
    secrets.sort();
    secrets.dedup();
    Ok(SessionNetwork { allow, secrets, ..SessionNetwork::default() })
}

/// How long a new session waits for a slot.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn wait_for_slot(seconds: Option<u64>) -> Result<Duration, Failure> {
    match seconds.unwrap_or(0) {
        seconds @ 0..=WAIT_FOR_SLOT_SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        _ => Err(invalid("wait_seconds", format!("must be at most {WAIT_FOR_SLOT_SECONDS_MAX}"))),
    }
}

/// A program's arguments.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn program_args(args: &[String]) -> Result<(), Failure> {
    if args.len() > ARGS_MAX {
        return Err(invalid("args", format!("{} are too many, at most {ARGS_MAX} are allowed", args.len())));
    }
    let bytes: usize = args.iter().map(String::len).sum();
    if bytes > ARGS_BYTES_MAX {
        return Err(invalid("args", format!("{bytes} bytes are too many, at most {ARGS_BYTES_MAX} are allowed")));
    }
    args.iter().try_for_each(|arg| without_nul("args", arg))
}

/// A program's environment variables.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn env(env: &BTreeMap<String, String>) -> Result<(), Failure> {
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > ENV_BYTES_MAX {
        return Err(invalid("env", format!("{bytes} bytes are too many, at most {ENV_BYTES_MAX} are allowed")));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains('=') {
            return Err(invalid("env", format!("{name:?} is no name of a variable: it is empty or holds a `=`")));
        }
        without_nul("env", name)?;
        without_nul("env", value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Sample {
        path: String,
        offset: Option<u64>,
        args: Option<Vec<String>>,
    }

    fn refused(args: Value) -> String {
        let failure = parse::<Sample>(&args).expect_err("it is refused");
        assert_eq!(failure.code, ErrorCode::InvalidArgument);
        failure.message
    }

    #[test]
    fn a_wrong_argument_is_refused_by_name() {
        assert_eq!(refused(json!({})), "missing field `path`");
        assert_eq!(refused(json!({"path": 7})), "`path`: invalid type: integer `7`, expected a string");
        let offset = refused(json!({"path": "", "offset": "5"}));
        assert_eq!(offset, "`offset`: invalid type: string \"5\", expected a whole number, 0 or more");
        assert!(refused(json!({"path": "", "offset": -1})).starts_with("`offset`: "));
        assert!(refused(json!({"path": "", "args": ["a", 1]})).starts_with("`args[1]`: "));
        let unknown = refused(json!({"path": "", "colour": "red"}));
        assert!(unknown.contains("colour") && unknown.contains("expected one of `path`, `offset`"), "{unknown}");
        assert!(refused(json!({"path": ["x".repeat(1 << 20)]})).len() < 1000);
        assert!(refused(json!({"path": "", "offset": "x".repeat(1 << 20)})).len() < 1000);
    }

    #[test]
    fn a_timeout_is_positive_and_bounded() {
        let limits = Limits::default();
        assert_eq!(timeout(Some(0.25), &limits), Ok(Some(Duration::from_millis(250))));
        for bad in [0.0, -1.0, 1e-9, 3600.1, 1e12, f64::INFINITY, f64::NAN] {
            assert!(timeout(Some(bad), &limits).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_environment_is_plain_and_bounded() {
        let with = |name: &str, value: &str| env(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(with("A", "=").is_ok());
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0"), ("A", &"x".repeat(ENV_BYTES_MAX))] {
            assert!(with(name, value).is_err(), "{name:?}");
        }
    }
}
