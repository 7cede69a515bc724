//! The environment of programs: it starts from nothing, so that no secret of the host gets in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use codegen_types::packages::USER_BASE;
use codegen_types::{ErrorCode, Failure};

/// Names and values of a call together, in bytes.
const ENV_BYTES_MAX: usize = 64 << 10;

/// The variables of one program.
#[derive(Debug, Clone)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// What every program gets. Programs that the session installed are found first, then those in `bins`, the
    /// interpreters' own directories, then the system's.
    pub fn new<'a>(bins: impl IntoIterator<Item = &'a Path>) -> Self {
        let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(Path::new);
        let mut path = OsString::new();
        for dir in bins.into_iter().filter(|bin| !system.contains(bin)).chain(system) {
            if !path.is_empty() {
                path.push(":");
            }
            path.push(dir);
        }
        let packages = format!("/workspace/{USER_BASE}");
        let mut installed = OsString::from(format!("{packages}/bin:"));
        installed.push(path);
        let fixed = [("HOME", "/tmp"), ("LANG", "C.UTF-8"), ("PYTHONUSERBASE", packages.as_str()), ("TMPDIR", "/tmp")];
        let mut variables: BTreeMap<OsString, OsString> =
            fixed.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        variables.insert("PATH".into(), installed);
        Self(variables)
    }

    /// The same with a call's own variables, which win.
    #[must_use]
    pub fn with(mut self, env: BTreeMap<String, String>) -> Self {
        self.0.extend(env.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// As a program is started with it.
    pub fn pairs(&self) -> Vec<(OsString, OsString)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// Checks the variables of a call.
pub(crate) fn check(env: &BTreeMap<String, String>) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure::new(ErrorCode::InvalidArgument, message));
    if env.keys().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return invalid("The name of a variable in `env` is empty or holds `=` or a NUL byte.".to_owned());
    }
    if env.values().any(|value| value.contains('\0')) {
        return invalid("A value in `env` holds a NUL byte.".to_owned());
    }
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > ENV_BYTES_MAX {
        return invalid(format!("`env` holds {bytes} bytes, at most {ENV_BYTES_MAX} are allowed."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_variable_that_no_program_could_have_is_refused() {
        for bad in [env("", "x"), env("A=B", "x"), env("A\0", "x"), env("A", "\0"), env("A", &"x".repeat(70_000))] {
            assert_eq!(check(&bad).map_err(|failure| failure.code), Err(ErrorCode::InvalidArgument));
        }
        assert_eq!(check(&env("LD_PRELOAD", "/workspace/x.so")), Ok(()));
    }

    #[test]
    fn nothing_of_the_workers_own_environment_gets_in() {
        let names: Vec<OsString> = Environment::new([]).pairs().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["HOME", "LANG", "PATH", "PYTHONUSERBASE", "TMPDIR"]);
    }
}
