//! The environment of programs: it starts from nothing, so that no secret of the host gets in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use codegen_types::packages::USER_BASE;
use codegen_types::{ErrorCode, Failure};
use sandbox::Places;

/// Names and values of a call together, in bytes.
const ENV_BYTES_MAX: usize = 64 << 10;

/// The variables of one program, whose places are known once its sandbox is.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// Where programs are searched for after those that the session installed.
    path: OsString,
    /// Variables whose value is a path below the workspace.
    below_workspace: BTreeMap<String, String>,
    given: BTreeMap<String, String>,
}

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
        Self { path, below_workspace: BTreeMap::new(), given: BTreeMap::new() }
    }

    /// The same with variables whose values are paths below the workspace.
    #[must_use]
    pub fn with_below_workspace(mut self, paths: BTreeMap<String, String>) -> Self {
        self.below_workspace.extend(paths);
        self
    }

    /// The same with a call's own variables, which win.
    #[must_use]
    pub fn with(mut self, env: BTreeMap<String, String>) -> Self {
        self.given.extend(env);
        self
    }

    /// As a program is started with it in a sandbox.
    pub fn pairs(&self, places: &Places) -> Vec<(OsString, OsString)> {
        let Places { workspace, scratch } = places;
        let packages = workspace.join(USER_BASE);
        let mut path = packages.join("bin").into_os_string();
        path.push(":");
        path.push(&self.path);
        let mut variables: BTreeMap<OsString, OsString> = [
            ("HOME", scratch.clone().into_os_string()),
            ("LANG", "C.UTF-8".into()),
            ("PATH", path),
            ("PYTHONUSERBASE", packages.into_os_string()),
            ("TMPDIR", scratch.clone().into_os_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect();
        let below =
            self.below_workspace.iter().map(|(name, path)| (name.into(), workspace.join(path).into_os_string()));
        variables.extend(below);
        variables.extend(self.given.iter().map(|(name, value)| (name.into(), value.into())));
        variables.into_iter().collect()
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
        let pairs = Environment::new([]).pairs(&Places::on_own_root());
        let names: Vec<OsString> = pairs.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["HOME", "LANG", "PATH", "PYTHONUSERBASE", "TMPDIR"]);
    }

    #[test]
    fn places_are_those_of_the_sandbox() {
        let places = Places { workspace: "/base/ses_1".into(), scratch: "/base/.scratch-1".into() };
        let below = env("PYTHONPATH", ".codegen/python/lib");
        let pairs = Environment::new([]).with_below_workspace(below).with(env("HOME", "/else")).pairs(&places);
        let text = |value: &OsString| value.to_string_lossy().into_owned();
        let pairs: BTreeMap<String, String> = pairs.iter().map(|(name, value)| (text(name), text(value))).collect();
        assert!(pairs["PATH"].starts_with("/base/ses_1/.codegen/python/bin:/usr/local/bin:"), "{pairs:?}");
        assert_eq!((pairs["HOME"].as_str(), pairs["TMPDIR"].as_str()), ("/else", "/base/.scratch-1"));
        assert_eq!(pairs["PYTHONPATH"], "/base/ses_1/.codegen/python/lib");
    }
}
