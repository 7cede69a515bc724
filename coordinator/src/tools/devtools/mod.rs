//! `test_run` and `lint_check`: programs of ours that run in the session's sandbox, and what they report.
//!
//! Their reports come from a process that runs the session's code, so they are claims: bounded, and never more than text
//! and numbers in a result.

mod claims;
mod lint;
mod report;
mod testing;

pub(super) use lint::{LintCheckInput, lint_check};
pub(super) use report::told;
pub(super) use testing::{TestRunInput, test_run};

use codegen_types::{Failure, Program};

use super::args;

/// The longest name of a test after its file, in bytes.
const TEST_BYTES_MAX: usize = 1_000;

/// One of our programs. Its first argument is where it begins, empty for the whole workspace.
fn program(source: &str, path: &str, args: Vec<String>) -> Program {
    let args = std::iter::once(path.to_owned()).chain(args).collect();
    Program::PythonCode { code: source.to_owned(), args }
}

/// A path of the workspace, and a test in it after `::` where that is allowed.
fn place(text: Option<&str>) -> Result<String, Failure> {
    let Some(text) = text else { return Ok(String::new()) };
    let (file, test) = text.split_once("::").map_or((text, None), |(file, test)| (file, Some(test)));
    let path = args::path("path", file)?;
    let Some(test) = test else { return Ok(path.as_str().to_owned()) };
    args::bounded("path", test, TEST_BYTES_MAX)?;
    args::without_nul("path", test)?;
    Ok(format!("{path}::{test}"))
}
