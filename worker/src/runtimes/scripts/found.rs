//! One runtime of the table on this host: where it is, which release, and what of it a sandbox must show.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::table::{Needs, Row};
use crate::runtimes::find;

/// How long one runtime may take to answer: the worker joins only when all have.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Directories that every sandbox shows.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// A runtime that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub row: &'static Row,
    pub executable: PathBuf,
    pub version: String,
    /// What a sandbox must show of it beside the system's directories.
    pub tree: Option<PathBuf>,
}

impl Found {
    /// The first usable executable of a row on the search path.
    pub async fn find(row: &'static Row, search_path: &OsStr) -> Option<Self> {
        let candidates = row.executables.iter().flat_map(|name| find::executables(search_path, name));
        for candidate in candidates {
            match tokio::time::timeout(ANSWER_DEADLINE, Self::examine(row, &candidate, search_path)).await {
                Ok(Ok(found)) => return Some(found),
                Ok(Err(why)) => tracing::info!(path = %candidate.display(), why, "this {} cannot be used", row.name),
                Err(_) => tracing::info!(path = %candidate.display(), "this {} does not answer in time", row.name),
            }
        }
        None
    }

    async fn examine(row: &'static Row, candidate: &Path, search_path: &OsStr) -> Result<Self, String> {
        let said = |error: std::io::Error| error.to_string();
        let mut executable = fs::canonicalize(candidate).map_err(said)?;
        let of_system = is_of_system(candidate) && is_of_system(&executable);
        // Elsewhere it may be the stand-in of a version manager, which only works outside a sandbox.
        if !of_system && !row.locate.is_empty() {
            let answer = find::ask(candidate, row.locate, search_path).await.map_err(said)?;
            executable = fs::canonicalize(answer.trim()).map_err(said)?;
        }
        let version = version_in(&find::ask(&executable, row.version, search_path).await.map_err(said)?);
        let version = version.ok_or("it does not say its version")?;
        let tree = if is_of_system(&executable) { None } else { Some(tree_of(row.needs, &executable, &version)?) };
        Ok(Self { row, executable, version, tree })
    }

    /// The directory of the executable.
    pub fn bin(&self) -> &Path {
        self.executable.parent().unwrap_or(Path::new("/usr/bin"))
    }

    /// The command line that runs source text.
    pub fn run_code(&self, code: String, args: Vec<String>) -> Vec<OsString> {
        self.argv(self.row.code).chain([code.into()]).chain(words(self.row.after_code)).chain(owned(args)).collect()
    }

    /// The command line that runs a file, named from the workspace, which is the current directory.
    pub fn run_file(&self, path: &str, args: Vec<String>) -> Vec<OsString> {
        // A name such as `-e` must not be read as an option.
        let file = OsString::from(format!("./{path}"));
        self.argv(self.row.file).chain([file]).chain(owned(args)).collect()
    }

    fn argv(&self, first: &'static [&'static str]) -> impl Iterator<Item = OsString> {
        std::iter::once(self.executable.clone().into_os_string()).chain(words(first))
    }
}

fn words(words: &'static [&'static str]) -> impl Iterator<Item = OsString> {
    words.iter().map(OsString::from)
}

fn owned(args: Vec<String>) -> impl Iterator<Item = OsString> {
    args.into_iter().map(OsString::from)
}

fn is_of_system(path: &Path) -> bool {
    SYSTEM.iter().any(|tree| path.starts_with(tree))
}

