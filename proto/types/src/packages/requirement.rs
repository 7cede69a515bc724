//! Requirements: PEP 508 without URLs, or a wheel in the workspace. Strict, since what is accepted becomes an argument
//! of pip.

use std::fmt;

use super::marker::{self, InvalidMarker};
use crate::path::{InvalidPath, WorkspacePath};

/// The longest requirement, in bytes; that of a wheel is bounded as a path.
const BYTES_MAX: usize = 1_024;
/// The longest name of a package, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Longest first, so that none is taken for the beginning of another.
const OPERATORS: [&str; 8] = ["===", "~=", "==", "!=", "<=", ">=", "<", ">"];
/// What ends so pip would look for among files, with or without extras behind it.
const ARCHIVES: [&str; 12] =
    [".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".xz", ".txz", ".lz", ".tlz", ".lzma"];

/// One thing to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// A wheel of the workspace.
    Wheel(WorkspacePath),
    /// A package by name, found in an index.
    Named {
        /// Its name as it was written.
        name: String,
        /// Optional features of it that are wanted, too.
        extras: Vec<String>,
        /// Which versions will do, such as `>=1.2`.
        specifiers: Vec<String>,
        /// The environment in which it is wanted at all.
        marker: Option<String>,
    },
}

/// Why a text is no requirement that can be installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequirement {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// It is too long.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// It would be read as an option.
    #[error("options are refused; give a name such as `requests>=2.31`")]
    Option,
    /// It names a place outside the index.
    #[error("URLs are refused; give a name that the index knows, or a wheel of the workspace")]
    Url,
    /// It is a path of something else than a wheel.
    #[error("of files only wheels of the workspace are installed, such as `dist/name-1.0-py3-none-any.whl`")]
    Path,
    /// It is a wheel outside the workspace.
    #[error("the wheel must be in the workspace: {0}")]
    Wheel(#[from] InvalidPath),
    /// The name is none.
    #[error("a package's name has letters, digits, `.`, `-` and `_`, and begins and ends with a letter or digit")]
    Name,
    /// What is in brackets is wrong.
    #[error("extras are names in brackets, such as `name[extra1,extra2]`")]
    Extras,
    /// What follows the name is wrong.
    #[error("versions are given as in `name>=1.2,<2`")]
    Specifier,
    /// What follows the semicolon is wrong.
    #[error("the marker after `;` is wrong: {0}")]
    Marker(#[from] InvalidMarker),
}

impl Requirement {
    /// Reads a requirement as a client wrote it.
    pub fn parse(text: &str) -> Result<Self, InvalidRequirement> {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return Err(InvalidRequirement::Empty);
        }
        if text.starts_with('-') {
            return Err(InvalidRequirement::Option);
        }
        if text.contains("://") || text.contains('@') {
            return Err(InvalidRequirement::Url);
        }
        if text.len() >= 4
            && text.is_char_boundary(text.len() - 4)
            && text[text.len() - 4..].eq_ignore_ascii_case(".whl")
        {
            return wheel(text);
        }
        if text.len() > BYTES_MAX {
            return Err(InvalidRequirement::TooLong);
        }
        named(text)
    }

    /// The package's name in the one spelling that all spellings share; of a wheel, what its file name says.
    pub fn canonical_name(&self) -> String {
        match self {
            Self::Named { name, .. } => canonical_name(name),
            Self::Wheel(path) => {
                let file = path.components().last().unwrap_or_default();
                canonical_name(file.split('-').next().unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wheel(path) => path.fmt(f),
            Self::Named { name, extras, specifiers, marker } => {
                f.write_str(name)?;
                if !extras.is_empty() {
                    write!(f, "[{}]", extras.join(","))?;
                }
                f.write_str(&specifiers.join(","))?;
                marker.as_ref().map_or(Ok(()), |marker| write!(f, "; {marker}"))
            }
        }
    }
}

/// The one spelling that all spellings of a package's name share (PEP 503): lower case, one hyphen for any run of
/// `-`, `_` and `.`.
pub fn canonical_name(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

fn wheel(text: &str) -> Result<Requirement, InvalidRequirement> {
    let path = WorkspacePath::parse(text)?;
    let file = path.components().last().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+!".contains(&byte);
    // pip takes a semicolon anywhere in a path for the beginning of a marker.
    let whole = !path.as_str().contains([';', '[', ']', '\\']) && !path.as_str().chars().any(char::is_control);
    if !file.bytes().all(plain) || file.starts_with('-') || !whole || file.split('-').count() < 5 {
        return Err(InvalidRequirement::Path);
    }
    Ok(Requirement::Wheel(path))
}

fn named(text: &str) -> Result<Requirement, InvalidRequirement> {
    let (wanted, marker) = match text.split_once(';') {
        Some((wanted, marker)) => (wanted.trim_end(), Some(marker::parse(marker)?)),
        None => (text, None),
    };
    if wanted.contains(['/', '\\']) || wanted.starts_with(['.', '~']) {
        return Err(InvalidRequirement::Path);
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let end = wanted.find(|c| !in_name(c)).unwrap_or(wanted.len());
    let (name, rest) = wanted.split_at(end);
    if !is_name(name) {
        return Err(InvalidRequirement::Name);
    }
    let (extras, rest) = extras(rest.trim_start())?;
    let specifiers = specifiers(rest.trim())?;
    let is_archive = |text: &str| ARCHIVES.iter().any(|end| text.to_ascii_lowercase().ends_with(end));
    if is_archive(name) || specifiers.last().is_some_and(|last| is_archive(last)) {
        return Err(InvalidRequirement::Path);
    }
    Ok(Requirement::Named { name: name.to_owned(), extras, specifiers, marker })
}

fn is_name(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    inner && edge(text.bytes().next()) && edge(text.bytes().last()) && text.len() <= NAME_BYTES_MAX
}

fn extras(text: &str) -> Result<(Vec<String>, &str), InvalidRequirement> {
    let Some(inside) = text.strip_prefix('[') else { return Ok((Vec::new(), text)) };
    let (list, rest) = inside.split_once(']').ok_or(InvalidRequirement::Extras)?;
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().all(|name| is_name(name)) { Ok((names, rest)) } else { Err(InvalidRequirement::Extras) }
}

fn specifiers(text: &str) -> Result<Vec<String>, InvalidRequirement> {
    let text = match text.strip_prefix('(') {
        Some(inside) => inside.strip_suffix(')').ok_or(InvalidRequirement::Specifier)?,
        None => text,
    };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(|part| specifier(part.trim())).collect()
}

fn specifier(text: &str) -> Result<String, InvalidRequirement> {
    let operator = OPERATORS.iter().find(|operator| text.starts_with(**operator));
    let operator = operator.ok_or(InvalidRequirement::Specifier)?;
    let version = text[operator.len()..].trim_start();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".*+!_-".contains(&byte);
    if version.is_empty() || !version.bytes().all(plain) || version.starts_with('-') {
        return Err(InvalidRequirement::Specifier);
    }
    Ok(format!("{operator}{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_is_read_and_written_in_one_spelling() {
        for (given, written) in [
            ("six", "six"),
            (" requests >= 2.31 , < 3 ", "requests>=2.31,<3"),
            ("a.b_c-d[x, y](~=1.0.*)", "a.b_c-d[x,y]~=1.0.*"),
            ("six===1!1.0+local_1", "six===1!1.0+local_1"),
            ("tomli; python_version < '3.11'", "tomli; python_version < '3.11'"),
            (
                "x>1;(os_name=='nt' or extra == \"a b\") and python_version not in '2.7, 3.0'",
                "x>1; (os_name=='nt' or extra == \"a b\") and python_version not in '2.7, 3.0'",
            ),
            ("./dist//a_b-1.0-py3-none-any.whl", "dist/a_b-1.0-py3-none-any.whl"),
        ] {
            let parsed = Requirement::parse(given).unwrap_or_else(|error| panic!("{given}: {error}"));
            assert_eq!(parsed.to_string(), written);
            assert_eq!(Requirement::parse(written), Ok(parsed), "{written}");
        }
    }

    #[test]
    fn what_pip_would_take_for_an_option_a_url_or_a_path_is_refused() {
        use InvalidRequirement as Bad;
        for option in ["-r requirements.txt", "--index-url=https://x/simple", "-e.", "\t-e x", "--", "-x-1-a-b-c.whl"] {
            assert_eq!(Requirement::parse(option), Err(Bad::Option), "{option}");
        }
        for url in ["https://h/x.whl", "x @ https://h/x.whl", "x@file:///tmp/x", "git+ssh://git@h/x", "x @ ./x.whl"] {
            assert_eq!(Requirement::parse(url), Err(Bad::Url), "{url}");
        }
        for path in [
            ".",
            "./x",
            "../x",
            "dir/x",
            "/etc/passwd",
            "~/x",
            "x.tar.gz",
            "x.zip",
            "x.tar.gz[a]",
            "x.TAR.LZMA [a, b]",
            "x.whl[a]",
            "x.zip>=1",
            "x==1.tar.gz",
            "x[a]>=1,==2.zip",
            "x.tgz; os_name == 'posix'",
            "a\\b",
            ".x",
            "a;b/x-1-a-b-c.whl",
            "x.whl",
        ] {
            assert_eq!(Requirement::parse(path), Err(Bad::Path), "{path}");
        }
        for wheel in ["../x-1-py3-none-any.whl", "/tmp/x-1-py3-none-any.whl"] {
            assert!(matches!(Requirement::parse(wheel), Err(Bad::Wheel(_))), "{wheel}");
        }
    }

    #[test]
    fn anything_else_that_is_no_requirement_is_refused() {
        for bad in [
            "",
            " ",
            "_x",
            "x-",
            "x y",
            "x --pre",
            "x\n--pre",
            "x>=1 --pre",
            "x>=1;--pre",
            "x>",
            "x>=1,",
            "x[",
            "x[]",
            "x[a",
            "x[-a]",
            "x(>=1",
            "x = 1",
            "x>=-1",
            "x; ",
            "x; import os",
            "x; a == 'b'",
            "x; os_name == '\n'",
            "x\0",
            "ä",
            "x>=1 2",
            "$(id)",
            "x;os_name",
            "x; os_name == 'a' and",
            "x; (os_name == 'a'",
            "x\r\n-r y",
            "file:x",
        ] {
            assert!(Requirement::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Requirement::parse(&"x".repeat(2_000)), Err(InvalidRequirement::TooLong));
        let deep = format!("x; {}os_name == 'a'{}", "(".repeat(400), ")".repeat(400));
        assert!(Requirement::parse(&deep).is_err());
    }

    #[test]
    fn all_spellings_of_a_name_are_one() {
        assert_eq!(canonical_name("Foo._-Bar"), "foo-bar");
        let wheel = Requirement::parse("d/My_Pkg-1.0-py3-none-any.whl").unwrap();
        assert_eq!(wheel.canonical_name(), "my-pkg");
    }
}
