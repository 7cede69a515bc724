//! The layers that a value can come from, and which of them wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use codegen_types::Limits;

use super::settings::{KEYS, Key};
use super::values::Why;

/// The largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was given on the command line, as text by flag (`--grpc-port`), and the file to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// The values.
    pub values: BTreeMap<&'static str, String>,
    /// The configuration file; it must exist when given.
    pub file: Option<PathBuf>,
}

/// The process's environment, taken once, so that nothing reads it behind the configuration's back.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// This variable.
    Environment(&'static str),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is not allowed.
    #[error("{name} = `{value}` (from: {source_of_value}) is not allowed: {why}. Allowed: {allowed}")]
    NotAllowed {
        /// Which setting.
        name: String,
        /// What was given.
        value: String,
        /// Where it was given.
        source_of_value: Source,
        /// What is wrong with it.
        why: String,
        /// What would be right.
        allowed: String,
    },
    /// The configuration file cannot be read.
    #[error("the configuration file {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration file is no TOML.
    #[error("the configuration file {path} is not valid TOML: {message}")]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// The configuration file has a name that means nothing.
    #[error("`{name}` in the configuration file {path} means nothing. Allowed: {allowed}")]
    UnknownName {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// The names that mean something.
        allowed: String,
    },
    /// There is no place for the state.
    #[error(
        "neither XDG_STATE_HOME nor HOME names an absolute directory; say where to keep the state with --state-dir"
    )]
    NoStateDir,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Just these variables.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The variables that a server started on demand needs: those that configure it, those that say where things are,
    /// and those that say how the host reaches package indexes. Everything else, secrets of the client's included, stays behind.
    pub fn reduced(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        const PLACES: [&str; 4] = ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "PATH"];
        let kept = |name: &OsString| {
            let ours = KEYS.iter().any(|key| name == key.env);
            ours || PLACES.iter().chain(&super::packages::VARIABLES).any(|kept| name == kept)
        };
        self.0.iter().filter(move |(name, _)| kept(name))
    }

    /// The first of these variables that is set, not empty, and text.
    pub(super) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name)?.to_str().map(str::to_owned))
    }

    /// Where pip's own configuration is, the strongest last.
    pub(super) fn pip_files(&self) -> Vec<PathBuf> {
        let home = self.directory("HOME");
        let config = self.directory("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let legacy = home.map(|home| home.join(".pip/pip.conf"));
        legacy.into_iter().chain(config.map(|config| config.join("pip/pip.conf"))).collect()
    }

    /// Where programs are looked for.
    pub fn search_path(&self) -> Option<&OsString> {
        self.get("PATH")
    }

    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(&OsString::from(name)).filter(|value| !value.is_empty())
    }

    /// The absolute directory that a variable names.
    pub(crate) fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    pub(super) fn default_state_dir(&self) -> Result<PathBuf, ConfigError> {
        self.directory("XDG_STATE_HOME")
            .or_else(|| self.directory("HOME").map(|home| home.join(".local/state")))
            .map(|base| base.join("codegen-mcp"))
            .ok_or(ConfigError::NoStateDir)
    }

    fn default_file(&self) -> Option<PathBuf> {
        self.directory("XDG_CONFIG_HOME")
            .or_else(|| self.directory("HOME").map(|home| home.join(".config")))
            .map(|base| base.join("codegen-mcp/config.toml"))
    }
}

/// One resolved value.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) source: Source,
}

/// All layers, read but not yet checked.
pub(super) struct Layers {
    found: BTreeMap<&'static str, (String, Source)>,
    limits: toml::Table,
    tool_rates: toml::Table,
    file: Option<PathBuf>,
    rows: Vec<Row>,
}

impl Layers {
    pub(super) fn read(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let (file, mut table) = match read_file(flags, environment)? {
            Some((path, table)) => (Some(path), table),
            None => (None, toml::Table::new()),
        };
        let limits = take_table(&mut table, "limits", file.as_ref())?;
        let tool_rates = take_table(&mut table, "tool_rates", file.as_ref())?;
        if let (Some(path), Some(name)) = (&file, table.keys().find(|name| KEYS.iter().all(|key| key.name != *name))) {
            let names: Vec<&str> = KEYS.iter().map(|key| key.name).chain(["limits", "tool_rates"]).collect();
            return Err(ConfigError::UnknownName { path: path.clone(), name: name.clone(), allowed: names.join(", ") });
        }
        let mut found = BTreeMap::new();
        for key in KEYS {
            if let Some(value) = strongest(key, flags, environment, file.as_deref(), &table)? {
                found.insert(key.name, value);
            }
        }
        Ok(Self { found, limits, tool_rates, file, rows: Vec::new() })
    }

    /// The value of a setting that has a default.
    pub(super) fn require<T>(
        &mut self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, Why>,
    ) -> Result<T, ConfigError> {
        Ok(self.get(key, parse)?.expect("a required setting has a default"))
    }

    /// The value of a setting that may be absent.
    pub(super) fn get<T>(
        &mut self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, Why>,
    ) -> Result<Option<T>, ConfigError> {
        let given = self.found.get(key.name).cloned();
        let Some((value, source)) = given.or_else(|| key.default.map(|text| (text.to_owned(), Source::Default))) else {
            return Ok(None);
        };
        match parse(&value) {
            Ok(parsed) => {
                self.rows.push(Row { name: key.name.to_owned(), value, source });
                Ok(Some(parsed))
            }
            Err(why) => Err(not_allowed(key, value, source, why)),
        }
    }

    /// Notes a default that depends on the machine.
    pub(super) fn fallback(&mut self, key: &'static Key, path: PathBuf) -> PathBuf {
        let value = path.display().to_string();
        self.rows.push(Row { name: key.name.to_owned(), value, source: Source::Default });
        path
    }

