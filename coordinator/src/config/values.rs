//! How each kind of value is read. The error is only the reason; the layer above adds name, source and what is allowed.

use std::path::PathBuf;
use std::time::Duration;

use codegen_types::packages::HostPort;
use codegen_types::{IndexUrl, IsolationLevel};

use crate::identity::Requirement;

/// Why a text is not the value wanted, in a few words.
pub(super) type Why = String;

/// How much is written to the diagnostic files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what is suspicious.
    Warn,
    /// And what an operator may want to know.
    Info,
    /// And what a developer may want to know.
    Debug,
    /// And everything else, libraries included.
    Trace,
}

impl LogLevel {
    /// The level as it is written in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How tools are listed. Both spellings are accepted in calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolNames {
    /// `fs_read`, which every client accepts.
    Underscored,
    /// `fs.read`.
    Dotted,
}

/// Whether a server has a worker of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddedWorker {
    /// It starts one, beside those that join.
    On,
    /// Sessions are placed on workers that join, and on no other.
    Off,
}

pub(super) fn embedded_worker(text: &str) -> Result<EmbeddedWorker, Why> {
    Ok(if switch(text)? { EmbeddedWorker::On } else { EmbeddedWorker::Off })
}

pub(super) fn switch(text: &str) -> Result<bool, Why> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("neither on nor off".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, Why> {
    [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
        .into_iter()
        .find(|level| level.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| "no such level".to_owned())
}

pub(super) fn tool_names(text: &str) -> Result<ToolNames, Why> {
    match text {
        "underscored" => Ok(ToolNames::Underscored),
        "dotted" => Ok(ToolNames::Dotted),
        _ => Err("no such spelling".to_owned()),
    }
}

pub(super) fn requirement(text: &str) -> Result<Requirement, Why> {
    match text {
        "auto" => Ok(Requirement::Auto),
        "required" => Ok(Requirement::Required),
        "open" => Ok(Requirement::Open),
        _ => Err("no such requirement".to_owned()),
    }
}

/// `none` is not to be had by a minimum: running without a sandbox takes more than a low bar.
pub(super) fn isolation(text: &str) -> Result<IsolationLevel, Why> {
    match text.parse::<IsolationLevel>() {
        Ok(IsolationLevel::None) => Err("no session is run without isolation".to_owned()),
        Ok(level) => Ok(level),
        Err(_) => Err("no such level".to_owned()),
    }
}

/// One word: no space in it, and nothing that cannot be printed.
pub(super) fn text(text: &str) -> Result<String, Why> {
    let is_word = !text.is_empty() && text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_word { Ok(text.to_owned()) } else { Err("not one word of at most 256 letters".to_owned()) }
}

pub(super) fn directory(text: &str) -> Result<PathBuf, Why> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("a relative path means another place each time".to_owned()) }
}

/// Package indexes; `none` for none.
pub(super) fn indexes(text: &str) -> Result<Vec<IndexUrl>, Why> {
    listed(text).map(|url| IndexUrl::parse(url).map_err(|error| error.to_string())).collect()
}

/// Hosts, each with or without a port; `none` for none.
pub(super) fn hosts(text: &str) -> Result<Vec<HostPort>, Why> {
    listed(text).map(|host| HostPort::parse(host, 443).map_err(|error| error.to_string())).collect()
}

pub(super) fn listed(text: &str) -> impl Iterator<Item = &str> {
    let text = if text.trim() == "none" { "" } else { text };
    text.split(',').map(str::trim).filter(|one| !one.is_empty())
}

pub(super) fn port(text: &str) -> Result<u16, Why> {
    text.parse().map_err(|_| "not a port number".to_owned())
}

/// A collector's address. Credentials would be shown by `config show`, so they have no place in it.
pub(super) fn collector(text: &str) -> Result<String, Why> {
    let uri: hyper::Uri = text.parse().map_err(|_| "not a URL".to_owned())?;
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    match uri.scheme_str() {
        Some("http" | "https") if has_host && !text.contains(['@', '?', '#']) => Ok(text.to_owned()),
        Some("http" | "https") => Err("it has more than a host, a port and a path".to_owned()),
        _ => Err("neither http nor https".to_owned()),
    }
}

pub(super) fn ratio(text: &str) -> Result<f64, Why> {
    let ratio: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("out of range".to_owned()) }
}

pub(super) fn count(least: u32, most: u32) -> impl Fn(&str) -> Result<u32, Why> {
    move |text| {
        let number: u32 = text.parse().map_err(|_| "not a whole number".to_owned())?;
        if (least..=most).contains(&number) { Ok(number) } else { Err("out of range".to_owned()) }
    }
}

/// A duration with its unit, between two bounds in seconds.
pub(super) fn seconds(least: u64, most: u64) -> impl Fn(&str) -> Result<Duration, Why> {
    move |text| {
        let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        let range = Duration::from_secs(least)..=Duration::from_secs(most);
        if range.contains(&duration) { Ok(duration) } else { Err("out of range".to_owned()) }
    }
}

/// A number of bytes, with or without a unit, between two bounds.
pub(super) fn bytes(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, Why> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    move |text| {
        let with_unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let (number, factor) = with_unit.unwrap_or((text, 1));
        let number: u64 = number.trim_end().parse().map_err(|_| "not a whole number".to_owned())?;
        let bytes = number.checked_mul(factor).filter(|bytes| (least..=most).contains(bytes));
        bytes.ok_or_else(|| "out of range".to_owned())
    }
}