/// The first thing that looks like a release: digits with dots between them.
fn version_in(text: &str) -> Option<String> {
    let number = |word: &str| -> Option<String> {
        let from = word.find(|c: char| c.is_ascii_digit())?;
        let rest = &word[from..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest[..end].trim_matches('.');
        (number.contains('.') && number.len() <= 32).then(|| number.to_owned())
    };
    text.split_whitespace().find_map(number)
}

/// What to show of a runtime outside the system's directories, or why that would be too much: a sandbox must not see the
/// home directory or another place where people keep things.
fn tree_of(needs: Needs, executable: &Path, version: &str) -> Result<PathBuf, String> {
    let tree = match needs {
        Needs::Executable => executable.to_owned(),
        Needs::Installation => {
            let bin = executable.parent().filter(|dir| dir.ends_with("bin"));
            bin.and_then(Path::parent).ok_or("its library cannot be told from its path")?.to_owned()
        }
    };
    if !sandbox::may_be_shown(&tree) {
        return Err(format!("{} would cover a part of the sandbox", tree.display()));
    }
    let mode = fs::metadata(executable).map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o005 != 0o005 {
        return Err("not everybody may run it".to_owned());
    }
    if needs == Needs::Installation && !is_narrow(&tree, version) {
        return Err(format!("its directory {} holds more than it", tree.display()));
    }
    Ok(tree)
}

/// Whether a directory is an installation's own: one below `/opt`, or one that a version manager named after the release.
fn is_narrow(tree: &Path, version: &str) -> bool {
    let names: Vec<&OsStr> = tree
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    match names.as_slice() {
        [top, _, ..] if *top == "opt" => true,
        [_, _, .., last] => last.to_string_lossy().contains(version),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn a_release_is_found_in_what_each_runtime_prints() {
        let said = [
            ("v20.20.2\n", "20.20.2"),
            ("\nThis is perl 5, version 36, subversion 0 (v5.36.0) built for x86_64", "5.36.0"),
            ("ruby 3.1.2p20 (2022-04-12 revision 4491bb740a) [x86_64-linux-gnu]", "3.1.2"),
            ("PHP 8.2.7 (cli) (built: Jun  9 2023)", "8.2.7"),
            ("Lua 5.4", "5.4"),
            ("Rscript (R) version 4.2.2 (2022-10-31)", "4.2.2"),
            ("julia version 1.9.3", "1.9.3"),
            ("deno 1.40.2 (release, x86_64-unknown-linux-gnu)", "1.40.2"),
        ];
        for (text, version) in said {
            assert_eq!(version_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(version_in("command not found: node"), None);
    }

    #[test]
    fn arguments_of_a_program_are_none_of_its_interpreter() {
        for (name, expected) in [
            ("node", &["-e", "CODE", "--", "--version"][..]),
            ("deno", &["eval", "--", "CODE", "--version"]),
            ("perl", &["-e", "CODE", "--", "--version"]),
            ("r", &["--vanilla", "-e", "CODE", "--args", "--version"]),
        ] {
            let row = table::ROWS.iter().find(|row| row.name == name).expect("a row");
            let found = Found { row, executable: PathBuf::from("/x"), version: String::new(), tree: None };
            let argv = found.run_code("CODE".to_owned(), vec!["--version".to_owned()]);
            assert_eq!(argv[1..], expected.iter().map(OsString::from).collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn an_installation_that_would_show_more_than_itself_is_refused() {
        for (tree, version) in [
            ("/data/user", "3.2.2"),
            ("/data/user/.local", "3.2.2"),
            ("/opt", "3.2.2"),
            ("/3.2.2", "3.2.2"),
            ("/srv", "3.2.2"),
            ("/data/user/.rbenv/versions/3.1.0", "3.2.2"),
        ] {
            assert!(!is_narrow(Path::new(tree), version), "{tree}");
        }
        for tree in ["/data/user/.rbenv/versions/3.2.2", "/opt/ruby", "/data/u/perl5/perlbrew/perls/perl-3.2.2"] {
            assert!(is_narrow(Path::new(tree), "3.2.2"), "{tree}");
        }
        assert!(tree_of(Needs::Executable, Path::new("/tmp/bin/node"), "20.0.0").is_err());
        assert!(tree_of(Needs::Installation, Path::new("/data/user/ruby"), "3.2.2").is_err());
    }
}