    /// Notes a value that was found elsewhere.
    pub(super) fn note(&mut self, key: &'static Key, value: String, source: Source) {
        self.rows.push(Row { name: key.name.to_owned(), value, source });
    }

    pub(super) fn source(&self, key: &Key) -> Source {
        self.found.get(key.name).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// The `limits` table over the default limits.
    pub(super) fn limits(&mut self) -> Result<Limits, ConfigError> {
        let given = self.limits.clone();
        let source = |name: &str| match &self.file {
            Some(path) if given.contains_key(name) => Source::File(path.clone()),
            _ => Source::Default,
        };
        let limits: Limits = given.clone().try_into().map_err(|error: toml::de::Error| ConfigError::NotAllowed {
            name: "limits".to_owned(),
            value: given.to_string().trim().replace('\n', "; "),
            source_of_value: self.file.clone().map_or(Source::Default, Source::File),
            why: error.message().to_owned(),
            allowed: "whole numbers that are not negative".to_owned(),
        })?;
        let table = toml::Table::try_from(limits).expect("limits are plain numbers");
        for (name, value) in &table {
            let row = Row { name: format!("limits.{name}"), value: value.to_string(), source: source(name) };
            check_limit(&row)?;
            self.rows.push(row);
        }
        Ok(limits)
    }

    /// The values of the `tool_rates` table, each by its key.
    pub(super) fn tool_rates<T>(
        &mut self,
        allowed: &str,
        parse: impl Fn(&str, &toml::Value) -> Result<T, Why>,
    ) -> Result<Vec<T>, ConfigError> {
        let source = self.file.clone().map_or(Source::Default, Source::File);
        let mut rates = Vec::new();
        for (tool, value) in &self.tool_rates {
            let row = Row { name: format!("tool_rates.{tool}"), value: value.to_string(), source: source.clone() };
            rates.push(parse(tool, value).map_err(|why| ConfigError::NotAllowed {
                name: row.name.clone(),
                value: row.value.clone(),
                source_of_value: row.source.clone(),
                why,
                allowed: allowed.to_owned(),
            })?);
            self.rows.push(row);
        }
        Ok(rates)
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

/// A limit of zero would make every task fail in a way that looks like a fault.
fn check_limit(row: &Row) -> Result<(), ConfigError> {
    let least = if row.name == "limits.open_files" { Limits::OPEN_FILES_MIN } else { 1 };
    if row.value.parse::<u64>().is_ok_and(|value| value >= least) {
        return Ok(());
    }
    Err(ConfigError::NotAllowed {
        name: row.name.clone(),
        value: row.value.clone(),
        source_of_value: row.source.clone(),
        why: "nothing could run".to_owned(),
        allowed: format!("a whole number, at least {least}"),
    })
}

fn strongest(
    key: &Key,
    flags: &Flags,
    environment: &Environment,
    file: Option<&Path>,
    table: &toml::Table,
) -> Result<Option<(String, Source)>, ConfigError> {
    if let Some((flag, value)) = key.flag.and_then(|flag| flags.values.get_key_value(flag)) {
        return Ok(Some((value.clone(), Source::Flag(flag))));
    }
    if let Some(value) = environment.get(key.env) {
        let source = Source::Environment(key.env);
        return match value.to_str() {
            Some(text) => Ok(Some((text.to_owned(), source))),
            None => Err(not_allowed(key, value.to_string_lossy().into_owned(), source, "not UTF-8".to_owned())),
        };
    }
    let (Some(path), Some(value)) = (file, table.get(key.name)) else { return Ok(None) };
    let source = Source::File(path.to_owned());
    match value {
        toml::Value::String(text) => Ok(Some((text.clone(), source))),
        toml::Value::Integer(number) => Ok(Some((number.to_string(), source))),
        other => Err(not_allowed(key, other.to_string(), source, format!("it is a {}", other.type_str()))),
    }
}

fn not_allowed(key: &Key, value: String, source: Source, why: Why) -> ConfigError {
    let name = if matches!(source, Source::Environment(_)) { key.env } else { key.name };
    ConfigError::NotAllowed {
        name: name.to_owned(),
        value,
        source_of_value: source,
        why,
        allowed: key.allowed.to_owned(),
    }
}

/// The table of this name, which need not be there.
fn take_table(table: &mut toml::Table, name: &str, file: Option<&PathBuf>) -> Result<toml::Table, ConfigError> {
    match table.remove(name) {
        None => Ok(toml::Table::new()),
        Some(toml::Value::Table(found)) => Ok(found),
        Some(other) => Err(ConfigError::NotAllowed {
            name: name.to_owned(),
            value: other.to_string(),
            source_of_value: file.cloned().map_or(Source::Default, Source::File),
            why: format!("it is a {}", other.type_str()),
            allowed: format!("a table `[{name}]`"),
        }),
    }
}

/// The file that was asked for, or the one in the usual place if it is there.
fn read_file(flags: &Flags, environment: &Environment) -> Result<Option<(PathBuf, toml::Table)>, ConfigError> {
    let asked_for = flags.file.is_some();
    let Some(path) = flags.file.clone().or_else(|| environment.default_file()) else { return Ok(None) };
    let text = match read_bounded(&path) {
        Ok(text) => text,
        Err(error) if !asked_for && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Unreadable { path, source }),
    };
    match text.parse() {
        Ok(table) => Ok(Some((path, table))),
        Err(error) => {
            let error: toml::de::Error = error;
            let message = error.to_string().trim().to_owned();
            Err(ConfigError::NotToml { path, message })
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}
